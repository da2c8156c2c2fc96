"""Connections to other machines: how a shell on a pipe is reached, and the runner started in it."""

from __future__ import annotations

import base64
import functools
import io
import re
import shlex
import zipfile
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from hwnas.errors import MachineError
from hwnas.files import Spec
from hwnas.machines.runner import Runner, printable
from hwnas.runner.__main__ import READY
from hwnas.runner.frames import BadFrame, TimedOut, write_all

_CONNECT_S = 60.0  # longest silence while a connection is made: a password cannot be asked for
_FOLDERS = 2
_BANNER = 2**16  # bytes that a login may print before the runner
_SHELLS = {"sh", "bash", "ash", "dash", "zsh", "ksh", "busybox"}
_MARK = b"hwnas: "
# The system's OpenSSH client, with the user's configuration, keys and known hosts. BatchMode: no questions, which
# nobody would see; a connection without an answer ends after 15 seconds.
_SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=5")

# The first lines run in any Python, to say which one it is.
_BOOTSTRAP = """
import sys
def say(text):
    sys.stdout.write("hwnas: " + text + chr(10)); sys.stdout.flush()
if sys.version_info < (3, 9):
    say("old " + sys.version.split()[0]); sys.exit(0)
try:
    import numpy
except ImportError as error:
    say("numpy " + str(error)); sys.exit(0)
import hashlib, os, tempfile
def whole(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == "DIGEST"
    except OSError:
        return False
base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
name, size, problem = "runner-DIGEST.zip", SIZE, None
for cache in (os.path.join(base, "hwnas-runner"), os.path.join(tempfile.gettempdir(), "hwnas-runner-%d" % os.getuid())):
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        if os.stat(cache).st_uid != os.getuid():
            raise OSError("%s belongs to another user" % cache)
        path = os.path.join(cache, name)
        if not whole(path):
            say("send")
            data = b""
            while len(data) < size:
                more = os.read(0, size - len(data))
                if not more:
                    sys.exit(0)
                data += more
            part = "%s.%d.part" % (path, os.getpid())
            try:
                with open(part, "wb") as file:
                    file.write(data)
                os.replace(part, path)
            except OSError:
                if os.path.exists(part):
                    os.unlink(part)
                raise
        break
    except OSError as error:
        problem = error
else:
    say("disk " + str(problem)); sys.exit(0)
sys.path.insert(0, path)
from hwnas.runner.__main__ import main
say("ready")
main(cache)
"""


def _of_host(host: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.@:\[\]%-]+", host) or host.startswith("-"):
        raise ValueError("it should be a host as ssh takes it, e.g. pi@192.168.1.20 or a name from ~/.ssh/config")
    return host


def _of_command(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"a shell could not read it: {error}") from error
    if not words:
        raise ValueError("it is empty")
    return command


