"""Outputs and activations of a graph on images, computed by ONNX Runtime on the CPU.

Q/DQ pairs are computed in fp32, without int8 kernels: on every CPU the outputs are those of exact sums, without
saturation (`hwnas.targets.weights`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from hwnas.graphs import Graph, copied
from hwnas.lowering.images import Images, batch_of, batched, check_images
from hwnas.lowering.serialized import serialized

Logits = npt.NDArray[np.float32]


def outputs(model: onnx.ModelProto, images: Images) -> Logits:
    """The network's outputs on images ``(n, channels, height, width)``: ``(n, classes)``."""
    session, names = session_of(model), [entry.name for entry in model.graph.input]
    parts = [session.run(None, dict.fromkeys(names, batch))[0] for batch in batched(images, batch_of(model))]
    return np.concatenate(parts)[: len(images)]


def largest(model: onnx.ModelProto, images: Images) -> dict[str, float]:
    """The largest magnitude of every float value of an fp32 graph on images: name -> value.

    Raises:
        InvalidValue: the images are missing, constant or not finite.
    """
    check_images(images)
    whole, graph = copied(model), Graph(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    values = [name for name, kind in graph.types.items() if kind == TensorProto.FLOAT and graph.producer(name)]
    # Only the maxima are outputs: all activations of a batch would be gigabytes.
    for name in values:
        whole.graph.node.append(helper.make_node("Abs", [name], [f"{name}.abs"]))
        whole.graph.node.append(helper.make_node("ReduceMax", [f"{name}.abs"], [f"{name}.max"], keepdims=0))
    del whole.graph.output[:]
    whole.graph.output.extend(helper.make_tensor_value_info(f"{name}.max", TensorProto.FLOAT, []) for name in values)
    session, names = session_of(whole), [entry.name for entry in model.graph.input]
    runs = [session.run(None, dict.fromkeys(names, batch)) for batch in batched(images, batch_of(model))]
    return dict(zip(values, np.asarray(runs, np.float64).max(axis=0).tolist(), strict=True))


def session_of(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session on one thread, without int8 kernels."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    if "QuantizeLinear" in Graph(model).op_types:
        settings.graph_optimization_level = (
            ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        )  # higher levels use int8 kernels
    return ort.InferenceSession(serialized(model), settings, providers=["CPUExecutionProvider"])
