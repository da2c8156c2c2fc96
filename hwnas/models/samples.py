"""Samples of a model's inputs: arrays or images of the user, or random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hwnas.data.decode import opened
from hwnas.errors import DataError
from hwnas.files import reason_of
from hwnas.runner.signature import Feeds, Signature, Value

Array: TypeAlias = npt.NDArray[Any]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
LABELS = "labels"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_RANDOM = 8  # random samples for a comparison


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Inputs of a model.

    Attributes:
        feeds: one entry per run: name of an input -> array of its shape.
        labels: right answers of the samples: integers ``(n,)`` are classes, float64 ``(n, ...)`` are values; None if
            they are not known.
        random: whether they are random numbers.
        source: where they come from, in words.
    """

    feeds: Sequence[Feeds]
    labels: Array | None
    random: bool
    source: str


def random_samples(signature: Signature, *, count: int = _RANDOM, seed: int = 0) -> Samples:
    """Random inputs (`hwnas.runner.signature.Value.noise`)."""
    rng = np.random.default_rng(seed)
    feeds = [signature.noise(rng) for _ in range(count)]
    return Samples(feeds=feeds, labels=None, random=True, source=f"{count} random inputs")


def read_samples(path: Path, signature: Signature, *, limit: int | None = None) -> Samples:
    """The samples of a file or folder.

    Args:
        path: a ``.npz`` file: for each input an array of its name, of its shape or with the samples as a further or the
            first axis, ``(n, ...)``, and optionally `LABELS` ``(n,)`` or ``(n, ...)``; or a folder of images, for a
            model with one float32 input ``(1, channels, height, width)``: they are resized to the input's size, and
            normalised by ImageNet's mean and standard deviation (gray: their means).
        signature: of the model.
        limit: largest number of samples.

    Raises:
        DataError: they cannot be read, or do not fit the signature.
    """
    if path.is_dir():
        feeds, labels = [{signature.inputs[0].name: x} for x in _images(path, signature, limit)], None
    else:
        feeds, labels = _arrays(path, signature, limit)
    for number, each in enumerate(feeds):
        for name, array in each.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"sample {number} of {path} has NaN or infinite values in {name}")
    return Samples(feeds=feeds, labels=labels, random=False, source=f"{len(feeds)} samples of {path.name}")


def _arrays(path: Path, signature: Signature, limit: int | None) -> tuple[list[Feeds], Array | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        why = reason_of(error) if isinstance(error, OSError) else str(error)
        raise DataError(f"cannot read the samples {path}: {why}; it should be a file of numpy.savez") from error
    labels = arrays.pop(LABELS, None)
    names = [value.name for value in signature.inputs]
    if set(arrays) != set(names):
        raise DataError(f"{path} has the arrays {', '.join(arrays)}; the inputs are {', '.join(names)}")
    parts = {value.name: _split(arrays[value.name], value, path) for value in signature.inputs}
    counts = {name: len(each) for name, each in parts.items() if len(each) > 1}
    count = max(counts.values(), default=1)
    if any(each != count for each in counts.values()):
        raise DataError(f"{path} has different numbers of samples: {counts}")
    if any(len(each) == 0 for each in parts.values()):
        raise DataError(f"{path} has no samples: an array of an input has none")
    labels = None if labels is None else _labels(labels, path)
    if labels is not None and len(labels) != count:
        raise DataError(f"{path} has {count} samples and {len(labels)} labels")
    kept = min(count, limit or count)
    # An input with one array, such as a sampling rate, is the same in every sample.
    feeds = [{name: each[i if len(each) > 1 else 0] for name, each in parts.items()} for i in range(kept)]
    return feeds, None if labels is None else labels[:kept]


def _labels(labels: Array, path: Path) -> Array:
    """Labels as integers, which are classes, or as float64.

    Raises:
        DataError: they are not numbers, one entry per sample, or not finite.
    """
    if labels.dtype.kind not in "biuf" or labels.ndim == 0:
        raise DataError(
            f"{path} has labels of the type {labels.dtype} and the shape {list(labels.shape)}; they should be integers "
            "or floats, one entry per sample"
        )
    if labels.dtype.kind in "bf":
        labels = labels.astype(np.float64)
    for number, label in enumerate(labels):
        if not np.isfinite(label).all():
            raise DataError(f"label {number} of {path} is NaN or infinite")
    return labels


def _split(array: Array, value: Value, path: Path) -> list[Array]:
    """An array as samples of an input's shape."""
    shape = tuple(axis or 1 for axis in value.shape)
    array = _as(array, value, path)
    if array.shape == shape:
        return [array]
    if array.shape[1:] == shape:
        return list(array)
    if shape and shape[0] == 1 and array.shape[1:] == shape[1:]:
        return [array[i : i + 1] for i in range(len(array))]
    raise DataError(f"{path} has {value.name} of the shape {list(array.shape)}; it should be {list(shape)}, or n of it")


def _as(array: Array, value: Value, path: Path) -> Array:
    """An array in the input's type, if no value changes its kind."""
    wanted = np.dtype(value.dtype)
    if array.dtype != wanted and not np.can_cast(array.dtype, wanted, "same_kind"):
        raise DataError(f"{path} has {value.name} as {array.dtype}; the input is {value.dtype}")
    return np.ascontiguousarray(array, wanted) if array.ndim else np.asarray(array, wanted)


def _images(path: Path, signature: Signature, limit: int | None) -> list[Array]:
    entry = signature.inputs[0]
    if len(signature.inputs) != 1 or entry.dtype != "float32" or len(entry.shape) != 4 or entry.shape[1] not in (1, 3):
        raise DataError(
            f"images need a model with one float32 input [1, 1 or 3, height, width], not "
            f"{', '.join(value.text for value in signature.inputs)}; give arrays instead (.npz)"
        )
    batch, channels, height, width = (axis or 1 for axis in entry.shape)
    files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in IMAGES][:limit]
    if not files:
        raise DataError(f"{path} has no images ({', '.join(IMAGES)})")
    mean, std = np.array(_MEAN, np.float32), np.array(_STD, np.float32)
    if channels == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    found = []
    for file in files:
        pixels = opened(file, str(file), channels=channels).resize((width, height))
        x = np.asarray(pixels, np.float32).reshape(height, width, channels) / 255
        found.append(np.repeat(((x - mean) / std).transpose(2, 0, 1)[None], batch, axis=0).astype(np.float32))
    return found
