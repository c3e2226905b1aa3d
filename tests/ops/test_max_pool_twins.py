"""The pools in C++: the CPU twins, and the kernels' items run on the host, against plain loops; bit for bit in every type."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from ctypes import c_int32, c_int64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.helper import get_attribute_value

from edgeseg.ops import launch
from edgeseg.ops.max_pool import (
    Window,
    c_window,
    max_pool_argmax,
    max_pool_argmax_reference,
    max_pool_indices,
    max_pool_indices_reference,
    max_unpool,
    max_unpool_indices,
    max_unpool_indices_reference,
    max_unpool_reference,
)

ROOT = Path(__file__).resolve().parents[2]
TYPES = ("float32", "float16", "int8")
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0]


@pytest.fixture(scope="session")
def items(tmp_path_factory: pytest.TempPathFactory) -> launch.Library:
    """The kernels' work items, run one after the other."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler to run the kernels' items with")
    built = tmp_path_factory.mktemp("items") / "libitems.so"
    source = Path(__file__).with_name("max_pool_items.cpp")
    options = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "trt_plugins")]
    subprocess.run([compiler, *options, str(source), "-o", str(built)], check=True)
    return launch.Library(built, "cpu")


@pytest.fixture(params=["twin", "items"], scope="session")
def library(request: pytest.FixtureRequest) -> launch.Library:
    found: launch.Library = request.getfixturevalue(request.param)
    return found


def draw(shape: tuple[int, ...], dtype: str, seed: int, kind: str = "normal") -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "int8":
        return rng.integers(-128, 128, shape, np.int8) if kind == "normal" else rng.integers(-1, 2, shape, np.int8)
    if kind == "ties":
        return rng.integers(0, 3, shape).astype(dtype)
    x = rng.standard_normal(shape).astype(dtype)
    return np.where(rng.random(shape) < 0.6, rng.choice(SPECIAL, shape), x).astype(dtype) if kind == "special" else x


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


