"""ONNX graphs as programs: export, cutting into ops, and laying end to end."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from hwnas.lowering.fold import folded, stand_in
from hwnas.lowering.form import Form, Program, without_size
from hwnas.spaces import Op
from hwnas.spaces.ops import Shape
from hwnas.targets.files import write_whole

_BRANCHES = 64  # ops in one export call: the fixed cost is shared, the tracer's memory stays small
INPUT, OUTPUT = "input", "output"


class OnnxForm(Form):
    """Programs of the runtimes that load ONNX: static batch, opset of the recipe, BN folded."""

    filename = "model.onnx"

    def lower(self, network: nn.Module, shape: Shape) -> onnx.ModelProto:
        """A trained network for images ``(batch, *shape)``, with BN folded into the convolutions."""
        [model] = self._export([folded(network)], [shape])
        return model

    def lower_ops(self, ops: Sequence[Op]) -> dict[Op, Program]:
        """Each op with random weights, cut from exports of many branches."""
        shapes = {without_size(op): op for op in ops}
        sized = list(shapes.values())
        graphs: dict[Op, onnx.ModelProto] = {}
        for start in range(0, len(sized), _BRANCHES):
            part = sized[start : start + _BRANCHES]
            models = self._export([stand_in(op) for op in part], [op.input for op in part])
            graphs |= {without_size(op): model for op, model in zip(part, models, strict=True)}
        return {op: _resized(graphs[without_size(op)], self.recipe.batch, op) for op in ops}

    def assemble(self, programs: Sequence[Program]) -> onnx.ModelProto:
        """Graphs laid end to end, names made unique by their position."""
        models = [program for program in programs if isinstance(program, onnx.ModelProto)]
        graph = onnx.GraphProto(name="network")
        value = INPUT
        for i, model in enumerate(models):
            last = i == len(models) - 1
            names = {
                model.graph.input[0].name: value,
                model.graph.output[0].name: OUTPUT if last else f"{i}.out",
            }
            for tensor in model.graph.initializer:
                names[tensor.name] = f"{i}.{tensor.name}"
                graph.initializer.add().CopyFrom(tensor)
                graph.initializer[-1].name = names[tensor.name]
            for node in model.graph.node:
                copy = graph.node.add()
                copy.CopyFrom(node)
                copy.name = f"{i}.{node.name}"
                copy.input[:] = [names.setdefault(name, f"{i}.{name}") if name else "" for name in node.input]
                copy.output[:] = [names.setdefault(name, f"{i}.{name}") for name in node.output]
            value = names[model.graph.output[0].name]
        graph.input.add().CopyFrom(models[0].graph.input[0])
        graph.output.add().CopyFrom(models[-1].graph.output[0])
        graph.input[0].name, graph.output[0].name = INPUT, OUTPUT
        return _model(graph, models[0])

    def write(self, program: Program, folder: Path) -> Path:
        """Write ``model.onnx`` with the weights inside."""
        assert isinstance(program, onnx.ModelProto)
        path = folder / self.filename
        write_whole(path, program.SerializeToString(deterministic=True))
        return path

    def _export(self, modules: list[nn.Module], shapes: list[Shape]) -> list[onnx.ModelProto]:
        """One export call for many modules -> one model each, with the input and output named `INPUT`, `OUTPUT`."""
        inputs = [torch.zeros(self.recipe.batch, *shape) for shape in shapes]
        with _quiet():
            program = torch.onnx.export(
                _Branches(modules).eval(),
                (inputs,),
                dynamo=True,
                opset_version=self.recipe.opset,
                verbose=False,
            )
        assert program is not None
        whole = program.model_proto
        return [_cut(whole, i.name, o.name) for i, o in zip(whole.graph.input, whole.graph.output, strict=True)]


class _Branches(nn.Module):
    """Modules side by side, so that one export call serves many."""

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(modules)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        return [branch(x) for branch, x in zip(self.branches, xs, strict=True)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's remarks on packages that hwnas does not use (torchvision) and on its own deprecations."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _cut(whole: onnx.ModelProto, source: str, sink: str) -> onnx.ModelProto:
    """The part of a graph between one input and one output."""
    producer = {name: node for node in whole.graph.node for name in node.output}
    needed, stack = set(), [sink]
    while stack:
        name = stack.pop()
        if name in producer and name not in needed:
            needed.add(name)
            stack.extend(producer[name].input)
    nodes = [node for node in whole.graph.node if needed.intersection(node.output)]
    used = {name for node in nodes for name in node.input}
    graph = onnx.GraphProto(name=INPUT + "-" + OUTPUT)
    graph.initializer.extend(tensor for tensor in whole.graph.initializer if tensor.name in used)
    graph.input.extend(value for value in whole.graph.input if value.name == source)
    graph.output.extend(value for value in whole.graph.output if value.name == sink)
    renamed = {source: INPUT, sink: OUTPUT}
    for node in nodes:
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.ClearField("metadata_props")  # traces of the exporting machine's source files
        copy.ClearField("doc_string")
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        copy.output[:] = [renamed.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = renamed[value.name]
        value.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
    return _model(graph, whole)


def _resized(model: onnx.ModelProto, batch: int, op: Op) -> onnx.ModelProto:
    """The graph of an op for this op's image size."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value, shape in ((copy.graph.input[0], op.input), (copy.graph.output[0], op.output)):
        value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, [batch, *shape]))
    return copy


def _model(graph: onnx.GraphProto, like: onnx.ModelProto) -> onnx.ModelProto:
    """A model of a graph with the versions of another model."""
    model = helper.make_model(graph, opset_imports=like.opset_import, producer_name="hwnas")
    model.ir_version = like.ir_version
    return model
