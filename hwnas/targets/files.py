"""Writing files whole: a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from hwnas.errors import OutputError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one step; the folders above it are created.

    The content goes to a temporary file in the same folder, which then takes the place of `path`. Whatever
    stops it before that (a full disk, Ctrl-C), an older file stays as it was and the temporary one is
    removed; after a `kill -9` a file `.hwnas-*.tmp` may remain, which nothing reads.

    Args:
        path: where; an existing file is replaced.
        content: text is written as UTF-8 with line ends as they are.

    Raises:
        OutputError: it cannot be written; the message says why.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.parent / f".hwnas-{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        try:
            # Not tempfile: its files are readable by their owner alone, and would stay so after the rename.
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(path, error)}") from error


@contextmanager
def only_one(lock: Path, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file, so that one process at a time works on something; a killed process holds it no longer.

    Args:
        lock: the file; the folders above it are created.
        what: is worked on.
        wait_s: seconds to wait for another process.

    Raises:
        OutputError: another process still holds it, or its folder cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(lock)
        held.acquire(timeout=wait_s)
    except filelock.Timeout as error:
        waited = f" and has not ended in {wait_s:g} s" if wait_s else ""
        raise OutputError(
            f"another hwnas is working on {what}{waited}; wait for it, or choose another place"
        ) from error
    except NotImplementedError as error:  # some network and FUSE file systems
        raise OutputError(
            f"the file system of {lock.parent} cannot lock files, so two hwnas could write {what} at once; choose a "
            "folder of another file system"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write {lock.parent}: {_reason(lock, error)}") from error
    try:
        yield
    finally:
        held.release()


def _reason(path: Path, error: OSError) -> str:
    """Why a file cannot be written, and what helps."""
    # The folders above are not all there to be asked when one of them turns out to be a file or closed.
    nearest = next(parent for parent in path.absolute().parents if os.access(parent, os.F_OK))
    if not nearest.is_dir():
        return f"{nearest} is a file, not a folder; choose another folder"
    match error.errno:
        case errno.EISDIR:
            return "it is a folder; name a file"
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full; nothing was changed; free some space and run the same command again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"the folder {nearest} is not writable; choose another one or change its permissions"
        case _:
            return f"{os.strerror(error.errno) if error.errno else error}; nothing was changed"
