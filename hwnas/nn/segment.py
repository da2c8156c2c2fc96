"""Segments of traced networks as torch modules, and what a narrower segment takes of a wider one's weights."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from hwnas.errors import InvalidValue
from hwnas.spaces import Op
from hwnas.spaces.ops import make_op
from hwnas.spaces.traced.costs import graph_of, ranks_beside, sizes_text, units_of
from hwnas.spaces.traced.spec import FIXED, NodeSpec, RankSpec, SegmentGraph, Size, Units, size_of

_CONV, _CONV1, _LINEAR = "aten.conv2d.default", "aten.conv1d.default", "aten.linear.default"
_BATCH_NORM = "aten._native_batch_norm_legit_no_training.default"
_LAYER_NORM = "aten.layer_norm.default"
_CONSTANTS = frozenset({"full", "zeros", "ones", "arange", "eye", "linspace", "scalar_tensor"})  # they read no tensor


def segment(op: Op) -> nn.Module:
    """The module of an op of kind segment: layers with weights are torch modules, all else torch's operators.

    Names of its tensors do not depend on widths, and are ``layers.LAYER.WEIGHT``.
    """
    return _built(op).module()


def shared(ops: Sequence[Op]) -> Op:
    """An op with the tensors of all ops of a slot; its module does not run where it has two forms of a layer.

    Args:
        ops: segments of one graph.
    """
    graph, units = graph_of(ops[0]), [units_of(op) for op in ops]
    most = tuple(map(max, zip(*units, strict=True)))
    beside = {
        rank.group: max(thin)
        for rank in graph.ranks.values()
        if most[rank.group] == rank.full and (thin := {each[rank.group] for each in units} - {rank.full})
    }
    given, made = graph.shapes(most)
    return make_op("segment", given, made, graph=graph.digest, sizes=sizes_text(most, beside))


def taken(op: Op, largest: Op) -> Mapping[str, tuple[slice | Tensor, ...]]:
    """Of each tensor of a segment: the elements of the largest segment's that it takes, along each axis.

    Args:
        op: a segment.
        largest: with the same graph, and no fewer units.
    """
    graph, units, most = graph_of(op), units_of(op), units_of(largest)
    found = {}
    for name, weight in _built(op).names.items():
        found[name] = tuple(_elements(size, units, most) for size in graph.weights[weight].sizes)
    return found


def tensor_names(op: Op) -> dict[str, str]:
    """Name of a tensor in the state of a segment's module -> name of the weight in its graph."""
    return _built(op).names


def _built(op: Op) -> _Built:
    return _Built(graph_of(op), units_of(op), ranks_beside(op))


def _elements(size: Size, units: Units, most: Units) -> slice | Tensor:
    """The first units of each piece of a dimension."""
    assert not isinstance(size, int)  # a weight has no dimension of images
    if len(size) == 1 or all(group == FIXED or units[group] == most[group] for group, _ in size):
        return slice(size_of(size, units))
    parts, at = [], 0
    for piece in size:
        kept, whole = size_of([piece], units), size_of([piece], most)
        parts.append(torch.arange(at, at + kept))
        at += whole
    return torch.cat(parts)


_Layers: TypeAlias = dict[str, tuple[nn.Module, dict[str, str]]]  # place -> layer, and its tensors' names -> weights


