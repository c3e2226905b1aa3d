"""``edgeseg plugins``: what is missing is named, what is no plugin library is told, nothing half is left."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgeseg.cli.app import run
from edgeseg.files import sha256_file
from edgeseg.plugins import FILE, OPERATORS
from edgeseg.plugins import build as building

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler: apt install g++")
needs_tensorrt = pytest.mark.skipif(
    not any(find_spec(name) for name in ("tensorrt", "tensorrt_lean")), reason="no TensorRT module: pip install tensorrt-lean-cu13"
)

# Stands in for CMake: writes what it is told to the build folder's library, or fails as a compiler does.
FAKE_CMAKE = """#!/bin/sh
echo "$@" >> "$FAKE_LOG"
case "$1" in
  -S) echo "$4" > "$FAKE_LOG.folder"; exit 0 ;;
esac
[ -n "$FAKE_ERROR" ] && { echo "$FAKE_ERROR"; echo "make: *** [all] Error 2"; exit 2; }
echo "[ 50%] Building"
echo built > "$2/libedgeseg_trt.so"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a CMake and an nvcc that only pretend, and TensorRT headers that are empty; the folder of it all."""
    for name, text in (("cmake", FAKE_CMAKE), ("nvcc", "#!/bin/sh\n"), ("c++", "#!/bin/sh\n"), ("make", "#!/bin/sh\n")):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(text)
        script.chmod(0o755)
    (tmp_path / "trt" / "include").mkdir(parents=True)
    (tmp_path / "trt" / "include" / building.HEADER).touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path / "trt"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("EDGESEG_HOME", str(tmp_path / "home"))
    for name in ("CUDACXX", "CUDA_HOME", "CUDA_PATH", "CXX", "EDGESEG_PLUGINS", "FAKE_ERROR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def error(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["plugins", *arguments]) == 1
    said = capfd.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


# --- build -------------------------------------------------------------------------------------------------------


def test_build_puts_the_library_where_engines_look(tools: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "build", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    library = tools / "home" / "plugins" / FILE
    assert (answer["library"], answer["sha256"]) == (str(library), sha256_file(library))
    assert library.read_text() == "built\n"
    assert not library.stat().st_mode & stat.S_IWOTH
    assert [path.name for path in library.parent.iterdir()] == [FILE]
    asked = (tools / "log").read_text()
    assert f"-DTENSORRT_ROOT={tools / 'trt'}" in asked
    assert f"-DCMAKE_CUDA_COMPILER={tools / 'bin' / 'nvcc'}" in asked
    assert "--target edgeseg_trt" in asked
    assert "ARCHITECTURES" not in asked


def test_build_takes_architectures_and_a_directory(tools: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "build", "--arch", "87, sm_120", "-o", str(tools / "here")]) == 0
    assert (tools / "here" / FILE).is_file()
    assert "-DCMAKE_CUDA_ARCHITECTURES=87-real;120-real" in (tools / "log").read_text()
    assert "sha256" in capfd.readouterr().out


def test_a_failed_build_tells_the_compiler_s_error_and_keeps_the_old(
    tools: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["plugins", "build"]) == 0
    capfd.readouterr()
    library = tools / "home" / "plugins" / FILE
    library.write_text("the old one")
    monkeypatch.setenv("FAKE_ERROR", "plugin.h(12): error: no such thing")
    assert "cmake: plugin.h(12): error: no such thing" in error(capfd, "build")
    assert [(path.name, path.read_text()) for path in library.parent.iterdir()] == [(FILE, "the old one")]
    assert not Path((tools / "log.folder").read_text().strip()).exists()


def test_every_missing_thing_is_named_with_how_to_get_it(
    tools: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "_tool", lambda *names: None)
    monkeypatch.setattr(building, "_nvcc", lambda: None)
    monkeypatch.setenv("TENSORRT_ROOT", "/nowhere")
    said = error(capfd, "build")
    assert "no CMake, no C++ compiler, no make, no nvcc, no TensorRT headers" in said
    for fix in ("CMake: pip install cmake", "nvcc: install the CUDA toolkit", "TensorRT headers: apt install", "--tensorrt-root"):
        assert fix in said


@pytest.mark.parametrize("name", ["cmake", "nvcc"])
def test_one_missing_tool_is_named_alone(
    tools: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    (tools / "bin" / name).unlink()
    monkeypatch.setenv("PATH", str(tools / "bin"))
    monkeypatch.setattr(building, "_CUDA", Path("/nowhere"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    said = error(capfd, "build")
    assert said.count(" no ") == 1
    assert {"cmake": "no CMake", "nvcc": "no nvcc"}[name] in said


def test_wrong_options(tools: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "--arch jetson; expected numbers such as 87" in error(capfd, "build", "--arch", "jetson")
    assert f"/nowhere: no {building.HEADER}" in error(capfd, "build", "--tensorrt-root", "/nowhere")
    (tools / "file").touch()
    assert "directory that can be written" in error(capfd, "build", "-o", str(tools / "file"))
    assert not (tools / "log").exists()  # all of it before any work


def test_headers_tell_their_version(tmp_path: Path) -> None:
    text = "#define {0}_MAJOR{1} 10 //!< major\n#define {0}_MINOR{1} 16\n#define {0}_PATCH{1} 2\n"
    for prefix, suffix in (("NV_TENSORRT", ""), ("TRT", "_ENTERPRISE")):
        (tmp_path / building.HEADER).touch()
        (tmp_path / "NvInferVersion.h").write_text(text.format(prefix, suffix))
        assert building._version(tmp_path) == "10.16.2"


def test_the_sources_are_at_hand() -> None:
    sources = building._sources()
    assert sources is not None
    assert (sources / "CMakeLists.txt").is_file()
    assert len(list(sources.glob("*/*.cu"))) == 4


# --- check -------------------------------------------------------------------------------------------------------


def test_check_without_a_library(tools: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no TensorRT plugin library there; expected libedgeseg_trt.so; fix: edgeseg plugins build" in error(capfd, "check")


def test_check_refuses_a_library_that_all_may_write(tools: Path, capfd: pytest.CaptureFixture[str]) -> None:
    library = tools / FILE
    library.touch()
    library.chmod(0o777)
    assert f"every user may write {library}" in error(capfd, "check", "--library", str(library))


@needs_tensorrt
def test_check_of_what_is_no_library(tools: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tools / FILE).write_text("text")
    assert "cannot load it" in error(capfd, "check", "--library", str(tools))


@needs_compiler
@needs_tensorrt
def test_check_of_another_library(tools: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One that is no plugin library, and one that holds none of our creators."""
    compiler, library = os.environ["PATH"].split(":")[1:], tools / FILE
    command = [shutil.which("c++", path=":".join(compiler)), "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library)]
    subprocess.run(command, input='extern "C" int other() { return 0; }', text=True, check=True)
    assert "it has no getCreators" in error(capfd, "check", "--library", str(library))
    none = 'extern "C" void* const* getCreators(int& count) { static void* const all[1] = {}; count = 0; return all; }'
    subprocess.run(command, input=none, text=True, check=True)
    said = error(capfd, "check", "--library", str(library))
    assert f"finds no creator Edgeseg{OPERATORS[0]} version 1" in said or "cannot load it" in said


def test_check_without_tensorrt(tools: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    (tools / FILE).touch()
    monkeypatch.setattr("edgeseg.plugins.registry.MODULES", ("tensorrt_of_nobody",))
    assert "no TensorRT to check the plugins in" in error(capfd, "check", "--library", str(tools))
