"""From a torch module to its operations, with the dimensions that have to change together."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.errors import ModelError
from hwnas.models.torch_module import first_line
from hwnas.tracing.calls import Call, Images, Made, Read, unknown
from hwnas.tracing.dims import IMAGES, Dims, Groups, batch, constant
from hwnas.tracing.rules import RULES


@dataclass(slots=True)
class Weight:
    """A parameter or buffer of the traced module.

    Attributes:
        tensor: its values.
        parameter: whether it is trained.
        dims: its dimensions; those of a layer's weight are given by the layer.
        by_layer: whether a layer has given them.
    """

    tensor: Tensor
    parameter: bool
    dims: Dims
    by_layer: bool = False


@dataclass(slots=True)
class Step:
    """One operation of the trace.

    Attributes:
        name: of the node.
        op: ``namespace.operator.overload``, or ``getitem``.
        args, kwargs: torch's; values and weights as `Read`, what depends on widths as `Sized`.
        dims: of its output; a list for several outputs.
    """

    name: str
    op: str
    args: list[Any]
    kwargs: dict[str, Any]
    dims: Dims | list[Dims]

    @property
    def reads(self) -> list[Read]:
        """All values and weights that it reads."""
        found: list[Read] = []
        stack: list[Any] = [*self.args, *self.kwargs.values()]
        while stack:
            arg = stack.pop(0)
            if isinstance(arg, Read):
                found.append(arg)
            elif isinstance(arg, list):
                stack = [*arg, *stack]
        return found


@dataclass(slots=True)
class Trace:
    """A traced network.

    Attributes:
        steps: in the order of execution.
        weights: by their names in the module.
        groups: which dimensions are tied.
        input: shape of an image.
        output: name of the output.
        classes: number of outputs.
        kept: names of operators without a rule that made dimensions fixed.
    """

    steps: list[Step]
    weights: dict[str, Weight]
    groups: Groups
    input: tuple[int, ...]
    output: str
    classes: int
    kept: list[str] = field(default_factory=list)


def trace(module: nn.Module, shape: Sequence[int]) -> Trace:
    """Trace a network, and find which of its dimensions are tied.

    Args:
        module: images ``(n, channels, height, width)`` -> ``(n, classes)``; evaluated, and not changed.
        shape: of an image, ``(channels, height, width)``.

    Raises:
        ModelError: it cannot be traced, or is not a classifier of images; the message names the node.
    """
    program = _exported(module, tuple(shape))
    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise ModelError(
            f"{type(module).__name__} has {len(signature.user_inputs)} inputs and {len(signature.user_outputs)} "
            "outputs; a space is made of a network with one image and one vector of logits"
        )
    state = {**program.state_dict, **program.constants}
    parameters, targets = set(signature.inputs_to_parameters.values()), _targets(signature)
    walk = _Walk(Groups())
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in targets:
            name = targets[node.name]
            walk.weight(node.name, name, state[name].detach(), parameter=name in parameters)
        elif node.op == "placeholder":
            walk.image(node.name, tuple(shape))
        elif node.op == "call_function":
            walk.call(node)
        elif node.op != "output":
            raise ModelError(f"node {node.name} is a {node.op}, which cannot be traced")
    [output] = signature.user_outputs
    dims, sizes = walk.values[str(output)], walk.shapes[str(output)]
    if len(sizes) != 2 or sizes[0] != IMAGES:
        raise ModelError(
            f"the output of {type(module).__name__} is {list(sizes)} for {IMAGES} images; it should be one vector of "
            "logits for each image"
        )
    assert isinstance(dims, tuple)
    walk.groups.freeze(dims, "the output")
    return Trace(
        steps=walk.steps,
        weights=walk.weights,
        groups=walk.groups,
        input=tuple(shape),
        output=str(output),
        classes=sizes[1],
        kept=sorted(set(walk.kept)),
    )


def _exported(module: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """The module as a graph of torch's operators without side effects."""
    name = type(module).__name__
    if wrong := next((p.dtype for p in module.parameters() if p.dtype != torch.float32), None):
        raise ModelError(f"{name} has weights of the type {str(wrong).removeprefix('torch.')}: call its .float() first")
    try:
        with warnings.catch_warnings(), torch.no_grad(), evaluating(module):
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (torch.zeros(IMAGES, *shape),))
            found: torch.export.ExportedProgram = program.run_decompositions({})
            return found
    except Exception as error:  # torch has no common base class for its export errors
        raise ModelError(
            f"torch.export cannot trace {name} on images {tuple(shape)}: {first_line(error)}. Networks whose Python "
            "code depends on values cannot be traced"
        ) from error


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A context in which a module and its layers are in evaluation mode; each has its own mode again after it."""
    modes = {layer: layer.training for layer in module.modules()}
    # Not `eval`, which exported programs do not have.
    for layer in modes:
        layer.training = False
    try:
        yield
    finally:
        for layer, training in modes.items():
            layer.training = training


def _targets(signature: torch.export.ExportGraphSignature) -> dict[str, str]:
    """Name of a placeholder -> name of its parameter, buffer or constant."""
    return {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }


class _Walk:
    """The dimensions of all values, in the order of execution."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.values: dict[str, Dims | list[Dims]] = {}
        self.shapes: dict[str, Any] = {}
        self.weights: dict[str, Weight] = {}
        self.named: dict[str, str] = {}  # placeholder -> weight
        self.steps: list[Step] = []
        self.kept: list[str] = []

    def weight(self, placeholder: str, name: str, tensor: Tensor, *, parameter: bool) -> None:
        """A parameter or buffer. Until a layer reads it, its dimensions may be tied to any."""
        dims = tuple(constant(1) if size == 1 else self.groups.new(size, name, made=False) for size in tensor.shape)
        self.named[placeholder] = name
        self.weights[name] = Weight(tensor, parameter, dims)

    def image(self, name: str, shape: tuple[int, ...]) -> None:
        """The input."""
        self.values[name] = (batch(IMAGES), *map(constant, shape))
        self.shapes[name] = (IMAGES, *shape)

    def call(self, node: torch.fx.Node) -> None:
        """An operation."""
        if node.target is operator.getitem:
            source, place = node.args
            assert isinstance(source, torch.fx.Node)
            found = self.values[source.name]
            assert isinstance(found, list)
            assert isinstance(place, int)
            self._add(node, "getitem", [self._read(source), place], found[place])
            return
        if str(node.target).startswith("aten._assert"):  # a check of a type, without a result
            return
        if not isinstance(node.target, torch._ops.OpOverload):
            raise ModelError(f"node {node.name} calls {node.target}, which is not an operator of torch")
        shapes, several = _shapes(node)
        args, kwargs = [self._read(arg) for arg in node.args], {k: self._read(v) for k, v in node.kwargs.items()}
        name = node.target.name().partition("::")[2]
        short = f"{name}.default" if "." not in name else name
        if short == "split.Tensor":  # equal parts may get different widths
            axis = int(args[2]) if len(args) > 2 else 0
            args[1], short = [shape[axis] for shape in shapes], "split_with_sizes.default"
        call = Call(self.groups, node.name, args, shapes, several=several)
        rule = RULES.get(short, unknown)
        if any(isinstance(value, Read) for value in kwargs.values()):
            call.args += [value for value in kwargs.values() if isinstance(value, Read)]
            rule = unknown
        made: Made = rule(call)
        if rule is unknown and any(not dim.fixed for read in call.reads for dim in read.dims if not dim.batch):
            self.kept.append(short)
        for name, dims in made.weights.items():
            self._given(name, dims, node.name)
        for place, sized in made.args.items():
            if place < len(args):
                args[place] = sized
        self._add(node, f"{node.target.namespace}.{short}", args, made.dims, kwargs)

    def _given(self, name: str, dims: Dims, node: str) -> None:
        """Note the dimensions that a layer gives to its weight."""
        weight = self.weights[name]
        if weight.by_layer:  # a weight that several layers share
            dims = tuple(
                self.groups.unify(a, b, f"{node} shares {name}") for a, b in zip(weight.dims, dims, strict=True)
            )
        else:
            for own, new in zip(weight.dims, dims, strict=True):
                if not own.fixed and self.groups.every[own.pieces[0].group].bound is not None:
                    self.groups.unify(own, new, node)  # another operation has read it before
        weight.dims, weight.by_layer = dims, True

    def _add(
        self,
        node: torch.fx.Node,
        op: str,
        args: list[Any],
        dims: Dims | list[Dims],
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        value = node.meta.get("val")
        self.values[node.name] = dims
        self.shapes[node.name] = tuple(value.shape) if isinstance(value, Tensor) else None
        self.steps.append(Step(node.name, op, args, kwargs or {}, dims))

    def _read(self, arg: Any) -> Any:  # noqa: ANN401 (torch's arguments have any type)
        """An argument, with values and weights as `Read`."""
        if isinstance(arg, torch.fx.Node):
            if arg.name in self.named:
                name = self.named[arg.name]
                weight = self.weights[name]
                return Read(name, tuple(weight.tensor.shape), weight.dims, weight=True)
            dims = self.values[arg.name]
            return Read(arg.name, self.shapes[arg.name] or (), dims if isinstance(dims, tuple) else ())
        if isinstance(arg, list | tuple):
            return [self._read(each) for each in arg]
        if isinstance(arg, int) and not isinstance(arg, bool) and arg == IMAGES:
            return Images(arg)
        return arg


def _shapes(node: torch.fx.Node) -> tuple[list[tuple[int, ...]], bool]:
    """Shapes of the outputs of a node in the trace, and whether there are several.

    Raises:
        ModelError: a shape depends on values.
    """
    value = node.meta.get("val")
    several = isinstance(value, list | tuple)
    shapes = []
    for each in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(each, Tensor):
            raise ModelError(f"node {node.name} ({node.target}) makes a {type(each).__name__}, not a tensor")
        if not all(isinstance(size, int) for size in each.shape):
            raise ModelError(f"node {node.name} ({node.target}) makes a tensor whose shape depends on values")
        shapes.append(tuple(each.shape))
    return shapes, several
