"""Variables, slots, archs and spaces: the core of hwnas.

A space is a set of categorical variables and an ordered list of slots. A slot reads a few variables and holds the
op that they select, or none. An arch is one value for each variable. Every sum over slots (latency, MACs,
parameters, an additive accuracy model) is a `SlotSum`: it can be evaluated in batches, differentiated and searched
exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue, UnknownName
from hwnas.spaces.arch import Arch, Condition
from hwnas.spaces.inputs import InputKind
from hwnas.spaces.ops import Op, Shape
from hwnas.spaces.sides import SQUARE, image_sides
from hwnas.spaces.slots import Slot, Value, Variable
from hwnas.spaces.slotsum import SlotMax, SlotSum
from hwnas.spaces.terms import terms_of
from hwnas.spaces.wiring import FROM_IMAGE, Node, Position, chain, reads_image, resolve

if TYPE_CHECKING:
    import networkx as nx

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space.

    Attributes:
        name: argument of `hwnas.spaces.make_space`.
        variables: the categorical variables, in the order of a code's columns.
        slots: the slots of the network, in the order of execution.
        classes: number of classes.
        in_channels: channels of the input image; 0 for tokens.
        bn_eps: epsilon that BN adds to the variance.
        wiring: places of the slots and their inputs; None for a chain, in which each slot reads the previous one.
        shares_weights: whether the ops of a slot share one set of weights, as in once-for-all's spaces; otherwise
            each op has its own.
        aspect: width to height of the input image, ``"2:1"``; the variable `resolution` is its height.
        vocabulary: number of tokens, of which 0 is padding, for a space of sequences; None for images. The variable
            `length` is the length of a sequence.
    """

    name: str
    variables: tuple[Variable, ...]
    slots: tuple[Slot, ...]
    classes: int
    in_channels: int
    bn_eps: float = 1e-5
    wiring: tuple[Position, ...] | None = None
    shares_weights: bool = True
    aspect: str = SQUARE
    vocabulary: int | None = None

    @cached_property
    def places(self) -> tuple[Position, ...]:
        """The places of the slots, in the order of execution; the last one outputs the logits."""
        return chain(self.slots) if self.wiring is None else self.wiring

    @cached_property
    def column(self) -> dict[str, int]:
        """Name of a variable -> its column in a matrix of codes."""
        return {variable.name: i for i, variable in enumerate(self.variables)}

    def variable(self, name: str) -> Variable:
        """The variable of that name.

        Raises:
            UnknownName: there is none.
        """
        if name not in self.column:
            raise UnknownName(f"variable of {self.name}", name, self.column)
        return self.variables[self.column[name]]

    @cached_property
    def shared(self) -> tuple[str, ...]:
        """Names of the variables that slots of more than one group read, such as the resolution."""
        groups: dict[str, set[str]] = {variable.name: set() for variable in self.variables}
        for slot in self.slots:
            for name in (*slot.variables, *slot.needed_by):
                groups[name].add(slot.group)
        return tuple(name for name, readers in groups.items() if len(readers) > 1)

    # -- size, restriction -----------------------------------------------------------------------------------------

    @cached_property
    def size(self) -> int:
        """Number of different networks (assignments that differ only in variables without effect count once)."""
        children: dict[str, list[Variable]] = {}
        for variable in self.variables:
            if variable.matters:
                children.setdefault(variable.matters[0], []).append(variable)

        def count(variable: Variable) -> int:
            """Assignments of a variable and of those that depend on it."""
            dependents = children.get(variable.name, [])
            return sum(
                math.prod(count(d) for d in dependents if d.matters and value in d.matters[1])
                for value in variable.values
            )

        return math.prod(count(variable) for variable in self.variables if variable.matters is None)

    @cached_property
    def conditions(self) -> tuple[tuple[Condition, ...], ...]:
        """For each variable the conditions under which it has an effect; none if it always has one.

        A variable depends on its parent (`Variable.matters`), and on whatever the parent depends on.
        """
        found: list[tuple[Condition, ...]] = []
        for variable in self.variables:
            if variable.matters is None:
                found.append(())
                continue
            name, values = variable.matters
            column = self.column[name]
            if column >= len(found):
                raise InvalidValue(f"{variable.name} of {self.name} depends on {name}, which has to come before it")
            matters = np.array([value in values for value in self.variables[column].values])
            found.append((*found[column], Condition(column, matters)))
        return tuple(found)

    def has_effect(self, name: str, arch: Mapping[str, Value]) -> bool:
        """Whether a variable changes the network of an arch."""
        matters = self.variable(name).matters
        return matters is None or (arch[matters[0]] in matters[1] and self.has_effect(matters[0], arch))

    def fix(self, /, **choices: Value | Iterable[Value]) -> Space:
        """The same space with fewer choices.

        The codes keep their columns; the indices in a column then refer to the remaining values.

        Args:
            choices: name of a variable -> the value or values that remain.

        Raises:
            UnknownName: no such variable.
            InvalidValue: no value remains, or the variable does not have one of the values.
        """
        variables = list(self.variables)
        for name, choice in choices.items():
            variable = self.variable(name)
            wanted = {choice} if isinstance(choice, int | str) else set(choice)
            if not wanted or not wanted <= set(variable.values):
                wrong = ", ".join(sorted(map(str, wanted - set(variable.values)))) or "empty"
                raise InvalidValue(
                    f"{name} of {self.name} cannot be {wrong}; choose from {', '.join(map(str, variable.values))}"
                )
            kept = tuple(value for value in variable.values if value in wanted)
            variables[self.column[name]] = replace(variable, values=kept)
        return replace(self, variables=tuple(variables))

    @property
    def choices(self) -> dict[str, list[Value]]:
        """Name of a variable -> its values; they distinguish a restricted space from the whole one."""
        return {variable.name: list(variable.values) for variable in self.variables}

    # -- codes and archs -------------------------------------------------------------------------------------------

    def sample(self, n: int, *, seed: int | tuple[int, ...]) -> Codes:
        """Random networks, each variable drawn uniformly and independently (as once-for-all does).

        Args:
            n: number of networks.
            seed: of `numpy.random.default_rng`; the same seed gives the same networks.

        Returns:
            ``(n, variables)``: index of each variable's value, 0 if the variable has no effect.

        Raises:
            InvalidValue: `n` is negative.
        """
        if n < 0:
            raise InvalidValue(f"the number of networks must be at least 0, not {n}")
        rng = np.random.default_rng(seed)
        columns = [rng.integers(len(v.values), size=n, dtype=np.uint8) for v in self.variables]
        return self.canonical(np.stack(columns, axis=1))

    def canonical(self, codes: Codes) -> Codes:
        """The codes with 0 for variables without effect, so that equal rows are equal networks.

        Raises:
            InvalidValue: not a ``(n, variables)`` matrix of existing choices.
        """
        if codes.ndim != 2 or codes.shape[1] != len(self.variables) or codes.dtype != np.uint8:
            raise InvalidValue(
                f"codes of {self.name} must be a uint8 matrix (n, {len(self.variables)}), not {codes.dtype} "
                f"{codes.shape}"
            )
        limits = np.array([len(v.values) for v in self.variables])
        if (codes >= limits).any():
            row, column = np.argwhere(codes >= limits)[0]
            raise InvalidValue(
                f"row {row}: {self.variables[column].name} has {limits[column]} choices, there is no index "
                f"{codes[row, column]}"
            )
        out = codes.copy()
        for i, conditions in enumerate(self.conditions):
            for one in conditions:
                out[~one.matters[codes[:, one.column]], i] = 0
        return out

    def encode(self, archs: Sequence[Arch]) -> Codes:
        """Archs -> their codes, ``(len(archs), variables)``.

        Raises:
            InvalidValue: an arch belongs to another space, or has a value outside this (perhaps restricted) space.
        """
        codes = np.zeros((len(archs), len(self.variables)), np.uint8)
        for row, arch in enumerate(archs):
            if arch.space != self.name or set(arch) != set(self.column):
                raise InvalidValue(f"an arch of the space {arch.space} was passed to the space {self.name}")
            for i, variable in enumerate(self.variables):
                value = arch[variable.name]
                if value in variable.values:
                    codes[row, i] = variable.values.index(value)
                elif self.has_effect(variable.name, arch):
                    raise InvalidValue(
                        f"{variable.name} is {value!r}, which is not among {', '.join(map(str, variable.values))}"
                    )
        return self.canonical(codes)

    def decode(self, codes: Codes) -> list[Arch]:
        """Codes ``(n, variables)`` -> n archs, in canonical form.

        Raises:
            InvalidValue: not codes of this space.
        """
        names = [v.name for v in self.variables]
        values = [v.values for v in self.variables]
        return [
            Arch(self.name, tuple(zip(names, (v[c] for v, c in zip(values, row, strict=True)), strict=True)))
            for row in self.canonical(codes)
        ]

    def arch(self, values: Mapping[str, Value]) -> Arch:
        """The arch with these values, checked and in canonical form.

        Raises:
            InvalidValue: a variable is missing, unknown, or has a value outside the space.
        """
        if set(values) != set(self.column):
            missing, extra = set(self.column) - set(values), set(values) - set(self.column)
            raise InvalidValue(
                f"an arch of {self.name} needs one value for each variable; "
                f"missing: {sorted(missing) or 'none'}, unknown: {sorted(extra) or 'none'}"
            )
        return self.decode(self.encode([Arch(self.name, tuple((n, values[n]) for n in self.column))]))[0]

    @cached_property
    def smallest(self) -> Arch:
        """The arch with the first value of every variable, or the smallest whose network depends on its input.

        In a space of cells the first values may give a cell without edges, whose output is the same for every image.
        Then, starting from the largest arch, each variable is lowered as long as the network depends on the image,
        those that save most MACs first. If no network does, the arch has the first values.
        """
        codes = np.zeros((1, len(self.variables)), np.uint8)
        first, largest = self.decode(codes)[0], self.largest
        if self.depends_on_image(first) or not self.depends_on_image(largest):
            return first
        codes = self.encode([largest])
        lowered = codes.repeat(len(self.variables), axis=0)
        np.fill_diagonal(lowered, 0)
        for column in np.argsort(self.macs(self.canonical(lowered)), kind="stable"):
            for value in range(int(codes[0, column])):
                trial = codes.copy()
                trial[0, column] = value
                if self.depends_on_image(self.decode(trial)[0]):
                    codes = trial
                    break
        return self.decode(codes)[0]

    def depends_on_image(self, arch: Mapping[str, Value]) -> bool:
        """Whether the output of an arch's network depends on the image; without edges it does not."""
        return reads_image(self.network(arch))

    @property
    def largest(self) -> Arch:
        """The arch with the last value of every variable."""
        return self.decode(np.array([[len(v.values) - 1 for v in self.variables]], np.uint8))[0]

    def describe(self, arch: Mapping[str, Value]) -> dict[str, Value]:
        """The values of an arch that have an effect, without those of absent blocks."""
        return {v.name: arch[v.name] for v in self.variables if self.has_effect(v.name, arch)}

    # -- ops -------------------------------------------------------------------------------------------------------

    def network(self, arch: Mapping[str, Value]) -> list[Node]:
        """The nodes of an arch's network with their inputs, in the order of execution."""
        ops = {slot.name: slot.op(*(arch[name] for name in slot.variables)) for slot in self.slots}
        return resolve(self.places, {slot.name: slot for slot in self.slots}, ops)

    def ops(self, arch: Mapping[str, Value]) -> list[tuple[Slot, Op]]:
        """The ops of an arch's network with their slots, in the order of execution, once for each copy of a cell."""
        return [(node.slot, node.op) for node in self.network(arch)]

    @property
    def reads(self) -> InputKind:
        """The kind of the networks' inputs."""
        return InputKind(self.in_channels, self.vocabulary)

    @property
    def dtype(self) -> Literal["float32", "int64"]:
        """Type of the networks' inputs: "int64" for tokens."""
        return "float32" if self.vocabulary is None else "int64"

    def input_shape(self, arch: Mapping[str, Value]) -> Shape:
        """Shape of an arch's inputs: of images ``(channels, height, width)``, of tokens ``(length,)``."""
        size = int(arch[self.reads.size])
        return (size,) if self.vocabulary is not None else (self.in_channels, *image_sides(size, self.aspect))

    def input_size(self, arch: Mapping[str, Value]) -> int | tuple[int, int]:
        """Size of an arch's inputs, as `hwnas.Data` takes it.

        Of images, one side, or height and width, in pixels; of tokens, their number.
        """
        size = int(arch[self.reads.size])
        height, width = (size, size) if self.vocabulary is not None else image_sides(size, self.aspect)
        return height if height == width else (height, width)

    def slot_ops(self, slot: Slot) -> npt.NDArray[Any]:
        """Every op that a slot may hold: an array of `Op` or None with one axis per variable that the slot reads.

        The array is kept, and cannot be changed: tables, sums, supernets and mixed networks read it repeatedly. Making
        the ops each time took half of the time to set up a differentiable search of NAS-Bench-201.
        """
        if slot.name not in self._kept_ops:
            values = [self.variable(name).values for name in slot.variables]
            ops = np.empty([len(v) for v in values], dtype=object)
            for index in np.ndindex(*ops.shape):
                ops[index] = slot.op(*(v[i] for v, i in zip(values, index, strict=True)))
            ops.flags.writeable = False
            self._kept_ops[slot.name] = ops
        return self._kept_ops[slot.name]

    @cached_property
    def _kept_ops(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    @cached_property
    def distinct_ops(self) -> tuple[Op, ...]:
        """Every op of any slot, each once, in the order of the slots: the ops to profile."""
        ops = (op for slot in self.slots for op in self.slot_ops(slot).flat)
        return tuple(dict.fromkeys(op for op in ops if op is not None and not op.free))

    def graph(self, arch: Mapping[str, Value]) -> nx.DiGraph[str]:
        """The network as a graph: nodes are places (``op``, ``macs``, ``params``), edges are tensors (``shape``)."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph(space=self.name, arch=dict(arch))
        nodes = self.network(arch)
        for node in nodes:
            graph.add_node(node.name, op=node.op, macs=node.op.macs, params=node.op.params)
            for read in node.reads:
                if read != FROM_IMAGE:
                    graph.add_edge(nodes[read].name, node.name, shape=nodes[read].op.output)
        return graph

    def slot_sum(self, cost: Callable[[Op], float]) -> SlotSum:
        """The sum over slots of a cost of ops; an empty slot costs 0."""
        return self.grouped_sum(lambda _, op: cost(op))

    def grouped_sum(self, cost: Callable[[str, Op], float]) -> SlotSum:
        """The sum over slots of a cost that depends on the slot's group as well as on the op."""
        axes, arrays = terms_of(self, cost)
        repeats = Counter(place.slot for place in self.places)
        times = tuple(array * repeats[slot.name] for slot, array in zip(self.slots, arrays, strict=True))
        return SlotSum(constant=0.0, axes=axes, arrays=times)

    def slot_max(self, cost: Callable[[Op], float]) -> SlotMax:
        """The largest cost of an op over the slots; an empty slot costs 0."""
        axes, arrays = terms_of(self, lambda _, op: cost(op))
        return SlotMax(constant=0.0, axes=axes, arrays=arrays)

    @cached_property
    def macs(self) -> SlotSum:
        """MACs of networks, from their codes."""
        return self.slot_sum(lambda op: op.macs)

    @cached_property
    def params(self) -> SlotSum:
        """Parameter counts of networks, from their codes."""
        return self.slot_sum(lambda op: op.params)
