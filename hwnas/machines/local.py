"""The machine that hwnas runs on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hwnas.files import Journal
from hwnas.lowering import Form, Program, form_of
from hwnas.machines.base import Machine
from hwnas.progress import Progress, silent
from hwnas.targets import Host, Recipe, Target, detect_host
from hwnas.timing import Measurement, Protocol, require_cores, time_programs
from hwnas.timing.host import check_host, host_facts, runtime_versions


class LocalMachine(Machine):
    """Times programs in this process, pinned to cores."""

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

    def cores(self, recipe: Recipe) -> str:
        """Cores that the process is pinned to."""
        return require_cores(recipe).text

    def form(self, recipe: Recipe) -> Form:
        """The form that the recipe's runtime loads."""
        return form_of(recipe)

    def time(
        self,
        programs: Mapping[str, Program | Path],
        recipe: Recipe,
        protocol: Protocol,
        *,
        reference: str | None = None,
        journal: Journal | None = None,
        what: str = "timing",
        progress: Progress = silent,
    ) -> Measurement:
        """As `hwnas.timing.time_programs`."""
        return time_programs(
            programs, recipe, protocol, reference=reference, journal=journal, what=what, progress=progress
        )
