"""Work on several machines at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from hwnas.errors import HwnasError
from hwnas.progress import Progress

T = TypeVar("T")
Work = Callable[[Progress], T]


def side_by_side(
    works: Mapping[str, tuple[str, Work[T]]], progress: Progress
) -> tuple[dict[str, T], dict[str, HwnasError]]:
    """Do works for several targets: those of different machines at the same time, those of one machine in turn.

    An error ends the work of one target only. An interrupt ends all at their next progress.

    Args:
        works: target's name -> name of its machine, and the work, which gets a progress callback.
        progress: callback; the works' names begin with their target if there are several.

    Returns:
        target's name -> result; and -> error.
    """
    found, failed = dict[str, T](), dict[str, HwnasError]()

    def one_machine(names: list[str]) -> None:
        for name in names:
            told = labelled(progress, name) if len(works) > 1 else progress
            try:
                found[name] = works[name][1](told)
            except HwnasError as error:
                failed[name] = error

    of_machine: dict[str, list[str]] = {}
    for name, (machine, _) in works.items():
        of_machine.setdefault(machine, []).append(name)
    if len(of_machine) == 1:
        one_machine(list(works))
    else:
        with ThreadPoolExecutor(len(of_machine), thread_name_prefix="machine") as pool:
            running: list[Future[None]] = [pool.submit(one_machine, names) for names in of_machine.values()]
            for each in running:
                each.result()
    return {name: found[name] for name in works if name in found}, failed


def labelled(progress: Progress, label: str) -> Progress:
    """A progress callback whose works begin with a label."""

    def tell(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        progress(f"{label}: {what}", done, total, unit=unit, note=note)

    return tell
