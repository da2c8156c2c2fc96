"""Models as programs of a recipe, and their outputs in fp32, which programs are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hwnas.errors import GraphError, ModelError, RuntimeUnavailable
from hwnas.graphs import Graph, copied, model_of, names_read
from hwnas.lowering.serialized import serialized
from hwnas.models.model import Model
from hwnas.models.onnx_file import named
from hwnas.models.samples import Samples
from hwnas.runner.signature import Feeds
from hwnas.targets import Recipe, detect_host, with_weights

if TYPE_CHECKING:
    from hwnas.lowering.quantize import Quantizer

_QDQ_OPSET = 13  # the first with a quantisation per channel
_REWRITTEN = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
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
    graph = _with_stored_constants(_for_quantisation(model))
    return Quantizer(graph, samples.feeds[: recipe.quantization.images], recipe.quantization)


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


def _for_quantisation(model: Model) -> onnx.ModelProto:
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


def _with_stored_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its constants among the stored weights, also those that are only reshaped or cast.

    The quantiser takes the output of a Constant for an activation: weights got one range for all channels, and OpenVINO
    2026.4 could not load sums and products with them (PP-OCR, whose exporter writes every weight so).
    """
    model = copied(model)
    model.ir_version = max(model.ir_version, 4)  # before, weights had to be inputs, too
    graph, kept = model.graph, []
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        values = {each.name: each for each in node.attribute}
        if node.op_type == "Constant" and "value" in values:
            tensor = values["value"].t
        elif node.op_type in _REWRITTEN and all(name in stored for name in node.input):
            ends = [helper.make_empty_tensor_value_info(node.output[0])]
            own = helper.make_graph([node], node.name, [], ends, [stored[name] for name in node.input])
            [value] = ReferenceEvaluator(model_of(own, model)).run(None, {})
            tensor = numpy_helper.from_array(np.asarray(value))
        else:
            kept.append(node)
            continue
        made = onnx.TensorProto()
        made.CopyFrom(tensor)
        made.name = node.output[0]
        stored[made.name] = made
    read = {name for node in kept for name in names_read(node)} | {value.name for value in graph.output}
    weights = [tensor for name, tensor in stored.items() if name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)
    return model


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
