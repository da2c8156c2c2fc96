"""A symbolic batch axis: the same nodes and weights, for any number of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hwnas.errors import BundleError, GraphError
from hwnas.lowering import form_of
from hwnas.lowering.batch import fix_batch, with_any_batch
from hwnas.lowering.onnx_limits import check_onnx
from hwnas.lowering.torch import input_shape, takes_any_batch
from hwnas.lowering.torch_archive import load_archive
from hwnas.nn import network
from hwnas.runner.program import BATCH
from hwnas.spaces import make_space
from hwnas.targets import load_recipe

TINY = ("mobilenetv3-tiny", "nasbench201-tiny", "darts-tiny")


def lowered(space: str, recipe: str) -> tuple[nn.Module, object, tuple[int, ...]]:
    """A network of a space, its program, and the shape of an image."""
    made = make_space(space)
    [arch] = made.decode(made.sample(1, seed=1))
    torch.manual_seed(0)
    net, shape = network(made, arch).eval(), made.input_shape(arch)
    return net, form_of(load_recipe(recipe)).lower(net, shape, torch.randn(16, *shape)), shape


def sizes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("recipe", ["onnxruntime-cpu-fp32", "onnxruntime-cpu-int8"])
@pytest.mark.parametrize("space", TINY)
def test_only_the_axis_of_a_graph_changes(space: str, recipe: str) -> None:
    _, fixed, shape = lowered(space, recipe)
    assert isinstance(fixed, onnx.ModelProto)
    made = form_of(load_recipe(recipe)).any_batch(fixed)
    assert isinstance(made, onnx.ModelProto)
    assert sizes(made.graph.input[0]) == [BATCH, *shape]
    assert sizes(made.graph.output[0]) == [BATCH, *sizes(fixed.graph.output[0])[1:]]
    assert sizes(fixed.graph.input[0]) == [1, *shape]  # the program itself is left as it was
    for before, after in zip(fixed.graph.node, made.graph.node, strict=True):
        assert after == before or (before.op_type, after.name) == ("Reshape", before.name)
    reshapes = [node for node in made.graph.node if node.op_type == "Reshape"]
    shapes = {name for model in (made, fixed) for node in model.graph.node if node in reshapes for name in node.input}
    weights = [{t.name: t for t in model.graph.initializer if t.name not in shapes} for model in (made, fixed)]
    assert {t.name for t in made.graph.initializer} - weights[0].keys() == {node.input[1] for node in reshapes}
    assert weights[0].items() <= weights[1].items()
    fix_batch(made, 1)
    assert (made.graph.input, made.graph.output) == (fixed.graph.input, fixed.graph.output)


def of_nodes(*nodes: onnx.NodeProto, weights: dict[str, object] | None = None) -> onnx.ModelProto:
    """``(1, 2, 4, 4) -> (1, 32)``."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", (1, 2, 4, 4)), ("output", (1, 32)))
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "small", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("nodes", [
    (("Reshape", ["input", "whole"], "values"), ("Unsqueeze", ["values", "axes"], "output")),
    (("Flatten", ["input"], "values"), ("ReduceSum", ["values", "axes"], "output")),
], ids=["a reshape of all images to one axis", "a sum over the images"])  # fmt: skip
def test_a_graph_with_the_number_of_images_in_it_is_refused(nodes: tuple[tuple[str, list[str], str], ...]) -> None:
    made = [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes]
    model = of_nodes(*made, weights={"whole": np.array([32]), "axes": np.array([0])})
    with pytest.raises(GraphError, match="cannot take any number of images in a run: a node of its graph"):
        with_any_batch(model)


def test_reshapes_keep_the_first_axis() -> None:
    """One after the other, and two that share a shape."""
    model = of_nodes(
        helper.make_node("Reshape", ["input", "square"], ["a"], allowzero=1),
        helper.make_node("Reshape", ["a", "flat"], ["b"]),
        helper.make_node("Reshape", ["input", "flat"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["output"]),
        weights={"square": np.array([1, 2, 16]), "flat": np.array([1, 32])},
    )
    made = with_any_batch(model)
    assert sizes(made.graph.output[0]) == [BATCH, 32]
    assert len(made.graph.initializer) == 3  # no shape is left without a reader
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    assert np.array_equal(session.run(None, {"input": x})[0], 2 * x.reshape(3, 32))


def test_limits_of_a_file_are_those_of_the_batch_that_is_run() -> None:
    model = with_any_batch(of_nodes(helper.make_node("Flatten", ["input"], ["output"])))
    data = model.SerializeToString()
    check_onnx(data, "model.onnx", 4)
    with pytest.raises(BundleError, match="more than any network needs"):
        check_onnx(data, "model.onnx", 2**24)
    other = of_nodes(helper.make_node("Flatten", ["input"], ["output"]))
    other.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    other.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "features"
    with pytest.raises(BundleError, match="is not static"):
        check_onnx(other.SerializeToString(), "model.onnx", 4)


@pytest.mark.long
@pytest.mark.parametrize("space", TINY)
def test_a_module_of_torch_takes_any_number_of_images(space: str, tmp_path: Path) -> None:
    net, fixed, shape = lowered(space, "torch-cpu-fp32")
    assert isinstance(fixed, nn.Module)
    form = form_of(load_recipe("torch-cpu-fp32"))
    made = form.any_batch(fixed)
    assert isinstance(made, nn.Module)
    assert (takes_any_batch(fixed), takes_any_batch(made)) == (False, True)
    assert input_shape(made, 7) == (7, *shape)
    path = form.write(made, tmp_path)
    x = torch.randn(5, *shape)
    # As the lines of a bundle's README load it, with torch's own checks of the input.
    ours, theirs = load_archive(path), torch.export.load(path).module()
    assert takes_any_batch(ours)
    with torch.no_grad():
        for count in (1, 2, 5):
            for module in (made, ours, theirs):
                torch.testing.assert_close(module(x[:count]), net(x[:count]), rtol=1e-3, atol=1e-4)
    assert form.write(ours, tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_module_with_the_number_of_images_in_it_is_refused() -> None:
    class Reshaped(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(1, 32)

    form = form_of(load_recipe("torch-cpu-fp32"))
    with pytest.raises(GraphError, match=r"cannot take any number of images in a run: torch\.export"):
        form.any_batch(form.lower(Reshaped(), (2, 4, 4)))
