"""Weights shared across sizes, as in once-for-all.

A slot has one set of weights, those of its largest op. Any other op of the slot uses the first channels of each tensor
and, for a smaller kernel, the centre of the kernel after a learned transformation (Cai et al. 2020, section 3.3).
`hwnas.nn.blocks` defines what an op computes; this module selects its weights.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from hwnas.errors import InvalidValue
from hwnas.nn.blocks import build
from hwnas.nn.depthwise import speed_up_depthwise
from hwnas.nn.norm import share_batch_norms
from hwnas.nn.parts import Channels, Part, crossed, take
from hwnas.plugins import load_object
from hwnas.spaces import Op
from hwnas.spaces.kinds import KINDS


class Elastic(nn.Module):
    """All ops of a slot, with shared weights.

    Args:
        ops: the ops, all of one kind.
        bn_eps: epsilon that BN adds to the variance.

    Attributes:
        largest: op whose module, `shared`, has the weights.
    """

    def __init__(self, ops: Iterable[Op], *, bn_eps: float = 1e-5) -> None:
        super().__init__()
        self._bn_eps = bn_eps
        # Ops that differ only in the image size use the same tensors.
        shapes = {op: _shapes(op) for op in {op.without_size: op for op in ops}.values()}
        largest = _largest(shapes)
        whole = _shapes(largest)
        for op, names in shapes.items():
            # An op may lack some, such as a gate or learned positions.
            fits = names.keys() <= whole.keys() and all(
                all(a <= b for a, b in zip(shape, whole[name], strict=True)) for name, shape in names.items()
            )
            if not fits:
                raise ValueError(f"{op.key} cannot share the weights of {largest.key}")
        self._ops, self.largest = frozenset(op.without_size for op in shapes), largest
        self.shared = build(largest, bn_eps=bn_eps)
        self.transforms = nn.ParameterDict()
        self._steps: dict[str, list[tuple[int, int]]] = {}
        for name, shape in whole.items():
            if len(shape) == 4 and KINDS[largest.kind].takes is None:
                sizes = sorted({names[name][-1] for names in shapes.values() if name in names}, reverse=True)
                self._steps[name] = list(itertools.pairwise(sizes))
                for big, small in self._steps[name]:
                    self.transforms[_transform(name, big, small)] = nn.Parameter(torch.eye(small * small))
        self._skeletons: dict[Op, Skeleton] = {}

    def state(self, op: Op) -> dict[str, Tensor]:
        """Names and values of the tensors of `build(op)`: views of the shared tensors, not copies.

        Gradients flow back through them, and BN's running statistics are updated through them.
        """
        (module,) = ready([(self, op)])
        return module.state_dict(keep_vars=True)

    def forward(self, x: Tensor, op: Op) -> Tensor:
        """``(n, *op.input)`` -> ``(n, *op.output)``."""
        (module,) = ready([(self, op)])
        y: Tensor = module(x)
        return y

    def skeleton(self, op: Op) -> Skeleton:
        """The module of an op, and the sources of its tensors.

        Raises:
            InvalidValue: the slot does not have this op.
        """
        key = op.without_size
        if key not in self._skeletons:
            if key not in self._ops:
                raise InvalidValue(f"the supernet has no weights for {op.key}: the arch is outside its space")
            with torch.device("meta"):
                module = speed_up_depthwise(share_batch_norms(build(op, bn_eps=self._bn_eps)))
            self._skeletons[key] = self._filled(module, taken(op, self.largest))
        return self._skeletons[key]

    def _filled(self, module: nn.Module, chosen: Mapping[str, Channels]) -> Skeleton:
        """The sources of the tensors of an op's module.

        Args:
            module: the module.
            chosen: name of a tensor -> what it takes of the shared one; the first channels of those that are not in it.
        """
        made = Skeleton(module)
        for name, tensor in module.state_dict().items():
            place, source = TensorRef.of(module, name), TensorRef.of(self.shared, name)
            shared, channels = source.holder[source.key], chosen.get(name, tuple(slice(n) for n in tensor.shape[:2]))
            assert shared is not None
            if tensor.shape == shared.shape:
                made.wholes.append((place, source))
            elif isinstance(shared, nn.Parameter):
                steps = tuple(step for step in self._steps.get(name, ()) if tensor.shape[-1] <= step[1])
                matrices = (TensorRef.of(self.transforms, _transform(name, *step)) for step in steps)
                made.parts.append((place, Part(channels, steps), [source, *matrices]))
            else:
                made.views.append((place, source, channels))
        return made

    def __getstate__(self) -> dict[str, object]:
        """A copy creates its own skeletons: the existing ones hold the tensors of the last forward pass."""
        return {**self.__dict__, "_skeletons": {}}


class TensorRef(NamedTuple):
    """A reference to a module's tensor: `holder[key]` in the module's dictionary, valid also after a move to a GPU."""

    holder: dict[str, Tensor | None]
    key: str

    @staticmethod
    def of(module: nn.Module, name: str) -> TensorRef:
        """The reference of a parameter or buffer."""
        path, _, key = name.rpartition(".")
        layer = module.get_submodule(path)
        holder = layer._parameters if key in layer._parameters else layer._buffers
        return TensorRef(cast("dict[str, Tensor | None]", holder), key)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The module of an op without tensors of its own; `ready` inserts them before each use.

    Attributes:
        module: the module.
        wholes: targets that use a whole shared tensor, and these tensors.
        views: target buffers, the shared tensors, and the channels of these to use.
        parts: target parameters, their parts, and the sources: the shared tensor and the matrices of the steps.
    """

    module: nn.Module
    wholes: list[tuple[TensorRef, TensorRef]] = field(default_factory=list)
    views: list[tuple[TensorRef, TensorRef, Channels]] = field(default_factory=list)
    parts: list[tuple[TensorRef, Part, list[TensorRef]]] = field(default_factory=list)


