"""RoIAlign in C++: the CPU twin, and the kernel run on the host, against plain loops, ONNX's node tests and ONNX Runtime."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Callable
from ctypes import CDLL, POINTER, byref, c_int32, c_int64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper

from edgeseg.ops import launch
from edgeseg.ops.roi_align import RoiAlignOptions, level_of, roi_align, roi_align_reference
from tests.ops import host_cuda
from tests.ops.roi_align_cases import BAD_IMAGES, Case, cases, make, spoil

KERNEL = host_cuda.ROOT / "trt_plugins" / "roi_align" / "roi_align.cu"
TOLERANCE = {"float32": 1e-6, "float16": 1e-3}
FORMATS = list(launch.FORMATS)
TYPES = ["float32", "float16", "int8"]


@pytest.fixture(params=["twin", "kernel"], scope="module")
def library(request: pytest.FixtureRequest) -> launch.Library:
    found: launch.Library = request.getfixturevalue(request.param)
    return found


class Between(launch.Library):
    """A library that changes the arguments, or looks at them, before another one runs."""

    def __init__(self, change: Callable[[Any], None], inner: launch.Library | None = None) -> None:
        self.change, self.inner = change, inner

    def run(self, name: str, args: Any, last: int | None = 1) -> None:
        self.change(args)
        if self.inner is not None:
            self.inner.run(name, args, last)


def agree(found: np.ndarray, case: Case) -> None:
    """Within the tolerance of the type; int8 exactly, but either neighbour where the mean is a tie to float32's last bits."""
    expected = roi_align_reference(*case.arguments)
    assert found.shape == expected.shape and found.dtype == case.features[0].dtype
    if found.dtype != np.int8:
        assert np.abs(found - expected).max(initial=0) <= TOLERANCE[found.dtype.name] * case.scale
        return
    nearly_tie = np.abs(np.abs(expected - np.floor(expected)) - 0.5) < 2e-4
    exact = np.clip(np.rint(expected), -128, 127)
    assert np.array_equal(np.where(nearly_tie, exact, found), exact)
    assert np.abs(found - expected).max(initial=0) <= 0.5 + 2e-4


@settings(max_examples=120)
@given(cases, st.sampled_from(TYPES), st.sampled_from(FORMATS), st.integers(1, 3))
def test_twin_agrees_with_loops(twin: launch.Library, case: Case, dtype: str, format: str, threads: int) -> None:
    typed = case.typed(dtype)
    agree(roi_align(*typed.arguments, format=format, threads=threads, library=twin), typed)


@settings(max_examples=60)
@given(cases, st.sampled_from(TYPES), st.sampled_from(FORMATS))
def test_kernel_agrees_with_loops(kernel: launch.Library, case: Case, dtype: str, format: str) -> None:
    typed = case.typed(dtype)
    agree(roi_align(*typed.arguments, format=format, library=kernel), typed)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_every_format(library: launch.Library, mode: str, dtype: str, format: str) -> None:
    # 40 channels fill some blocks and leave padding in others; 9x9 bins are more than one turn of a block's threads.
    case = make(3, mode=mode, channels=40, count=3, output=(9, 9)).typed(dtype)
    agree(roi_align(*case.arguments, format=format, library=library), case)


@pytest.mark.parametrize("format", [name for name in FORMATS if launch.VECTORS[name] > 1])
def test_padding_channels_are_written_as_zeros(library: launch.Library, format: str) -> None:
    case = make(5, channels=5, count=3)
    output = np.full(launch.packed_shape((3, 5, 3, 2), format), np.nan, np.float32)

    def watch(args: Any) -> None:
        args.output.data = output.ctypes.data

    roi_align(*case.arguments, format=format, library=Between(watch, library))
    assert np.array_equal(output, launch.pack(launch.unpack(output, format, 5), format))


def test_many_boxes_and_bins_and_threads(twin: launch.Library) -> None:
    case = make(7, count=50, output=(14, 14), ratio=0)
    single = roi_align(*case.arguments, library=twin)
    agree(single, case)
    assert np.array_equal(single, roi_align(*case.arguments, threads=5, library=twin))


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_more_samples_than_the_kernel_tabulates(library: launch.Library, mode: str) -> None:
    case = make(2, levels=1, mode=mode, ratio=0, size=(9, 400), channels=2, count=2, images=1, output=(2, 2))
    wide = replace(case, rois=np.array([[-90, 0, 1700, 30], [3, 4, 1580, 20]], np.float32), images=np.zeros(2, np.int64))
    agree(roi_align(*wide.arguments, library=library), wide)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_nan_stays_where_it_is_sampled(library: launch.Library, mode: str) -> None:
    case = make(1, levels=1, mode=mode, size=(20, 20), images=1, count=1, output=(2, 2))
    case.features[0][0, 0, 4, 4] = np.nan
    rois = np.array([[14, 14, 40, 40]], np.float32)  # its first bin samples around (4, 4), the others do not
    found = roi_align(rois, np.zeros(1, np.int64), case.features, case.options, library=library)
    assert np.isnan(found[0, 0, 0, 0]) and np.isfinite(found[0, 0].ravel()[1:]).all() and np.isfinite(found[0, 1:]).all()


