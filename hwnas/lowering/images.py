"""Images that a graph's ranges are taken from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from hwnas.errors import InvalidValue
from hwnas.graphs import Graph

Images = npt.NDArray[np.float32]


def check_images(images: Images) -> None:
    """Check that ranges can be taken from images ``(n, channels, height, width)``.

    Raises:
        InvalidValue: there are none, they are all one value, or some are not finite.
    """
    if not images.size:
        raise InvalidValue("there is no image to take ranges from: give some of the training split")
    bad = ~np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if bad.any():
        raise InvalidValue(
            f"{bad.sum()} of {len(images)} calibration images hold values that are not finite (the first is number "
            f"{int(bad.argmax())}, counted from 0): a range cannot be taken from them; repair the data"
        )
    if images.min() == images.max():
        raise InvalidValue(
            f"all {len(images)} calibration images hold the one value {images.flat[0]:g}: the ranges of a network that "
            "sees nothing else would be wrong for every other image; give images of the training split"
        )


def batch_of(model: onnx.ModelProto) -> int:
    """Images a run of a graph of static shapes."""
    graph = Graph(model)
    return graph.static_shapes[graph.inputs[0]][0]


def batched(images: Images, batch: int) -> list[Images]:
    """Images in batches of one size; the last is filled up with images from the beginning."""
    lacking = -len(images) % batch
    whole = np.concatenate([images, np.resize(images, (lacking, *images.shape[1:]))]) if lacking else images
    return [np.ascontiguousarray(whole[start : start + batch]) for start in range(0, len(whole), batch)]
