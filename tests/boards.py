"""Boards as Linux reports them: trees of /proc and /sys from `targets/data`, and copies for `SNAPSHOT`."""

from __future__ import annotations

import re
from pathlib import Path

from hwnas.targets import SNAPSHOT
from hwnas.targets.topology import parse_cores

DATA = Path(__file__).parent / "targets" / "data"
BOARDS = sorted(path.name for path in DATA.iterdir())


def write_board(name: str, root: Path) -> Path:
    """Write a board's files below a folder, and return it.

    ``cpuinfo`` is /proc/cpuinfo. Each line of ``files`` is ``path = content``. ``{0-3}`` in a path stands for several
    logical cores, ``{}`` in a content for the core's number, and ``\\0`` for the NUL that ends a text of a device tree.
    """
    texts = {"proc/cpuinfo": (DATA / name / "cpuinfo").read_text(encoding="utf-8")}
    for line in (DATA / name / "files").read_text(encoding="utf-8").splitlines():
        pattern, _, text = line.partition(" = ")
        cores = re.search(r"\{(.*)\}", pattern)
        for core in (parse_cores(cores[1]) if cores else None) or (0,):
            path = pattern.replace(cores[0], str(core)) if cores else pattern
            texts[path] = text.replace("{}", str(core)).replace("\\0", "\0") + ("" if text.endswith("\\0") else "\n")
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode())
    return root


def copy_snapshot(root: Path, to: Path) -> Path:
    """Copy the files that `SNAPSHOT` lists from below one folder to another, and return that."""
    for pattern in SNAPSHOT:
        for path in root.glob(pattern):
            try:
                content = path.read_bytes()
            except OSError:  # a folder, or not readable
                continue
            copy = to / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    return to
