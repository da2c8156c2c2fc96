from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from hwnas.errors import OutputError
from hwnas.lowering import Program, form_of
from hwnas.lowering.fold import folded, stand_in
from hwnas.nn import build, channels_last, network, plain
from hwnas.spaces import SPACES, Arch, Op, Space, make_space, parse_op
from hwnas.spaces.wiring import FROM_IMAGE
from hwnas.targets import Recipe, load_recipe
from hwnas.testing.spaces import random_inputs

ROOT = Path(__file__).resolve().parents[2]


def recipe(**changes: object) -> Recipe:
    return load_recipe("onnxruntime-cpu-fp32").model_copy(update=changes)


def trained(module: nn.Module) -> nn.Module:
    """BN with numbers of its own, as after training: those of a fresh one fold into nothing."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for name, tensor in layer.state_dict().items():
                if name in ("weight", "running_var"):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                elif name in ("bias", "running_mean"):
                    tensor.normal_(0, 0.1, generator=generator)
    return module.eval()


def images(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def run(model: onnx.ModelProto, *xs: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> torch.Tensor:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    [y] = session.run(None, dict(zip([entry.name for entry in session.get_inputs()], xs, strict=True)))
    return torch.from_numpy(y)


def structure(model: onnx.ModelProto) -> list[str]:
    """All of a graph but names and the values of weights: a text for each node, with all that its value is made of."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    integers = {
        t.name: onnx.numpy_helper.to_array(t).tolist()
        for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.INT64
    }
    made = {model.graph.input[0].name: "input"}
    result = []
    for node in model.graph.node:
        inputs = [(made.get(name), shapes.get(name), integers.get(name)) for name in node.input]
        attributes = sorted((a.name, str(onnx.helper.get_attribute_value(a))) for a in node.attribute)
        result.append(str((node.domain, node.op_type, attributes, inputs)))
        for j, name in enumerate(node.output):
            made[name] = hashlib.sha256(f"{j} of {result[-1]}".encode()).hexdigest()
    return result


def dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    shape = value.type.tensor_type.shape.dim
    assert all(d.HasField("dim_value") for d in shape)
    return tuple(d.dim_value for d in shape)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An arch with its network, that network lowered whole, and its ops lowered by themselves."""

    space: Space
    arch: Arch
    network: nn.Module
    shape: tuple[int, ...]
    whole: onnx.ModelProto
    ops: Sequence[onnx.ModelProto]

    @property
    def assembled(self) -> onnx.ModelProto:
        """The ops wired together; those of a chain without saying so."""
        return self.wired(self.ops)

    def wired(self, ops: Sequence[Program]) -> onnx.ModelProto:
        """Programs in place of the ops."""
        reads = [node.reads for node in self.space.network(self.arch)]
        model = form_of(recipe()).assemble(ops, reads if self.space.wiring else None)
        assert isinstance(model, onnx.ModelProto)
        return model


def inputs(case: Case) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    return (
        images((1, *case.shape)) if case.space.vocabulary is None else random_inputs(case.space, case.arch, 1).numpy()
    )


@cache
def lowered(name: str) -> list[Case]:
    form = form_of(recipe())
    space = make_space(name)
    archs = space.decode(space.sample(2 if name == "mobilenetv3-tiny" else 1, seed=1))
    programs = form.lower_ops([op for arch in archs for _, op in space.ops(arch)], wired=space.wiring is not None)
    cases = []
    for arch in archs:
        torch.manual_seed(0)
        made = trained(network(space, arch))
        shape = space.input_shape(arch)
        whole = form.lower(made, shape, dtype=space.dtype)
        assert isinstance(whole, onnx.ModelProto)
        ops = [programs[op] for _, op in space.ops(arch)]
        parts = [program for program in ops if isinstance(program, onnx.ModelProto)]
        assert len(parts) == len(ops)
        cases.append(Case(space=space, arch=arch, network=made, shape=shape, whole=whole, ops=parts))
    return cases


# The tiny spaces say the same.
AGAIN = (
    *("mobilenetv3", "mobilenetv3-w1.2", "mobilenetv3-small", "nasbench201", "darts"),
    *("autoformer-tiny", "autoformer-small", "encoder"),
)
every_space = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in AGAIN else []) for name in SPACES]
)


@every_space
def test_what_is_profiled_is_what_is_deployed(name: str) -> None:
    for case in lowered(name):
        form = form_of(recipe())
        parts = [form.another(op, i) for i, op in enumerate(case.ops)] if case.space.wiring else case.ops
        assert sorted(structure(case.wired(parts))) == sorted(structure(case.whole))
        assert dims(case.assembled.graph.input[0]) == dims(case.whole.graph.input[0])
        assert dims(case.assembled.graph.output[0]) == dims(case.whole.graph.output[0])


@every_space
def test_a_lowered_network_computes_the_same(name: str) -> None:
    for case in lowered(name):
        x = inputs(case)
        with torch.no_grad():
            expected = case.network(torch.from_numpy(x))
        torch.testing.assert_close(run(case.whole, x), expected, rtol=1e-4, atol=1e-5)


@every_space
def test_assembled_ops_run_one_after_the_other(name: str) -> None:
    case = lowered(name)[0]
    x = inputs(case)
    values = {FROM_IMAGE: torch.from_numpy(x)}
    for i, (part, node) in enumerate(zip(case.ops, case.space.network(case.arch), strict=True)):
        values[i] = run(part, *(values[read].numpy() for read in node.reads))
    torch.testing.assert_close(run(case.assembled, x), values[len(case.ops) - 1], rtol=1e-4, atol=1e-5)


@every_space
def test_graphs_are_valid_static_and_folded(name: str) -> None:
    for case in lowered(name):
        shapes: list[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]] = [((case.shape,), (case.space.classes,))] * 2
        shapes += [(op.inputs, op.output) for _, op in case.space.ops(case.arch)]
        for model, (inp, out) in zip((case.whole, case.assembled, *case.ops), shapes, strict=True):
            onnx.checker.check_model(model, full_check=True)
            assert [(o.domain, o.version) for o in model.opset_import] == [("", recipe().opset)]
            given, [result] = model.graph.input, model.graph.output
            assert [entry.name for entry in given] == ["input", "input1", "input2", "input3"][: len(given)]
            assert result.name == "output"
            assert [dims(entry) for entry in given] == [(1, *shape) for shape in inp]
            assert dims(result) == (1, *out)
            # Only that of NAS-Bench-201's classifier follows no convolution.
            norms = [node.op_type for node in model.graph.node if "BatchNorm" in node.op_type]
            assert len(norms) <= ("nasbench201" in name)


@every_space
def test_nothing_of_this_machine_is_in_a_file(name: str, tmp_path: Path) -> None:
    form = form_of(recipe())
    case = lowered(name)[0]
    for i, program in enumerate((case.whole, case.assembled, *case.ops[:4])):
        written = onnx.load(form.write(program, tmp_path / str(i)))
        for tensor in written.graph.initializer:
            tensor.ClearField("raw_data")  # among a hundred million random bytes any three letters stand somewhere
        content = written.SerializeToString()
        for trace in (str(ROOT), sys.prefix, str(Path.home()), str(Path.cwd()), "site-packages", ".py", 'File "'):
            assert trace.encode() not in content


# -- sizes, layouts, versions --------------------------------------------------------------------------------------


def test_an_op_exported_at_one_size_is_the_op_at_another() -> None:
    form = form_of(recipe())
    pairs = [
        ("conv 3x24x24>16x12x12 act=hswish kernel=3 stride=2", "conv 3x32x32>16x16x16 act=hswish kernel=3 stride=2"),
        (
            "mbconv 16x12x12>24x6x6 act=relu expand=1 kernel=5 mid=48 se=1 skip=0 stride=2",
            "mbconv 16x7x7>24x4x4 act=relu expand=1 kernel=5 mid=48 se=1 skip=0 stride=2",
        ),
        ("classifier 24x4x4>10 act=hswish hidden=32", "classifier 24x1x1>10 act=hswish hidden=32"),
    ]
    small, large = ([parse_op(key) for key in keys] for keys in zip(*pairs, strict=True))
    # Exported together, ops that differ in size alone share one export; alone, each has its own.
    together, alone = form.lower_ops([*small, *large]), form.lower_ops(large)
    for op in large:
        resized, direct = together[op], alone[op]
        assert isinstance(resized, onnx.ModelProto)
        assert isinstance(direct, onnx.ModelProto)
        assert structure(resized) == structure(direct)
        onnx.checker.check_model(resized, full_check=True)
        assert dims(resized.graph.input[0]) == (1, *op.input)
        assert run(resized, images((1, *op.input))).shape == (1, *op.output)
    for op, other in zip(small, large, strict=True):
        one, two = together[op], together[other]
        assert isinstance(one, onnx.ModelProto)
        assert isinstance(two, onnx.ModelProto)
        assert dims(one.graph.input[0]) == (1, *op.input)
        assert [t.raw_data for t in one.graph.initializer] == [t.raw_data for t in two.graph.initializer]


def test_more_ops_than_one_export_call_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.lowering.onnx._BRANCHES", 2)
    ops = [parse_op(f"classifier {width}x2x2>4 act=relu hidden=8") for width in (8, 16, 24)]
    programs = form_of(recipe()).lower_ops([*ops, ops[0]])
    assert list(programs) == ops
    for op, program in programs.items():
        assert isinstance(program, onnx.ModelProto)
        assert run(program, images((1, *op.input))).shape == (1, 4)


def test_the_layout_of_the_weights_does_not_matter() -> None:
    # Weights left with the channels last were once exported as Gather nodes of `as_strided`.
    # A kernel of 3 over several channels and the 1x1 ones of gates, whose layout is a matter of strides alone.
    stem = parse_op("conv 3x24x24>16x12x12 act=hswish kernel=3 stride=2")
    block = parse_op("mbconv 16x12x12>16x12x12 act=relu expand=1 kernel=3 mid=32 se=1 skip=1 stride=1")
    torch.manual_seed(0)
    made = trained(nn.Sequential(build(stem), build(block)))
    moved = channels_last(copy.deepcopy(made))
    assert not moved.get_parameter("0.conv.weight").is_contiguous()
    one, other = (form_of(recipe()).lower(m, stem.input) for m in (made, moved))
    assert isinstance(one, onnx.ModelProto)
    assert isinstance(other, onnx.ModelProto)
    assert structure(one) == structure(other)
    assert "Gather" not in {node.op_type for node in other.graph.node}
    x = images((1, 3, 24, 24))
    torch.testing.assert_close(run(one, x), run(other, x))


@pytest.mark.parametrize(("opset", "batch"), [(18, 1), (21, 3)])
def test_opset_and_batch_are_those_of_the_recipe(opset: int, batch: int) -> None:
    op = parse_op("classifier 8x3x3>4 act=hswish hidden=8")
    form = form_of(recipe(opset=opset, batch=batch))
    torch.manual_seed(0)
    module = build(op).eval()
    direct, [cut] = form.lower(module, op.input), form.lower_ops([op]).values()
    for model in (direct, cut):
        assert isinstance(model, onnx.ModelProto)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
        assert (dims(model.graph.input[0]), dims(model.graph.output[0])) == ((batch, 8, 3, 3), (batch, 4))
        onnx.checker.check_model(model, full_check=True)
    assert isinstance(direct, onnx.ModelProto)
    x = images((batch, *op.input))
    torch.testing.assert_close(run(direct, x), module(torch.from_numpy(x)).detach(), rtol=1e-4, atol=1e-5)


def test_a_network_under_training_is_lowered_for_evaluation() -> None:
    op = parse_op("conv 3x8x8>8x4x4 act=relu kernel=3 stride=2")
    module = trained(build(op)).train()
    before = copy.deepcopy(module.state_dict())
    model = form_of(recipe()).lower(module, op.input)
    assert isinstance(model, onnx.ModelProto)
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    x = images((1, *op.input))
    expected = module.eval()(torch.from_numpy(x)).detach()
    torch.testing.assert_close(run(model, x), expected, rtol=1e-4, atol=1e-5)


def test_a_written_graph_is_the_same_each_time(tmp_path: Path) -> None:
    form = form_of(recipe())
    case = lowered("mobilenetv3-tiny")[0]
    one, other = (form.write(case.whole, tmp_path / name) for name in ("a", "b"))
    assert one == tmp_path / "a" / "model.onnx"
    assert one.read_bytes() == other.read_bytes()
    assert onnx.load(one) == case.whole
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        form.write(case.whole, tmp_path / "file")


# -- folding -------------------------------------------------------------------------------------------------------


def ops_of_each_kind() -> list[Op]:
    return [
        parse_op("conv 3x8x8>16x4x4 act=hswish kernel=3 stride=2"),
        parse_op("mbconv 16x8x8>16x8x8 act=relu expand=0 kernel=3 mid=16 se=0 skip=1 stride=1"),
        parse_op("mbconv 16x8x8>16x8x8 act=hswish expand=1 kernel=7 mid=48 se=1 skip=1 stride=1"),
        parse_op("classifier 16x4x4>10 act=hswish hidden=24"),
    ]


@pytest.mark.parametrize("op", ops_of_each_kind(), ids=lambda op: op.key.replace(" ", "_"))
def test_folding_changes_no_output_and_leaves_the_original_alone(op: Op) -> None:
    torch.manual_seed(0)
    module = trained(build(op)).double()
    before = copy.deepcopy(module.state_dict())
    copied = folded(module)
    assert not [m for m in copied.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(p.requires_grad for p in copied.parameters())
    x = torch.randn(2, *op.input, dtype=torch.float64)
    torch.testing.assert_close(copied(x), module(x).detach(), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("op", ops_of_each_kind()[:3], ids=lambda op: op.key.replace(" ", "_"))
def test_a_stand_in_has_biases_that_no_runtime_can_skip(op: Op) -> None:
    module = stand_in(op)
    biases = [m.bias for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert biases
    assert all(bias is not None and (bias != 0).all() for bias in biases)
    assert {type(m).__module__.split(".")[0] for m in module.modules()} == {"torch"}
    assert module(torch.zeros(1, *op.input)).shape == (1, *op.output)
    # The same layers as a trained op of that kind.
    kinds = [type(m).__name__ for m in module.modules()]
    assert kinds == [type(m).__name__ for m in folded(plain(trained(build(op)))).modules()]
