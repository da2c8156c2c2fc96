"""Fresh benchmarks of one bundle, on a quiet machine and beside a busy loop on the same core.

    python benchmarks/bench_beside_load.py BUNDLE [--times 20]

Every benchmark is a process of its own. Those beside the loop alternate with quiet ones. Printed are the latency, the
machine's speed by the reference programs, and the latency at the speed of the profile; or why a figure was refused. The
claim: each is within 3% of the median of the quiet ones, or is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEAR = 0.03


@contextmanager
def busy(cores: str) -> Iterator[None]:
    """A loop that keeps the first of some cores busy."""
    first = int(cores.partition(",")[0].partition("-")[0])
    loop = subprocess.Popen(
        [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{first}}})\nwhile True: pass"]
    )
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def bench(bundle: Path) -> tuple[dict[str, float | str], str]:
    """The answer of one benchmark, or the reason for its refusal."""
    command = [Path(sys.executable).with_name("hwnas"), "bench", bundle, "--json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode == 0:
        return json.loads(done.stdout), ""
    if done.returncode == 1:
        return {}, done.stderr.strip().splitlines()[-1]
    sys.exit(done.stderr)


def main() -> None:
    """Run the benchmarks and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    first, refused = bench(given.bundle)
    if refused:
        sys.exit(f"the machine is not quiet: {refused}")
    cores, quiet, shown = str(first["cores"]), [], []
    print(f"{os.cpu_count()} cores, timed on {cores}; predicted {first['predicted_ms']} ms", flush=True)
    for i in range(given.times):
        beside = i % 2 == 1
        if beside:
            with busy(cores):
                found, refused = bench(given.bundle)
        else:
            found, refused = bench(given.bundle)
        name = "beside the loop" if beside else "quiet"
        if refused:
            print(f"{name}: refused: {refused}", flush=True)
            continue
        measured, speed = float(found["measured_ms"]), float(found.get("speed") or 1.0)
        profiled = measured * speed
        print(f"{name}: {measured:.4f} ms, speed {speed:.3f}, at the profile's speed {profiled:.4f}", flush=True)
        shown.append((measured, profiled))
        quiet += [] if beside else [(measured, profiled)]
    for column, what in enumerate(("measured", "at the profile's speed")):
        middle = statistics.median(row[column] for row in quiet)
        off = [row[column] / middle - 1 for row in shown]
        near, furthest = sum(abs(each) <= _NEAR for each in off), max(off, key=abs)
        print(f"{what}: quiet median {middle:.4f} ms; {near} of {len(off)} within 3%; furthest {furthest:+.1%}")


if __name__ == "__main__":
    main()
