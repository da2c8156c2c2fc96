"""Layouts of image data on disk: folders of splits, folders of classes, and CSV files of labels."""

from __future__ import annotations

import os
import random
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

from hwnas.data.base import Split, stable_seed
from hwnas.data.decode import SUFFIXES
from hwnas.data.label_files import SPLIT_NAMES, read_labels
from hwnas.data.options import DataOptions
from hwnas.data.photographs import held_out
from hwnas.errors import DataError, some

Listing = dict[str, list[str]]  # class -> its images, as paths below the dataset's folder
Shares = dict[str, tuple[float, ...]]  # image -> share of each class
LAYOUT = "an image folder has train/<class>/ and val/<class>/ with images in them"
OTHER_LAYOUTS = (
    "Other layouts: <class>/ folders with --split 70,15,15, or a CSV of file,label with --labels "
    "(split and labels under [data] in a job)"
)


def read_layout(path: Path, options: DataOptions, seed: int) -> tuple[dict[Split, Listing], Shares]:
    """The images of each split and class, and the shares of classes of images that have several.

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
    skip, shares = set(options.skip), Shares()
    if options.labels is not None:
        found, shares = _from_csv(path / options.labels, options, skip)
    elif options.split is not None:
        if present := [name for name in ("train", "val", "validation") if (path / name).is_dir()]:
            raise DataError(f"{path} is already split (it has {' and '.join(present)}); omit split")
        classes = _listing(path, path, skip)
        _check_classes(classes, path)
        return _split(classes, options, path), shares
    else:
        found = _from_folders(path, skip)
    if set(found) == {"train", "validation", "test"}:
        return found, shares
    kept, out = held_out(found["train"], path / "train", seed)
    [judge] = set(found) - {"train"}
    return {"train": kept, "validation": out, "test": found[judge]}, shares


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

    Symbolic links are followed, but no folder is visited twice on one path.
    """
    entries = names(folder)
    yield from sorted(
        f"{folder.relative_to(root).as_posix()}/{name}"
        for name in entries
        if name.lower().endswith(SUFFIXES) and not (folder / name).is_dir()
    )
    for name in entries:
        inner = folder / name
        if inner.is_dir() and not (inner.is_symlink() and folder.resolve().is_relative_to(inner.resolve())):
            yield from images_below(root, inner)


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


def _from_csv(file: Path, options: DataOptions, skip: Collection[str]) -> tuple[dict[Split, Listing], Shares]:
    """The images that a CSV file lists.

    Raises:
        DataError: the file cannot be read, or a line is wrong; the message lists all of them.
    """
    labels = read_labels(file, splits=options.split is None)
    entries = [entry for entry in labels.entries if printable(entry.file) not in skip]
    if not entries:
        raise DataError(f"{file} lists no images" + (", apart from those that are left out" if labels.entries else ""))
    classes = labels.classes
    if classes is None:
        named = {entry.label for entry in entries}
        classes = sorted(named, key=int) if all(map(_is_number, named)) else sorted(named)
    if len(classes) < 2:
        raise DataError(f"{file} has only the class {some(classes)}; at least 2 are needed")
    found: dict[Split, Listing] = {}
    for entry in entries:
        found.setdefault(entry.split, {each: [] for each in classes})[entry.label].append(entry.file)
    shares = {entry.file: entry.shares for entry in entries if entry.shares}
    if options.split:
        return _split(found["train"], options, file), shares
    if "train" not in found or len(found) == 1:
        raise DataError(f"{file} has only the split {some(sorted(found))}; it needs train, and val or test or both")
    if untrained := [label for label, each in found["train"].items() if not each]:
        largest = " (a class whose share is the largest)" if shares else ""
        raise DataError(f"{file} has no training images of {some(untrained)}; each class needs some{largest}")
    return found, shares


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit()