# --- boxes that are none -------------------------------------------------------------------


@settings(max_examples=60)
@given(cases, st.integers(0, 10**6), st.sampled_from([0.03, 0.25, 8.0, 1e30]))
def test_any_box_is_defined(twin: launch.Library, case: Case, seed: int, scale: float) -> None:
    options = replace(case.options, spatial_scales=[scale] * len(case.features))
    spoiled = spoil(replace(case, options=options), seed)
    agree(roi_align(*spoiled.arguments, library=twin), spoiled)


@settings(max_examples=20)
@given(cases, st.integers(0, 10**6))
def test_the_kernel_defines_the_same(kernel: launch.Library, case: Case, seed: int) -> None:
    spoiled = spoil(case, seed)
    agree(roi_align(*spoiled.arguments, library=kernel), spoiled)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_zeros_where_there_is_nothing(library: launch.Library, mode: str, ratio: int) -> None:
    case = make(1, mode=mode, ratio=ratio, images=2, count=1)
    good = np.array([[4, 4, 60, 60]], np.float32)

    def run(rois: Any, images: Any, features: Any = case.features) -> np.ndarray:
        return roi_align(np.array(rois, np.float32).reshape(-1, 4), np.array(images), features, case.options, library=library)

    assert np.any(run(good, [0]))
    for image in BAD_IMAGES:
        assert not np.any(run(good, [image])), image
    for bad in (np.nan, np.inf, -np.inf):
        for side in range(4):
            box = good.copy()
            box[0, side] = bad
            assert not np.any(run(box, [0])), box
    assert run(np.empty((0, 4)), np.empty(0, np.int64)).shape == (0, 5, 3, 2)
    assert not np.any(run(good, [0], [level[:0] for level in case.features]))
    assert run(good, [0], [level[:, :0] for level in case.features]).shape == (1, 0, 3, 2)
    if ratio == 0:
        assert not np.any(run([[60, 60, 4, 4]], [0])) and not np.any(run([[9, 9, 9, 40]], [0]))


def test_32_bit_batch_indices(twin: launch.Library) -> None:
    case = make(11)
    narrow = roi_align(case.rois, case.images.astype(np.int32), case.features, case.options, library=twin)
    assert np.array_equal(narrow, roi_align(*case.arguments, library=twin))


WORK = """
#include "roi_align_check.h"
using namespace edgeseg::roi;
// Samples that box k visits along an axis; -1 where one that is left out lies inside.
extern "C" void visited(const EsRoiAlign* args, int64_t k, int32_t* out) {
  const Plan p = plan_of(*args);
  const Box box = box_of(p, k);
  const Axis axes[2] = {box.y, box.x};
  const int32_t bins[2] = {args->output.h, args->output.w};
  for (int a = 0; a < 2; ++a) {
    out[2 * a] = 0, out[2 * a + 1] = box.level < 0 ? 0 : axes[a].count * bins[a];
    for (int32_t bin = 0; bin < bins[a] && box.level >= 0; ++bin) {
      const Range r = inside_range(axes[a], bin);
      const bool early = r.begin < r.end && r.begin > 0 && inside(axes[a], position(axes[a], bin, r.begin - 1));
      const bool late = r.begin < r.end && r.end < axes[a].count && inside(axes[a], position(axes[a], bin, r.end));
      out[2 * a] = early || late ? -1 : out[2 * a] + r.end - r.begin;
    }
  }
}
"""


