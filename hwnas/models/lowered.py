"""Models as programs of a recipe, and their outputs in fp32, which programs are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort

from hwnas.errors import GraphError, ModelError, RuntimeUnavailable
from hwnas.graphs import Graph
from hwnas.lowering.serialized import serialized
from hwnas.models.model import Model
from hwnas.models.onnx_file import named
from hwnas.models.samples import Samples
from hwnas.runner.signature import Feeds
from hwnas.targets import Recipe, detect_host, with_weights

if TYPE_CHECKING:
    from hwnas.lowering.quantize import Quantizer

_QDQ_OPSET = 13  # the first with a quantisation per channel
_OPSETS = (20, 17, _QDQ_OPSET)  # tried in this order for older models


def lowered(model: Model, recipe: Recipe, samples: Samples) -> onnx.ModelProto:
    """The program of a model under a recipe.

    An fp32 recipe, and one whose precision is a setting of its runtime, runs the user's graph unchanged.

    Args:
        model: the model.
        recipe: the recipe.
        samples: int8 is calibrated on them.

    Raises:
        RuntimeUnavailable: the recipe's runtime does not take ONNX graphs of any signature.
        GraphError: the model cannot be quantised.
    """
    require_takes_models(recipe)
    recipe = with_weights(recipe, detect_host().flags)
    if recipe.quantization is None:
        return model.graph
    return quantizer_of(model, recipe, samples).quantized()


def quantizer_of(model: Model, recipe: Recipe, samples: Samples) -> Quantizer:
    """The calibrated quantiser of a model.

    Args:
        model: the model.
        recipe: an int8 recipe with a decided range of weights.
        samples: for the ranges of activations.

    Raises:
        GraphError: the model cannot be quantised.
    """
    from hwnas.lowering.quantize import Quantizer

    assert recipe.quantization is not None
    graph = for_quantisation(model)
    in_float = _scalar_products(Graph(graph)) if recipe.runtime == "openvino" else ()
    return Quantizer(graph, samples.feeds[: recipe.quantization.images], recipe.quantization, in_float=in_float)


def _scalar_products(graph: Graph) -> list[str]:
    """Products with a constant of one element, which OpenVINO 2026.4 cannot load in int8 after convolutions.

    One of its transformations reads an input that is not there (PP-OCRv4's text detection, 52 such nodes).
    """
    factors = {node.name: map(graph.constant, node.inputs) for node in graph.nodes if node.op_type == "Mul"}
    return [name for name, own in factors.items() if any(each is not None and each.size == 1 for each in own)]


def require_takes_models(recipe: Recipe) -> None:
    """Check that a recipe's runtime takes ONNX graphs of any signature.

    Raises:
        RuntimeUnavailable: it does not.
    """
    if recipe.facts.runner is None:
        form = "torch modules that hwnas built" if recipe.facts.form == "torch" else "networks of one image"
        raise RuntimeUnavailable(
            f"{recipe.name} runs {form} only; for other models use recipes of onnxruntime or openvino on the CPU"
        )


def for_quantisation(model: Model) -> onnx.ModelProto:
    """The graph, converted to an opset that has Q/DQ per channel if it is older.

    Raises:
        GraphError: onnx cannot convert it.
    """
    opset = Graph(model.graph).opset
    if opset >= _QDQ_OPSET:
        return model.graph
    reasons = []
    for wanted in _OPSETS:
        try:
            converted = onnx.version_converter.convert_version(model.graph, wanted)
            onnx.checker.check_model(converted)
        except Exception as error:  # the converter and the checker share no base class
            reasons.append(str(error).strip().splitlines()[0])
            continue
        return named(converted)
    raise GraphError(
        f"int8 needs opset {_QDQ_OPSET}, {model.name} has {opset}, and onnx cannot convert it: {reasons[-1]}. Export "
        "it again with a later opset"
    )


def reference_outputs(model: Model, feeds: Sequence[Feeds]) -> list[Feeds]:
    """The outputs of the user's graph in fp32, without any optimisation, for each run.

    Raises:
        ModelError: it cannot be run, its outputs are not finite, or differ between two runs.
    """
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    names = [value.name for value in model.signature.outputs]
    try:
        session = ort.InferenceSession(serialized(model.graph), settings, providers=["CPUExecutionProvider"])
        found = [dict(zip(names, session.run(names, each), strict=True)) for each in feeds]
        again = dict(zip(names, session.run(names, feeds[0]), strict=True))
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        raise ModelError(f"ONNX Runtime cannot run {model.name}: {str(error).strip()[:400]}") from error
    for name in names:
        if not np.array_equal(found[0][name], again[name], equal_nan=True):
            raise ModelError(
                f"two runs of {model.name} on the same input differ in the output {name}: it draws random numbers or "
                "keeps a state, so programs cannot be compared with it"
            )
        for number, each in enumerate(found):
            if each[name].dtype.kind == "f" and not np.isfinite(each[name]).all():
                raise ModelError(
                    f"the output {name} of {model.name} has NaN or infinite values on input {number}: pass inputs that "
                    "the model was made for (--inputs samples.npz)"
                )
    return found
