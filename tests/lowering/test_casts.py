"""fp16 and bf16 as they are written into the graph."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxscript.optimizer
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from hwnas.errors import InvalidValue
from hwnas.lowering import form_of
from hwnas.lowering.casts import Narrow, cast
from hwnas.lowering.images import Images
from hwnas.lowering.observe import largest, outputs
from hwnas.nn import network
from hwnas.spaces import make_space
from hwnas.targets import load_recipe

KINDS: dict[Narrow, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def exported(name: str) -> tuple[onnx.ModelProto, Images]:
    space = make_space(name)
    [arch] = space.decode(space.sample(1, seed=7))
    torch.manual_seed(0)
    form = form_of(load_recipe("onnxruntime-cpu-fp32").model_copy(update={"opset": 22}))
    model = form.lower(network(space, arch).eval(), space.input_shape(arch))
    assert isinstance(model, onnx.ModelProto)
    return model, torch.randn(4, *space.input_shape(arch)).numpy()


def layers(*, weight: float = 1.0) -> onnx.ModelProto:
    """Conv, Relu, mean over the image, Gemm; the weights of the Conv are all one value."""
    conv = numpy_helper.from_array(np.full((4, 3, 1, 1), weight, np.float32), "conv.weight")
    gemm = numpy_helper.from_array(np.full((4, 2), 0.25, np.float32), "gemm.weight")
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "conv.weight"], ["a"], name="conv"),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("ReduceMean", ["b", "axes"], ["c"], name="mean", keepdims=0),
            helper.make_node("Gemm", ["c", "gemm.weight"], ["output"], name="gemm"),
        ],
        "layers",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 2])],
        [conv, gemm, axes],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("to", KINDS)
def test_everything_but_the_border_and_the_mean_is_narrow(to: Narrow) -> None:
    model = cast(layers(), to)
    onnx.checker.check_model(model, full_check=True)
    wide = {"input", "output", "c"}
    found = types(model)
    assert {name for name, kind in found.items() if kind == TensorProto.FLOAT} >= wide
    assert found["a"] == found["b"] == KINDS[to]
    stored = {tensor.name.split(".", 1)[0]: tensor.data_type for tensor in model.graph.initializer}
    assert stored == {"conv": KINDS[to], "gemm": KINDS[to], "axes": TensorProto.INT64}
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["Cast", "Conv", "Relu", "Cast", "ReduceMean", "Cast", "Gemm", "Cast"]


@pytest.mark.parametrize("name", ["mobilenetv3-tiny", "nasbench201-tiny", "darts-tiny"])
def test_fp16_computes_the_same_in_onnx_runtime(name: str) -> None:
    model, images = exported(name)
    narrow = cast(model, "fp16", images)
    onnx.checker.check_model(narrow, full_check=True)
    expected, got = outputs(model, images), outputs(narrow, images)
    assert np.abs(got - expected).max() < 2e-3 * np.abs(expected).max()
    assert len(narrow.SerializeToString()) < 0.65 * len(model.SerializeToString())


def test_bf16_rounds_as_it_should() -> None:
    model, narrow = layers(weight=0.3), cast(layers(weight=0.3), "bf16")
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    [expected], [got] = (ReferenceEvaluator(m).run(None, {"input": x}) for m in (model, narrow))
    assert not np.array_equal(got, expected)
    np.testing.assert_allclose(got, expected, rtol=0.02)
    [weight] = [t for t in narrow.graph.initializer if t.name.startswith("conv")]
    np.testing.assert_array_equal(numpy_helper.to_array(weight), np.full((4, 3, 1, 1), 0.3).astype(ml_dtypes.bfloat16))


def test_bf16_computes_the_same_in_openvino() -> None:
    ov = pytest.importorskip("openvino")
    model, images = exported("mobilenetv3-tiny")
    core = ov.Core()
    narrow = core.compile_model(core.read_model(cast(model, "bf16").SerializeToString()), "CPU")
    expected = outputs(model, images)
    got = np.concatenate([next(iter(narrow(image[None]).values())) for image in images])
    assert np.abs(got - expected).max() < 2e-2 * np.abs(expected).max()


def test_what_would_overflow_on_images_stays_in_fp32() -> None:
    model, images = layers(weight=1e4), np.random.default_rng(0).standard_normal((4, 3, 8, 8), np.float32)
    seen = largest(model, images)
    assert seen["a"] == pytest.approx(float(np.abs(images.sum(axis=1)).max()) * 1e4, rel=1e-4)
    blind, warned = cast(model, "fp16"), cast(model, "fp16", images)
    assert types(blind)["a"] == TensorProto.FLOAT16
    assert types(warned)["a"] == TensorProto.FLOAT
    np.testing.assert_allclose(outputs(warned, images), outputs(model, images), rtol=2e-3)
    assert types(cast(model, "bf16", images))["a"] == TensorProto.BFLOAT16  # it has the range of fp32


@pytest.mark.parametrize("weight", [1e6, 1e-7])
def test_weights_that_fp16_does_not_hold_stay_in_fp32(weight: float) -> None:
    model = cast(layers(weight=weight), "fp16")
    assert types(model)["a"] == TensorProto.FLOAT
    [tensor] = [t for t in model.graph.initializer if t.name.startswith("conv")]
    assert tensor.data_type == TensorProto.FLOAT


def test_images_that_tell_nothing() -> None:
    with pytest.raises(InvalidValue, match="all pixels of the 2 calibration images have the value"):
        cast(layers(), "fp16", np.ones((2, 3, 8, 8), np.float32))


def test_a_weight_of_both_types_is_stored_in_both() -> None:
    model = layers()
    model.graph.node[2].CopyFrom(helper.make_node("ReduceMean", ["b", "axes"], ["m"], name="mean", keepdims=0))
    model.graph.node.insert(3, helper.make_node("Mul", ["m", "factor"], ["c"], name="mul"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e6, np.float32), "factor"))
    narrow = cast(model, "fp16")
    onnx.checker.check_model(narrow, full_check=True)
    assert types(narrow)["c"] == TensorProto.FLOAT


@pytest.mark.parametrize("name", ["mobilenetv3-tiny", "nasbench201-tiny", "darts-tiny"])
def test_an_optimiser_would_remove_nothing(name: str) -> None:
    model, _ = exported(name)
    optimised = onnxscript.optimizer.optimize(model)
    assert sorted(n.op_type for n in optimised.graph.node) == sorted(n.op_type for n in model.graph.node)


@pytest.mark.parametrize("name", ["tensorrt-fp16", "tensorrt-bf16", "tensorrt-int8"])
@pytest.mark.parametrize("space", ["mobilenetv3-tiny", "nasbench201-tiny"])
def test_what_is_profiled_is_what_is_deployed(space: str, name: str) -> None:
    form, made = form_of(load_recipe(name)), make_space(space)
    [arch] = made.decode(made.sample(1, seed=7))
    nodes = made.network(arch)
    programs = form.lower_ops([node.op for node in nodes], wired=made.wiring is not None)
    parts = [form.another(programs[node.op], i) for i, node in enumerate(nodes)]
    assembled = form.assemble(parts, [node.reads for node in nodes] if made.wiring else None)
    torch.manual_seed(0)
    net = network(made, arch).eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias)  # biases of 0 are not exported
    whole = form.lower(net, made.input_shape(arch), torch.randn(4, *made.input_shape(arch)))
    assert isinstance(assembled, onnx.ModelProto)
    assert isinstance(whole, onnx.ModelProto)
    assert sorted(n.op_type for n in assembled.graph.node) == sorted(n.op_type for n in whole.graph.node)
    alone = form.tied(programs[nodes[0].op])
    assert isinstance(alone, onnx.ModelProto)
    assert {"Cast", "QuantizeLinear"} & {node.op_type for node in alone.graph.node}
