"""The relaxed network: in every place, the sum of the candidates' outputs, weighted by their probabilities.

The weight of an op is the product of the weights of the values that choose it, as in the expected latency: in a cell
it is the softmax over an edge's operations (Liu et al., "DARTS", ICLR 2019, equation 2), in an elastic block the
product of the weights of its depth, kernel and expansion.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from hwnas.errors import InvalidValue
from hwnas.nn import build, ready
from hwnas.search.differentiable.choice import Choice, chosen_edges
from hwnas.spaces import Op, Slot, Space
from hwnas.spaces.kinds import KINDS
from hwnas.spaces.wiring import IMAGE, Position
from hwnas.supernet import Supernet


class Paths(NamedTuple):
    """The values of a relaxed network that run, and their weights.

    Attributes:
        weights: name of a variable -> weights of its values, ``(choices,)``.
        open: name of a variable -> 1 for values that are computed, 0 for others, ``(choices,)``. An op that is computed
            with a weight of 0 gets no gradient, but its weight does.
    """

    weights: dict[str, Tensor]
    open: dict[str, Tensor]


class MixedNet(nn.Module):
    """A relaxed network.

    Args:
        space: the space of the mixed networks, with a single resolution.
        partial: one of this number of channels passes through the mixture, the others bypass it (Xu et al., "PC-DARTS",
            ICLR 2020, equation 2); 1 for all channels.
        edge_normalisation: whether the edges into a node are weighted by a softmax (PC-DARTS, equation 3) if the space
            chooses among them; see `chosen_edges`.
        seed: of the initial weights.
        init: a supernet of the space with the initial weights; drawn ones if None.

    Raises:
        InvalidValue: outputs of a slot's ops cannot be summed, or `partial` is above 1 in a space without cells or
            with `init`.
    """

    def __init__(
        self,
        space: Space,
        *,
        partial: int = 1,
        edge_normalisation: bool = False,
        seed: int = 0,
        init: Supernet | None = None,
    ) -> None:
        super().__init__()
        if init is not None and partial > 1:
            raise InvalidValue(f"one of {partial} channels is searched, which cannot start from the weights of all")
        self.space, self.partial = space, partial
        self.choices = {slot.name: Choice.of(space, slot) for slot in space.slots}
        narrow = space if partial == 1 else _narrowed(space, self.choices, partial)
        self.ops = {slot.name: Choice.of(narrow, slot).candidates for slot in narrow.slots}
        self._last_read = _last_read(space)
        self.supernet = Supernet(narrow, seed=seed)
        if init is not None:
            self.supernet.load_state_dict(init.state_dict())
        if not space.shares_weights:
            self._hold_scales()
        self.logits = nn.ParameterDict(
            {v.name: torch.zeros(len(v.values)) for v in space.variables if len(v.values) > 1}
        )
        # Keyed by the variable that chooses among the edges: cells of the same kind share them, like their variables.
        self.edges = nn.ParameterDict()
        self.opens: dict[str, Tensor] = {}
        self._chooser: dict[str, str] = {}
        for place in space.places if edge_normalisation else ():
            variable, opens = (self._is_sum(place) and chosen_edges(space, self.choices, place)) or ("", None)
            if opens is not None and torch.equal(self.opens.setdefault(variable, opens), opens):
                self._chooser[place.name] = variable
                self.edges.setdefault(variable, torch.zeros(len(place.reads)))
        self.skip_dropout = 0.0
        self.train()

    @property
    def alphas(self) -> dict[str, Tensor]:
        """Name of a variable -> its logits, ``(choices,)``."""
        return dict(self.logits.items())

    @property
    def arch_parameters(self) -> list[nn.Parameter]:
        """The architecture parameters: logits of the variables, and of the edges if they are normalised."""
        return [*self.logits.parameters(), *self.edges.parameters()]

    @property
    def weight_parameters(self) -> list[nn.Parameter]:
        """The trainable weights of the ops."""
        return [parameter for parameter in self.supernet.parameters() if parameter.requires_grad]

    @contextlib.contextmanager
    def held_weights(self) -> Iterator[None]:
        """Disable gradients of the weights, and save no activations for them, while only probabilities are trained."""
        weights = self.weight_parameters
        for parameter in weights:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in weights:
                parameter.requires_grad_(True)

    def probabilities(self) -> dict[str, Tensor]:
        """Name of a variable -> probabilities of its values, ``(choices,)``.

        A softmax of the logits; if a variable chooses among normalised edges, multiplied by the weights of the edges
        that a value opens (PC-DARTS, section 3.3: the strength of an edge is its weight times its operation's weight).
        """
        logits = self.alphas
        for name, opens in self.opens.items():
            weights = self.edges[name].log_softmax(dim=0)
            logits[name] = logits[name] + opens.to(weights) @ weights
        return {name: values.softmax(dim=0) for name, values in logits.items()}

    def forward(self, x: Tensor, paths: Paths) -> Tensor:
        """Images or tokens ``(n, *Space.input_shape)`` -> logits ``(n, classes)``."""
        live = {slot: self._live(slot, paths) for slot in self.choices}
        modules = self._modules_of(live)
        values: dict[str, Tensor | None] = {IMAGE: x}
        read: dict[str, Tensor] = {}  # inputs of the places without output, for the shape of zeros
        for i, place in enumerate(self.space.places):
            if self.choices[place.slot].merges:
                values[place.name] = self._merged(place, values, read)
            else:
                values[place.name] = self._mixed(place, values, read, live[place.slot], modules)
            if values[place.name] is None:
                read[place.name] = _value(values, read, place.reads[0])
            for name in self._last_read.get(i, ()):
                del values[name]
                read.pop(name, None)
        return _value(values, read, self.space.places[-1].name)

    def _live(self, slot: str, paths: Paths) -> list[tuple[int, Tensor]]:
        """The candidates that run in a slot, with their weights."""
        choice = self.choices[slot]
        if len(choice.candidates) == 1:
            return [(0, torch.ones(()))]
        weights, runs = choice.contracted(paths.weights), choice.contracted(paths.open) > 0
        ops = choice.candidates
        kept = [i for i in range(len(ops)) if bool(runs[i]) and not ((op := ops[i]) is not None and op.free)]
        return [(i, weights[i]) for i in kept]

    def _modules_of(self, live: Mapping[str, list[tuple[int, Tensor]]]) -> dict[tuple[str, int], nn.Module]:
        """Name of a place and index of a candidate -> its module, for all that run."""
        names, chosen = [], []
        for place in self.space.places:
            for i, _ in () if self.choices[place.slot].merges else live[place.slot]:
                op = self.ops[place.slot][i]
                if op is not None:
                    names.append((place.name, i))
                    chosen.append((self.supernet.elastic(place.name, op), op))
        return dict(zip(names, ready(chosen), strict=True))

    def _mixed(
        self,
        place: Position,
        values: Mapping[str, Tensor | None],
        read: Mapping[str, Tensor],
        live: list[tuple[int, Tensor]],
        modules: Mapping[tuple[str, int], nn.Module],
    ) -> Tensor | None:
        """The weighted sum of the candidates' outputs in a place; None if there is no output."""
        candidates = self.ops[place.slot]
        x = _value(values, read, place.reads[0])
        masks = [mask for name in place.reads[1:] if (mask := values[name]) is not None]
        taken = x.shape[1] // self.partial
        if len(candidates) == 1:
            [only] = candidates
            if only is not None and KINDS[only.kind].role == "activation":
                x = x[:, :taken]  # its readers are mixtures, which use only these channels
            return x if only is None else modules[place.name, 0](x, *masks)
        rest = x[:, taken:] if self.partial > 1 else None
        total: Tensor | None = None
        closed: list[tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]] = []
        for i, weight in live:
            op, module = candidates[i], modules.get((place.name, i))
            part = _value(values, read, place.source(op))[:, :taken]
            if module is None:
                dropout = self.skip_dropout if not self.space.shares_weights else 0.0
                y = functional.dropout(part, dropout, self.training)
            elif op is not None and float(weight.detach()) == 0:
                closed.append((weight, part, functools.partial(_masked, module, masks)))
                shape = len(x), *op.output
                continue
            else:
                y = module(part, *masks)
            y = _weighted(weight, y)
            total = y if total is None else total + y
        for gate in closed:
            if total is None:  # the open candidate has no output
                total = x.new_zeros(()).expand(shape)
            total = _closed(total, *gate)
        if rest is None or total is None:
            return total
        if total.shape[-1] < rest.shape[-1]:  # an edge with a stride
            rest = functional.max_pool2d(rest, rest.shape[-1] // total.shape[-1])
        return _shuffled(torch.cat([total, rest], dim=1), self.partial)

    def _merged(
        self, place: Position, values: Mapping[str, Tensor | None], read: Mapping[str, Tensor]
    ) -> Tensor | None:
        """The output of a node; None if it has none."""
        given = [values[name] for name in place.reads]
        if not self._is_sum(place):
            return torch.cat([value for value in given if value is not None], dim=1)
        chooser = self._chooser.get(place.name)
        shares = self.edges[chooser].softmax(dim=0) if chooser else None
        terms = [value if shares is None else shares[i] * value for i, value in enumerate(given) if value is not None]
        if terms:
            return functools.reduce(torch.add, terms)
        zeros = [op for op in self.choices[place.slot].candidates if op is not None and KINDS[op.kind].role == "zero"]
        return build(zeros[0])(read[place.reads[0]]) if zeros else None

    def _is_sum(self, place: Position) -> bool:
        choice = self.choices[place.slot]
        return choice.merges and not any(op is not None and KINDS[op.kind].role == "concat" for op in choice.candidates)

    def _hold_scales(self) -> None:
        """Freeze the affine parameters of candidates' BN: they would rescale the mixture (DARTS, appendix A.1.1)."""
        for place in self.space.places:
            candidates = self.ops[place.slot]
            for op in () if len(candidates) == 1 or self.choices[place.slot].merges else candidates:
                for module in self.supernet.elastic(place.name, op).modules() if op and not op.free else ():
                    if isinstance(module, nn.BatchNorm2d):
                        module.requires_grad_(False)


class _GateContext(FunctionCtx):
    """The values that a gate saves for its backward pass."""

    saved_tensors: tuple[Tensor, ...]
    module: Callable[[Tensor], Tensor]


class _ClosedGate(torch.autograd.Function):
    """Add 0 times an op's output to a sum; only the gate's gradient depends on this output.

    The op runs in the backward pass, so that none of its activations are stored.
    """

    @staticmethod
    def forward(
        ctx: _GateContext, total: Tensor, gate: Tensor, x: Tensor, module: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.module = module
        return total.view_as(total)

    @staticmethod
    def backward(ctx: _GateContext, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return gradient, (gradient * _output_of(x, ctx.module)).sum(), None, None


class _OpenGate(torch.autograd.Function):
    """An op's output times 1, without a multiplication, so that the output is stored once, not twice."""

    @staticmethod
    def forward(ctx: _GateContext, gate: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: _GateContext, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (y,) = ctx.saved_tensors
        return (gradient * y).sum(), gradient


def _weighted(weight: Tensor, y: Tensor) -> Tensor:
    if float(weight.detach()) != 1:
        return weight * y
    gated: Tensor = _OpenGate.apply(weight, y) if weight.requires_grad else y  # type: ignore[no-untyped-call]
    return gated


def _masked(module: nn.Module, masks: Sequence[Tensor], x: Tensor) -> Tensor:
    """The output of a module that also reads which tokens are not padding."""
    y: Tensor = module(x, *masks)
    return y


def _closed(total: Tensor, gate: Tensor, x: Tensor, module: Callable[[Tensor], Tensor]) -> Tensor:
    result: Tensor = _ClosedGate.apply(total, gate, x, module)  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def _output_of(x: Tensor, module: Callable[[Tensor], Tensor]) -> Tensor:
    return module(x)


def _last_read(space: Space) -> dict[int, list[str]]:
    """Index of a place -> the names that no later place can read."""
    last: dict[str, int] = {}
    for i, place in enumerate(space.places):
        for name in {*place.reads, *([place.activated] if place.activated else [])}:
            last[name] = i
    found: dict[int, list[str]] = {}
    for name, i in last.items():
        found.setdefault(i, []).append(name)
    return found


def _value(values: Mapping[str, Tensor | None], read: Mapping[str, Tensor], name: str) -> Tensor:
    """The output of a place; zeros if it has none, so that all weights are trained, and equally often."""
    value = values[name]
    return torch.zeros_like(read[name]) if value is None else value


def _narrowed(space: Space, choices: Mapping[str, Choice], partial: int) -> Space:
    """The space with a fraction of the channels on each edge that has a choice.

    Raises:
        InvalidValue: a candidate is not an op of a cell's edges, or its channels cannot be divided by `partial`.
    """

    def narrow(slot: Slot) -> Slot:
        candidates = choices[slot.name].candidates
        if len(candidates) == 1 or choices[slot.name].merges:
            return slot
        for op in candidates:
            if op is not None and (not KINDS[op.kind].partial or op.input[0] % partial or op.output[0] != op.input[0]):
                raise InvalidValue(
                    f"one of {partial} channels can be taken on edges of cells with such a number of channels, not of "
                    f"{op.key} in {space.name}"
                )

        def part(*values: int) -> Op | None:
            op = slot.op(*values)
            if op is None:
                return None
            channels = op.input[0] // partial
            return Op(op.kind, (channels, *op.input[1:]), (channels, *op.output[1:]), op.attributes)

        return replace(slot, op=part)

    return replace(space, slots=tuple(narrow(slot) for slot in space.slots))


def _shuffled(x: Tensor, groups: int) -> Tensor:
    """Shuffle the channels, so that another part of them passes through the next mixture (ShuffleNet)."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)
