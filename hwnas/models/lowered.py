"""Models as programs of a recipe, and their outputs in fp32, which programs are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

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
# Operators whose results are not stored: random ones, and those of a model that is quantised already.
_NOT_FOLDED = ("Random", "Bernoulli", "Multinomial", "Quantize", "Dequantize", "DynamicQuantize")
_FREE_BYTES = 1 << 20  # results of this size are stored, however small what they are computed from
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
    """The graph with all that is computed from constants among the stored weights.

    The quantiser takes the output of a node for an activation. Weights in Constant nodes (PP-OCR, whose exporter writes
    all so) got one range for all channels, and OpenVINO 2026.4 could not load sums and products with them. Weights that
    are standardised in the graph (NFNet) were standardised, quantised and packed in each run.
    """
    model = copied(model)
    model.ir_version = max(model.ir_version, 4)  # before, weights had to be inputs, too
    graph, kept = model.graph, []
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        found = _computed(node, stored, model) if _is_constant(node, stored) else None
        if found is None:
            kept.append(node)
        for name, array in (found or {}).items():
            stored[name] = numpy_helper.from_array(array, name)
    read = {name for node in kept for name in names_read(node)} | {value.name for value in graph.output}
    weights = [tensor for name, tensor in stored.items() if name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)
    return model


def _is_constant(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a node computes the same in each run, and from what is stored alone."""
    if node.domain or node.op_type.startswith(_NOT_FOLDED) or any(each.HasField("g") for each in node.attribute):
        return False
    return all(name in stored for name in node.input if name)


def _computed(
    node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto], model: onnx.ModelProto
) -> dict[str, np.ndarray[Any, Any]] | None:
    """Name of an output -> its value; None if it would be much larger than what it is computed from."""
    given = {name: stored[name] for name in node.input if name}
    ends = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    own = helper.make_graph([node], node.name, [], ends, list(given.values()))
    values = _session(model_of(own, model)).run(None, {})
    found = {end.name: np.asarray(value) for end, value in zip(ends, values, strict=True)}
    most = max(_FREE_BYTES, 2 * sum(tensor.ByteSize() for tensor in given.values()))
    constant = node.op_type == "Constant"
    return found if constant or sum(value.nbytes for value in found.values()) <= most else None


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    """The graph in ONNX Runtime, as it is written."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(serialized(model), settings, providers=["CPUExecutionProvider"])


def reference_outputs(model: Model, feeds: Sequence[Feeds]) -> list[Feeds]:
    """The outputs of the user's graph in fp32, without any optimisation, for each run.

    Raises:
        ModelError: it cannot be run, its outputs are not finite, or differ between two runs.
    """
    names = [value.name for value in model.signature.outputs]
    try:
        session = _session(model.graph)
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