class _Built:
    """A segment as a graph of torch.fx.

    Attributes:
        names: name of a tensor in the module's state -> name of the weight in the segment's graph.
    """

    def __init__(self, graph: SegmentGraph, units: Units, beside: Mapping[int, int]) -> None:
        self.spec, self.units, self.beside = graph, units, beside
        self.root, self.layers = nn.Module(), nn.ModuleDict()
        self.root.layers = self.layers
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {"input": self.graph.placeholder("x")}
        self.names: dict[str, str] = {}
        readers: dict[str, int] = {}
        for node in graph.nodes:
            for name in node.values:
                readers[name] = readers.get(name, 0) + 1
        self.readers = readers
        nodes = {node.name: node for node in graph.nodes}
        for node in graph.nodes:
            self._add(node, nodes)
        self.graph.output(self.values[graph.nodes[-1].name])

    def module(self) -> nn.Module:
        """The module."""
        for name, weight in self.names.items():
            if self.spec.weights[weight].frozen:
                self.root.get_parameter(name).requires_grad_(False)
        return fx.GraphModule(self.root, self.graph)

    def _add(self, node: NodeSpec, nodes: Mapping[str, NodeSpec]) -> None:
        made = {
            _CONV: self._convolution,
            _CONV1: self._convolution,
            _LINEAR: self._linear,
            _BATCH_NORM: self._norm,
            _LAYER_NORM: self._layer_norm,
        }
        if node.op in made and len(node.values) == 1 and _is_value(node.args[0]):
            rank, layers = self.spec.ranks.get(node.name), _Layers()
            if rank is None or self.units[rank.group] == rank.full:
                layers["0"] = made[node.op](node)
            if rank is not None and (rank.group in self.beside or self.units[rank.group] < rank.full):
                layers |= self._thin(node, rank)
            self._layer(node, layers, nodes)
            return
        args = tuple(self._arg(arg) for arg in node.args)
        if node.op == "getitem":
            self.values[node.name] = self.graph.call_function(operator.getitem, args)
            return
        kwargs = {name: self._arg(arg) for name, arg in node.kwargs.items()}
        result = self.graph.call_function(_operator(node.op), args, kwargs)
        if node.op == _BATCH_NORM:  # of three outputs, the first one is used
            result = self.graph.call_function(operator.getitem, (result, 0))
        self.values[node.name] = result

    def _layer(self, node: NodeSpec, layers: _Layers, nodes: Mapping[str, NodeSpec]) -> None:
        """Add a layer. A BN that alone reads a convolution shares its container, as what folds BN expects."""
        [source] = node.values
        before, name = nodes.get(source), node.name
        if node.op == _BATCH_NORM and before is not None and before.op == _CONV and self.readers[source] == 1:
            # The convolution is already there: its container gets a further layer.
            name, layers = before.name, {"1": layers["0"]}
            result = self.values[source]
        else:
            self.layers[name] = nn.Sequential()
            result = self.graph.call_module(f"layers.{name}", (self.values[source],))
        for place, (module, names) in layers.items():
            self.layers[name].add_module(place, module)
            self.names |= {f"layers.{name}.{place}.{own}": weight for own, weight in names.items()}
        self.values[node.name] = result

    def _named(self, node: NodeSpec, places: Mapping[str, int]) -> dict[str, str]:
        """Name in a layer -> weight, for arguments that are weights."""
        found = {}
        for name, place in places.items():
            arg = node.args[place] if place < len(node.args) else None
            if isinstance(arg, dict) and "weight" in arg:
                found[name] = str(arg["weight"])
        return found

    def _shape(self, weight: str) -> tuple[int, ...]:
        return self.spec.weights[weight].shape(self.units)

    def _number(self, node: NodeSpec, place: int, default: Any) -> Any:  # noqa: ANN401 (torch's arguments have any type)
        return self._arg(node.args[place]) if place < len(node.args) else default

    def _convolution(self, node: NodeSpec) -> tuple[nn.Module, dict[str, str]]:
        names = self._named(node, {"weight": 1, "bias": 2})
        made, inside, *kernel = self._shape(names["weight"])
        groups = self._number(node, 6, 1)
        kind = nn.Conv2d if len(kernel) == 2 else nn.Conv1d
        ones = [1] * len(kernel)
        layer = kind(
            inside * groups,
            made,
            tuple(kernel),  # type: ignore[arg-type]
            stride=_tuple(self._number(node, 3, ones), len(kernel)),  # type: ignore[arg-type]
            padding=_padding(self._number(node, 4, 0), len(kernel)),  # type: ignore[arg-type]
            dilation=_tuple(self._number(node, 5, ones), len(kernel)),  # type: ignore[arg-type]
            groups=groups,
            bias="bias" in names,
        )
        return layer, names

    def _thin(self, node: NodeSpec, rank: RankSpec) -> _Layers:
        """Two layers in place of a linear layer or a 1x1 convolution."""
        made, into, *_ = self._shape(rank.whole)
        between = self.beside.get(rank.group, self.units[rank.group])
        bias = self._named(node, {"bias": 2})
        down: nn.Module
        up: nn.Module
        if node.op == _LINEAR:
            down, up = nn.Linear(into, between, bias=False), nn.Linear(between, made, bias=bool(bias))
        else:
            stride = _tuple(self._number(node, 3, 1), 2)
            down = nn.Conv2d(into, between, 1, stride=stride, bias=False)  # type: ignore[arg-type]
            up = nn.Conv2d(between, made, 1, bias=bool(bias))
        return {"down": (down, {"weight": rank.down}), "up": (up, {"weight": rank.up, **bias})}

    def _linear(self, node: NodeSpec) -> tuple[nn.Module, dict[str, str]]:
        names = self._named(node, {"weight": 1, "bias": 2})
        made, inside = self._shape(names["weight"])
        return nn.Linear(inside, made, bias="bias" in names), names

    def _norm(self, node: NodeSpec) -> tuple[nn.Module, dict[str, str]]:
        names = self._named(node, {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4})
        [channels] = self._shape(names["running_mean"])
        momentum, eps = float(self._number(node, 5, 0.1)), float(self._number(node, 6, 1e-5))
        assert node.sizes is not None
        kind = nn.BatchNorm2d if len(node.sizes) == 4 else nn.BatchNorm1d
        return kind(channels, eps=eps, momentum=momentum, affine="weight" in names), names

    def _layer_norm(self, node: NodeSpec) -> tuple[nn.Module, dict[str, str]]:
        names = self._named(node, {"weight": 2, "bias": 3})
        layer = nn.LayerNorm(
            self._number(node, 1, None),
            eps=float(self._number(node, 4, 1e-5)),
            elementwise_affine="weight" in names,
            bias="bias" in names,
        )
        return layer, names

    def _arg(self, arg: Any) -> Any:  # noqa: ANN401 (torch's arguments have any type)
        if isinstance(arg, list):
            return [self._arg(each) for each in arg]
        if not isinstance(arg, Mapping):
            return arg
        [(kind, value)] = arg.items()
        read: dict[str, Callable[[], Any]] = {
            "value": lambda: self.values[value],
            "weight": lambda: self._tensor(value),
            "size": lambda: size_of(value, self.units),
            "sizes": lambda: [size_of(each, self.units) for each in value],
            "images": lambda: self.graph.call_method("size", (self.values["input"], 0)),
            "dtype": lambda: getattr(torch, value),
            "format": lambda: getattr(torch, value),
            "number": lambda: float(value),
        }
        return read[kind]()

    def _tensor(self, weight: str) -> fx.Node:
        """A weight that an operator reads."""
        spec = self.spec.weights[weight]
        if not hasattr(self.root, weight):
            tensor = torch.zeros(spec.shape(self.units), dtype=getattr(torch, spec.dtype))
            if spec.parameter:
                self.root.register_parameter(weight, nn.Parameter(tensor))
            else:
                self.root.register_buffer(weight, tensor)
            self.names[weight] = weight
        return self.graph.get_attr(weight)


