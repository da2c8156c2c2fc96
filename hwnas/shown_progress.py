"""Progress on stderr (a bar on a terminal, lines elsewhere), and the signals that stop the work."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from hwnas.progress import Progress

INTERRUPTED = 130  # the exit code after Ctrl-C
_LINE_EVERY_S = 5.0


class _Stop:
    """The signal that asked this process to stop; None if there was none."""

    def __init__(self) -> None:
        self.number: int | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt as Python does, and record the signal."""
        self.number = number
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise the interrupt again: a caller that still runs did not receive it.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        if self.number is not None:
            raise KeyboardInterrupt


_STOP = _Stop()


@contextmanager
def remembered_signals() -> Iterator[Callable[[], int]]:
    """While the context lasts, stop the work at Ctrl-C and SIGTERM alike, and let neither get lost.

    Python raises `KeyboardInterrupt` in the code that runs at that moment. A destructor or a library's callback may
    swallow it, and the work would continue; so the shown progress raises it again.

    Yields:
        a function that returns the exit code of an interrupted run: 143 after SIGTERM, else 130.
    """
    taken = {}
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is usual:  # a background job of a shell ignores Ctrl-C; keep that
            taken[number] = signal.signal(number, _STOP.handle)
    _STOP.number = None
    report = sys.unraisablehook

    def report_others(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            report(what)

    sys.unraisablehook = report_others  # Python prints a traceback of an interrupt that a destructor swallows
    try:
        yield lambda: INTERRUPTED if _STOP.number is None else 128 + _STOP.number
    finally:
        sys.unraisablehook = report
        for number, before in taken.items():
            signal.signal(number, before)
        _STOP.number = None


@contextmanager
def stopped_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """A function that returns whether Ctrl-C was pressed while the context lasts; a second Ctrl-C interrupts as usual.

    For work that has a usable result when it is stopped early.
    """
    before = signal.getsignal(signal.SIGINT)
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed and callable(before):
            before(number, frame)
        pressed = True

    if callable(before):  # a background job of a shell ignores Ctrl-C; keep that
        signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A `Progress` that the user sees while the context lasts."""
    if not sys.stderr.isatty():
        yield PrintedProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            unit = task.fields["unit"]
            return Text(f"{task.speed:,.4g}{' ' * bool(unit)}{unit}/s" if task.speed else "")

    remaining = TimeRemainingColumn(elapsed_when_finished=True)
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), remaining, note)
    bars = Bars(*columns, console=Console(stderr=True))
    tasks: dict[str, object] = {}

    def show(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        _STOP.check()
        if not tasks:  # not earlier: a process without progress must leave the terminal to the one that has some
            bars.start()
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total, unit=unit, note=note)
        bars.update(tasks[what], completed=done, total=total, unit=unit, note=note)  # type: ignore[arg-type]

    try:
        yield show
    finally:
        if tasks:
            bars.stop()


class PrintedProgress:
    """A `Progress` that prints to stderr: a line at the start and the end of a piece of work, and every 5 s in between.

    For any function with an argument ``progress``: ``hwnas.train(..., progress=hwnas.PrintedProgress())``.
    """

    def __init__(self) -> None:
        self._works: dict[str, tuple[float, float, int]] = {}  # last line, beginning, and how much was done by then

    def __call__(self, what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        """Print a line if one is due; the arguments are those of `Progress`."""
        _STOP.check()
        now = time.monotonic()
        last, began, before = self._works.get(what, (0.0, now, done))
        if done < before:
            began, before = now, done
        elif what in self._works and done < total and now - last < _LINE_EVERY_S:
            return
        self._works[what] = now, began, before
        if done >= total:
            del self._works[what]
        elapsed, more = now - began, done - before
        rate = f", {more / elapsed:,.4g}/s, {elapsed * (total - done) / more:.0f} s left" if more and elapsed else ""
        counted, noted = f" {unit}" * bool(unit), f", {note}" * bool(note)
        print(f"{what}: {done}/{total}{counted}{noted}{rate}", file=sys.stderr, flush=True)
