"""Memory that this process may still allocate."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

LIMIT = "HWNAS_MEMORY_GIB"
_GIB = 2**30
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # cgroup v1 reports a number near 2^63 if there is no limit


class BadLimit(ValueError):
    """`HWNAS_MEMORY_GIB` is invalid."""


def content(path: Path) -> str:
    """The content of a file in /proc or /sys, stripped; empty if it is absent or unreadable."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError):  # masked in containers; EIO and ENODEV of some drivers; a NUL in the path
        return ""
    # A device tree ends each text with NUL; the first of several is the most specific.
    return data.decode("utf-8", errors="replace").partition("\0")[0].strip()


def available_bytes() -> int | None:
    """Bytes that this process can allocate before the kernel kills it; None if the system does not report them.

    The minimum of: the memory that Linux reports as available, and the remainders of the control group's limit (of a
    container), of the address space limit (`ulimit -v`), and of `HWNAS_MEMORY_GIB` after the process's own memory.

    Raises:
        BadLimit: `HWNAS_MEMORY_GIB` is not a positive number, or the system does not report a process's memory.
    """
    known = [*_machine(), *_control_groups(), *_address_space(), *_own_limit()]
    return max(0, min(known)) if known else None


def give_back() -> None:
    """Return freed memory to the system, if the C library keeps it.

    glibc keeps free memory between blocks in use: after closing 40 networks, 475 of 572 MiB.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _machine() -> Iterator[int]:
    found = re.search(r"^MemAvailable:\s+(\d{1,15}) kB$", content(_PROC / "meminfo"), re.MULTILINE)
    if found:
        yield int(found[1]) * 1024


def _own_limit() -> Iterator[int]:
    given = os.environ.get(LIMIT)
    if not given:
        return
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 2**20:
        raise BadLimit(f"{LIMIT} is {given!r}; it should be the memory of this process in GiB, such as 1.5")
    held = _status("VmRSS")
    if held is None:
        raise BadLimit(f"{LIMIT} is {given!r}, but this system does not report the memory of a process; unset it")
    yield int(limit * _GIB) - held


def _address_space() -> Iterator[int]:
    if sys.platform != "linux":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    held = _status("VmSize")
    if limit != resource.RLIM_INFINITY and held is not None:
        yield limit - held


def _status(key: str) -> int | None:
    """Bytes in a line of this process's status; None if there is no such line."""
    found = re.search(rf"^{key}:\s+(\d{{1,15}}) kB$", content(_PROC / "self" / "status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _control_groups() -> Iterator[int]:
    """The remaining memory of each control group of this process, up to the root, for versions 2 and 1."""
    for line in content(_PROC / "self" / "cgroup").splitlines():
        _, controllers, name = (*line.split(":", 2), "", "")[:3]
        if not name.startswith("/") or (controllers and "memory" not in controllers.split(",")):
            continue
        root = _CGROUPS / controllers
        limit, usage, unused = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            most, used = (_number(content(folder / name)) for name in (limit, usage))
            if most is not None and used is not None and most < _UNLIMITED:
                # Cached files count as used, but are evicted when memory is needed.
                cached = re.search(rf"^{unused} (\d{{1,20}})$", content(folder / "memory.stat"), re.MULTILINE)
                yield most - used + (int(cached[1]) if cached else 0)
            if folder == root:
                break


def _number(text: str) -> int | None:
    """A number of bytes; None for ``max`` and any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None
