"""The precision of a recipe in the ONNX graph, and the checks of finished graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from hwnas.errors import GraphError
from hwnas.graphs import Graph
from hwnas.lowering.images import Images
from hwnas.lowering.operators import OPERATORS
from hwnas.lowering.serialized import serialized
from hwnas.lowering.tensorrt_rules import check_tensorrt
from hwnas.runner.signature import Feeds
from hwnas.targets import Recipe

SEEN = 64  # images on which activations are checked against the limit of fp16


def images_needed(recipe: Recipe) -> int:
    """Number of images of the training split that lowering a trained network needs under a recipe; 0 for none."""
    if recipe.quantization is not None:
        return recipe.quantization.images
    return SEEN if _by_casts(recipe) and recipe.precision == "fp16" else 0


def in_precision(model: onnx.ModelProto, recipe: Recipe, images: Images | Sequence[Feeds] | None) -> onnx.ModelProto:
    """An fp32 graph in the recipe's precision.

    The graph is unchanged for fp32, or if fp16 or bf16 is a setting of the runtime.

    Args:
        model: an fp32 graph with inputs of one static shape.
        recipe: the recipe.
        images: ``(n, channels, height, width)`` or tokens ``(n, length)``, required by int8, which also takes named
            inputs of each run; see `hwnas.lowering.casts.cast` for fp16.
    """
    # Imported only when needed: ONNX Runtime's quantiser is slow to import.
    if recipe.quantization is not None:
        from hwnas.lowering.quantize import Quantizer

        assert images is not None
        return Quantizer(model, images, recipe.quantization).quantized()
    if _by_casts(recipe):
        from hwnas.lowering.casts import cast

        assert images is None or isinstance(images, np.ndarray)
        return cast(model, "fp16" if recipe.precision == "fp16" else "bf16", images)
    return model


def checked(model: onnx.ModelProto, recipe: Recipe) -> onnx.ModelProto:
    """A graph that may be deployed, after checks.

    Graphs are not simplified: onnxscript's optimiser removes no node of hwnas's exports (a test checks it), and
    onnxslim only every second Slice of a DARTS cell.

    Raises:
        GraphError: it is not valid ONNX, has operators that are not allowed in bundles, has inconsistent shapes, would
            be rejected by its runtime, or is larger than an ONNX file may be.
    """
    if others := Graph(model).op_types - OPERATORS:
        raise GraphError(
            f"the graph that was lowered for {recipe.name} has operators that are not allowed in a bundle: "
            f"{', '.join(sorted(others))}. Build the op from others, or add them to hwnas/lowering/operators.py"
        )
    try:
        onnx.checker.check_model(serialized(model), full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"the graph that was lowered for {recipe.name} is not valid: {error}") from error
    if recipe.facts.typed:
        check_tensorrt(model)
    return model


def _by_casts(recipe: Recipe) -> bool:
    return recipe.facts.typed and recipe.precision in ("fp16", "bf16")
