"""What TensorRT asks of a graph: ours keep it, and each rule refuses a graph that was broken by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from hwnas.errors import GraphError
from hwnas.lowering import form_of
from hwnas.lowering.casts import cast
from hwnas.lowering.quantize import Quantizer
from hwnas.lowering.tensorrt_rules import check_tensorrt
from hwnas.nn import network
from hwnas.spaces import make_space
from hwnas.targets import Quantization, load_recipe

FAMILIES = ("mobilenetv3-tiny", "resnet50", "nasbench201-tiny", "darts-tiny")
INT8 = Quantization(images=4, method="minmax", activations="int8", weights="int8")


@cache
def exported(name: str) -> tuple[onnx.ModelProto, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    space = make_space(name)
    arch = space.smallest if name == "resnet50" else space.decode(space.sample(1, seed=7))[0]
    shape = (3, 64, 64) if name == "resnet50" else space.input_shape(arch)
    torch.manual_seed(0)
    recipe = load_recipe("onnxruntime-cpu-fp32").model_copy(update={"opset": 22})
    made = network(space, arch).eval()
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias)  # biases of 0 are not exported
    model = form_of(recipe).lower(made, shape)
    assert isinstance(model, onnx.ModelProto)
    return model, torch.randn(4, *shape).numpy()


@cache
def written(name: str, precision: str, activations: str = "int8") -> onnx.ModelProto:
    model, images = exported(name)
    if precision == "int8":
        return Quantizer(model, images, INT8.model_copy(update={"activations": activations})).quantized()
    return cast(model, "fp16" if precision == "fp16" else "bf16", images)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", FAMILIES)
def test_our_graphs_keep_the_rules(name: str, precision: str) -> None:
    model = written(name, precision)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    check_tensorrt(model)


def test_what_a_cpu_prefers_is_refused() -> None:
    with pytest.raises(GraphError) as caught:
        check_tensorrt(written("mobilenetv3-tiny", "int8", "uint8"))
    for reason in (
        "is in uint8; TensorRT quantises to int8",
        "is not 0; TensorRT quantises symmetrically",
        "as for a qu",
    ):
        assert reason in str(caught.value)


# -- broken by hand ------------------------------------------------------------------------------------------------


def first(model: onnx.ModelProto, kind: str) -> NodeProto:
    return next(node for node in model.graph.node if node.op_type == kind)


def stored(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def put(model: onnx.ModelProto, name: str, value: object, dtype: object) -> None:
    tensor = stored(model, name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, np.dtype(dtype)), tensor.name))  # type: ignore[call-overload]


def maker(model: onnx.ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if name in node.output)


def uint8_zero_point(model: onnx.ModelProto) -> None:
    put(model, first(model, "QuantizeLinear").input[2], 0, np.uint8)


def shifted_zero_point(model: onnx.ModelProto) -> None:
    put(model, first(model, "QuantizeLinear").input[2], 3, np.int8)


def no_zero_point(model: onnx.ModelProto) -> None:
    del first(model, "QuantizeLinear").input[2]


def scale_of_0(model: onnx.ModelProto) -> None:
    put(model, first(model, "QuantizeLinear").input[1], 0.0, np.float32)


def scale_of_infinity(model: onnx.ModelProto) -> None:
    put(model, first(model, "QuantizeLinear").input[1], np.inf, np.float32)


def computed_scale(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear")
    model.graph.node.insert(0, helper.make_node("Abs", [node.input[1]], ["computed"], name="abs"))
    node.input[1] = "computed"


def scales_by_channel_of_a_value(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear")
    put(model, node.input[1], [0.1], np.float32)
    put(model, node.input[1], [0.1] * 3, np.float32)
    put(model, node.input[2], [0] * 3, np.int8)


def unlike_halves(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear")
    reader = next(n for n in model.graph.node if node.output[0] in n.input)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "other"))
    reader.input[1] = "other"


def half_a_pair(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear")
    reader = next(n for n in model.graph.node if node.output[0] in n.input)
    reader.CopyFrom(helper.make_node("Cast", [node.output[0]], [reader.output[0]], name="cast", to=TensorProto.FLOAT))


def int32_bias(model: onnx.ModelProto) -> None:
    node = first(model, "Conv")
    bias = numpy_helper.to_array(stored(model, node.input[2]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(bias.shape, np.int32), "bias.int32"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "bias.scale"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["bias.int32", "bias.scale"], ["bias"], name="dq"))
    node.input[2] = "bias"


def weights_by_input_channel(model: onnx.ModelProto) -> None:
    # A pointwise convolution has as many scales as one axis or the other.
    for node in model.graph.node:
        if node.op_type != "Conv" or maker(model, node.input[1]).op_type != "DequantizeLinear":
            continue
        pair = maker(model, node.input[1])
        shape = tuple(stored(model, pair.input[0]).dims)
        if shape[1] > 1:
            put(model, pair.input[1], [0.1] * shape[1], np.float32)
            put(model, pair.input[2], [0] * shape[1], np.int8)
            del pair.attribute[:]
            pair.attribute.append(helper.make_attribute("axis", 1))
            return


def float_weights(model: onnx.ModelProto) -> None:
    node = first(model, "Conv")
    shape = tuple(stored(model, maker(model, node.input[1]).input[0]).dims)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), "float.weights"))
    node.input[1] = "float.weights"


def mixed_types(model: onnx.ModelProto) -> None:
    node = first(model, "Add")
    model.graph.node.insert(
        list(model.graph.node).index(node),
        helper.make_node("Cast", [node.input[0]], ["wide"], name="wide", to=TensorProto.FLOAT),
    )
    node.input[0] = "wide"


def float_bias(model: onnx.ModelProto) -> None:
    name = first(model, "Conv").input[2]
    put(model, name, numpy_helper.to_array(stored(model, name)), np.float32)


def double_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def free_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def opset_of_tomorrow(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 26


def unknown_operator(model: onnx.ModelProto) -> None:
    node = first(model, "Relu")
    node.op_type = "Det"


def plugin(model: onnx.ModelProto) -> None:
    first(model, "Relu").domain = "com.example"


def control_flow(model: onnx.ModelProto) -> None:
    node = first(model, "Relu")
    graph = helper.make_graph([], "branch", [], [])
    node.CopyFrom(helper.make_node("If", ["yes"], [node.output[0]], name="if", then_branch=graph, else_branch=graph))


def external_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    tensor.ClearField("raw_data")


def whole_numbers(model: onnx.ModelProto) -> None:
    node = first(model, "Relu")
    node.CopyFrom(helper.make_node("Cast", [node.input[0]], [node.output[0]], name="whole", to=TensorProto.INT64))


def old_bf16(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 20


BROKEN: list[tuple[str, Callable[[onnx.ModelProto], None], str]] = [
    ("int8", uint8_zero_point, "is in uint8; TensorRT quantises to int8"),
    ("int8", shifted_zero_point, "is not 0; TensorRT quantises symmetrically"),
    ("int8", no_zero_point, "it has no zero-point, which makes it uint8"),
    ("int8", scale_of_0, "is not positive and finite everywhere"),
    ("int8", scale_of_infinity, "is not positive and finite everywhere"),
    ("int8", computed_scale, "its scale computed is computed; store it"),
    ("int8", scales_by_channel_of_a_value, "it has 3 scales; a computed value must have one"),
    ("int8", unlike_halves, "its scale differs from that of"),
    ("int8", half_a_pair, "is read by another node than a DequantizeLinear"),
    ("int8", int32_bias, "as for a quantised bias; TensorRT requires float biases"),
    ("int8", weights_by_input_channel, "are along axis 1; the output channels of Conv are axis 0"),
    ("int8", float_weights, "its input are int8 and its weights float"),
    ("fp16", mixed_types, "are in float and float16; a strongly typed network has no"),
    ("fp16", float_bias, "are in float16 and float; a strongly typed network has no"),
    ("fp16", double_input, "input input: is in double; images and logits must be in float"),
    ("fp16", free_batch, "input input: its shape is not static"),
    ("fp16", opset_of_tomorrow, "opset is 26; TensorRT's parser supports 9 to 24"),
    ("fp16", unknown_operator, "Det .*: is not among the operators"),
    ("fp16", plugin, "has the domain 'com.example'"),
    ("fp16", control_flow, "If if: is control flow"),
    ("fp16", external_data, "its data is in another file"),
    ("fp16", whole_numbers, "is in int64; values must be in float32"),
    ("bf16", old_bf16, "is in bfloat16, which Conv of opset 11 does not support"),
]


@pytest.mark.parametrize(("precision", "damage", "reason"), BROKEN, ids=[damage.__name__ for _, damage, _ in BROKEN])
def test_a_violation_is_named(precision: str, damage: Callable[[onnx.ModelProto], None], reason: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(written("mobilenetv3-tiny", precision))
    damage(model)
    with pytest.raises(GraphError, match=reason):
        check_tensorrt(model)


def test_every_violation_is_listed() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(written("mobilenetv3-tiny", "int8"))
    shifted_zero_point(model)
    free_batch(model)
    with pytest.raises(GraphError, match="for 3 reasons") as caught:  # both halves have the point
        check_tensorrt(model)
    assert str(caught.value).count("\n- ") == 3
