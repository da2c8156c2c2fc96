"""A machine at the end of a connection."""

from __future__ import annotations

import getpass
import hashlib
import platform
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from hwnas.errors import RuntimeUnavailable, TableError, TableMismatch
from hwnas.machines.connection import Connection
from hwnas.machines.piped import Files, PipedMachine, driven_settings
from hwnas.machines.runner import Runner, understood
from hwnas.machines.snapshot import Snapshot
from hwnas.progress import Progress
from hwnas.targets import RUNTIMES, Chosen, Host, Recipe, Target
from hwnas.timing.host import require_timed

_SEND_S = 600.0  # longest time to send one program


class RemoteMachine(PipedMachine):
    """Times programs in a runner at the end of a connection.

    Args:
        name: of the connection and of its device.
        connection: how the machine is reached.
    """

    beside = False

    def __init__(self, name: str, connection: Connection) -> None:
        self.name, self.connection = name, connection

    @cached_property
    def snapshot(self) -> Snapshot:
        """The facts of the machine, read once.

        Raises:
            MachineError: it cannot be reached.
        """
        with understood(self.name), self.connection.start(self.name) as runner:
            found = Snapshot.taken(runner)
            _ = found.host  # an odd answer is refused here
            return found

    def host(self) -> Host:
        """The hardware that its system reports."""
        return self.snapshot.host

    def check(self, target: Target) -> None:
        """As `Machine.check`; also that the connection leads to the target's device."""
        require_timed(target)
        self.settings(target.recipe)
        if differences := target.device.differences(self.host()):
            raise TableError(
                f"the machine at the end of the connection {self.name} ({self.connection.text}) is not the device "
                f"{target.device.name}: {'; '.join(differences)}. Connect the right one with `hwnas devices connect`, "
                f"or describe this one: hwnas devices detect --on {self.name} --save --force"
            )
        self.chosen(target.recipe)
        self._runtime(target.recipe)

    def versions(self, target: Target) -> dict[str, str]:
        """Versions of hwnas and torch here; of the runtime, Python and the system there."""
        facts = self.snapshot.facts
        return {
            "hwnas": version("hwnas"),
            target.recipe.runtime: self._runtime(target.recipe),
            "torch": version("torch"),
            "python": str(facts["python"]),
            "system": str(facts["system"]),
        }

    def facts(self, target: Target) -> dict[str, object]:
        """Hardware, clocks and cores, as for this host (`hwnas.timing.host.host_facts`)."""
        return self.snapshot.cpu_facts(max(self.chosen(target.recipe).cores, default=0))

    def chosen(self, recipe: Recipe) -> Chosen:
        """As `hwnas.timing.require_cores`, from the machine's facts."""
        return self.snapshot.require_cores(recipe)

    def allowed(self) -> frozenset[int]:
        """As the runner reported."""
        return self.snapshot.allowed

    def settings(self, recipe: Recipe) -> Mapping[str, Any]:
        """How the runner loads the recipe's programs.

        Raises:
            RuntimeUnavailable: the runner does not drive its runtime.
        """
        found = driven_settings(recipe)
        if found is None:
            driven = ", ".join(name for name, facts in RUNTIMES.items() if facts.runner)
            raise RuntimeUnavailable(
                f"{recipe.name} has the runtime {recipe.runtime}, which is not timed on other machines. Runtimes that "
                f"are: {driven}"
            )
        return found

    def connect(self, recipe: Recipe) -> Runner:
        """Start a runner, and hold the machine's lock.

        Raises:
            MachineError: the machine cannot be reached, or another user times there.
            RuntimeUnavailable: the runtime is missing there.
            TableMismatch: it is another machine, or has another version of the runtime, than at the first connection.
        """
        known = self.snapshot, self._runtime(recipe)
        runner = self.connection.start(self.name)
        try:
            runner.ask("lock", who=f"{getpass.getuser()} on {platform.node() or 'another machine'}")
            with understood(self.name):
                now = Snapshot.taken(runner), self._version(runner, recipe)
            self._require_same(*known, *now)
        except BaseException:
            runner.close()
            raise
        return runner

    def delivered(self, runner: Runner, files: Files, progress: Progress) -> dict[str, str]:
        """Send the programs that the machine does not have, by their hash."""
        hashes = {name: f"{_sha256(path)}{path.suffix}" for name, path in files.items()}
        wanted: list[JsonValue] = list(dict.fromkeys(hashes.values()))
        answer, _ = runner.ask("have", programs=wanted)
        with understood(self.name):
            paths = {str(digest): str(path) for digest, path in answer["paths"].items()}
        sources = {digest: files[name] for name, digest in hashes.items()}
        missing = [str(digest) for digest in wanted if digest not in paths]
        what = f"sending programs to {self.name}"
        for i, digest in enumerate(missing):
            progress(what, i, len(missing))
            sent, _ = runner.ask("put", sources[digest].read_bytes(), program=digest, timeout_s=_SEND_S)
            with understood(self.name):
                paths[digest] = str(sent["path"])
        if missing:
            progress(what, len(missing), len(missing))
        return {name: paths[digest] for name, digest in hashes.items()}

    def _runtime(self, recipe: Recipe) -> str:
        """Version of the recipe's runtime there.

        Raises:
            RuntimeUnavailable: it is missing, or the CPU lacks instructions for the recipe's precision.
        """
        key = (recipe.runtime, recipe.precision)
        if key not in self._runtimes:
            self._runtimes[key] = self._asked(recipe)
        return self._runtimes[key]

    @cached_property
    def _runtimes(self) -> dict[tuple[str, str], str]:
        return {}

    def _asked(self, recipe: Recipe) -> str:
        with understood(self.name), self.connection.start(self.name) as runner:
            return self._version(runner, recipe)

    def _version(self, runner: Runner, recipe: Recipe) -> str:
        """Version of the recipe's runtime, as a runner says."""
        facts = recipe.facts
        try:
            answer, _ = runner.ask("runtime", program=facts.runner, precision=recipe.precision)
        except RuntimeUnavailable as error:
            raise RuntimeUnavailable(
                f"{recipe.name} cannot run there. {error}: {self.connection.python} -m pip install {facts.install}"
            ) from error
        if answer["missing"]:
            raise RuntimeUnavailable(f"{recipe.name} cannot run on {self.name}: {'; '.join(answer['missing'])}")
        return str(answer["version"])

    def _require_same(self, before: Snapshot, version: str, now: Snapshot, version_now: str) -> None:
        """Check that a connection leads to the same machine and runtime as the first one.

        Raises:
            TableMismatch: it does not.
        """
        was, is_ = ((*_which(one.host), one.facts["system"]) for one in (before, now))
        if (was, version) == (is_, version_now):
            return
        words = [
            f"{one.host.cpu_name} with {one.facts['system']} and runtime {runtime}"
            for one, runtime in ((before, version), (now, version_now))
        ]
        raise TableMismatch(
            f"{self.name} changed during the work: it was {words[0]}, and is {words[1]}. Figures of two machines are "
            "not mixed; run the same command again"
        )


def _which(host: Host) -> tuple[object, ...]:
    """What tells one machine from another."""
    return host.architecture, host.cpu_name, host.family, host.model, host.flags, host.core, host.board


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