def test_huge_boxes_visit_few_samples(tmp_path: Path) -> None:
    """What bounds the time: at most 2 * (size + 2) samples an axis, however many the box has."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to count the samples with")
    (tmp_path / "work.cpp").write_text(WORK)
    built = tmp_path / "libwork.so"
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", f"-I{KERNEL.parent}"]
    subprocess.run([compiler, *options, str(tmp_path / "work.cpp"), "-o", str(built)], check=True)
    work = CDLL(str(built)).visited
    work.argtypes = [POINTER(launch.RoiAlign), c_int64, POINTER(c_int32 * 4)]

    def count(args: Any) -> None:
        for k in range(args.output.n):
            found = (c_int32 * 4)()
            work(byref(args), k, byref(found))
            for axis, size in ((0, args.features[0].h), (1, args.features[0].w)):
                visited, had = found[2 * axis], found[2 * axis + 1]
                assert 0 <= visited <= 2 * (size + 2), (visited, size)
                assert had <= size + 1024 + 5
                seen.append((visited, had))

    seen: list[tuple[int, int]] = []

    for seed in range(200):
        case = make(seed, levels=1, ratio=0, size=(1 + seed % 40, 1 + seed % 23), images=1, aligned=seed % 2 == 0, output=(5, 5))
        roi_align(*spoil(case, seed).arguments, library=Between(count))
        roi_align(*case.arguments, library=Between(count))
    assert any(had > 500 and 0 < visited < 100 for visited, had in seen), "no huge box among them"


# --- levels, refusals ------------------------------------------------------------------------------------------------


def test_levels_follow_the_fpn_equation() -> None:
    for canonical, lowest in ((2, 0), (0, 0), (6, 0), (-3, 0)):
        options = RoiAlignOptions(1, 1, [0.25, 0.125, 0.0625, 0.03125], canonical_level=canonical)
        for side in [*np.geomspace(1, 4000, 97), 56.0, 112.0, 224.0, 448.0, 896.0]:
            expected = np.floor(canonical + np.log2(side / 224) + 1e-6)
            found = level_of(np.array([0, 0, side, side], np.float32), options)
            assert found == np.clip(expected, lowest, 3), side
    for box in ([5, 5, 5, 9], [9, 0, 0, 9], [0, 0, np.nan, 1], [3e38, 0, -3e38, 0]):
        assert level_of(np.array(box, np.float32), RoiAlignOptions(1, 1, [1.0, 0.5], canonical_level=-9)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling_ratio": 129}, "sampling_ratio"),
        ({"sampling_ratio": -1}, "sampling_ratio"),
        ({"output_height": 0}, "output"),
        ({"spatial_scales": [1.0, 0.0, 1.0]}, "spatial_scales"),
        ({"spatial_scales": [1.0]}, "one for each"),
        ({"canonical_size": np.nan}, "canonical_size"),
        ({"mode": "sum"}, "mode"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    case = make(1)
    with pytest.raises(ValueError, match=message):
        roi_align(case.rois, case.images, case.features, replace(case.options, **change))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("levels", 6, "levels"),
        ("levels", 0, "levels"),
        ("sampling_ratio", 1000, "sampling_ratio"),
        ("canonical_size", -1.0, "canonical_size"),
        ("index_type", 0, "batch_indices"),
        ("rois", None, "memory"),
    ],
)
def test_the_library_checks_for_itself(library: launch.Library, field: str, value: Any, message: str) -> None:
    case = make(1)
    with pytest.raises(ValueError, match=message):
        roi_align(*case.arguments, library=Between(lambda args: setattr(args, field, value), library))


def test_maps_of_no_pixels_are_refused(library: launch.Library) -> None:
    case = make(1)
    with pytest.raises(ValueError, match="side"):
        roi_align(case.rois, case.images, [level[:, :, :0] for level in case.features], case.options, library=library)


# --- other oracles ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def onnx_cases() -> dict[str, tuple[NodeProto, list[np.ndarray], list[np.ndarray]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other operators' cases are made with them, overflows and all
        from onnx.backend.test.loader import load_model_tests

        found = [case for case in load_model_tests(kind="node") if "roialign" in case.name]
    return {case.name: (case.model.graph.node[0], *case.data_sets[0]) for case in found}


@pytest.mark.parametrize("name", ["test_roialign_aligned_false", "test_roialign_aligned_true", "test_roialign_mode_max"])
def test_onnx_node_tests(library: launch.Library, onnx_cases: dict[str, Any], name: str) -> None:
    node, (x, rois, images), (expected,) = onnx_cases[name]
    given_ = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    options = RoiAlignOptions(
        given_["output_height"],
        given_["output_width"],
        [given_["spatial_scale"]],
        given_["sampling_ratio"],
        given_.get("mode", b"avg").decode(),
        given_["coordinate_transformation_mode"] == b"half_pixel",
    )
    tolerance = 1e-6 if "max" in name else 1e-4  # the averages are given to four digits
    assert np.abs(roi_align(rois, images, [x], options, library=library) - expected).max() < tolerance
    assert np.abs(roi_align_reference(rois, images, [x], options) - expected).max() < tolerance


def onnx_runtime(case: Case) -> np.ndarray:
    """RoiAlign-16 of a single level."""
    inputs = [("x", TensorProto.FLOAT, [None] * 4), ("rois", TensorProto.FLOAT, [None, 4]), ("images", TensorProto.INT64, [None])]
    node = helper.make_node(
        "RoiAlign",
        ["x", "rois", "images"],
        ["y"],
        mode=case.options.mode,
        output_height=case.options.output_height,
        output_width=case.options.output_width,
        sampling_ratio=case.options.sampling_ratio,
        spatial_scale=case.options.spatial_scales[0],
        coordinate_transformation_mode="half_pixel" if case.options.aligned else "output_half_pixel",
    )
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)
    model = helper.make_model(
        helper.make_graph([node], "g", values, [result]), opset_imports=[helper.make_opsetid("", 16)], ir_version=9
    )
    settings_ = onnxruntime.SessionOptions()
    settings_.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings_, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": case.features[0], "rois": case.rois, "images": case.images})[0]


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["avg", "max"]), st.sampled_from([0, 1, 2, 3]), st.booleans())
def test_onnx_runtime_agrees(twin: launch.Library, seed: int, mode: str, ratio: int, aligned: bool) -> None:
    case = make(seed, levels=1, mode=mode, ratio=ratio, aligned=aligned)
    corners = np.sort(case.rois.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    valid = replace(case, rois=corners, images=np.clip(case.images, 0, 1))
    found = roi_align(*valid.arguments, library=twin)
    assert np.abs(found - onnx_runtime(valid)).max() <= 2e-6 * valid.scale
