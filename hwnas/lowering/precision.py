"""The precision of a recipe, written into the ONNX graph, and what every finished graph is checked for."""

from __future__ import annotations

import onnx

from hwnas.errors import GraphError
from hwnas.graphs import Graph
from hwnas.lowering.images import Images
from hwnas.lowering.operators import OPERATORS
from hwnas.lowering.serialized import serialized
from hwnas.lowering.tensorrt_rules import check_tensorrt
from hwnas.targets import Recipe

SEEN = 64  # images on which fp16 must not come near its limit


def images_needed(recipe: Recipe) -> int:
    """Images of the training split that a trained network's graph is made with under a recipe; 0 for none."""
    if recipe.quantization is not None:
        return recipe.quantization.images
    return SEEN if _by_casts(recipe) and recipe.precision == "fp16" else 0


def in_precision(model: onnx.ModelProto, recipe: Recipe, images: Images | None) -> onnx.ModelProto:
    """An fp32 graph in the recipe's precision.

    Where fp16 or bf16 is a setting of the runtime, or the recipe is fp32, it is the graph as it is.

    Args:
        model: an fp32 graph with inputs of one static shape.
        recipe: the recipe.
        images: ``(n, channels, height, width)``, which int8 must have; see `hwnas.lowering.casts.cast` for fp16.
    """
    # What a precision needs is imported with it: ONNX Runtime's quantiser takes its time.
    if recipe.quantization is not None:
        from hwnas.lowering.quantize import Quantizer

        assert images is not None
        return Quantizer(model, images, recipe.quantization).quantized()
    if _by_casts(recipe):
        from hwnas.lowering.casts import cast

        return cast(model, "fp16" if recipe.precision == "fp16" else "bf16", images)
    return model


def checked(model: onnx.ModelProto, recipe: Recipe) -> onnx.ModelProto:
    """A graph that is ready to be deployed, if it is one.

    Nothing is simplified: of our exports onnxscript's optimiser removes no node (a test holds it), and onnxslim no more
    than every second Slice of a DARTS cell.

    Raises:
        GraphError: it is no valid ONNX, has operators that no bundle may hold, its shapes do not fit, or its runtime
            would refuse it; or it is larger than an ONNX file may be.
    """
    if others := Graph(model).op_types - OPERATORS:
        raise GraphError(
            f"the graph that was lowered for {recipe.name} has operators that no bundle may hold: "
            f"{', '.join(sorted(others))}. Build the op of others, or add them to hwnas/lowering/operators.py"
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
