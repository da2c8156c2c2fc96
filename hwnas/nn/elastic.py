"""Weights shared across sizes, as once-for-all shares them.

A slot keeps one set of weights, those of its largest op. Any other op of the slot runs on the first channels of
each tensor and, for a smaller kernel, on the centre of the kernel passed through a learned transformation
(Cai et al. 2020, section 3.3). What an op computes is said once, in `hwnas.nn.blocks`: here stands only which
numbers it computes with.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from hwnas.nn.blocks import build
from hwnas.nn.norm import share_batch_norms
from hwnas.spaces import Op


class Elastic(nn.Module):
    """Every op that a slot may hold, on shared weights.

    Args:
        ops: the ops, all of one kind.
        bn_eps: what BN adds to the variance.
    """

    def __init__(self, ops: Iterable[Op], *, bn_eps: float = 1e-5) -> None:
        super().__init__()
        self._bn_eps = bn_eps
        # Ops that differ in nothing but the image size compute with the same tensors.
        shapes = {op: _shapes(op) for op in {_without_size(op): op for op in ops}.values()}
        largest = max(shapes, key=lambda op: sum(s.numel() for s in shapes[op].values()))
        for op, names in shapes.items():
            fits = names.keys() == shapes[largest].keys() and all(
                all(a <= b for a, b in zip(shape, shapes[largest][name], strict=True)) for name, shape in names.items()
            )
            if not fits:
                raise ValueError(f"{op.key} cannot share the weights of {largest.key}")
        self.shared = build(largest, bn_eps=bn_eps)
        self.transforms = nn.ParameterDict()
        self._steps: dict[str, list[tuple[int, int]]] = {}
        for name, shape in shapes[largest].items():
            if len(shape) == 4:
                sizes = sorted({names[name][-1] for names in shapes.values()}, reverse=True)
                self._steps[name] = list(itertools.pairwise(sizes))
                for big, small in self._steps[name]:
                    self.transforms[_transform(name, big, small)] = nn.Parameter(torch.eye(small * small))
        self._skeletons: dict[Op, _Skeleton] = {}

    def state(self, op: Op) -> dict[str, Tensor]:
        """Names and values of the tensors that `build(op)` computes with; slices of the shared ones, not copies.

        Gradients flow back through them, and BN's running statistics are updated through them.
        """
        return {piece.name: self._slice(piece) for piece in self._skeleton(op).pieces}

    def forward(self, x: Tensor, op: Op) -> Tensor:
        """``(n, *op.input)`` -> ``(n, *op.output)``."""
        skeleton = self._skeleton(op)
        if skeleton.module.training != self.training:
            skeleton.module.train(self.training)
        for piece in skeleton.pieces:
            # What torch.func.functional_call does, without its checks, which take longer than a small convolution.
            piece.place[piece.key] = self._slice(piece)
        y: Tensor = skeleton.module(x)
        return y

    def _skeleton(self, op: Op) -> _Skeleton:
        key = _without_size(op)
        if key not in self._skeletons:
            with torch.device("meta"):
                module = share_batch_norms(build(op, bn_eps=self._bn_eps))
            pieces = []
            for name, tensor in module.state_dict().items():
                (place, leaf), (source, _) = _holder(module, name), _holder(self.shared, name)
                shared = source[leaf]
                assert shared is not None
                whole = tensor.shape == shared.shape
                index = None if whole else tuple(slice(n) for n in tensor.shape[:2])
                steps = [step for step in self._steps.get(name, ()) if tensor.shape[-1] <= step[1]]
                pieces.append(_Piece(name, place, leaf, source, index, steps))
            self._skeletons[key] = _Skeleton(module, pieces)
        return self._skeletons[key]

    def __getstate__(self) -> dict[str, object]:
        """A copy makes skeletons of its own: these hold what the last forward pass computed with."""
        return {**self.__dict__, "_skeletons": {}}

    def _slice(self, piece: _Piece) -> Tensor:
        tensor = piece.source[piece.key]
        assert tensor is not None
        if piece.index is None:
            return tensor
        tensor = tensor[piece.index]
        for big, small in piece.steps:
            margin = (big - small) // 2
            centre = tensor[..., margin : margin + small, margin : margin + small].flatten(2)
            matrix = self.transforms[_transform(piece.name, big, small)]
            tensor = (centre @ matrix.T).unflatten(2, (small, small))
        return tensor


Tensors = dict[str, Tensor | None]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tensor of an op: where it is put (`place[key]`), and the part of the shared one (`source[key]`) that it is.

    The dictionaries are those of torch's modules, so they hold what the modules hold, also after a move to a GPU.
    """

    name: str
    place: Tensors
    key: str
    source: Tensors
    index: tuple[slice, ...] | None
    steps: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """The module of an op, without numbers of its own."""

    module: nn.Module
    pieces: list[_Piece]


def _holder(module: nn.Module, name: str) -> tuple[Tensors, str]:
    """The dictionary in which a module keeps a tensor, and its key there."""
    path, _, leaf = name.rpartition(".")
    layer = module.get_submodule(path)
    found = layer._parameters if leaf in layer._parameters else layer._buffers
    return cast("Tensors", found), leaf


def _shapes(op: Op) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build(op).state_dict().items()}


def _without_size(op: Op) -> Op:
    return Op(op.kind, op.input[:1], op.output[:1], op.attributes)


def _transform(name: str, big: int, small: int) -> str:
    return f"{name.replace('.', '_')}_{big}to{small}"
