# make demo   set up .venv and run the whole path on a shipped model (DATA=camvid:PATH MODEL=camvid SOURCE=clip.mp4)
# make test   set up .venv-test, check the style and types, run the tests
# make lint   style and types only
# make bench  the benchmarks under tests/benchmarks
#
# PYTHON      the interpreter the environments are made with (default python3)
# PIP_ARGS    more arguments for pip. Where torch's default build brings CUDA and that is not wanted,
#             point pip at PyTorch's CPU index with --extra-index-url, and at a mirror with --index-url.
# Paths are relative throughout: the checkout may lie in a directory with a space in its name.

PYTHON ?= python3
PIP_ARGS ?=
DATA ?=
MODEL ?=
SOURCE ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test lint bench clean

comma := ,
RUN := .venv/bin
TEST := .venv-test/bin
# TensorRT-RTX builds engines with no GPU; its wheels are for x86-64.
RTX := $(if $(filter x86_64,$(shell uname -m)),rtx$(comma))
PIP := -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
NATIVE := CMakeLists.txt $(wildcard edgeseg/native/CMakeLists.txt edgeseg/native/src/* \
  trt_plugins/CMakeLists.txt trt_plugins/*/*.h trt_plugins/*/*_cpu.cpp trt_plugins/common/*)
PACKAGE := pyproject.toml constraints.txt $(NATIVE)

demo: .venv/installed
	$(RUN)/python -m edgeseg demo $(if $(DATA),--data "$(DATA)") $(if $(MODEL),--model "$(MODEL)") $(if $(SOURCE),--source "$(SOURCE)") $(DEMO_ARGS)

test: lint
	$(TEST)/python -m pytest $(PYTEST_ARGS)

lint: .venv-test/installed
	$(TEST)/python -m ruff check .
	$(TEST)/python -m ruff format --check .
	$(TEST)/python -m mypy

bench: .venv-test/installed
	for script in tests/benchmarks/bench_*.py; do $(TEST)/python "$$script"; done

clean:
	rm -rf build dist .venv .venv-test .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Both installs are editable, so that the checkout is what runs; the extension is compiled into the environment.
.venv/installed: $(PACKAGE)
	$(PYTHON) -m venv .venv
	$(RUN)/python $(PIP) -e ".[cpu,openvino,web]"
	touch $@

.venv-test/installed: $(PACKAGE)
	$(PYTHON) -m venv .venv-test
	$(TEST)/python $(PIP) -e ".[cpu,openvino,$(RTX)train,large,web,dev]"
	touch $@
