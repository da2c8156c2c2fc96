"""The order in which training draws images: a pure function of the seed and the index in the run."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hwnas.data.base import stable_seed


def shuffled(count: int, seed: int, place: int) -> int:
    """The image at an index of a run whose epochs contain every image once.

    Args:
        count: number of training images.
        seed: of the run.
        place: index in the run.
    """
    return int(_order(count, stable_seed("epoch", seed, place // count))[place % count])


class Balanced:
    """A run that draws each class equally often: each of its rounds contains one image of each class.

    The order of the classes is random in each round. The images of a class come in epochs of its own, each image once
    an epoch, so images of rare classes repeat more often.

    Args:
        labels: class of each training image, int64 ``(n,)``.
    """

    def __init__(self, labels: Tensor) -> None:
        classes = labels.unique().tolist()  # ascending
        self._members = [(labels == label).nonzero().flatten() for label in classes]
        self._orders = lru_cache(maxsize=2 * len(classes))(_shuffle)

    def __call__(self, seed: int, place: int) -> int:
        """The image at an index of the run with a seed."""
        turn, at = divmod(place, len(self._members))
        chosen = int(_order(len(self._members), stable_seed("classes", seed, turn))[at])
        members = self._members[chosen]
        epoch, index = divmod(turn, len(members))
        order = self._orders(len(members), stable_seed("class", seed, chosen, epoch))
        return int(members[order[index]])


def _shuffle(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


# Two are cached, because a batch may extend into the next epoch.
_order = lru_cache(maxsize=2)(_shuffle)
