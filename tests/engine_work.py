"""Work for the tests of engines. Workers import this module; it loads no torch unless the work needs it."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InfeasibleBudget, ProgramCrashed, UnknownName
from hwnas.files.atomic import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwnas.accuracy import Evaluator
    from hwnas.spaces import Arch


class Work:
    """Notes in a file what is opened and begun, and by which process.

    Args:
        log: the file.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.note("opened")

    def note(self, text: object) -> None:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {text}\n")

    def square(self, number: int) -> int:
        self.note(number)
        return number**2

    def slow_square(self, number: int) -> int:
        time.sleep(0.05)
        return self.square(number)

    def forever(self, number: int) -> None:
        self.note(number)
        time.sleep(600)

    def killed_at_3(self, number: int) -> int:
        """Kills its process at the item 3 as often as the file `kills` beside the log says."""
        self.note(number)
        file = self.log.with_name("kills")
        left = int(file.read_text())
        if number == 3 and left:
            write_whole(file, str(left - 1).encode())  # another worker reads it meanwhile
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2

    def wrong(self, what: str) -> None:
        if what == "user":
            raise UnknownName("colour", "gren", ["green", "red"])
        if what == "infeasible":
            raise InfeasibleBudget("too tight", objectives=("ms",), lowest=1.5)
        if what == "crashed":
            raise ProgramCrashed("it ended its process", "model.onnx")
        if what == "bug":
            raise ZeroDivisionError("a bug")
        raise Picky(1, 2)


class Picky(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


def noted(log: Path) -> list[tuple[int, str]]:
    """The process and the text of each note."""
    rows = [line.split(" ", 1) for line in log.read_text().splitlines()] if log.exists() else []
    return [(int(pid), text) for pid, text in rows]


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def all_end(pids: set[int], timeout_s: float = 30.0) -> bool:
    """Wait until no process runs; False if one still does at the end."""
    until = time.monotonic() + timeout_s
    while any(map(alive, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens."""
    links = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed by now
            links.append(str(file.readlink()))
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    found = set()
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = row.split()
            if columns[3] == "0A" and columns[9] in inodes:
                words = bytes.fromhex(columns[1].partition(":")[0])  # 32 bits each, in the order of the machine
                raw = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
                found.add(socket.inet_ntop(family, raw))
    return found


class Noting:
    """Opens an evaluator that notes each arch that it evaluates; the first process that should ends there.

    Args:
        source: opens the evaluator.
        log: file of the notes.
        kill_at: number of notes at which a process is killed, once.
    """

    def __init__(self, source: partial[Evaluator], log: Path, kill_at: int | None = None) -> None:
        self.source, self.log, self.kill_at = source, log, kill_at

    def __call__(self) -> Evaluator:
        evaluator = self.source()
        work, measured = Work(self.log), evaluator._measured

        def measure(archs: Sequence[Arch], *how: object) -> list[float]:
            for arch in archs:
                work.note(" ".join(f"{name}={value}" for name, value in arch.items()))
            marker = self.log.with_name("killed")
            if self.kill_at is not None and len(noted(self.log)) > self.kill_at and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return measured(archs, *how)  # type: ignore[arg-type]

        evaluator._measured = measure  # type: ignore[assignment,method-assign]
        return evaluator
