"""Pictures that do not fit into memory, read and written in windows by rasterio (the ``large`` extra): TIFF, BigTIFF, JPEG 2000."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError, PictureError
from edgeseg.manifest import ClassInfo

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
_BLOCK = 256


class RasterPicture:
    """A file that is read in parts: ``edgeseg.engines.tiled.Picture``.

    Attributes:
        size: (H, W) in pixels.
        profile: size, coordinate system and transform, for what is written beside it.
    """

    def __init__(self, source: Any, path: Path) -> None:
        if source.count not in (1, 3, 4) or source.dtypes[0] != "uint8":
            raise PictureError(f"{path}: {source.count} bands of {source.dtypes[0]}", "1, 3 or 4 bands of uint8")
        self._source, self._path = source, path
        self.size = (source.height, source.width)
        self.profile = {"height": source.height, "width": source.width, "crs": source.crs, "transform": source.transform}

    def read(self, top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 BGR; one band is shown as grey, a fourth is left out."""
        import rasterio

        bands = [3, 2, 1] if self._source.count >= 3 else [1, 1, 1]
        window = rasterio.windows.Window(int(left), int(top), int(right - left), int(bottom - top))
        try:
            planes = self._source.read(bands, window=window)
        except rasterio.errors.RasterioError as error:
            raise PictureError(f"{self._path}: cannot be read at row {top}, column {left} ({error})", "a whole file") from error
        return np.asarray(np.moveaxis(planes, 0, 2), np.uint8)


@contextlib.contextmanager
def open_raster(path: Path) -> Iterator[RasterPicture]:
    """Open a picture of any size.

    Raises:
        PictureError: missing, unreadable, or not of 8 bits a band.
    """
    with _rasterio() as rasterio:
        try:
            source = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise PictureError(f"{path}: cannot be read ({error})", "a picture that GDAL reads") from error
        with source:
            yield RasterPicture(source, path)


@contextlib.contextmanager
def label_writer(path: Path, profile: dict[str, Any], classes: Sequence[ClassInfo]) -> Iterator[Any]:
    """Give ``write(top, left, labels)`` onto a tiled, compressed TIFF of label indices with the classes' colours."""
    with _rasterio() as rasterio:
        options = {"driver": "GTiff", "count": 1, "dtype": "uint8", "compress": "deflate", "tiled": True, "BIGTIFF": "IF_SAFER"}
        with rasterio.open(path, "w", blockxsize=_BLOCK, blockysize=_BLOCK, **profile, **options) as target:
            target.write_colormap(1, {index: (*item.colour, 255) for index, item in enumerate(classes)})

            def write(top: int, left: int, labels: NDArray[np.uint8]) -> None:
                window = rasterio.windows.Window(left, top, labels.shape[1], labels.shape[0])
                target.write(labels, 1, window=window)

            yield write


@contextlib.contextmanager
def _rasterio() -> Iterator[Any]:
    try:
        import rasterio
        import rasterio.windows
    except ImportError as error:
        raise EdgesegError("rasterio is not installed", "the large extra", "pip install 'edgeseg[large]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield rasterio
