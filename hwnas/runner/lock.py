"""Only one runner times on a machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

# Every user can open it, and nothing is written: the lock belongs to the CPU.
_ENDING_S = 3.0  # the runner of a command that has just ended may still be about to end
_CPU = "/sys/devices/system/cpu"


class Locked(Exception):
    """Another runner times on this machine."""


_held: list[int] = []  # the lock is released when the process ends


def hold(folder: Path, who: str) -> None:
    """Hold the machine's lock until this process ends.

    Args:
        folder: the runner's own, where the holder's description is kept.
        who: description of the holder, for others.

    Raises:
        Locked: another process holds it; the message says who, if that is known.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    note = folder / "holder"
    place = os.open(_CPU if os.access(_CPU, os.R_OK) else folder, os.O_RDONLY)
    until = time.monotonic() + _ENDING_S
    while True:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() < until:
                time.sleep(0.1)
                continue
            found = _holder(place, note)
            os.close(place)
            raise Locked(found) from None
        break
    _held.append(place)
    note.write_text(f"{who}, process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}", encoding="utf-8")


def _holder(place: int, note: Path) -> str:
    """Who holds the lock: the note of this user's runner if it is of that process, else the process.

    A note stays when its process has ended, and other users' notes cannot be read.
    """
    try:
        of = os.fstat(place)
        inode = f"{os.major(of.st_dev):02x}:{os.minor(of.st_dev):02x}:{of.st_ino}"
        lines = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
        pid = next(words[4] for words in lines if words[1] == "FLOCK" and words[5] == inode)
    except (OSError, StopIteration, IndexError, ValueError):
        return "another process"
    if not pid.isdigit() or pid == "0":  # it runs in another container
        return "another process"
    said = _text(note)
    return said if f"process {pid}," in said else f"process {pid}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:1000].strip()
    except OSError:
        return ""