def _is_value(arg: object) -> bool:
    return isinstance(arg, Mapping) and "value" in arg


def _operator(name: str) -> torch._ops.OpOverload:
    """An operator of torch that only computes tensors: a file may name any.

    Raises:
        InvalidValue: there is no such operator, it writes to its inputs, or it reads no tensor.
    """
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.partition(".")
    try:
        packet = getattr(torch.ops.aten, operation) if namespace == "aten" else None
        found: torch._ops.OpOverload = getattr(packet, overload)
        schema = found._schema
    except (AttributeError, RuntimeError) as error:
        raise InvalidValue(f"{name!r:.80} is not an operator of torch that a segment can have") from error
    tensors = [arg for arg in schema.arguments if "Tensor" in str(arg.type)]
    pure = not any(arg.alias_info is not None and arg.alias_info.is_write for arg in schema.arguments)
    makes = bool(schema.returns) and all("Tensor" in str(made.type) for made in schema.returns)
    if not (pure and makes and (tensors or operation in _CONSTANTS)):
        raise InvalidValue(f"the operator {name} cannot be in a segment: it does more than compute a tensor of others")
    return found


def _tuple(value: int | Sequence[int], sides: int) -> tuple[int, ...]:
    """One number for each side."""
    return (value,) * sides if isinstance(value, int) else tuple(value) * (sides if len(value) == 1 else 1)


def _padding(value: int | str | Sequence[int], sides: int) -> str | tuple[int, ...]:
    return value if isinstance(value, str) else _tuple(value, sides)