class Connection(Spec):
    """How another machine is reached.

    Attributes:
        ssh: host for the system's OpenSSH client, as in ``ssh HOST``.
        command: any other command that gives a shell on a pipe, such as ``docker exec -i NAME``; ``sh`` is appended
            unless it ends in a shell.
        python: Python 3.9 or later on that machine, with numpy and the runtimes.
    """

    ssh: Annotated[str, AfterValidator(_of_host)] | None = None
    command: Annotated[str, AfterValidator(_of_command)] | None = None
    python: str = Field(default="python3", min_length=1)

    @model_validator(mode="after")
    def _one_way(self) -> Connection:
        if (self.ssh is None) == (self.command is None):
            raise ValueError("set either ssh or command")
        return self

    @property
    def words(self) -> list[str]:
        """The command that gives the shell."""
        if self.ssh is not None:
            return [*_SSH, self.ssh, "sh"]
        words = shlex.split(self.command or "")
        return words if Path(words[-1]).name in _SHELLS else [*words, "sh"]

    @property
    def text(self) -> str:
        """The connection in words, e.g. ``ssh pi@host``."""
        return f"ssh {self.ssh}" if self.ssh is not None else str(self.command)

    def start(self, machine: str) -> Runner:
        """Start a runner on the machine; it is sent there if this version is not there yet.

        Args:
            machine: name of the machine, for messages.

        Raises:
            MachineError: the host is unknown or refuses, Python or numpy is missing or too old, or the disk is full.
            Lost: the connection ended for another reason.
        """
        archive = runner_archive()
        digest = sha256(archive).hexdigest()
        runner = Runner.start(self.words, machine)
        try:
            code = base64.b64encode(
                _BOOTSTRAP.replace("DIGEST", digest).replace("SIZE", str(len(archive))).encode()
            ).decode()
            # Not `exec`: the shell turns the end of Python by a signal into an exit code, which ssh passes on.
            line = f"{shlex.quote(self.python)} -c 'import base64; exec(base64.b64decode(\"{code}\"))'; exit $?\n"
            self._write(runner, line.encode(), "connecting")
            sent = 0  # once for each folder that the runner may be kept in
            while (word := self._said(runner)) != "ready":
                if word == "send" and (sent := sent + 1) <= _FOLDERS:
                    self._write(runner, archive, "sending the runner")
                else:
                    raise self._unusable(word, machine)
            self._skip(runner, READY, "starting the runner")
        except BaseException:
            runner.close()
            raise
        return runner

    def _said(self, runner: Runner) -> str:
        self._skip(runner, _MARK, "connecting")
        return self._skip(runner, b"\n", "starting Python").decode("utf-8", errors="replace").strip()

    def _skip(self, runner: Runner, mark: bytes, phase: str) -> bytes:
        try:
            before, found = runner.frames.skip_to(mark, _BANNER, _CONNECT_S)
        except TimedOut:
            raise self._silent(runner, phase) from None
        except BadFrame as error:
            raise MachineError(
                f"{runner.machine} ({self.text}) prints something else while {phase}: {str(error)[:300]!r}"
            ) from error
        if not found:
            raise self._no_shell(runner, before, phase)
        return before

    def _write(self, runner: Runner, data: bytes, phase: str) -> None:
        try:
            write_all(runner.frames.outward, data, _CONNECT_S)
        except TimedOut:
            raise self._silent(runner, phase) from None
        except OSError:
            raise self._no_shell(runner, b"", phase) from None

    def _silent(self, runner: Runner, phase: str) -> MachineError:
        return MachineError(
            f"{runner.machine} ({self.text}) does not answer: no output for {_CONNECT_S:.0f} s while {phase}. Try "
            f"`{shlex.join(self.words)}` by hand; it must give a shell without asking for anything"
        )

    def _no_shell(self, runner: Runner, before: bytes, phase: str) -> MachineError:
        """Why the command ended without a runner."""
        code = runner.process.wait(30)
        said = runner.said() or printable(before.decode("utf-8", errors="replace").strip()[-500:], most=500)
        low = said.lower()
        helps = f"Try `{shlex.join(self.words)}` by hand; it must give a shell without asking for anything"
        if "could not resolve" in low or "name or service not known" in low:
            helps = "Check the host's name, or use its address"
        elif "host identification has changed" in low or "host key verification failed" in low:
            helps = (
                f"hwnas does not skip this check. Connect once by hand, `ssh {self.ssh}`, and compare the key's "
                "fingerprint; if the machine was installed anew, `ssh-keygen -R` removes the old key, with the name or "
                "[address]:port that ssh prints"
            )
        elif "permission denied" in low and self.ssh is not None:
            helps = f"Set up a key: `ssh-copy-id {self.ssh}`; hwnas cannot type a password"
        elif "connection refused" in low:
            helps = "Is an SSH server running there, on this port?"
        elif "not found" in low or code == 127:
            helps = f"Is {self.python!r} installed there? Name another with --python"
        why = said.rstrip(".") or f"it ended with exit code {code}"
        return MachineError(f"cannot use {runner.machine} ({self.text}), while {phase}: {why}. {helps}")

    def _unusable(self, word: str, machine: str) -> MachineError:
        kind, _, rest = word.partition(" ")
        if kind == "old":
            return MachineError(
                f"{self.python!r} on {machine} is Python {rest}; the runner needs 3.9 or later. Name another one with "
                "--python"
            )
        if kind == "numpy":
            return MachineError(
                f"{self.python!r} on {machine} has no numpy ({rest}): install it there, `{self.python} -m pip install "
                "numpy`, or name the Python of another environment with --python"
            )
        if kind == "disk":
            return MachineError(f"the runner cannot be written on {machine}: {rest}. Free some space there")
        said = printable(word, most=200)
        return MachineError(f"{machine} ({self.text}) answers {said!r} instead of starting the runner")


@functools.cache
def runner_archive() -> bytes:
    """The runner as a zip file, the same bytes for the same version."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("hwnas/__init__.py"), "")
        for entry in sorted(files("hwnas.runner").iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".py"):
                info = zipfile.ZipInfo(f"hwnas/runner/{entry.name}")
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, entry.read_bytes())
    return out.getvalue()
