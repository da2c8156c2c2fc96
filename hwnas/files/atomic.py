"""Writing files whole: a reader sees the old content or the new, never a part of it."""

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

# Error numbers of which the system's own words do not say what helps.
_HELPS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "choose another folder",
    errno.EACCES: "choose another place or change its permissions",
    errno.EPERM: "choose another place or change its permissions",
    errno.EMFILE: "this process may open more after `ulimit -n 4096`",
    errno.ENFILE: "end other programs, which hold too many files open",
    errno.EAGAIN: "no further process or thread may start: end others, or raise the limit (`ulimit -u`, pids.max)",
    errno.EFBIG: "files may not grow that large here: raise the limit (`ulimit -f unlimited`) or choose another disk",
    errno.ENOMEM: "end other programs, or raise the limit of memory (`ulimit -v`)",
    errno.EIO: "the disk fails: see the system's log, choose another one",
    errno.ENAMETOOLONG: "choose a shorter name",
}


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
        raise OutputError(f"cannot write {path}: {_no_writing(path, error)}") from error


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
        raise OutputError(f"cannot write {lock.parent}: {_no_writing(lock, error)}") from error
    try:
        yield
    finally:
        held.release()


@contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """A folder that is gone when the context ends, below ``$TMPDIR`` or where the system keeps such files.

    Args:
        what: needs it, for messages.

    Raises:
        OutputError: it cannot be made, or a file in it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="hwnas-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        place, helps = (f" {error.filename}" if error.filename else ""), reason_of(error)
        raise OutputError(
            f"cannot write the temporary files of {what}{place}: {helps}"
            + ("" if "TMPDIR" in helps else ". Set TMPDIR to a folder that has room and that you can write to")
        ) from error


@contextmanager
def system_refusals(what: str) -> Iterator[None]:
    """Say what helps where a library fails as the system refuses it something, e.g. to write a temporary file.

    Libraries wrap such an error in their own, with pages about how to mend the network.

    Args:
        what: is being done, for messages.

    Raises:
        OutputError: in place of the library's error; any other error passes through.
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
    """Why the system refused something, and what helps."""
    said = _said(error)
    if "temporary directory" in said:  # of tempfile, whose number is that of a file which does not exist
        return f"{said}; set TMPDIR to a folder that has room and that you can write to"
    if error.errno is None or error.errno not in _HELPS:
        return said
    return f"{said}; {_HELPS[error.errno]}"


def _no_writing(path: Path, error: OSError) -> str:
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
            said = _said(error)
            return f"{said}; nothing was changed" + (f"; {helps}" if (helps := _HELPS.get(error.errno or 0)) else "")
