"""The facts of another machine: copies of its system's files, read by the same code as this host's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from hwnas.errors import MachineError
from hwnas.files import temporary_folder
from hwnas.machines.runner import Runner, printable
from hwnas.targets import SNAPSHOT, Chosen, Host, Recipe, read_host
from hwnas.timing.host import cpu_facts
from hwnas.timing.pinning import cores_of

T = TypeVar("T")
_MOST_CORES = 2**14


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a machine reported.

    Attributes:
        facts: of the runner's process (`hwnas.runner.serve.Server.do_facts`).
        files: path below ``/`` -> content.
    """

    facts: dict[str, Any]
    files: dict[str, bytes]

    @classmethod
    def taken(cls, runner: Runner) -> Self:
        """Ask a runner for the facts.

        Raises:
            MachineError: the machine does not run Linux.
            KeyError, TypeError, ValueError: the answer has another form (`hwnas.machines.runner.understood`).
            Lost, Died: the runner ended.
        """
        given, _ = runner.ask("facts")
        texts = {name: printable(str(given[name]), most=200) for name in ("python", "system", "architecture")}
        facts = {**given, **texts, "cores": [int(core) for core in given["cores"]]}
        if not facts["cores"] or not all(0 <= core < _MOST_CORES for core in facts["cores"]):
            raise ValueError(f"cores {facts['cores'][:8]}")
        if not str(facts["system"]).startswith("Linux"):
            raise MachineError(f"{runner.machine} runs {facts['system']}; only Linux machines can be timed from here")
        answer, data = runner.ask("snapshot", patterns=list(SNAPSHOT))
        files, begun = dict[str, bytes](), 0
        for name, size in answer["files"]:
            files[str(name)] = data[begun : begun + int(size)]
            begun += int(size)
        return cls(facts=facts, files=files)

    @property
    def allowed(self) -> frozenset[int]:
        """Logical cores that the runner may run on."""
        return frozenset(map(int, self.facts["cores"]))

    @cached_property
    def host(self) -> Host:
        """The machine."""
        return self._below(
            lambda root: read_host(root, architecture=str(self.facts["architecture"]), allowed=self.allowed)
        )

    def cpu_facts(self, core: int) -> dict[str, object]:
        """Facts for a manifest (`hwnas.timing.host.cpu_facts`)."""
        return self._below(lambda root: cpu_facts(self.host, root, core=core))

    def require_cores(self, recipe: Recipe) -> Chosen:
        """As `hwnas.timing.require_cores`."""
        return self._below(lambda root: cores_of(recipe, root, self.allowed))

    def _below(self, read: Callable[[Path], T]) -> T:
        """Read the files from a folder.

        Raises:
            MachineError: a file's name leads out of it.
        """
        with temporary_folder("the facts of a machine") as root:
            for name, content in self.files.items():
                path = root / name
                if ".." in path.parts or root not in path.parents:
                    raise MachineError(f"the machine reports a file with the name {name!r}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return read(root)
