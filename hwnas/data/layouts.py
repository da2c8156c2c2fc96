"""Layouts of image data on disk: folders of splits, folders of classes, and CSV files of labels."""

from __future__ import annotations

import os
import random
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from hwnas.data.base import PRESENT, Split, stable_seed
from hwnas.data.decode import SUFFIXES
from hwnas.data.label_files import SPLIT_NAMES, in_order, read_labels
from hwnas.data.options import DataOptions
from hwnas.data.photographs import HOLD_OUT_MOST, HOLD_OUT_SHARE, held_out, stratified
from hwnas.errors import DataError, some

Listing = dict[str, list[str]]  # class -> its images, as paths below the dataset's folder
Targets = dict[str, tuple[float, ...]]  # image -> a value for each class
LAYOUT = "an image folder has train/<class>/ and val/<class>/ with images in them"
OTHER_LAYOUTS = (
    "Other layouts: <class>/ folders with --split 70,15,15, or a CSV of file,label with --labels "
    "(split and labels under [data] in a job)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The images of a dataset.

    Attributes:
        classes: their names.
        files: the images of each split and class. Those with several labels are listed under the rarest of their
            classes, and those without any under the last key, which is empty.
        targets: image -> its shares of the classes, or of several labels the probabilities; empty if each image has
            one class.
    """

    classes: tuple[str, ...]
    files: dict[Split, Listing]
    targets: Targets


def read_layout(path: Path, options: DataOptions, seed: int) -> Layout:
    """The images of a dataset.

    Args:
        path: the dataset's folder.
        options: layout, shares of the splits, and names to leave out.
        seed: determines which training images are held out, where one of three splits is missing.

    Raises:
        DataError: the folder does not have that layout.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; {LAYOUT}")
    if not path.is_dir():
        raise DataError(f"{path} is a file, not a folder; {LAYOUT}")
    skip = set(options.skip)
    if options.labels is not None:
        return _from_csv(path / options.labels, options, skip, path, seed)
    if options.split is not None:
        if present := [name for name in ("train", "val", "validation") if (path / name).is_dir()]:
            raise DataError(f"{path} is already split (it has {' and '.join(present)}); omit split")
        classes = _listing(path, path, skip)
        _check_classes(classes, path)
        found = _split(classes, options, path)
    else:
        found = _whole(_from_folders(path, skip), path, seed)
    return Layout(classes=tuple(found["train"]), files=found, targets={})


def _whole(found: dict[Split, Listing], path: Path, seed: int) -> dict[Split, Listing]:
    """The splits with those that are missing: without one of validation and test, training images are held out."""
    if set(found) == {"train", "validation", "test"}:
        return found
    kept, out = held_out(found["train"], path / "train", seed)
    [judge] = set(found) - {"train"}
    return {"train": kept, "validation": out, "test": found[judge]}


def empty_classes(path: Path, options: DataOptions) -> list[str]:
    """Class folders without images in any split, as paths below the dataset's folder: classes that no split uses."""
    if options.labels is not None:
        return []
    parents = [path] if options.split else [path / name for name in SPLIT_NAMES if (path / name).is_dir()]
    found = {parent: [name for name in names(parent) if (parent / name).is_dir()] for parent in parents}
    used = {name for parent, each in found.items() for name in each if any(images_below(path, parent / name))}
    empty = [parent / name for parent, each in found.items() for name in each if name not in used]
    return [folder.relative_to(path).as_posix() for folder in empty]


def images_below(root: Path, folder: Path) -> Iterator[str]:
    """The image files below a folder, as paths below `root`; sorted, without hidden entries.

    Symbolic links are followed, but no folder is visited twice.
    """
    yield from _images_below(root, folder, set())


def _images_below(root: Path, folder: Path, visited: set[Path]) -> Iterator[str]:
    """The image files below a folder that is not among those visited; they are noted there."""
    place = folder.resolve()
    if place in visited:
        return
    visited.add(place)
    entries = names(folder)
    yield from sorted(
        f"{folder.relative_to(root).as_posix()}/{name}"
        for name in entries
        if name.lower().endswith(SUFFIXES) and not (folder / name).is_dir()
    )
    for name in entries:
        if (folder / name).is_dir():
            yield from _images_below(root, folder / name, visited)


def names(folder: Path) -> list[str]:
    """The entries of a folder, sorted, without hidden ones (macOS and Jupyter leave some)."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def printable(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _entries_of(folder: Path) -> str:
    """What a folder has, in words for a message: ``only a, b``, or ``it is empty``."""
    found = names(folder)
    return f"only {some(found)}" if found else "it is empty"


def _from_folders(path: Path, skip: Collection[str]) -> dict[Split, Listing]:
    train_folder, val_folder = _folders(path)
    train = _listing(path, train_folder, skip)
    _check_classes(train, train_folder)
    found: dict[Split, Listing] = {"train": train, "validation": _listing(path, val_folder, skip, like=train)}
    if (path / "test").is_dir():
        found["test"] = _listing(path, path / "test", skip, like=train)
    return found


def _folders(path: Path) -> tuple[Path, Path]:
    """The train folder and the val folder."""
    if not (path / "train").is_dir():
        raise DataError(f"{path} has no folder train, {_entries_of(path)}; {LAYOUT}. {OTHER_LAYOUTS}")
    val = [path / name for name in ("val", "validation") if (path / name).is_dir()]
    if not val:
        raise DataError(f"{path} has no folder val or validation, {_entries_of(path)}; {LAYOUT}")
    if len(val) == 2:
        raise DataError(f"{path} has both val and validation; remove one")
    return path / "train", val[0]


def _check_classes(found: Listing, where: Path) -> None:
    if len(found) < 2:
        raise DataError(f"{where} has only the class {next(iter(found))}; at least 2 are needed")


def _listing(root: Path, folder: Path, skip: Collection[str], *, like: Listing | None = None) -> Listing:
    """The images of each class in a folder, sorted by name.

    Args:
        root: the dataset's folder.
        folder: ``<root>/train``, ``<root>/val``, ``<root>/test``, or the root itself.
        skip: images and class folders to leave out.
        like: the listing of the train folder; the classes must be the same.

    Raises:
        DataError: no classes, other classes, or a class without images.
    """
    classes = [
        entry
        for entry in names(folder)
        if (folder / entry).is_dir() and printable((folder / entry).relative_to(root).as_posix()) not in skip
    ]
    if not classes:
        raise DataError(f"{folder} has no class folders, {_entries_of(folder)}; {LAYOUT}")
    if like is not None and set(classes) != set(like):
        extra, missing = sorted(set(classes) - set(like)), sorted(set(like) - set(classes))
        raise DataError(
            f"the classes of {folder} and {folder.with_name('train')} differ: "
            f"only in {folder.name}: {some(extra)}; only in train: {some(missing)}. They must be the same"
        )
    listing = {}
    for name in classes:
        if {unicodedata.category(c) for c in name} & {"Cc", "Cs"}:  # control characters; bytes that are not UTF-8
            raise DataError(f"the name of the class folder {os.fsencode(folder / name)!r} is not readable; rename it")
        images = list(images_below(root, folder / name))
        listing[name] = [image for image in images if printable(image) not in skip]
        if not listing[name]:
            left = f"only {len(images)} that are left out" if images else _entries_of(folder / name)
            raise DataError(
                f"the class folder {folder / name} has no images, {left}; "
                f"images end in {', '.join(SUFFIXES)}. Add some or remove the folder"
            )
    return listing


def _split(found: Listing, options: DataOptions, where: Path) -> dict[Split, Listing]:
    """Each class divided at random into train, validation and test, with at least one image in each.

    Raises:
        DataError: a class has fewer than three images.
    """
    assert options.split
    total = sum(options.split)
    splits: dict[Split, Listing] = {"train": {}, "validation": {}, "test": {}}
    for name, images in found.items():
        if len(images) < 3:
            raise DataError(
                f"the class {name} of {where} has {len(images)} image{'' if len(images) == 1 else 's'}; "
                "to be split into train, validation and test, a class needs at least 3"
            )
        shuffled = random.Random(stable_seed("split", options.split_seed, name)).sample(images, len(images))
        test = min(max(1, round(len(images) * options.split[2] / total)), len(images) - 2)
        validation = min(max(1, round(len(images) * options.split[1] / total)), len(images) - test - 1)
        splits["test"][name] = shuffled[:test]
        splits["validation"][name] = shuffled[test : test + validation]
        splits["train"][name] = shuffled[test + validation :]
    return splits


def _from_csv(file: Path, options: DataOptions, skip: Collection[str], path: Path, seed: int) -> Layout:
    """The images that a CSV file lists.

    Raises:
        DataError: the file cannot be read, or a line is wrong; the message lists all of them.
    """
    labels = read_labels(file, splits=options.split is None, multi_label=options.multi_label)
    entries = [entry for entry in labels.entries if printable(entry.file) not in skip]
    if not entries:
        raise DataError(f"{file} lists no images" + (", apart from those that are left out" if labels.entries else ""))
    classes = in_order({entry.label for entry in entries}) if labels.classes is None else labels.classes
    if len(classes) < 2:
        raise DataError(f"{file} has only the class {some(classes)}; at least 2 are needed")
    keys = [*classes, ""] if options.multi_label else classes
    found: dict[Split, Listing] = {}
    for entry in entries:
        found.setdefault(entry.split, {each: [] for each in keys})[entry.label].append(entry.file)
    targets = {entry.file: entry.targets for entry in entries if entry.targets}
    if not options.split and ("train" not in found or len(found) == 1):
        raise DataError(f"{file} has only the split {some(sorted(found))}; it needs train, and val or test or both")
    if options.multi_label:
        found = _several_split(found, options, file, seed)
        columns = zip(*(targets[name] for names in found["train"].values() for name in names), strict=True)
        untrained = [name for name, values in zip(classes, columns, strict=True) if max(values) < PRESENT]
        needed = f" (a value of at least {PRESENT:g})"
    else:
        found = _split(found["train"], options, file) if options.split else found
        untrained = [label for label, each in found["train"].items() if not each]
        needed = " (a class whose share is the largest)" if targets else ""
    if untrained:
        raise DataError(f"{file} has no training images of {some(untrained)}; each class needs some{needed}")
    return Layout(classes=tuple(classes), files=_whole(found, path, seed), targets=targets)


def _several_split(found: dict[Split, Listing], options: DataOptions, file: Path, seed: int) -> dict[Split, Listing]:
    """The three splits of images with several labels; a rare class may be missing from one, but not in training.

    Raises:
        DataError: there are too few images.
    """
    if set(found) == {"train", "validation", "test"}:
        return found
    count = sum(map(len, found["train"].values()))
    needed = 3 if options.split else 2
    if count < needed:
        raise DataError(f"{file} lists {count} training images; to hold out others, there must be at least {needed}")
    if options.split:
        test = min(max(1, round(count * options.split[2] / sum(options.split))), count - 2)
        validation = min(max(1, round(count * options.split[1] / sum(options.split))), count - test - 1)
        tested, validated, kept = _in_runs(found["train"], [test, validation], "split", options.split_seed)
        return {"train": kept, "validation": validated, "test": tested}
    size = max(1, int(min(HOLD_OUT_SHARE, HOLD_OUT_MOST / count) * count))
    out, kept = _in_runs(found["train"], [size], "hold out", seed)
    [judge] = set(found) - {"train"}
    return {"train": kept, "validation": out, "test": found[judge]}


def _in_runs(found: Listing, sizes: Sequence[int], *seed: object) -> list[Listing]:
    """The images in consecutive runs of a stratified order: of these sizes, and the rest.

    Every run has its share of the images of each key, up to one image. The only image of a key is in the middle of the
    order, so in training for usual sizes.
    """
    shuffled = {
        key: random.Random(stable_seed(*seed, key)).sample(images, len(images)) for key, images in found.items()
    }
    keyed = [(key, image) for key, images in shuffled.items() for image in images]
    places = {key: place for place, key in enumerate(found)}
    order = stratified([places[key] for key, _ in keyed])
    runs, start = list[Listing](), 0
    for end in (*accumulate(sizes), len(order)):
        run: Listing = {key: [] for key in found}
        for index in order[start:end]:
            key, image = keyed[index]
            run[key].append(image)
        runs.append(run)
        start = end
    return runs
