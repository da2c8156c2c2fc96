"""The interface of datasets of token sequences."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue
from torch import Tensor

from hwnas.data.augment import Augmentation
from hwnas.data.base import USUAL, Data, Sampler, Split, check_split
from hwnas.data.options import Size
from hwnas.data.sampling import Balanced, shuffled
from hwnas.errors import InvalidValue
from hwnas.spaces import InputKind

PADDING, START = 0, 1  # tokens that every vocabulary has: padding, and the one that every sequence starts with
Tokens = npt.NDArray[np.int64]


class TokenData(Data):
    """A dataset of labelled sequences of tokens.

    A sequence begins with the token `START`. It is cut, or padded with `PADDING` at its end, to the length that the
    caller asks for.

    Attributes:
        vocabulary: number of tokens, padding included.
        resolution: length of the longest sequence.
    """

    vocabulary: int
    unit = "sequence"
    generated: ClassVar[bool] = False
    """Whether training sequences are generated as they are drawn, and never repeat."""

    @property
    def reads(self) -> InputKind:
        """The kind of inputs that a network of these data reads."""
        return InputKind(0, self.vocabulary)

    @abstractmethod
    def tokenizer(self) -> dict[str, JsonValue]:
        """How a text or an image becomes tokens, as JSON values (`hwnas.deploy.tokenizing`)."""

    @abstractmethod
    def _rows(self, split: Split, numbers: Sequence[int]) -> tuple[list[Tokens], Tensor]:
        """Some sequences of a split by number, and their labels ``(n,)``, int64."""

    def _drawn(self, places: Sequence[int], seed: int) -> tuple[list[Tokens], Tensor]:
        """The sequences at some indices of a training run's endless order, and their labels."""
        return self._rows("train", [shuffled(self.size("train"), seed, place) for place in places])

    def transform(self, resolution: Size) -> dict[str, object]:
        """The preprocessing that a deployed network requires, as JSON values.

        Args:
            resolution: length of the network's input.
        """
        return {
            "layout": "NL",
            "dtype": "int64",
            "length": self._checked(resolution),
            "padding": PADDING,
            "start": START,
            "tokenizer": self.tokenizer(),
        }

    def _training(
        self, places: range, resolution: int, how: Augmentation, sampler: Sampler, seed: int
    ) -> tuple[Tensor, Tensor]:
        if how != USUAL:
            raise InvalidValue(f"{self.name} has sequences of tokens; [training.augmentation] is for images: remove it")
        if sampler == "balanced":
            rows, labels = self._rows("train", [self._balanced(seed, place) for place in places])
        else:
            rows, labels = self._drawn(places, seed)
        return self._padded(rows, resolution), labels

    def shortened(self, tokens: Tensor, length: int) -> Tensor:
        """Sequences as they are at a smaller length: ``(n, longer)`` -> ``(n, length)``."""
        return tokens[:, :length]

    def _batches(self, split: Split, resolution: int, count: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, count, batch_size):
            rows, labels = self._rows(split, range(start, min(start + batch_size, count)))
            yield self._padded(rows, resolution), labels

    def _balanced(self, seed: int, place: int) -> int:
        if self.generated:
            raise InvalidValue(f'{self.name} generates its sequences and has no balanced sampler; write "shuffled"')
        if self._order is None:
            self._order = Balanced(self.train_labels())
        return self._order(seed, place)

    _order: Balanced | None = None

    def _padded(self, rows: Sequence[Tokens], length: int) -> Tensor:
        found = np.full((len(rows), length), PADDING, np.int64)
        for i, row in enumerate(rows):
            found[i, : len(row)] = row[:length]
        return torch.from_numpy(found)

    def _checked(self, resolution: Size) -> int:
        if not isinstance(resolution, int) or resolution < 1:
            raise InvalidValue(f"the length of a sequence must be at least 1, not {resolution}")
        return resolution


class GeneratedTokens(TokenData):
    """Sequences that are generated: those of training as they are drawn, those of `batches` the same in every run.

    Args:
        seed: of the fixed sequences.
    """

    generated = True
    sizes: ClassVar[dict[Split, int]] = {"train": 20_000, "validation": 2_000, "test": 2_000}

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kept: dict[tuple[Split, int], tuple[Tokens, int]] = {}

    @abstractmethod
    def _generated(self, *seed: object) -> tuple[Tokens, int]:
        """The sequence and the label of a seed."""

    def size(self, split: Split) -> int:
        """Number of fixed sequences of a split; training batches are endless and hardly ever repeat."""
        check_split(split)
        return self.sizes[split]

    def _rows(self, split: Split, numbers: Sequence[int]) -> tuple[list[Tokens], Tensor]:
        for number in numbers:
            if (split, number) not in self._kept:
                self._kept[split, number] = self._generated("fixed", self._seed, split, number)
        return _stacked([self._kept[split, number] for number in numbers])

    def _drawn(self, places: Sequence[int], seed: int) -> tuple[list[Tokens], Tensor]:
        return _stacked([self._generated("train", self._seed, seed, place) for place in places])


def _stacked(pairs: Sequence[tuple[Tokens, int]]) -> tuple[list[Tokens], Tensor]:
    return [tokens for tokens, _ in pairs], torch.tensor([label for _, label in pairs], dtype=torch.int64)
