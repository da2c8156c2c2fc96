"""Check all files of an image dataset at once: unreadable, ignored and duplicate ones."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, get_args

from pydantic import Field

from hwnas.data.base import Split
from hwnas.data.decode import SUFFIXES
from hwnas.data.label_files import SEPARATOR, SPLIT_NAMES
from hwnas.data.layouts import printable
from hwnas.errors import DataError
from hwnas.files import Spec
from hwnas.progress import Progress, silent

if TYPE_CHECKING:
    from hwnas.data.images import Images
    from hwnas.data.options import DataOptions

_SHOWN = 1000  # files in the message of an error


class FileIssue(Spec):
    """A file, as a path below the dataset's folder, and the reason why it is listed."""

    file: str
    reason: str


class DataCheck(Spec):
    """The result of a check.

    Attributes:
        images: number of images of all splits, with bad ones.
        classes: number of classes.
        bad: images that cannot be read.
        ignored: files that are no image of a split.
        duplicates: files with the same bytes in different splits, each as ``split: path``.
        notes: classes without images in a split, or whose name seems to list several.
    """

    images: int
    classes: int
    bad: list[FileIssue] = Field(default=[])
    ignored: list[FileIssue] = Field(default=[])
    duplicates: list[list[str]] = Field(default=[])
    notes: list[str] = Field(default=[])

    def leaving_out(self, options: DataOptions) -> DataOptions:
        """Options that leave out the bad images, instead of looking for them."""
        bad = [issue.file.rstrip("/") for issue in self.bad]
        return options.model_copy(update={"skip": tuple(dict.fromkeys((*options.skip, *bad))), "skip_bad": False})

    def lines(self) -> Iterator[str]:
        """The result as text, a line for each file."""
        for issue in self.bad:
            yield f"bad: {issue.file}: {issue.reason}"
        for issue in self.ignored:
            yield f"ignored: {issue.file}: {issue.reason}"
        for group in self.duplicates:
            yield f"duplicate: {' = '.join(group)}"
        for note in self.notes:
            yield f"note: {note}"

    def require(self, path: Path) -> None:
        """Refuse data with bad images.

        Raises:
            DataError: an image cannot be read; the message lists all of them.
        """
        if self.bad:
            listing = "\n  ".join(f"{issue.file}: {issue.reason}" for issue in self.bad[:_SHOWN])
            more = f"\n  and {len(self.bad) - _SHOWN} more" if len(self.bad) > _SHOWN else ""
            raise DataError(
                f"{len(self.bad)} of {self.images} images of {path} cannot be read:\n  {listing}{more}\n"
                "Repair or remove them, or leave them out with --skip-bad (skip_bad = true under [data] in a job)"
            )


def check_images(data: Images, *, progress: Progress = silent) -> DataCheck:
    """Decode every image of every split, and look for files that are ignored or in several splits.

    Args:
        data: the dataset.
        progress: callback, invoked regularly.
    """
    splits: dict[str, Split] = {name: split for split in get_args(Split) for name, _ in data.files(split)}
    hashes: dict[bytes, list[str]] = {}
    bad: list[FileIssue] = []
    with ThreadPoolExecutor(_threads()) as pool:
        found = pool.map(lambda name: _examined(data, name), splits)
        for done, (name, (digest, reason)) in enumerate(zip(splits, found, strict=True), 1):
            if reason:
                bad.append(FileIssue(file=printable(name), reason=reason))
            elif digest:
                hashes.setdefault(digest, []).append(name)
            if done % 100 == 0 or done == len(splits):
                progress("checking images", done, len(splits))
    bad += [FileIssue(file=f"{name}/", reason="a class folder without images in any split") for name in data.empty]
    across = [group for group in hashes.values() if len({splits[name] for name in group}) > 1]
    return DataCheck(
        images=len(splits),
        classes=len(data.classes),
        bad=sorted(bad, key=lambda issue: issue.file),
        ignored=sorted(_ignored(data, splits.keys()), key=lambda issue: issue.file),
        duplicates=[[f"{splits[name]}: {printable(name)}" for name in group] for group in across],
        notes=list(_notes(data)),
    )


def _threads() -> int:
    return max(2, min(16, os.cpu_count() or 2))  # Pillow releases the GIL while it decodes


def _examined(data: Images, name: str) -> tuple[bytes | None, str | None]:
    """The hash of an image file, and why it cannot be read."""
    content = _content(data.path / name)
    if isinstance(content, str):
        return None, content
    try:
        data.decode(io.BytesIO(content), "it")
    except DataError as error:
        reason = str(error).removeprefix("cannot read it as an image (").removesuffix("); replace it or remove it")
        return None, reason.replace("cannot identify image file", "not an image of a known format").split(" <_io")[0]
    except MemoryError:
        return None, "too large for the memory"
    return hashlib.blake2b(content, digest_size=16).digest(), None


def _content(path: Path) -> bytes | str:
    """The bytes of a file, or why there are none."""
    try:
        if not path.exists():
            return "a symbolic link to nothing" if path.is_symlink() else "does not exist"
        if not path.is_file():  # opening a FIFO would block
            return "not a regular file"
        return path.read_bytes() or "empty (0 bytes)"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _ignored(data: Images, used: Collection[str]) -> Iterator[FileIssue]:
    """The files below the dataset's folder that are no image of a split; an unrelated folder is one entry."""
    options = data.options
    labels = PurePosixPath(options.labels).as_posix() if options.labels else None
    tops = set(SPLIT_NAMES) if not (options.labels or options.split) else None
    for folder, inner, files in os.walk(data.path):
        where = Path(folder).relative_to(data.path)
        for name in list(inner):
            path = (where / name).as_posix()
            if name.startswith("."):
                reason = "hidden: its name starts with a dot"
            elif tops is not None and not where.parts and name not in tops:
                reason = "a folder besides train, val and test"
            elif printable(path) in data.empty:
                continue
            elif printable(path) in options.skip:
                reason = "left out: a class folder without images in any split"
            else:
                continue
            inner.remove(name)
            yield FileIssue(file=printable(path) + "/", reason=reason)
        for name in files:
            path = (where / name).as_posix()
            if path not in used and path != labels:
                yield FileIssue(file=printable(path), reason=_reason(path, data))


def _reason(path: str, data: Images) -> str:
    name = path.rpartition("/")[2]
    if printable(path) in data.options.skip:
        return "left out"
    if name.startswith("."):
        return "hidden: its name starts with a dot"
    if not name.lower().endswith(SUFFIXES):
        suffix = Path(name).suffix
        return f"its suffix {suffix} is not that of an image" if suffix else "it has no suffix of an image"
    return f"not listed in {data.options.labels}" if data.options.labels else "not in a class folder"


def _notes(data: Images) -> Iterator[str]:
    for split in get_args(Split):
        for name, count in zip(data.classes, data.class_sizes(split), strict=True):
            if not count:
                yield f"the class {name} has no images in {split}"
    listed = [name for name in data.classes if SEPARATOR in name]
    if listed and data.options.labels and data.task == "classification":
        yield (
            f"{listed[0]} counts as one class; if it lists several labels of an image, set multi_label = true "
            "(--multi-label)"
        )