class Held:
    """An array in some format, with a tensor for it; memory filled with rubbish where it is to be written."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: str, format: str, array: np.ndarray | None = None) -> None:
        self.shape, self.format = shape, format
        if array is None:
            self.packed = np.full(launch.packed_shape(shape, format), 77, dtype)
        else:
            # Padding channels may hold anything: NaN would win every window, 127 every comparison.
            self.packed = launch.pack(array, format)
            channels = launch.unpack(np.arange(self.packed.size).reshape(self.packed.shape), format, shape[1])
            rubbish = np.ones(self.packed.size, bool)
            rubbish[channels.ravel()] = False
            self.packed.reshape(-1)[rubbish] = np.nan if array.dtype.kind == "f" else 127
        self.tensor = launch.tensor_of(self.packed, shape, format)

    def read(self) -> np.ndarray:
        """The array; raises where the padding channels are not zero."""
        array = launch.unpack(self.packed, self.format, self.shape[1])
        assert same(self.packed, launch.pack(array, self.format)), "padding channels are not 0"
        return array


def pool(library: launch.Library, x: np.ndarray, window: Window, formats: tuple[str, str, str]) -> tuple[np.ndarray, np.ndarray]:
    shape = (*x.shape[:2], *window.pooled(*x.shape[2:]))
    given = Held(x.shape, x.dtype.name, formats[0], x)
    values, codes = Held(shape, x.dtype.name, formats[1]), Held(shape, "uint8", formats[2])
    library.run("max_pool_argmax", launch.MaxPoolArgmax(given.tensor, values.tensor, codes.tensor, c_window(window)), 2)
    return values.read(), codes.read()


def unpool(
    library: launch.Library, y: np.ndarray, codes: np.ndarray, window: Window, size: tuple[int, int], formats: tuple[str, str, str]
) -> np.ndarray:
    held = Held(y.shape, y.dtype.name, formats[0], y), Held(y.shape, "uint8", formats[1], codes)
    out = Held((*y.shape[:2], *size), y.dtype.name, formats[2])
    library.run("max_unpool", launch.MaxUnpool(held[0].tensor, held[1].tensor, out.tensor, c_window(window)), 2)
    return out.read()


def unpool_by_index(library: launch.Library, y: np.ndarray, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out = np.full((*y.shape[:2], *size), 77, y.dtype)
    tensor = launch.tensor_of(out)
    workspace = np.empty(library.unpool_workspace(tensor), np.uint8)
    given = launch.tensor_of(y)
    library.run("max_unpool_indices", launch.MaxUnpoolIndices(given, indices.ctypes.data, tensor, workspace.ctypes.data), 2)
    return out


LINEAR = ("linear",) * 3
TILES = Window((2, 2), (2, 2))
shapes = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(5, 24), st.integers(5, 40))
windows = st.builds(
    lambda kernel, strides, pads: Window(kernel, strides, tuple(min(pad, kernel[a % 2] - 1) for a, pad in enumerate(pads))),
    st.one_of(st.just((2, 2)), st.just((3, 3)), st.tuples(st.integers(1, 5), st.integers(1, 5))),
    st.one_of(st.just((2, 2)), st.tuples(st.integers(1, 3), st.integers(1, 3))),
    st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, 2)] * 4)),
)
kinds = st.sampled_from(["normal", "ties", "special"])
every = settings(max_examples=60, deadline=None)


@every
@given(shapes, windows, st.sampled_from(TYPES), kinds, st.integers(0, 99))
def test_pooling_and_unpooling_agree_with_loops(
    library: launch.Library, shape: tuple[int, ...], window: Window, dtype: str, kind: str, seed: int
) -> None:
    x = draw(shape, dtype, seed, kind)
    values, codes = pool(library, x, window, LINEAR)
    expected = max_pool_argmax_reference(x, window)
    assert same(values, expected[0])
    assert same(codes, expected[1])
    rng = np.random.default_rng(seed)
    wrong = np.where(rng.random(codes.shape) < 0.2, rng.integers(0, 256, codes.shape), codes).astype(np.uint8)
    for size in ((shape[2], shape[3]), window.unpooled(*values.shape[2:]), (shape[2] + 3, max(shape[3] - 2, 1))):
        size = (max(size[0], 1), max(size[1], 1))
        for named in (codes, wrong):
            assert same(unpool(library, values, named, window, size, LINEAR), max_unpool_reference(values, named, window, size))


# Widths at which a thread takes 8, 4, 2 or 1 pairs of a row.
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [2, 4, 6, 8, 10, 12, 16, 24, 32, 34, 48, 64, 100, 480])
def test_tiles_of_two_at_every_width(library: launch.Library, dtype: str, width: int) -> None:
    window = Window((2, 2), (2, 2))
    x = draw((2, 3, 4, width), dtype, width, "ties")
    values, codes = pool(library, x, window, LINEAR)
    expected = max_pool_argmax_reference(x, window)
    assert same(values, expected[0])
    assert same(codes, expected[1])
    assert same(unpool(library, values, codes, window, (4, width), LINEAR), max_unpool_reference(values, codes, window))


formats = {"float32": ["linear", "hwc", "chw4", "chw32"], "float16": list(launch.FORMATS), "int8": list(launch.FORMATS)}
code_formats = ("linear", "chw4", "chw16", "chw32", "hwc8")


@every
@given(st.data(), st.sampled_from(TYPES), windows, st.sampled_from([1, 3, 8, 19, 33]), st.integers(0, 99))
def test_every_format_gives_the_same(
    library: launch.Library, data: st.DataObject, dtype: str, window: Window, c: int, seed: int
) -> None:
    given, result = (data.draw(st.sampled_from(formats[dtype])) for _ in range(2))
    if data.draw(st.booleans()):
        result = given
    named = data.draw(st.sampled_from([result, *code_formats]))
    x = draw((2, c, 6, 7), dtype, seed, "ties")
    values, codes = pool(library, x, window, (given, result, named))
    expected = max_pool_argmax_reference(x, window)
    assert same(values, expected[0])
    assert same(codes, expected[1])
    unpooled = unpool(library, values, codes, window, (6, 7), (given, named, result))
    assert same(unpooled, max_unpool_reference(values, codes, window, (6, 7)))


@every
@given(shapes, windows, st.sampled_from(TYPES), st.integers(0, 1), kinds, st.integers(0, 99))
def test_indices_agree_with_loops(
    library: launch.Library, shape: tuple[int, ...], window: Window, dtype: str, order: int, kind: str, seed: int
) -> None:
    x = draw(shape, dtype, seed, kind)
    expected, places = max_pool_indices_reference(x, window, order)
    values, indices = np.full(expected.shape, 77, dtype), np.full(expected.shape, -1, np.int64)
    tensors = launch.tensor_of(x), launch.tensor_of(values)
    library.run("max_pool_indices", launch.MaxPoolIndices(*tensors, indices.ctypes.data, c_window(window), order), 2)
    assert same(values, expected)
    assert same(indices, places)
    unpooled = unpool_by_index(library, values, indices, shape[2:])
    assert same(unpooled, max_unpool_indices_reference(values, indices, shape[2:]))


# --- what is wrong or strange ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 32, 33, 2**32 + 3, -(2**40)])
def test_an_index_outside_the_tensor(items: launch.Library, twin: launch.Library, bad: int) -> None:
    y, indices = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 2, 2), np.array([0, 2, 8, 10, 16, 18, 24, bad]).reshape(1, 2, 2, 2)
    # The kernels drop it, ...
    kept = np.zeros((1, 2, 4, 4), np.float32)
    kept.flat[indices.ravel()[:7]] = y.ravel()[:7]
    assert same(unpool_by_index(items, y, indices, (4, 4)), kept)
    # ... the twin refuses it and writes nothing.
    out = np.full((1, 2, 4, 4), 77, np.float32)
    args = launch.MaxUnpoolIndices(launch.tensor_of(y), indices.ctypes.data, launch.tensor_of(out), None)
    with pytest.raises(ValueError, match="an index lies outside"):
        twin.run("max_unpool_indices", args, 1)
    assert (out == 77).all()


@every
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.sampled_from(TYPES), st.integers(0, 99))
def test_the_later_of_duplicate_indices_stays(
    library: launch.Library, n: int, c: int, side: int, size: int, dtype: str, seed: int
) -> None:
    y = draw((n, c, side, side), dtype, seed)
    # Places of other planes among them: ONNX's indices count in the whole tensor.
    indices = np.random.default_rng(seed).integers(0, n * c * size * size, y.shape)
    assert same(unpool_by_index(library, y, indices, (size, size)), max_unpool_indices_reference(y, indices, (size, size)))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_nan_wins_and_minus_infinity_names_its_first_place(library: launch.Library, dtype: str) -> None:
    x = np.array([[1, np.nan, -np.inf, -np.inf], [np.nan, 9, -np.inf, -np.inf]], dtype).reshape(1, 1, 2, 4)
    values, codes = pool(library, x, Window((2, 2), (2, 2)), LINEAR)
    assert np.isnan(values[0, 0, 0, 0]) and values[0, 0, 0, 1] == -np.inf
    assert codes.ravel().tolist() == [1, 0]
    x = np.full((1, 1, 3, 3), -np.inf, dtype)
    assert pool(library, x, Window((3, 2), (2, 2), (1, 1, 1, 1)), LINEAR)[1].ravel().tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(0, 3, 6, 8), (2, 0, 6, 8)])
def test_an_empty_batch(twin: launch.Library, dtype: str, shape: tuple[int, ...]) -> None:
    window, x = Window((2, 2), (2, 2)), np.empty(shape, dtype)
    values, codes = max_pool_argmax(x, window)
    assert values.shape == codes.shape == (*shape[:2], 3, 4)
    assert max_unpool(values, codes, window).shape == shape
    values, indices = max_pool_indices(x, window)
    assert max_unpool_indices(values, indices, (6, 8)).shape == shape


def test_nothing_pooled_unpools_to_zeros(library: launch.Library) -> None:
    empty = np.empty((1, 1, 0, 2), np.float32)
    out = unpool(library, empty, empty.astype(np.uint8), Window((2, 2), (2, 2)), (4, 4), LINEAR)
    assert same(out, np.zeros((1, 1, 4, 4), np.float32))
    out = unpool_by_index(library, empty, empty.astype(np.int64), (4, 4))
    assert same(out, np.zeros((1, 1, 4, 4), np.float32))


def test_a_row_that_starts_at_an_odd_address(library: launch.Library) -> None:
    x = np.arange(65, dtype=np.float16)[1:].reshape(1, 1, 4, 16)
    expected = max_pool_argmax_reference(x, Window((2, 2), (2, 2)))
    values, codes = np.empty(17, np.float16)[1:].reshape(1, 1, 2, 8), np.empty(17, np.uint8)[1:].reshape(1, 1, 2, 8)
    tensors = [launch.tensor_of(array) for array in (x, values, codes)]
    library.run("max_pool_argmax", launch.MaxPoolArgmax(*tensors, c_window(Window((2, 2), (2, 2)))), 1)
    assert same(values, expected[0])
    assert same(codes, expected[1])


# What differs from a pool of 2x2 over 4x4; the memory is never touched.
BAD_POOLS = {
    "another type": {"pooled": launch.tensor(1, "float16", (1, 1, 2, 2))},
    "float64": {"full": launch.Tensor(1, 9, 0, 1, 1, 4, 4)},
    "other channels": {"full": launch.tensor(1, "float32", (1, 2, 4, 4))},
    "codes of another shape": {"codes": launch.tensor(1, "uint8", (1, 1, 2, 3))},
    "int32 codes": {"codes": launch.tensor(1, "int32", (1, 1, 2, 2))},
    "no stride": {"window": launch.Window(2, 2, 0, 2, 0, 0)},
    "no kernel": {"window": launch.Window(0, 2, 2, 2, 0, 0)},
    "a kernel of 289": {"window": launch.Window(17, 17, 2, 2, 0, 0)},
    "padding as large as the kernel": {"window": launch.Window(2, 2, 2, 2, 2, 0)},
    "negative padding": {"window": launch.Window(2, 2, 2, 2, 0, -1)},
    "a negative size": {"full": launch.tensor(1, "float32", (1, 1, -4, 4))},
    "a huge plane": {"full": launch.tensor(1, "float32", (1, 1, 2**31 - 1, 4))},
    "no memory": {"full": launch.Tensor(None, 0, 0, 1, 1, 4, 4)},
    "an unknown format": {"full": launch.Tensor(1, 0, 9, 1, 1, 4, 4)},
}


@pytest.mark.parametrize("case", BAD_POOLS)
def test_arguments_that_do_not_fit_are_refused(library: launch.Library, case: str) -> None:
    args = {
        "full": launch.tensor(1, "float32", (1, 1, 4, 4)),
        "pooled": launch.tensor(1, "float32", (1, 1, 2, 2)),
        "codes": launch.tensor(1, "uint8", (1, 1, 2, 2)),
        "window": launch.Window(2, 2, 2, 2, 0, 0),
        **BAD_POOLS[case],
    }
    with pytest.raises(ValueError, match="max_pool_argmax: "):
        library.run("max_pool_argmax", launch.MaxPoolArgmax(args["full"], args["pooled"], args["codes"], args["window"]), 1)
    with pytest.raises(ValueError, match="max_unpool: "):
        library.run("max_unpool", launch.MaxUnpool(args["pooled"], args["codes"], args["full"], args["window"]), 1)


@pytest.mark.parametrize(("plane", "pooled", "pad"), [((4, 4), (3, 2), 0), ((4, 4), (2, 3), 0), ((0, 4), (1, 2), 1)])
def test_a_window_outside_the_plane_is_refused(
    library: launch.Library, plane: tuple[int, int], pooled: tuple[int, int], pad: int
) -> None:
    tensors = [
        launch.tensor(1, dtype, (1, 1, *size)) for dtype, size in (("float32", plane), ("float32", pooled), ("uint8", pooled))
    ]
    with pytest.raises(ValueError, match="outside the plane"):
        library.run("max_pool_argmax", launch.MaxPoolArgmax(*tensors, launch.Window(2, 2, 2, 2, pad, 0)), 1)


def test_halves_are_ordered_as_the_device_orders_them(items: launch.Library) -> None:
    function = items._library.half_orders_that_differ
    function.restype, function.argtypes = c_int64, [c_int32, c_int32]
    assert function(0, 37) == 0
    assert function(0x7BFE, 0x8000 - 3) == 0  # around infinity and the zeros


def test_many_threads_give_what_one_gives(twin: launch.Library) -> None:
    x = draw((2, 16, 64, 96), "float32", 0, "ties")
    for window in (Window((2, 2), (2, 2)), Window((3, 3), (2, 2), (1, 1, 1, 1))):
        one, four = max_pool_argmax(x, window), max_pool_argmax(x, window, threads=4)
        assert same(one[0], four[0]) and same(one[1], four[1])
        assert same(max_unpool(*one, window), max_unpool(*one, window, threads=4))
        indexed = max_pool_indices(x, window, threads=4)
        assert same(indexed[1], max_pool_indices(x, window)[1])
        assert same(max_unpool_indices(*indexed, (64, 96), threads=4), max_unpool_indices(*indexed, (64, 96)))


@pytest.mark.parametrize("dtype", TYPES)
def test_planes_larger_than_the_caches(twin: launch.Library, dtype: str) -> None:
    x = draw((1, 16, 720, 768), dtype, 3, "ties")  # 8 MiB and more in every type
    values, codes = max_pool_argmax(x, TILES)
    tiles = x.reshape(1, 16, 360, 2, 384, 2).transpose(0, 1, 2, 4, 3, 5).reshape(1, 16, 360, 384, 4)
    assert same(codes, tiles.argmax(-1).astype(np.uint8))
    assert same(values, tiles.max(-1))
    kept = np.where(np.arange(4) == codes[..., None], tiles, np.array(0, dtype))
    expected = kept.reshape(1, 16, 360, 384, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)
    assert same(max_unpool(values, codes, TILES, threads=2), np.ascontiguousarray(expected))


def test_torch_agrees(twin: launch.Library) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle here")
    x = draw((2, 5, 36, 50), "float32", 1)
    for kernel, stride, pad in ((2, 2, 0), (3, 2, 1), (3, 3, 0), (4, 3, 2)):
        window = Window((kernel, kernel), (stride, stride), (pad,) * 4)
        values, indices = max_pool_indices(x, window)
        theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x), kernel, stride, pad, return_indices=True)
        planes = np.arange(10).reshape(2, 5, 1, 1) * 36 * 50
        assert same(values, theirs[0].numpy())
        assert same(indices, theirs[1].numpy() + planes)
        expected = torch.nn.functional.max_unpool2d(*theirs, kernel, stride, pad, output_size=(36, 50)).numpy()
        assert same(max_unpool(*max_pool_argmax(x, window), window, (36, 50)), expected)
        assert same(max_unpool_indices(values, indices, (36, 50)), expected)


# --- ONNX's own node tests ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def onnx_cases() -> dict[str, Any]:
    """The cases of MaxPool and MaxUnpool by name: model, inputs, outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other operators' cases are made with them, overflows and all
        from onnx.backend.test.loader import load_model_tests

        cases = [case for case in load_model_tests(kind="node") if case.name.startswith(("test_maxpool", "test_maxunpool"))]
    return {case.name.removeprefix("test_"): (case.model.graph.node[0], *case.data_sets[0]) for case in cases}


