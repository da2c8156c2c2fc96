"""Training beside other work: images per second with all cores quiet and with some busy, threads fixed and adapted.

    python benchmarks/busy_training.py

`OMP_DYNAMIC=false` fixes the threads, as before hwnas adapted them to other work. The four cases alternate in one run;
each figure is the median over the rounds of the last seconds of a training, when its threads are settled. On a machine
with more than two cores, keep as many busy as matter there: ``--busy 4``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from hwnas.data import ClutteredDigits
from hwnas.spaces import make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, train

BATCH = 16  # steps of seconds, not of ten, also where threads wait for a busy core
SETTLE_S = 15.0  # until threads that follow are switched; those that are held need no time
MEASURED_S = 10.0


class Over(Exception):
    """The time of a training is over."""


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=1, help="cores that other work keeps busy")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    found: dict[tuple[int, bool], list[float]] = {}
    threads: dict[tuple[int, bool], int] = {}
    for _ in range(given.rounds):
        for busy in (0, given.busy):
            for follows in (False, True):
                with other_work(busy):
                    speed, count = images_per_s(follows=follows)
                found.setdefault((busy, follows), []).append(speed)
                threads[busy, follows] = count
    cores = len(os.sched_getaffinity(0))
    print(f"\n{cores} cores, {torch.get_num_threads()} threads, {BATCH} images a step, mobilenetv3-tiny\n")
    print("| busy cores | threads held, images/s | threads follow, images/s | threads at the end | ratio |")
    print("|---:|---:|---:|---:|---:|")
    for busy in (0, given.busy):
        held, follow = (median(found[busy, follows]) for follows in (False, True))
        print(f"| {busy} | {held:.1f} | {follow:.1f} | {threads[busy, True]} | {follow / held:.2f} |")


def images_per_s(*, follows: bool) -> tuple[float, int]:
    """Images a second of a training in its last seconds, and its threads by then."""
    os.environ["OMP_DYNAMIC"] = "true" if follows else "false"
    settled = time.monotonic() + (SETTLE_S if follows else 0.0)
    begin: tuple[float, int] | None = None
    speed, count = 0.0, 0

    def stop(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        nonlocal begin, speed, count
        now = time.monotonic()
        if begin is None:
            if now >= settled:
                begin = now, done
        elif now >= begin[0] + MEASURED_S:
            speed, count = (done - begin[1]) / (now - begin[0]), torch.get_num_threads()
            print(f"{speed:8.1f} {unit}/s, {note}", file=sys.stderr, flush=True)
            raise Over

    config = TrainConfig(phases=[Phase(name="all", steps=100_000, learning_rate=0.01)], batch_size=BATCH)
    with tempfile.TemporaryDirectory() as folder:
        try:
            supernet = Supernet(make_space("mobilenetv3-tiny"), seed=0)
            train(supernet, ClutteredDigits(), config, seed=0, folder=Path(folder), progress=stop)
        except Over:
            return speed, count
    raise AssertionError("a training of 100,000 steps ended")


@contextmanager
def other_work(cores: int) -> Iterator[None]:
    """Processes that keep cores busy while the context lasts."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
