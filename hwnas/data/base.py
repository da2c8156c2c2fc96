"""The interface of datasets: training batches as a pure function of the step, and fixed splits."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal, get_args

import torch
from pydantic import JsonValue
from torch import Tensor

from hwnas.data.augment import Augmentation
from hwnas.data.options import Size
from hwnas.errors import InvalidValue, UnknownName
from hwnas.spaces import InputKind, Space

Split = Literal["train", "validation", "test"]
Sampler = Literal["shuffled", "balanced"]

PRESENT = 0.5  # least probability of a class that counts as present in an image with several labels
USUAL = Augmentation()


def stable_seed(*parts: object) -> int:
    """A 63-bit seed that depends only on the text of its parts, equal in every process and on every machine.

    Python's `hash` of a string differs between processes, and with sums of seeds adjacent streams overlap.
    """
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Data(ABC):
    """A labelled dataset. Datasets of images implement `hwnas.data.ImageData`, those of sequences `TokenData`.

    Attributes:
        name: argument of `hwnas.data.open_data`.
        task: name of the task (`hwnas.tasks.TASKS`): "classification", where the label of an input is the index of its
            class, or "multi-label", where it has a probability from 0 to 1 for each class.
        classes: names of the classes.
        resolution: native size of a training input: side of an image in pixels, or tokens of the longest sequence.
        smallest: smallest size of an input.
    """

    name: str
    task: str = "classification"
    classes: tuple[str, ...]
    resolution: int
    smallest: int = 1
    unit: ClassVar[str] = "input"
    """What an input is, in messages."""

    @property
    @abstractmethod
    def reads(self) -> InputKind:
        """The kind of inputs that a network of these data reads."""

    def class_sizes(self, split: Split) -> list[int] | None:
        """Number of images of each class in a split; None if it is not known without decoding them."""
        return None

    @property
    def folder(self) -> str | None:
        """Name of the folder that has the images; None if there is none."""
        return None

    @abstractmethod
    def size(self, split: Split) -> int:
        """Number of images of a split.

        Raises:
            UnknownName: there is no such split.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that is equal for the same data with the same splits."""

    def split_fingerprint(self, split: Split) -> str:
        """A hash of what the images of one split depend on; of all splits, for a dataset that does not override this.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        return self.fingerprint()

    def recorded_options(self) -> dict[str, JsonValue] | None:
        """The options to open the data again, as JSON values; None for a dataset that takes none."""
        return None

    def train_labels(self) -> Tensor:
        """Labels of all training images, in any order, as `batches` has them.

        This reads all images; datasets that know their labels override it.

        Raises:
            DataError: an image cannot be read.
        """
        return torch.cat([labels for _, labels in self.batches("train", self.smallest)])

    @abstractmethod
    def transform(self, resolution: Size) -> dict[str, object]:
        """The preprocessing that a deployed model requires, as JSON values.

        Args:
            resolution: size of the network's input (`hwnas.Space.input_size`).

        Raises:
            InvalidValue: the data have no inputs of that size.
        """

    def train_batch(
        self,
        step: int,
        size: int,
        resolution: Size,
        *,
        seed: int,
        augmentation: Augmentation = USUAL,
        sampler: Sampler = "shuffled",
        part: tuple[int, int] = (0, 1),
    ) -> tuple[Tensor, Tensor]:
        """One batch of the train split: a pure function, so training can be resumed at any step.

        Args:
            step: number of the batch, from 0.
            size: inputs in the batch.
            resolution: their size (`hwnas.Space.input_size`): side of an image in pixels, or its height and width, or
                length of a sequence.
            seed: of the training run; it determines the batches.
            augmentation: of images.
            sampler: the order of the inputs.
            part: index and number of equal parts of the batch: each of several processes takes one.

        Returns:
            inputs ``(size / parts, *shape)``: images, normalised, float32, or tokens, int64. Labels: int64
            ``(size / parts,)``; of the task multi-label, or if images are mixed or have shares of several classes,
            probabilities or shares, float32 ``(size / parts, classes)``.

        Raises:
            InvalidValue: a negative step, an empty batch, a batch that cannot be split into such parts (of an even
                number of images if they are mixed), a size, augmentation or sampler that the data do not have.
            DataError: an input cannot be read.
        """
        if step < 0:
            raise InvalidValue(f"the training step must be at least 0, not {step}")
        check_batch(size, part[1], augmentation, unit=self.unit)
        checked = self._checked(resolution)
        length = size // part[1]
        first = step * size + part[0] * length
        return self._training(range(first, first + length), checked, augmentation, sampler, seed)

    def batches(
        self, split: Split, resolution: Size, *, limit: int | None = None, batch_size: int = 250
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """A split in a fixed order, with the test transform (of the train split too).

        Args:
            split: the split.
            resolution: size of the inputs, as in `train_batch`.
            limit: largest number of inputs, from the first on; all if None.
            batch_size: inputs in a batch; the last one may be smaller.

        Returns:
            batches of inputs ``(n, *shape)`` and labels: int64 ``(n,)``, or of the task multi-label float32
            ``(n, classes)``.

        Raises:
            UnknownName: there is no such split.
            InvalidValue: a limit or batch size below 1, or a size that the data do not have.
            DataError: an input cannot be read (raised when its batch is taken).
        """
        available = self.size(split)
        if limit is not None and limit < 1:
            raise InvalidValue(f"the limit must be at least 1 {self.unit}, not {limit}; omit it to use all {available}")
        check_batch(batch_size, 1, unit=self.unit)
        count = available if limit is None else min(limit, available)
        return self._batches(split, self._checked(resolution), count, batch_size)

    @abstractmethod
    def _checked(self, resolution: Size) -> int:
        """A size for `_training` and `_batches`.

        Raises:
            InvalidValue: the data have no inputs of that size.
        """

    @abstractmethod
    def _training(
        self, places: range, resolution: int, how: Augmentation, sampler: Sampler, seed: int
    ) -> tuple[Tensor, Tensor]:
        """The inputs at some indices of a training run's endless order."""

    @abstractmethod
    def _batches(self, split: Split, resolution: int, count: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `count` inputs of a split, `batch_size` at a time."""


def check_split(split: str) -> None:
    """Reject an unknown split.

    Raises:
        UnknownName: it is not one of `Split`.
    """
    if split not in get_args(Split):
        raise UnknownName("split", split, get_args(Split))


def check_batch(size: int, processes: int, augmentation: Augmentation = USUAL, *, unit: str = "image") -> None:
    """Refuses a batch that processes cannot share.

    Args:
        size: inputs in the batch.
        processes: each takes an equal part.
        augmentation: what is done to images.
        unit: what an input is, for the message.

    Raises:
        InvalidValue: it is empty, or has no such parts (of an even number where images are mixed).
    """
    if size < 1:
        raise InvalidValue(f"a batch must have at least 1 {unit}, not {size}")
    if size % processes:
        raise InvalidValue(f"a batch of {size} {unit}s cannot be split evenly among {processes} processes")
    if augmentation.mixes and processes > 1 and size // processes % 2:
        raise InvalidValue(
            f"images are mixed in pairs, and each of {processes} processes would get {size // processes} of {size}: "
            f"choose a batch that is a multiple of {2 * processes}"
        )


def check_fits(data: Data, space: Space, what: str) -> None:
    """Check that networks of a space can be trained on data.

    Args:
        data: the dataset.
        space: of the networks.
        what: what has them, for the message.

    Raises:
        InvalidValue: other inputs, or another number of classes.
    """
    if (data.reads, len(data.classes)) != (space.reads, space.classes):
        raise InvalidValue(
            f"{data.name} has {data.reads.text} in {len(data.classes)} classes; {what} takes {space.reads.text} and "
            f"has {space.classes} classes"
        )
