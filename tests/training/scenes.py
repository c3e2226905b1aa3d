"""A folder data set of a few smooth pictures whose labels follow their brightness, for runs that take a second."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.tiny_model import frames

CLASSES = 3


def write_scenes(root: Path, counts: dict[str, int], size: tuple[int, int] = (40, 48)) -> Path:
    """``root/SPLIT/{images,masks}`` in the layout of ``folder:PATH``; pictures of ``val`` differ in size."""
    for number, (split, count) in enumerate(counts.items()):
        for name in ("images", "masks"):
            (root / split / name).mkdir(parents=True)
        for index, image in enumerate(frames(count, *size, seed=number)):
            if split == "val":
                image = cv2.resize(image, (size[1] + 8 * index, size[0] + 4 * index))
            labels = np.minimum(image.mean(2) // 86, CLASSES - 1).astype(np.uint8)
            labels[:2] = 255
            cv2.imwrite(str(root / split / "images" / f"{index}.png"), image)
            cv2.imwrite(str(root / split / "masks" / f"{index}.png"), labels)
    (root / "classes.csv").write_text("index,name,r,g,b\n0,dark,10,20,30\n1,middle,120,120,120\n2,bright,250,240,230\n")
    return root
