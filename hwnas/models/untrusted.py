"""Limits on the content of a model from an untrusted bundle."""

from __future__ import annotations

import onnx

from hwnas.errors import BundleError, ModelError
from hwnas.lowering.onnx_limits import parsed, weight_mistakes
from hwnas.models.onnx_file import checked_model

_NODES = 50_000
# Microsoft's domain has an operator that loads any named file; these only compute.
_MICROSOFT = frozenset(
    (
        *(
            "QuantizeLinear",
            "DequantizeLinear",
            "Gelu",
            "FastGelu",
            "BiasGelu",
            "QuickGelu",
            "FusedMatMul",
            "FusedConv",
        ),
        *("FusedGemm", "LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "Attention"),
        *("SkipSimplifiedLayerNormalization", "MultiHeadAttention", "EmbedLayerNormalization", "RotaryEmbedding"),
        *("MatMulNBits", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QGemm"),
        *("QLinearGlobalAveragePool", "QLinearAveragePool", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "Inverse"),
    )
)


def check_model(data: bytes, name: str) -> None:
    """Check the bytes of a model's file before a runtime reads them.

    Raises:
        BundleError: it is not an ONNX graph, reads other files, or has what `hwnas.models.open_model` does not take.
    """
    model = parsed(data, name)
    if mistake := _mistake(model):
        raise BundleError(f"{name} is rejected: {mistake}")
    try:
        checked_model(model, name)
        onnx.checker.check_model(model)
    except ModelError as error:
        raise BundleError(str(error)) from error
    except Exception as error:  # the checker has no common base class
        raise BundleError(f"{name} is rejected: {str(error).strip().splitlines()[0]}") from error


def _mistake(model: onnx.ModelProto) -> str | None:
    graph = model.graph
    if len(graph.node) > _NODES or len(graph.initializer) > _NODES:
        return f"{len(graph.node)} nodes and {len(graph.initializer)} weights; at most {_NODES} of each are accepted"
    if model.functions or graph.sparse_initializer or model.training_info:
        return "it has functions, sparse weights or training information"
    graphs = [graph]
    while graphs:
        each = graphs.pop()
        for tensor in each.initializer:
            for mistake in weight_mistakes(tensor):
                return mistake
        for node in each.node:
            if node.domain == "com.microsoft" and node.op_type not in _MICROSOFT:
                return f"the operator {node.op_type[:80]!r} of com.microsoft is not allowed"
            for attribute in node.attribute:
                for tensor in (attribute.t, *attribute.tensors):
                    for mistake in weight_mistakes(tensor):
                        return mistake
                graphs += [attribute.g, *attribute.graphs]
    return None