def window_of(node: Any, plane: tuple[int, ...], pooled: tuple[int, ...]) -> Window:
    """The window of a standard node; ``auto_pad`` written out."""
    options = {item.name: get_attribute_value(item) for item in node.attribute}
    kernel, strides = tuple(options["kernel_shape"]), tuple(options.get("strides", (1, 1)))
    pads = tuple(options.get("pads", (0, 0, 0, 0)))
    if options.get("auto_pad", b"NOTSET").startswith(b"SAME"):
        sums = [max(0, (pooled[a] - 1) * strides[a] + kernel[a] - plane[a]) for a in (0, 1)]
        less, more = [size // 2 for size in sums], [size - size // 2 for size in sums]
        pads = (*less, *more) if options["auto_pad"] == b"SAME_UPPER" else (*more, *less)
    return Window(kernel, strides, pads)


POOL_CASES = [
    *("default", "pads", "strides", "ceil", "ceil_output_size_reduce_by_one", "same_upper", "same_lower", "uint8"),
    *("precomputed_pads", "precomputed_strides", "precomputed_same_upper"),
]
ARGMAX_CASES = ["pads", "strides"]


@pytest.mark.parametrize(
    "name",
    [*(f"maxpool_2d_{case}" for case in POOL_CASES), *(f"maxpool_with_argmax_2d_precomputed_{case}" for case in ARGMAX_CASES)],
)
def test_onnx_cases_of_pooling(library: launch.Library, onnx_cases: dict[str, Any], name: str) -> None:
    node, (x,), expected = onnx_cases[name]
    window = window_of(node, x.shape[2:], expected[0].shape[2:])
    order = next((item.i for item in node.attribute if item.name == "storage_order"), 0)
    x = np.ascontiguousarray(x, np.float32)
    values, indices = np.empty(expected[0].shape, np.float32), np.empty(expected[0].shape, np.int64)
    tensors = launch.tensor_of(x), launch.tensor_of(values)
    library.run("max_pool_indices", launch.MaxPoolIndices(*tensors, indices.ctypes.data, c_window(window), order), 1)
    assert np.array_equal(values, expected[0])
    assert len(expected) == 1 or np.array_equal(indices, expected[1])
    # Whether or not the case has indices, they name the maxima.
    assert order or np.array_equal(x.ravel()[indices], values)
    codes = np.empty(values.shape, np.uint8)
    tensors = [launch.tensor_of(array) for array in (x, values, codes)]
    library.run("max_pool_argmax", launch.MaxPoolArgmax(*tensors, c_window(window)), 1)
    assert np.array_equal(values, expected[0])


@pytest.mark.parametrize("name", ["maxunpool_export_without_output_shape", "maxunpool_export_with_output_shape"])
def test_onnx_cases_of_unpooling(library: launch.Library, onnx_cases: dict[str, Any], name: str) -> None:
    node, (y, indices, *shape), (expected,) = onnx_cases[name]
    window = window_of(node, expected.shape[2:], y.shape[2:])
    # This case counts its indices in the plane that the window gives, and fills up to the larger one that is asked for;
    # our operator counts in its own output, as ONNX Runtime does.
    size = window.unpooled(*y.shape[2:])
    found = np.zeros(expected.shape, y.dtype)
    found[..., : size[0], : size[1]] = unpool_by_index(library, y, indices, size)
    assert np.array_equal(found, expected)
    assert not shape or size != expected.shape[2:]
