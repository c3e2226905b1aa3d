"""Where a model may be meant to run, and what is known of it there: data for ``edgeseg check``, each fact with its source.

Operators that a library has are not listed, only those that it lacks or takes with conditions. What can be asked of the
library itself at check time (ONNX Runtime, OpenVINO) is not written down here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeseg.errors import BackendError

_PARSER_10 = "github.com/onnx/onnx-tensorrt, branch 10.1-GA, docs/operators.md"
_OPSETS_11 = "docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html"
_RTX_ASKED = "asked of tensorrt_rtx 1.7.1's parser (supports_operator) and of its builder"
_DLA_LAYERS = "docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-layer-restrictions.html"
_DLA_OPERATORS = "github.com/NVIDIA/Deep-Learning-Accelerator-SW, operators/README.md, June 2024"
_DLA_WHERE = "docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html"
_JETPACK = "JetPack release notes: 6.1 and 6.2 bring TensorRT 10.3, 7.1 10.13, 7.2 10.16"

# operators.md marks these "N".
ABSENT_10 = frozenset({
    "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow",
    "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear",
    "HammingWindow", "HannWindow", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial",
    "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement", "QLinearConv", "QLinearMatMul",
    "RegexFullMatch", "STFT", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
    "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer",
    "StringSplit", "TfIdfVectorizer", "Unique",
})  # fmt: skip
# The parser of TensorRT-RTX 1.7, of the same source as TensorRT 11's, takes the window functions and STFT.
ABSENT_11 = ABSENT_10 - {"BlackmanWindow", "HammingWindow", "HannWindow", "STFT"}

# Operator -> inputs that must be constants.
CONSTANT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "CumSum": (1,), "Pad": (3,), "Slice": (3,), "Squeeze": (1,), "Unsqueeze": (1,), "OneHot": (1,),
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
         "ReduceSum", "ReduceSumSquare"),
        (1,),
    ),
}  # fmt: skip
# Results whose size is known only when the network ran: they build, but no CUDA graph can hold them.
SIZED_AT_RUN_TIME = frozenset({"NonMaxSuppression", "NonZero"})
RESIZE_COORDINATES = frozenset({"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"})

# The deep learning accelerator of Orin: operators that it has by itself ("Native" in the list) ...
DLA_OPERATORS = frozenset({
    "Abs", "Add", "Atanh", "AveragePool", "BatchNormalization", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "Cos", "Div",
    "Equal", "Gemm", "GlobalMaxPool", "Greater", "LRN", "LeakyRelu", "Less", "MatMul", "Max", "MaxPool", "Mul", "PRelu", "Relu",
    "Reshape", "Resize", "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Sub", "Sum", "Tanh", "Transpose", "Upsample",
})  # fmt: skip
# ... and how large things may be there.
DLA_MAX_BATCH, DLA_MAX_SIZE = 4096, 8192
DLA_KERNEL, DLA_STRIDE = (1, 32), (1, 8)
DLA_POOL, DLA_POOL_PADDING, DLA_POOL_STRIDE = (1, 8), (0, 7), (1, 16)
DLA_RESIZE: Mapping[str, int] = {"nearest": 32, "linear": 4}  # whole factors up to


@dataclass(frozen=True)
class Target:
    """A library, or a board with the library that its system brings.

    Attributes:
        backend: how graphs are lowered for it: a backend's name.
        what: for people.
        opsets: the ONNX operator sets that its parser reads.
        absent: standard operators that it does not have.
        no_dla: why it has no deep learning accelerator; empty where it has one.
        dla_takes_codes: the accelerator takes explicit Q/DQ.
        sources: where all this is said.
    """

    backend: str
    what: str
    opsets: tuple[int, int]
    absent: frozenset[str] = frozenset()
    no_dla: str = "there is no DLA in it"
    dla_takes_codes: bool = False
    sources: tuple[str, ...] = ()


TARGETS: Mapping[str, Target] = {
    "jetson-orin-jp6": Target(
        "tensorrt", "Jetson Orin, JetPack 6.1 or 6.2: TensorRT 10.3", (9, 20), ABSENT_10,
        no_dla="", sources=(_PARSER_10, _DLA_LAYERS, _DLA_OPERATORS, _JETPACK),
    ),
    "jetson-orin-jp7": Target(
        "tensorrt", "Jetson Orin, JetPack 7.2: TensorRT 10.16", (9, 22), ABSENT_10,
        no_dla="TensorRT 10.7 was the last of 10.x with the DLA; 11.4.1 with JetPack 7.2.2 has it again",
        sources=(_PARSER_10, _DLA_WHERE, _JETPACK),
    ),
    "jetson-thor-jp7": Target(
        "tensorrt", "Jetson Thor, JetPack 7.1: TensorRT 10.13", (9, 22), ABSENT_10,
        no_dla="Jetson Thor has no DLA", sources=(_PARSER_10, _DLA_WHERE, _JETPACK),
    ),
    "tensorrt-10": Target("tensorrt", "TensorRT 10.3 and later", (9, 20), ABSENT_10, sources=(_PARSER_10,)),
    "tensorrt-11": Target(
        "tensorrt", "TensorRT 11, with JetPack 7.2.2 also on Jetson AGX Orin", (9, 25), ABSENT_11,
        no_dla="", dla_takes_codes=True, sources=(_PARSER_10, _OPSETS_11, _DLA_LAYERS, _DLA_WHERE),
    ),
    "rtx": Target("rtx", "TensorRT-RTX 1.7", (9, 25), sources=(_RTX_ASKED,)),
    "openvino": Target("openvino", "OpenVINO on x86 CPUs", (7, 22), sources=("asked of the installed OpenVINO",)),
    "ort": Target("ort", "ONNX Runtime on the CPU", (7, 25), sources=("asked of the installed ONNX Runtime",)),
}  # fmt: skip


def get_target(name: str) -> Target:
    """The target of that name.

    Raises:
        BackendError: there is none.
    """
    if name not in TARGETS:
        raise BackendError(f"--target {name}", f"one of {', '.join(TARGETS)}", "choose one of these")
    return TARGETS[name]
