"""The datasets by name; torch is imported when one is opened."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.data.options import DataOptions, check_only
from hwnas.errors import InvalidValue, PluginError
from hwnas.plugins import Registry, absolute_name

if TYPE_CHECKING:
    from hwnas.data.base import Data

USUAL_OPTIONS = DataOptions()


def _open_digits(path: Path | None, seed: int) -> Data:
    from hwnas.data.digits import ClutteredDigits

    _no_folder(path, ClutteredDigits.name)
    return ClutteredDigits(seed=seed)


def _no_folder(path: Path | None, name: str) -> None:
    if path is not None:
        raise InvalidValue(f"{name} is built in and reads no folder; omit the path {path}")


def _folder(path: Path | None, name: str, form: str) -> Path:
    if path is None:
        raise InvalidValue(f"{name} needs the path of a folder {form} (--data-path, or path under [data] in a job)")
    return path


def _open_images(path: Path | None, seed: int, options: DataOptions = USUAL_OPTIONS) -> Data:
    from hwnas.data.images import Images

    folder = _folder(path, Images.name, "with train/<class>/ and val/<class>/ in it")
    return Images(folder, seed=seed, options=options)


def _open_huggingface(path: Path | None, seed: int, options: DataOptions = USUAL_OPTIONS) -> Data:
    from hwnas.data.huggingface import HuggingFace

    folder = _folder(path, HuggingFace.name, "that DatasetDict.save_to_disk wrote")
    return HuggingFace(folder, seed=seed, options=options)


def _open_listops(path: Path | None, seed: int, options: DataOptions = USUAL_OPTIONS) -> Data:
    from hwnas.data.listops import LONGEST, ListOps

    _no_folder(path, ListOps.name)
    check_only(options, ListOps.name, ("length",))
    return ListOps(seed=seed, length=options.length or LONGEST)


def _open_pathfinder(path: Path | None, seed: int, options: DataOptions = USUAL_OPTIONS) -> Data:
    from hwnas.data.pathfinder import LEAST_SIDE, Pathfinder

    _no_folder(path, Pathfinder.name)
    check_only(options, Pathfinder.name, ("side",))
    return Pathfinder(seed=seed, side=options.side or LEAST_SIDE)


def _open_digit_pixels(path: Path | None, seed: int) -> Data:
    from hwnas.data.digits import ClutteredDigits
    from hwnas.data.pixels import Pixels

    _no_folder(path, "pixel-digits")
    return Pixels(ClutteredDigits(seed=seed), "pixel-digits")


def _open_text(path: Path | None, seed: int, options: DataOptions = USUAL_OPTIONS) -> Data:
    from hwnas.data.texts import Texts

    return Texts(_folder(path, Texts.name, "with train/<class>/*.txt in it, or a CSV file (labels)"), seed, options)


DATASETS: dict[str, Callable[..., Data]] = {
    "cluttered-digits": _open_digits,
    "images": _open_images,
    "huggingface": _open_huggingface,
    "listops": _open_listops,
    "pathfinder": _open_pathfinder,
    "pixel-digits": _open_digit_pixels,
    "text": _open_text,
}
# A function may also take `options: DataOptions`.
_NEEDS = "a function (path: Path | None, seed: int) -> hwnas.Data"
_KNOWN = Registry("dataset", "hwnas.datasets", DATASETS, fits=callable, needs=_NEEDS, takes_files=True)


def dataset_names() -> list[str]:
    """Names of the datasets: those of hwnas, then those of plugins."""
    return _KNOWN.names()


def open_data(
    name: str,
    *,
    path: Path | None = None,
    seed: int = 0,
    recorded: bool = False,
    options: DataOptions = USUAL_OPTIONS,
) -> Data:
    """A dataset by name.

    Args:
        name: one of `dataset_names`, or ``path/to/file.py:NAME`` of a function of a path and a seed; the dataset has
            this name, with the path made absolute.
        path: the folder of ``images`` or ``huggingface``; None for ``cluttered-digits``.
        seed: determines which images are held out and the order of each split. It is not the training seed: leave
            it at 0 for runs that are to be compared.
        recorded: whether the name was read from a file, as in `hwnas.plugins.Registry.get`.
        options: how images are read from the disk: channels, transform, layout.

    Raises:
        UnknownName: there is no such dataset.
        PluginError: it belongs to a plugin or a file and cannot be loaded.
        InvalidValue: a path is given to a dataset that reads none, or is missing; the dataset takes no such options.
        DataError: the folder does not have the layout that `Images` describes.
    """
    from hwnas.data.base import Data

    opener = _KNOWN.get(name, recorded=recorded)
    given = {"options": options} if _takes_options(opener) else {}
    if not given:
        check_only(options, name, ())
    found: object = opener(path, seed, **given)
    if not isinstance(found, Data):
        raise PluginError(f"the dataset {name!r} returns {type(found).__name__}; it should be {_NEEDS}")
    if name not in DATASETS:
        found.name = absolute_name(name)
    return found


def _takes_options(opener: Callable[..., Data]) -> bool:
    try:
        return "options" in inspect.signature(opener).parameters
    except (TypeError, ValueError):  # some functions of C have no signature
        return False
