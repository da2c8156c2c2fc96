"""Datasets: what networks are trained and judged on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hwnas.data.augment import Augmentation
from hwnas.data.base import Data, Split
from hwnas.data.digits import ClutteredDigits
from hwnas.data.huggingface import HuggingFace
from hwnas.data.images import Images
from hwnas.errors import InvalidValue, UnknownName

__all__ = ["DATASETS", "Augmentation", "ClutteredDigits", "Data", "HuggingFace", "Images", "Split", "open_data"]


def _open_digits(path: Path | None, seed: int) -> Data:
    if path is not None:
        raise InvalidValue(f"cluttered-digits is built in and reads no folder; leave out the path {path}")
    return ClutteredDigits(seed=seed)


def _folder(path: Path | None, name: str, form: str) -> Path:
    if path is None:
        raise InvalidValue(f"{name} needs the path of a folder {form} (--data-path, or path under [data] in a job)")
    return path


def _open_images(path: Path | None, seed: int) -> Data:
    return Images(_folder(path, Images.name, "with train/<class>/ and val/<class>/ in it"), seed=seed)


def _open_huggingface(path: Path | None, seed: int) -> Data:
    return HuggingFace(_folder(path, HuggingFace.name, "that DatasetDict.save_to_disk wrote"), seed=seed)


DATASETS: dict[str, Callable[[Path | None, int], Data]] = {
    ClutteredDigits.name: _open_digits,
    Images.name: _open_images,
    HuggingFace.name: _open_huggingface,
}


def open_data(name: str, *, path: Path | None = None, seed: int = 0) -> Data:
    """A dataset by name.

    Args:
        name: a key of `DATASETS`.
        path: the folder of ``images`` or ``huggingface``; None for ``cluttered-digits``.
        seed: decides which images are held out and in which order a split is read. It is not the seed of
            training: leave it at 0 for runs that are to be compared.

    Raises:
        UnknownName: there is no such dataset.
        InvalidValue: a path where none is read, or none where one is needed.
        DataError: the folder is not of the form that `Images` describes.
    """
    if name not in DATASETS:
        raise UnknownName("dataset", name, DATASETS)
    return DATASETS[name](path, seed)
