"""Progress on stderr: a bar on a terminal, lines elsewhere; and Ctrl-C, which ends the work at the next progress."""

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


class _CtrlC:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Do what Python does, and remember it."""
        self.pressed = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise the interrupt again: whoever still calls did not get it.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        if self.pressed:
            raise KeyboardInterrupt


_CTRL_C = _CtrlC()


@contextmanager
def remembered_ctrl_c() -> Iterator[None]:
    """Let no Ctrl-C get lost while the context lasts: the shown progress raises `KeyboardInterrupt` once more.

    Python raises it in whatever runs at that moment. A destructor or a library's callback swallows it, and the work
    would go on to its end.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # a job in the background of a shell ignores Ctrl-C, and so do we
        yield
        return
    _CTRL_C.pressed = False
    signal.signal(signal.SIGINT, _CTRL_C.handle)
    report = sys.unraisablehook

    def report_others(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            report(what)

    sys.unraisablehook = report_others  # Python prints a traceback of an interrupt that a destructor swallows
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, before)
        _CTRL_C.pressed = False


@contextmanager
def stopped_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C was pressed while the context lasts; a second one interrupts as ever.

    For work that has something to show for itself when it is cut short.
    """
    before = signal.getsignal(signal.SIGINT)
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed and callable(before):
            before(number, frame)
        pressed = True

    if callable(before):  # a job in the background of a shell ignores Ctrl-C, and so do we
        signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A `Progress` that the user sees while the context lasts."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.4g}/s" if task.speed else "")

    remaining = TimeRemainingColumn(elapsed_when_finished=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), remaining)
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, object] = {}

        def show(what: str, done: int, total: int) -> None:
            _CTRL_C.check()
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield show


class _Lines:
    """A line when a piece of work begins and ends, and every few seconds between."""

    def __init__(self) -> None:
        self._what = ""
        self._last = 0.0
        self._began = (0.0, 0)  # when, and how much was done by then

    def __call__(self, what: str, done: int, total: int) -> None:
        _CTRL_C.check()
        now = time.monotonic()
        if what != self._what:
            self._began = (now, done)
        elif done < total and now - self._last < _LINE_EVERY_S:
            return
        self._what, self._last = what, now
        elapsed, more = now - self._began[0], done - self._began[1]
        rate = f", {more / elapsed:,.4g}/s, {elapsed * (total - done) / more:.0f} s left" if more and elapsed else ""
        print(f"{what}: {done}/{total}{rate}", file=sys.stderr, flush=True)
