"""A running runner, and what happened when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from pydantic import JsonValue

from hwnas import errors
from hwnas.errors import HwnasError, MachineError
from hwnas.runner.frames import BadFrame, Frames, Message, TimedOut
from hwnas.runner.signature import BadFeeds

# Ends of a process that its program did not cause: a user, a system that shuts down, or the lack of memory.
_FROM_OUTSIDE = {signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGPIPE, signal.SIGTERM}
_LOST = 255  # exit code of ssh if the connection failed
_GRACE_S = 5.0
ANSWER_S = 120.0  # longest time without a message of a runner that works
_STDERR = 4_000  # last bytes that are shown
_MESSAGE = 1_000  # characters of an error there that are shown


class Lost(Exception):
    """The connection or the runner ended from outside: the same request may succeed with a new one."""


class Died(Exception):
    """The runner ended because of what it did."""


class Runner:
    """A process with a runner at the other end of its pipes.

    Args:
        process: the process, with binary pipes for standard input and output.
        stderr: file that it writes standard error to.
        machine: name of the machine, for messages.
    """

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes], machine: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._stderr, self.machine = process, stderr, machine
        self.frames = Frames(process.stdout.fileno(), process.stdin.fileno())

    @classmethod
    def start(cls, command: Sequence[str], machine: str, environment: Mapping[str, str] | None = None) -> Self:
        """Start a command. Its signals are its own: Ctrl-C in a terminal reaches only hwnas, which then ends it.

        Args:
            command: program and arguments.
            machine: name of the machine, for messages.
            environment: of the command; that of this process if None.

        Raises:
            MachineError: the system does not start the command.
        """
        stderr = tempfile.TemporaryFile()  # noqa: SIM115  # it is closed with the runner
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise MachineError(f"cannot start {command[0]!r} for {machine}: {error.strerror}") from error
        return cls(process, stderr, machine)

    def ask(
        self,
        do: str,
        data: bytes = b"",
        *,
        timeout_s: float | None = ANSWER_S,
        event: Callable[[Message], None] | None = None,
        **given: JsonValue,
    ) -> tuple[Message, bytes]:
        """Send a request and return its answer.

        Args:
            do: name of the request (`hwnas.runner.serve.Server`).
            data: bytes of the request.
            timeout_s: longest time without any message.
            event: callback, invoked for every event before the answer.
            given: values of the request.

        Raises:
            Lost, Died: the runner ended.
            HwnasError: the runner answered with an error.
        """
        for message, out in self.stream(do, data, timeout_s=timeout_s, **given):
            if "done" in message:
                return message, out
            if event:
                event(message)
        raise AssertionError("a stream ends with an answer")

    def stream(
        self, do: str, data: bytes = b"", *, timeout_s: float | None = ANSWER_S, **given: JsonValue
    ) -> Iterator[tuple[Message, bytes]]:
        """Send a request; yield its events and its answer. Arguments and errors as for `ask`."""
        self._send({"do": do, **given}, data, timeout_s)
        while True:
            try:
                received = self.frames.receive(timeout_s)
            except TimedOut:
                raise Lost(f"no answer to {do!r} for {timeout_s:.0f} s") from None
            except BadFrame as error:
                raise Lost(f"garbage instead of an answer to {do!r}: {str(error)[:200]!r}") from error
            if received is None:
                raise self._ended(do)
            message, out = received
            if "error" in message:
                raise _as_said(message, self.machine)
            yield message, out
            if "done" in message:
                return

    def go_on(self) -> None:
        """Let a runner that waits after an event continue.

        Raises:
            Lost, Died: the runner ended.
        """
        self._send({}, b"", ANSWER_S)

    def close(self) -> None:
        """End the runner: it ends with its input; after a few seconds it is killed."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        try:
            self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):  # the command, and what it has started
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._stderr.close()

    def said(self) -> str:
        """The last lines on standard error, in one line; empty if there are none."""
        if self._stderr.closed:
            return ""
        end = self._stderr.seek(0, 2)
        self._stderr.seek(max(0, end - _STDERR))
        lines = self._stderr.read().decode("utf-8", errors="replace").splitlines()
        return printable("; ".join(line.strip() for line in lines[-6:] if line.strip()), most=_STDERR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: Message, data: bytes, timeout_s: float | None) -> None:
        try:
            self.frames.send(message, data, timeout_s)
        except TimedOut:
            raise Lost(f"it does not read what is sent to it for {timeout_s:.0f} s") from None
        except OSError:
            raise self._ended(str(message.get("do", "waiting"))) from None

    def _ended(self, do: str) -> Exception:
        """Why the runner ended."""
        try:
            code = self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return Lost(f"the connection ended during {do!r}")
        said = self.said()
        because = f" ({said})" if said else ""
        number = -code if code < 0 else code - 128  # a shell reports a signal as 128 + its number
        if code in (0, _LOST) or number in _FROM_OUTSIDE:
            return Lost(f"the connection ended during {do!r} with code {code}{because}")
        if 0 < number < signal.NSIG:
            with contextlib.suppress(ValueError):
                return Died(f"{signal.Signals(number).name}{because}")
        return Died(f"exit code {code}{because}")


@contextlib.contextmanager
def understood(machine: str) -> Iterator[None]:
    """Convert errors of code that takes an answer of a runner apart, and a runner that ended.

    Raises:
        MachineError: the answer has another form, or there is none.
    """
    try:
        yield
    except Lost as error:
        raise MachineError(f"the connection to {machine} was lost: {error}") from error
    except Died as error:
        raise MachineError(
            f"the runner on {machine} ended by itself: {error}. SIGILL means that a runtime there was built for "
            "another CPU"
        ) from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, BadFeeds) as error:
        said = printable(str(error), most=200)
        raise MachineError(
            f"{machine} sends an answer that cannot be understood ({type(error).__name__}: {said}): its runner is "
            "damaged, or something else answers there"
        ) from error


def printable(text: str, *, most: int) -> str:
    """A text of another machine without control characters, and not longer than `most` characters."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[:most])
    return shown + ("…" if len(text) > most else "")


def _as_said(message: Message, machine: str) -> HwnasError:
    """The error of an answer, as one of `hwnas.errors`."""
    kind, text = printable(str(message["error"]), most=100), printable(str(message.get("message", "")), most=_MESSAGE)
    if kind == "MachineError":
        return MachineError(f"{machine} is in use: {text} times there. Wait until it has ended")
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, HwnasError):
        with contextlib.suppress(TypeError):  # an error with further arguments
            return found(text)
    if message.get("errno") is not None:
        return MachineError(f"the runner on {machine} cannot write: {text}. Free some space there")
    if kind == "ModuleNotFoundError":
        return errors.RuntimeUnavailable(f"{machine}: {text}: install it there")
    return MachineError(f"the runner on {machine} failed: {kind}: {text}")
