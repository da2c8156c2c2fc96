"""A simulated machine: times are computed from a latency for each op, without a clock or a runtime.

For tests and for trying out protocols: results of a profile, a fit or a search can be compared with the latencies that
the times were generated from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwnas.errors import RuntimeUnavailable, TableError
from hwnas.files import Journal
from hwnas.lowering import Form, Program
from hwnas.lowering.form import OpsProgram
from hwnas.lowering.ops import OpsForm
from hwnas.machines.base import Machine
from hwnas.progress import Progress, silent
from hwnas.runner.signature import Feeds
from hwnas.runner.visits import Sample
from hwnas.spaces import Op
from hwnas.targets import Host, Recipe, Target
from hwnas.timing import Measurement, Protocol
from hwnas.timing.sampler import SamplesHere
from hwnas.timing.timer import take


class SimulatedMachine(Machine):
    """Generates times from a latency for each op.

    A run takes ``sum of its ops' latencies * slowed * exp(noise * N(0, 1))`` milliseconds, where ``slowed`` is
    ``1 + drift * sin²(pi * t / 10)`` at t simulated seconds, for all programs alike. The simulated clock advances by
    the duration of the runs. The same seed gives the same times.

    Args:
        latency_ms: latency of an op in milliseconds, above 0.
        noise: standard deviation of the logarithm of a run's time.
        drift: largest slowdown of the machine, as a fraction.
        seed: of the noise.
        device: name of the device that it simulates; any if None.
    """

    def __init__(
        self,
        latency_ms: Callable[[Op], float],
        *,
        noise: float = 0.0,
        drift: float = 0.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.latency_ms, self.noise, self.drift, self.device = latency_ms, noise, drift, device
        self.seconds = 0.0
        self._rng = np.random.default_rng(seed)

    def host(self) -> Host:
        """A host with one core and no flags."""
        return Host(architecture="simulated", cpu_name="simulated", cores=1)

    def check(self, target: Target) -> None:
        """Check that the target's device has the name `device`.

        Raises:
            TableError: it has another name.
        """
        if self.device not in (None, target.device.name):
            raise TableError(f"this machine is {self.device}, not {target.device.name}")

    def versions(self, target: Target) -> dict[str, str]:
        """The simulation's version instead of the runtime's."""
        return {"hwnas": "simulated", target.recipe.runtime: "simulated"}

    def facts(self, target: Target) -> dict[str, object]:
        """A fact that says that the machine is simulated."""
        return {"architecture": "simulated", "cpu": "simulated", "cores": 1}

    def cores(self, recipe: Recipe) -> str:
        """Empty: nothing is pinned."""
        return ""

    def form(self, recipe: Recipe) -> Form:
        """Lists of ops instead of programs."""
        return OpsForm(recipe)

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
        """Simulated times, sampled by the same protocol as real ones."""
        own_ms = {name: self._own_ms(program) for name, program in programs.items()}

        def anew(names: Sequence[str], rng: np.random.Generator) -> dict[str, Sample]:
            return {name: self._runs(own_ms[name]) for name in names}

        return take(
            list(programs),
            SamplesHere(anew),
            protocol,
            reference=reference,
            journal=journal,
            clock=lambda: self.seconds,
            what=what,
            progress=progress,
        )

    def run(self, program: Path, recipe: Recipe, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Nothing runs on a simulated machine.

        Raises:
            RuntimeUnavailable: always.
        """
        raise RuntimeUnavailable("a simulated machine has no runtime")

    def _own_ms(self, program: Program | Path) -> float:
        assert isinstance(program, OpsProgram)
        return math.fsum(map(self.latency_ms, program.ops))

    def _runs(self, own_ms: float) -> Sample:
        def sample() -> float:
            slowed = 1 + self.drift * math.sin(math.pi * self.seconds / 10) ** 2
            ms = own_ms * slowed * math.exp(self.noise * self._rng.standard_normal())
            self.seconds += ms / 1e3
            return ms

        return sample
