"""Atomic writes: a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from hwnas.errors import HwnasError, OutputError

# Advice for error numbers whose system message contains none.
_HELPS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "choose another folder",
    errno.EACCES: "choose another place or change its permissions",
    errno.EPERM: "choose another place or change its permissions",
    errno.EMFILE: "this process may open more after `ulimit -n 4096`",
    errno.ENFILE: "too many files are open on this system: end other programs",
    errno.EAGAIN: "the limit of processes and threads is reached: end some, or raise it (`ulimit -u`, pids.max)",
    errno.EFBIG: "the file exceeds the size limit: raise it (`ulimit -f unlimited`) or choose another disk",
    errno.ENOMEM: "end other programs, or raise the limit of memory (`ulimit -v`)",
    errno.EIO: "the disk is failing: see the system log, and choose another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically; parent folders are created.

    The content goes to a temporary file in the same folder, which is then renamed to `path`. If writing fails or is
    interrupted before that (a full disk, Ctrl-C), an existing file is unchanged and the temporary file is removed.
    After a `kill -9` a file `.hwnas-*.tmp` may remain; nothing reads it.

    Args:
        path: the file; an existing one is replaced.
        content: text is written as UTF-8, with its line ends unchanged.

    Raises:
        OutputError: the file cannot be written; the message says why.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.parent / f".hwnas-{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        try:
            # Not tempfile: its files are readable by their owner only, and the rename keeps those permissions.
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_no_writing(path, error)}") from error


@contextmanager
def only_one(lock: Path, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file, so that one process at a time works on something. The lock of a killed process is released.

    Args:
        lock: the file; parent folders are created.
        what: the work, for messages.
        wait_s: seconds to wait for another process.

    Raises:
        OutputError: another process still holds the lock, or its folder cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(lock)
        held.acquire(timeout=wait_s)
    except filelock.Timeout as error:
        waited = f" and did not finish within {wait_s:g} s" if wait_s else ""
        raise OutputError(
            f"another hwnas process is working on {what}{waited}; wait for it, or choose another folder"
        ) from error
    except NotImplementedError as error:  # some network and FUSE file systems
        raise OutputError(
            f"the file system of {lock.parent} does not support file locks, so two hwnas processes could write {what} "
            "at once; choose a folder on another file system"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write {lock.parent}: {_no_writing(lock, error)}") from error
    try:
        yield
    finally:
        held.release()


@contextmanager
def temporary_folder(what: str, place: Path | None = None) -> Iterator[Path]:
    """A temporary folder, which is removed when the context ends.

    Args:
        what: what needs it, for messages.
        place: folder that contains it; ``$TMPDIR`` or the system's default if None.

    Raises:
        OutputError: the folder cannot be created, or a file in it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="hwnas-", dir=place, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        at, helps = (f" {error.filename}" if error.filename else ""), reason_of(error)
        raise OutputError(
            f"cannot write the temporary files of {what}{at}: {helps}"
            + ("" if "TMPDIR" in helps else ". Set TMPDIR to a writable folder with free space")
        ) from error


@contextmanager
def system_refusals(what: str) -> Iterator[None]:
    """Replace a library's error by the system error that caused it, with advice; e.g. a failed temporary file.

    Libraries wrap such an error in their own, with pages of advice about the network.

    Args:
        what: the operation, for messages.

    Raises:
        OutputError: instead of the library's error; any other error passes through.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not (isinstance(cause, OSError) and reason_of(cause) != _said(cause)):
            cause = cause.__cause__ or cause.__context__
        if cause is None or isinstance(error, HwnasError):
            raise
        place = f" {cause.filename}:" if cause.filename else ""
        raise OutputError(f"{what} fails:{place} {reason_of(cause)}") from error


def _said(error: OSError) -> str:
    return error.strerror or str(error)


def reason_of(error: OSError) -> str:
    """Why a system call failed, and what helps."""
    said = _said(error)
    if "temporary directory" in said:  # raised by tempfile, with the error number of a missing file
        return f"{said}; set TMPDIR to a writable folder with free space"
    if error.errno is None or error.errno not in _HELPS:
        return said
    return f"{said}; {_HELPS[error.errno]}"


def _no_writing(path: Path, error: OSError) -> str:
    """Why a file cannot be written, and what helps."""
    # A parent may be a file or inaccessible, so look for the nearest one that exists.
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
            said = _said(error)
            return f"{said}; nothing was changed" + (f"; {helps}" if (helps := _HELPS.get(error.errno or 0)) else "")
