"""The machine that hwnas runs on."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwnas.affinity import allowed_cores
from hwnas.errors import MachineError
from hwnas.files import Journal
from hwnas.lowering import Program
from hwnas.machines.piped import Files, PipedMachine, driven_settings
from hwnas.machines.runner import Runner
from hwnas.progress import Progress, silent
from hwnas.runner.__main__ import READY
from hwnas.runner.frames import BadFrame, TimedOut
from hwnas.runner.signature import Feeds
from hwnas.runtimes import open_session
from hwnas.targets import Chosen, Host, Recipe, Target, detect_host
from hwnas.targets.runtimes import is_only_here
from hwnas.timing import Measurement, Protocol, require_cores, time_programs
from hwnas.timing.host import check_host, host_facts, runtime_versions

_START_S = 120.0


class LocalMachine(PipedMachine):
    """Times programs in a process of their own, pinned to cores.

    A process that has trained holds threads, caches and a fragmented heap; a runtime that crashes would end it.
    In this process are timed: programs without a file form (torch modules that are wired from parts), and those of
    runtimes that only this process has registered.
    """

    beside = True

    def host(self) -> Host:
        """The present host."""
        return detect_host()

    def check(self, target: Target) -> None:
        """As `hwnas.timing.host.check_host`."""
        check_host(target)

    def versions(self, target: Target) -> dict[str, str]:
        """Versions of hwnas, the runtime, torch, Python and the system; of the driver, on a GPU."""
        return runtime_versions(target)

    def facts(self, target: Target) -> dict[str, object]:
        """As `hwnas.timing.host.host_facts`, with the clock of the last core of the timing."""
        return host_facts(target.device.kind, core=max(require_cores(target.recipe).cores, default=0))

    def time(
        self,
        programs: Mapping[str, Program | Path],
        recipe: Recipe,
        protocol: Protocol,
        *,
        reference: str | None = None,
        journal: Journal | None = None,
        feeds: Feeds | None = None,
        what: str = "timing",
        progress: Progress = silent,
    ) -> Measurement:
        """As `hwnas.timing.time_programs`, in another process if the programs are files or ONNX graphs."""
        files = recipe.facts.form == "onnx" or all(isinstance(program, Path) for program in programs.values())
        how = super().time if files and not is_only_here(recipe.runtime) else time_programs
        given: dict[str, Any] = {"reference": reference, "journal": journal, "feeds": feeds}
        return how(programs, recipe, protocol, **given, what=what, progress=progress)

    def run(self, program: Path, recipe: Recipe, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """As `Machine.run`; in this process if only it has registered the runtime."""
        if not is_only_here(recipe.runtime):
            return super().run(program, recipe, inputs)
        with open_session(program, recipe) as session:
            return np.stack([session.run(x) for x in inputs])

    def chosen(self, recipe: Recipe) -> Chosen:
        """As `hwnas.timing.require_cores`."""
        return require_cores(recipe)

    def allowed(self) -> frozenset[int]:
        """As `hwnas.affinity.allowed_cores`."""
        return allowed_cores()

    def settings(self, recipe: Recipe) -> Mapping[str, Any]:
        """Those of the runner's class, if the runtime has one; else the recipe."""
        return driven_settings(recipe) or {"recipe": recipe.model_dump(mode="json", by_alias=True)}

    def connect(self, recipe: Recipe) -> Runner:
        """Start a runner in this environment."""
        loader = [] if driven_settings(recipe) else ["hwnas.machines.child"]
        # -P: a file `onnx.py` in the working folder is not the package.
        command = [sys.executable, "-P", "-m", "hwnas.runner", tempfile.gettempdir(), *loader]
        above = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [above, os.environ.get("PYTHONPATH", "")]))
        runner = Runner.start(command, "this machine", {**os.environ, "PYTHONPATH": paths})
        try:
            _, ready = runner.frames.skip_to(READY, 2**16, _START_S)
        except (BadFrame, TimedOut):
            ready = False
        if not ready:
            said = runner.said()
            with contextlib.suppress(Exception):
                runner.close()
            raise MachineError(f"the process that times programs does not start: {said or 'it says nothing'}")
        return runner

    def delivered(self, runner: Runner, files: Files, progress: Progress) -> dict[str, str]:
        """The files themselves."""
        return {name: str(path) for name, path in files.items()}
