"""Images with several labels, independent of each other: what tests of multi-label classification train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("column", "row", "spot")


def shapes(folder: Path, count: int = 300, *, columns: bool = False) -> Path:
    """Gray images of 24 pixels with a vertical line, a horizontal line and a spot, each present or not.

    Three fifths are for training, a fifth each for validation and test.

    Args:
        folder: for the images and ``labels.csv``; created.
        count: number of images.
        columns: whether the file has a column for each class instead of one with all labels.

    Returns:
        the folder.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file," + ("column,row,spot" if columns else "label") + ",split"]
    for i in range(count):
        pixels, has = rng.normal(100, 15, (24, 24)), rng.random(3) < (0.5, 0.5, 0.3)
        if has[0]:
            pixels[:, rng.integers(2, 22)] += 110
        if has[1]:
            pixels[rng.integers(2, 22)] += 110
        if has[2]:
            top, left = rng.integers(1, 18, 2)
            pixels[top : top + 5, left : left + 5] -= 90
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        names = [name for name, present in zip(CLASSES, has, strict=True) if present]
        label = ",".join(str(int(present)) for present in has) if columns else ";".join(names)
        lines.append(f"{i}.png,{label},{('train', 'train', 'train', 'val', 'test')[i % 5]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder
