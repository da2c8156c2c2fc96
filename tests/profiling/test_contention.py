"""Another process on the same core for half of the profile: the table is still right, or there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import TooNoisy
from hwnas.latency import LatencyTable
from hwnas.latency.model import Floats
from hwnas.profiling import profile
from hwnas.progress import silent
from hwnas.spaces import make_space
from hwnas.targets import Target
from hwnas.timing.protocol import NETWORKS, OPS

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("noise_counts"),
    pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process to a core"),
]


class BusyLoop:
    """A `Progress` that loads the core that is timed on, from the start of each timing to half of its least passes."""

    def __init__(self, programs: dict[str, int]) -> None:
        least = {"timing ops": OPS, "timing networks": NETWORKS}
        passes = {what: protocol.min_sessions * protocol.session_passes for what, protocol in least.items()}
        self.until = {what: passes[what] * number // 2 for what, number in programs.items()}
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: set[str] = set()

    def __call__(self, what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        if what in self.until and what not in self.seen:
            self.seen.add(what)
            core = max(os.sched_getaffinity(0))
            # It ends with its parent, also where that is killed.
            loop = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile os.getppid() == {os.getpid()}: pass"
            self.process = subprocess.Popen([sys.executable, "-c", loop])
        elif self.process and done >= self.until.get(what, 0):
            self.stop()

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def test_a_busy_core_spoils_no_table(this: Target, tmp_path: Path) -> None:
    """A table made under load, between two quiet ones: other load on this machine cancels out there."""
    space = make_space("mobilenetv3-tiny").fix(resolution=32)
    tables: dict[str, list[Floats]] = {"quiet": [], "loaded": []}
    for number, kind in enumerate(("quiet", "loaded", "quiet")):  # each takes 30 s
        busy = BusyLoop({"timing ops": len(space.distinct_ops), "timing networks": 20})
        progress = busy if kind == "loaded" else silent
        try:
            table = profile(space, this, journals=tmp_path / str(number), bound_networks=4, progress=progress)
        except TooNoisy as error:
            assert "%" in str(error)
            continue
        finally:
            busy.stop()
        assert busy.seen == ({"timing ops", "timing networks"} if kind == "loaded" else set())
        tables[kind].append(milliseconds(table))
    if not tables["quiet"]:
        pytest.skip("this machine is too noisy for a table without our help")
    quiet = np.median(tables["quiet"], axis=0)
    for kind, found in tables.items():
        apart = [f"{np.abs(one / quiet - 1).mean():.2%} ({(one / quiet - 1).mean():+.2%})" for one in found]
        print(f"{kind} tables differ from the median of the quiet ones by {', '.join(apart) or 'nothing: too noisy'}")
    if tables["loaded"]:
        loaded = np.median(tables["loaded"], axis=0)
        # The machine's clock may change between tables: quiet ones were 3.7% apart where the loaded one was 3.2% above
        # their median, and a loaded one was once 4.9% below both. Load slows, by 100% where it spoils a row.
        slower = max(tables["quiet"], key=lambda one: float(one.mean()))
        assert (loaded / slower).mean() - 1 <= 0.03
        ratio = loaded / quiet
        assert np.abs(ratio / np.median(ratio) - 1).mean() <= 0.03


def milliseconds(table: LatencyTable) -> Floats:
    """The rows' latencies in the order of their keys: ``(rows,)``."""
    return np.array([table.rows[key].latency_ms_p25 for key in sorted(table.rows)])
