"""Network output to label map, and label map to picture."""

from edgeseg.postprocess.colours import colorize, palette_bgr
from edgeseg.postprocess.decode import LabelDecoder

__all__ = ["LabelDecoder", "colorize", "palette_bgr"]
