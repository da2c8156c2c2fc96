"""The lock of a study's file: released if a worker is killed, with removal of truncated lines."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from hwnas.files import only_one

_PATIENCE_S = 60.0  # a worker holds the lock for one write, which takes milliseconds
_BLOCK = 4096


def journal_backend(path: Path) -> JournalFileBackend:
    """Optuna's storage in a journal file of several workers, with a lock of the operating system.

    Optuna's locks are files, which a killed worker leaves behind. The default is a symbolic link, which is broken if
    the path is relative: optuna 4 then waits for it forever in a busy loop.
    """
    lock: Any = _Lock(path)  # optuna's base class of locks is private; it has only these two methods
    return JournalFileBackend(str(path), lock_obj=lock)


class _Lock:
    """A lock of the operating system, which releases it when the process ends.

    Its file name differs from that of optuna's link, so that links left by an older hwnas have no effect.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, ExitStack()

    def acquire(self) -> bool:
        """Wait until no other worker writes, and remove a truncated line, after which optuna would reject all others.

        Raises:
            OutputError: another worker holds the lock for a minute, or the folder cannot be written.
        """
        lock = self._path.with_name(f".{self._path.name}.lock")
        self._held.enter_context(only_one(lock, f"the study in {self._path}", wait_s=_PATIENCE_S))
        try:
            _remove_cut_line(self._path)
        except BaseException:
            self._held.close()
            raise
        return True

    def release(self) -> None:
        """Release the lock."""
        self._held.close()


def _remove_cut_line(path: Path) -> None:
    """Truncate a file after its last line end."""
    with path.open("rb+") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(end - _BLOCK, 0)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
