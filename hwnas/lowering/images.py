"""Calibration images of a graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from hwnas.errors import InvalidValue
from hwnas.graphs import Graph
from hwnas.runner.signature import Feeds, Value

Images = npt.NDArray[np.float32]


def check_images(images: Images) -> None:
    """Check that images ``(n, channels, height, width)`` can be used for calibration.

    Raises:
        InvalidValue: there are none, all values are equal, or some are not finite.
    """
    if not images.size:
        raise InvalidValue("there are no calibration images: pass some of the training split")
    bad = ~np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if bad.any():
        raise InvalidValue(
            f"{bad.sum()} of {len(images)} calibration images contain NaN or infinite values (the first has the index "
            f"{int(bad.argmax())}): ranges cannot be calibrated with them; repair the data"
        )
    if images.min() == images.max():
        raise InvalidValue(
            f"all pixels of the {len(images)} calibration images have the value {images.flat[0]:g}: ranges calibrated "
            "with them would be wrong for other images; pass images of the training split"
        )


def random_feeds(graph: Graph, rng: np.random.Generator) -> Feeds:
    """Random inputs of a graph with static shapes (`hwnas.runner.signature.Value.noise`)."""
    kinds = {name: helper.tensor_dtype_to_np_dtype(graph.types[name]).name for name in graph.inputs}
    return {name: Value(name, graph.static_shapes[name], kind).noise(rng) for name, kind in kinds.items()}


def batch_of(model: onnx.ModelProto) -> int:
    """Batch size of a graph with static shapes."""
    graph = Graph(model)
    return graph.static_shapes[graph.inputs[0]][0]


def batched(images: Images, batch: int) -> list[Images]:
    """Images in batches of equal size; the last is padded with images from the start."""
    lacking = -len(images) % batch
    whole = np.concatenate([images, np.resize(images, (lacking, *images.shape[1:]))]) if lacking else images
    return [np.ascontiguousarray(whole[start : start + batch]) for start in range(0, len(whole), batch)]
