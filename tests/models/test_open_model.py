"""What `open_model` reads, and what it refuses, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from hwnas.errors import InvalidValue, ModelError, PluginError
from hwnas.models import open_model
from hwnas.models.shapes import parse_shapes

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def test_axes_are_fixed_by_shape_or_by_name(relu: Path) -> None:
    for shapes in (["x=2x3x8x10"], ["N=2", "H=8", "W=10"], {"x": (2, 3, 8, 10)}, {"N": 2, "H": 8, "W": 10}):
        model = open_model(relu, shapes=shapes)
        assert [value.text for value in model.signature.inputs] == ["x: float32 [2, 3, 8, 10]"]
        assert [value.text for value in model.signature.outputs] == ["y: float32 [2, 3, 8, 10]"]
        assert model.notes == ()


def test_an_open_first_axis_is_one(relu: Path) -> None:
    model = open_model(relu, shapes=["H=8", "W=8"])
    assert model.signature.inputs[0].shape == (1, 3, 8, 8)
    assert model.notes == ("The first axis of x, N, is taken as 1.",)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], r"model has inputs with open axes: give each a size, --shape x=1x3x\?x\?"),
        (["y=1x3x8x8"], "--shape y=…: model has the inputs x, and the symbolic axes H, N, W"),
        (["x=1x3x8"], "--shape x=1x3x8: the input of model has 4 axes"),
        (["x=1x4x8x8"], "model fixes one of these axes to 3"),
        (["x:1"], "'x:1' should be the name of an input and its sizes"),
        (["x=0x3x8x8"], "each size must be positive"),
        (["x=1x3x99999x99999"], "not huge"),
    ],
)
def test_shapes_that_do_not_fit(relu: Path, shapes: list[str], message: str) -> None:
    with pytest.raises((ModelError, InvalidValue), match=message):
        open_model(relu, shapes=shapes)


def test_a_symbol_has_one_size(write: Any) -> None:
    node = helper.make_node("Add", ["a", "b"], ["c"])
    path = write([node], [("a", FLOAT, ["N", "T"]), ("b", FLOAT, ["N", "T"])], [("c", FLOAT, ["N", "T"])])
    assert open_model(path, shapes=["a=1x5"]).signature.inputs[1].shape == (1, 5)
    with pytest.raises(InvalidValue, match="the axis T of model is 5 in another place"):
        open_model(path, shapes=["a=1x5", "b=1x6"])


def test_scalars_and_integers(write: Any) -> None:
    node = helper.make_node("Mul", ["x", "s"], ["y"])
    path = write([node], [("x", INT64, [2]), ("s", INT64, [])], [("y", INT64, [2])])
    assert [value.text for value in open_model(path).signature.inputs] == ["x: int64 [2]", "s: int64 []"]


def loop(body_op: str) -> onnx.NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node(body_op, ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info(*entry)
            for entry in (("i", INT64, []), ("c", TensorProto.BOOL, []), ("v", FLOAT, [2]))
        ],
        [helper.make_tensor_value_info(*entry) for entry in (("d", TensorProto.BOOL, []), ("w", FLOAT, [2]))],
    )

    return helper.make_node("Loop", ["", "", "x"], ["y"], name="again", body=body)


@pytest.mark.parametrize(
    ("node", "given", "message"),
    [
        (loop("Relu"), {}, r"the node 'again' \(Loop\) is a loop"),
        (helper.make_node("NonZero", ["x"], ["y"], name="found"), {}, r"'found' \(NonZero\) depends on values"),
        (
            helper.make_node("Magic", ["x"], ["y"], name="trick", domain="acme"),
            {"domains": ["acme"]},
            r"'trick' \(Magic\) is of the domain 'acme'",
        ),
        (helper.make_node("RandomNormalLike", ["x"], ["y"], name="dice"), {}, r"'dice' .* draws random numbers"),
        (helper.make_node("Relu", ["x"], ["y"]), {"opset": 8}, "has opset 8; hwnas reads opset 9"),
    ],
)
def test_what_is_refused_by_name(write: Any, node: onnx.NodeProto, given: dict[str, Any], message: str) -> None:
    output = INT64 if node.op_type == "NonZero" else FLOAT
    path = write([node], [("x", FLOAT, [2])], [("y", output, None)], **given)
    with pytest.raises(ModelError, match=message):
        open_model(path)


def test_a_branch_is_taken_as_it_is(write: Any) -> None:
    def side(op: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(op, ["x"], ["z"])], op, [], [helper.make_tensor_value_info("z", FLOAT, [2])]
        )

    node = helper.make_node("If", ["c"], ["y"], name="which", then_branch=side("Relu"), else_branch=side("Neg"))
    path = write([node], [("c", TensorProto.BOOL, []), ("x", FLOAT, [2])], [("y", FLOAT, [2])])
    assert "The node 'which' is a branch (If)" in open_model(path).notes[0]


def test_inputs_that_are_no_numbers(write: Any) -> None:
    path = write(
        [helper.make_node("Identity", ["x"], ["y"])], [("x", TensorProto.STRING, [1])], [("y", TensorProto.STRING, [1])]
    )
    with pytest.raises(ModelError, match="x of model is STRING; inputs and outputs should be tensors of numbers"):
        open_model(path)


def test_weights_of_old_files_are_not_inputs(write: Any) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    path = write(
        [node], [("x", FLOAT, [2]), ("w", FLOAT, [2])], [("y", FLOAT, [2])], {"w": np.ones(2, np.float32)}, opset=11
    )
    assert [value.name for value in open_model(path).signature.inputs] == ["x"]


def test_weights_beside_the_file(write: Any, tmp_path: Path) -> None:
    weight = np.arange(1000, dtype=np.float32)
    path = write(
        [helper.make_node("Add", ["x", "w"], ["y"])], [("x", FLOAT, [1000])], [("y", FLOAT, [1000])], {"w": weight}
    )
    inside = open_model(path)
    onnx.save_model(
        onnx.load(path), tmp_path / "beside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    beside = open_model(tmp_path / "beside.onnx")
    assert (onnx.numpy_helper.to_array(beside.graph.graph.initializer[0]) == weight).all()
    assert beside.signature == inside.signature
    (tmp_path / "w.bin").unlink()
    with pytest.raises(
        ModelError, match=r"the weight 'w' of .*beside.onnx is in the file 'w.bin', which is not beside it"
    ):
        open_model(tmp_path / "beside.onnx")


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "has no nodes"), (b"not a model", "is not an ONNX file, or is truncated")]
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        open_model(path)
    with pytest.raises(ModelError, match="does not exist"):
        open_model(tmp_path / "y.onnx")
    with pytest.raises(ModelError, match="is not a model: it should be an ONNX file"):
        open_model(tmp_path / "x.txt")


def test_a_torch_module_with_two_inputs_and_outputs(text: Any) -> None:
    module, example = text
    model = open_model(module, example=example)
    assert [value.text for value in model.signature.inputs] == ["ids: int64 [1, 8]", "mask: int64 [1, 8]"]
    assert [value.shape for value in model.signature.outputs] == [(1, 3), (1, 16)]
    with pytest.raises(ModelError, match="the inputs of TextClassifier are not known: give their shapes"):
        open_model(module)


def test_a_file_of_torch_export(picture: torch.nn.Module, tmp_path: Path) -> None:
    program = torch.export.export(picture, (torch.zeros(1, 3, 16, 16),))
    torch.export.save(program, tmp_path / "net.pt2")
    assert open_model(tmp_path / "net.pt2").signature.outputs[0].shape == (1, 4)
    (tmp_path / "bad.pt2").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"bad.pt2 is not a file of torch.export.save"):
        open_model(tmp_path / "bad.pt2")


NET = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())

def with_inputs():
    return make(), torch.zeros(1, 3, 8, 8)

def number():
    return 3
"""


def test_a_module_of_a_python_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    here = f"{tmp_path}/net.py"
    model = open_model(f"{here}:with_inputs")
    assert (model.name, model.signature.outputs[0].shape) == ("with_inputs", (1, 4, 6, 6))
    assert open_model(f"{here}:make", shapes=["input=1x3x10x10"]).signature.outputs[0].shape == (1, 4, 8, 8)
    weights = {"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.zeros(4)}
    torch.save(weights, tmp_path / "w.pth")
    other = open_model(f"{here}:with_inputs", weights=tmp_path / "w.pth")
    assert other.sha256 != model.sha256
    torch.save({"0.weight": torch.ones(1)}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match=r"cannot load the weights .*bad.pth into Sequential"):
        open_model(f"{here}:with_inputs", weights=tmp_path / "bad.pth")
    with pytest.raises(ModelError, match="returns the type int; it should return a torch module"):
        open_model(f"{here}:number")
    with pytest.raises(PluginError, match="does not exist"):
        open_model(f"{tmp_path}/other.py:make")


def test_texts_of_shapes() -> None:
    assert parse_shapes(["a/b:0=1x2", "w=7"]) == {"a/b:0": (1, 2), "w": (7,)}