def ready(chosen: Sequence[tuple[Elastic, Op]]) -> list[nn.Module]:
    """Prepare the modules of ops of some slots, valid until the next call with the same slots and ops.

    All slots are prepared at once, which takes a quarter less time than slicing tensors between convolutions.
    """
    skeletons = [slot.skeleton(op) for slot, op in chosen]
    # Like torch.func.functional_call, without its checks, which take longer than a small convolution.
    for skeleton in skeletons:
        for (holder, key), (source, name) in skeleton.wholes:
            holder[key] = source[name]
        for (holder, key), (source, name), channels in skeleton.views:
            holder[key] = cast("Tensor", source[name])[channels]
    parts = [part for skeleton in skeletons for part in skeleton.parts]
    if parts:
        tensors = [cast("Tensor", holder[key]) for _, _, sources in parts for holder, key in sources]
        for ((holder, key), *_), tensor in zip(parts, take([part for _, part, _ in parts], tensors), strict=True):
            holder[key] = tensor
    for (slot, _), skeleton in zip(chosen, skeletons, strict=True):
        if skeleton.module.training != slot.training:
            skeleton.module.train(slot.training)
    return [skeleton.module for skeleton in skeletons]


@functools.lru_cache(maxsize=20_000)
def _shapes(op: Op) -> Mapping[str, torch.Size]:
    """Shapes of the tensors of an op's module, by name; cached, since they take 60% of the time to build a supernet."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build(op).state_dict().items()}


def _largest(shapes: Mapping[Op, Mapping[str, torch.Size]]) -> Op:
    """The op whose module has the tensors of all ops of a slot."""
    path = KINDS[next(iter(shapes)).kind].shared
    if path is not None:
        return cast("Callable[[Sequence[Op]], Op]", load_object(path))(list(shapes))
    return max(shapes, key=lambda op: sum(shape.numel() for shape in shapes[op].values()))


def taken(op: Op, largest: Op) -> Mapping[str, Channels]:
    """What tensors of an op take of those of the largest op of the slot, where it is not the first channels."""
    path = KINDS[op.kind].takes
    if path is None:
        return {}
    found = cast("Callable[[Op, Op], Mapping[str, Channels]]", load_object(path))(op, largest)
    return {name: crossed(channels) for name, channels in found.items()}


def _transform(name: str, big: int, small: int) -> str:
    return f"{name.replace('.', '_')}_{big}to{small}"
