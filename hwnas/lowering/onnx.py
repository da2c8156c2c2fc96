"""ONNX graphs as programs: export, cutting into ops, and assembly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from hwnas.errors import InvalidValue
from hwnas.files.atomic import system_refusals, write_whole
from hwnas.graphs import Graph, Node, add_node, copied, cut, model_of
from hwnas.lowering.fold import blank, blanks, folded, stand_in
from hwnas.lowering.form import Form, InputType, Program, chained
from hwnas.lowering.images import random_feeds
from hwnas.lowering.kept import exported
from hwnas.lowering.quiet import quiet_export
from hwnas.lowering.serialized import serialized
from hwnas.spaces import Op
from hwnas.spaces.ops import Shape
from hwnas.spaces.wiring import FROM_IMAGE

if TYPE_CHECKING:
    from hwnas.lowering.images import Images
    from hwnas.lowering.quantize import Quantizer
    from hwnas.runner.signature import Feeds

_BRANCHES = 64  # ops per export call: they share the fixed cost, and the tracer needs little memory
_STAND_IN_RUNS = 4  # of the calibration of an op with random weights
# In the name of a constant that is not a weight, e.g. the mask of a window: layers with equal ones share it.
_CONSTANT = "_tensor_constant"
INPUT, OUTPUT = "input", "output"


class OnnxForm(Form):
    """Programs of the runtimes that load ONNX: static batch size, opset of the recipe, BN folded."""

    filename = "model.onnx"

    def lower(
        self, network: nn.Module, shape: Shape, images: Tensor | None = None, *, dtype: InputType = "float32"
    ) -> onnx.ModelProto:
        """A trained network for inputs ``(batch, *shape)``, with BN folded and in the recipe's precision, checked."""
        if self.recipe.quantization is not None:
            return self.checked(self.quantizer(network, shape, images, dtype=dtype).quantized())
        model = self._exported(network, blank(self.recipe.batch, shape, dtype))
        return self.checked(self._precise(model, None if images is None else images.numpy()))

    def quantizer(
        self, network: nn.Module, shape: Shape, images: Tensor | None, *, dtype: InputType = "float32"
    ) -> Quantizer:
        """The quantiser of a trained network under an int8 recipe; arguments and errors as for `lower`."""
        from hwnas.lowering.quantize import Quantizer  # only int8 needs ONNX Runtime's quantiser

        assert self.recipe.quantization is not None
        if images is None or not len(images):
            raise InvalidValue(
                f"{self.recipe.name} is int8: its calibration needs images of the training split, but there are none"
            )
        model = self._exported(network, blank(self.recipe.batch, shape, dtype))
        return Quantizer(model, images.numpy(), self.recipe.quantization)

    def checked(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A graph of a trained network, if the runtime accepts it.

        Raises:
            GraphError: the runtime does not accept it.
        """
        from hwnas.lowering.precision import checked

        return checked(model, self.recipe)

    @property
    def images_needed(self) -> int:
        """Number of calibration images: for the ranges of int8, or to find nodes that would overflow in fp16."""
        from hwnas.lowering.precision import images_needed

        return images_needed(self.recipe)

    def _exported(self, network: nn.Module, given: Tensor) -> onnx.ModelProto:
        [model] = self._export([folded(network)], [(given,)])
        return model

    def lower_ops(self, ops: Sequence[Op], *, wired: bool = False) -> dict[Op, Program]:
        """Each op with random weights, cut from exports of many branches, or read from the cache."""
        sized = list({op.without_size: op for op in ops}.values())
        settings = {"batch": self.recipe.batch, "opset": self.recipe.opset}
        graphs: dict[Op, onnx.ModelProto] = {}
        for start in range(0, len(sized), _BRANCHES):
            part = {op.without_size: op for op in sized[start : start + _BRANCHES]}
            made = exported(list(part), settings, partial(self._stand_ins, part))
            for op, like in part.items():
                model = _resized(made[op], self.recipe.batch, like)
                graphs[op] = model if wired or not self.recipe.quantization else self._in_precision(model)
        return {op: _resized(graphs[op.without_size], self.recipe.batch, op) for op in ops}

    def _stand_ins(self, sized: Mapping[Op, Op], missing: list[Op]) -> list[onnx.ModelProto]:
        ops = [sized[op] for op in missing]
        return self._export([stand_in(op) for op in ops], [blanks(op, self.recipe.batch) for op in ops])

    def assemble(self, programs: Sequence[Program], reads: Sequence[tuple[int, ...]] | None = None) -> onnx.ModelProto:
        """Graphs wired into one, with names made unique by position.

        In a chain, a value that is quantised at the end of one op and again at the start of the next is quantised once,
        with the scale of the latter: its biases are quantised to that scale, and runtimes fuse only this form. Cells
        are quantised as a whole, like the network: a ReLU that is the only reader of its input is merged into the
        range, one that shares it with a skip connection is not, which an op alone does not show. Casts to fp16 or bf16
        are added to the assembled network.
        """
        parts = [Graph(program) for program in programs if isinstance(program, onnx.ModelProto)]
        wiring = chained(len(parts)) if reads is None else reads
        graph = onnx.GraphProto(name="network")
        values = {FROM_IMAGE: INPUT}
        for i, (part, those) in enumerate(zip(parts, wiring, strict=True)):
            last = i == len(parts) - 1
            doubled = () if last or not _begins_quantized(parts[i + 1]) else _pair_at_output(part)
            result = doubled[0].inputs[0] if doubled else OUTPUT
            given = {name: values[read] for name, read in zip(part.inputs, those, strict=True)}
            names = {**given, result: OUTPUT if last else f"{i}.out"}
            nodes = [node for node in part.nodes if node not in doubled]
            used = {name for node in nodes for name in node.inputs}
            for name, tensor in part.initializers.items():
                if name in used:
                    names[name] = f"{i}.{name}"
                    graph.initializer.add().CopyFrom(tensor)
                    graph.initializer[-1].name = names[name]
            for node in nodes:
                copy = add_node(
                    graph,
                    node,
                    [names.setdefault(name, f"{i}.{name}") if name else "" for name in node.inputs],
                    [names.setdefault(name, f"{i}.{name}") for name in node.outputs],
                )
                copy.name = f"{i}.{node.name}"
            values[i] = names[result]
        graph.input.add().CopyFrom(parts[0].model.graph.input[0])
        graph.output.add().CopyFrom(parts[-1].model.graph.output[0])
        model = model_of(graph, parts[0].model)
        if reads is not None:
            model = _without_repetition(model)
        return self._in_precision(model)

    def another(self, program: Program, number: int) -> onnx.ModelProto:
        """The graph with the values of each weight and bias rotated by a number of positions."""
        assert isinstance(program, onnx.ModelProto)
        model = copied(program)
        for tensor in model.graph.initializer:
            if tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT and _CONSTANT not in tensor.name:
                turned = np.roll(onnx.numpy_helper.to_array(tensor), number)
                tensor.CopyFrom(onnx.numpy_helper.from_array(turned, tensor.name))
        return model

    def tied(self, program: Program) -> onnx.ModelProto:
        """The graph with its first input in place of all others of its shape, in the recipe's precision."""
        assert isinstance(program, onnx.ModelProto)
        model = copied(program)
        first, *others = program.graph.input
        equal = {other.name for other in others if other.type == first.type}
        del model.graph.input[1:]
        model.graph.input.extend(other for other in others if other.name not in equal)  # a mask of tokens
        for node in model.graph.node:
            node.input[:] = [first.name if name in equal else name for name in node.input]
        return self._in_precision(model)

    def _in_precision(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A graph with random weights in the recipe's precision; its ranges do not affect the kernels."""
        graph = Graph(model)
        if "QuantizeLinear" in graph.op_types:
            return model
        if self.recipe.quantization is None:
            return self._precise(model, None)
        rng = np.random.default_rng(0)
        return self._precise(model, [random_feeds(graph, rng) for _ in range(_STAND_IN_RUNS)])

    def _precise(self, model: onnx.ModelProto, images: Images | Sequence[Feeds] | None) -> onnx.ModelProto:
        from hwnas.lowering.precision import in_precision

        return in_precision(model, self.recipe, images)

    def any_batch(self, program: Program) -> onnx.ModelProto:
        """The graph with a symbolic batch axis; its nodes and weights are unchanged, also under int8."""
        from hwnas.lowering.batch import with_any_batch

        assert isinstance(program, onnx.ModelProto)
        return self.checked(with_any_batch(program))

    def float_layers(self, program: Program) -> list[str]:
        """Names of the layers of an int8 graph with float weights."""
        from hwnas.lowering.quantize import float_layers

        assert isinstance(program, onnx.ModelProto)
        return float_layers(program) if self.recipe.quantization is not None else []

    def write(self, program: Program, folder: Path) -> Path:
        """Write ``model.onnx`` with the weights inside."""
        assert isinstance(program, onnx.ModelProto)
        path = folder / self.filename
        write_whole(path, serialized(program))
        return path

    def spooled(self, program: Program, folder: Path) -> Path:
        """Every graph contains its weights: 13 MiB per network of mobilenetv3."""
        return self.write(program, folder)

    def _export(self, modules: list[nn.Module], given: Sequence[tuple[Tensor, ...]]) -> list[onnx.ModelProto]:
        """Export many modules, each with its inputs, in one call -> one model each.

        Inputs are named `INPUT` (with a number if there are several), outputs `OUTPUT`.
        """
        inputs = [list(each) for each in given]
        with quiet_export(), system_refusals("the export to ONNX"):
            program = torch.onnx.export(
                _Branches(modules).eval(),
                (inputs,),
                dynamo=True,
                opset_version=self.recipe.opset,
                verbose=False,
            )
        assert program is not None
        whole = Graph(program.model_proto)
        names = iter(whole.inputs)
        sources = [{next(names): f"{INPUT}{i or ''}" for i in range(len(each))} for each in inputs]
        return [cut(whole, each, sink, OUTPUT) for each, sink in zip(sources, whole.outputs, strict=True)]


class _Branches(nn.Module):
    """Parallel modules, so that one export call serves many."""

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(modules)

    def forward(self, inputs: list[list[Tensor]]) -> list[Tensor]:
        return [branch(*xs) for branch, xs in zip(self.branches, inputs, strict=True)]


def _without_repetition(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without duplicate computations, as from the exporter: edges from a node share its activation."""
    import onnx_ir as ir
    from onnx_ir.passes import common
    from onnxscript import optimizer

    whole = ir.from_proto(model)
    optimizer.optimize_ir(whole)  # as the exporter: transposes of tokens to pixels and back cancel
    for step in (common.DeduplicateHashedInitializersPass(), common.CommonSubexpressionEliminationPass()):
        whole = step(whole).model
    result: onnx.ModelProto = ir.to_proto(whole)
    return result


def _begins_quantized(graph: Graph) -> bool:
    """Whether a QuantizeLinear is the only reader of the input."""
    return [node.op_type for node in graph.consumers(INPUT)] == ["QuantizeLinear"]


def _pair_at_output(graph: Graph) -> tuple[Node, ...]:
    """The Q/DQ pair at the graph's output, if there is one."""
    after = graph.producer(OUTPUT)
    if after is None or after.op_type != "DequantizeLinear":
        return ()
    before = graph.producer(after.inputs[0])
    assert before is not None, "values are quantised before they are dequantised"
    return before, after


def _resized(model: onnx.ModelProto, batch: int, op: Op) -> onnx.ModelProto:
    """The graph of an op at this op's image size."""
    copy = copied(model)
    for value, shape in (*zip(copy.graph.input, op.inputs, strict=True), (copy.graph.output[0], op.output)):
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, [batch, *shape]))
    return copy
