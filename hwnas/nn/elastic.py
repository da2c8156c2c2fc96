"""Weights shared across sizes, as once-for-all shares them.

A slot keeps one set of weights, those of its largest op. Any other op of the slot runs on the first channels of
each tensor and, for a smaller kernel, on the centre of the kernel passed through a learned transformation
(Cai et al. 2020, section 3.3). What an op computes is said once, in `hwnas.nn.blocks`: here stands only which
numbers it computes with.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

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
        self._skeletons: dict[Op, tuple[nn.Module, dict[str, torch.Size]]] = {}

    def state(self, op: Op) -> dict[str, Tensor]:
        """Names and values of the tensors that `build(op)` computes with; slices of the shared ones, not copies.

        Gradients flow back through them, and BN's running statistics are updated through them.
        """
        _, shapes = self._skeleton(op)
        shared = self.shared.state_dict(keep_vars=True)
        return {name: self._slice(name, shared[name], shape) for name, shape in shapes.items()}

    def forward(self, x: Tensor, op: Op) -> Tensor:
        """``(n, *op.input)`` -> ``(n, *op.output)``."""
        skeleton, _ = self._skeleton(op)
        if skeleton.training != self.training:
            skeleton.train(self.training)
        y: Tensor = functional_call(skeleton, self.state(op), (x,))
        return y

    def _skeleton(self, op: Op) -> tuple[nn.Module, dict[str, torch.Size]]:
        key = _without_size(op)
        if key not in self._skeletons:
            with torch.device("meta"):
                self._skeletons[key] = (share_batch_norms(build(op, bn_eps=self._bn_eps)), _shapes(op))
        return self._skeletons[key]

    def _slice(self, name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
        if not shape:  # BN's count of batches
            return tensor
        tensor = tensor[tuple(slice(n) for n in shape[:2])]
        for big, small in self._steps.get(name, ()):
            if shape[-1] <= small:
                margin = (big - small) // 2
                centre = tensor[..., margin : margin + small, margin : margin + small].flatten(2)
                matrix = self.transforms[_transform(name, big, small)]
                tensor = (centre @ matrix.T).unflatten(2, (small, small))
        return tensor


def _shapes(op: Op) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build(op).state_dict().items()}


def _without_size(op: Op) -> Op:
    return Op(op.kind, op.input[:1], op.output[:1], op.attributes)


def _transform(name: str, big: int, small: int) -> str:
    return f"{name.replace('.', '_')}_{big}to{small}"
