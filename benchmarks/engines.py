"""What engines cost: evaluations of 300 subnets in this process, on the local pool and on Ray.

    OMP_NUM_THREADS=1 python benchmarks/engines.py --supernet supernet

The engines alternate in one run; a figure is the median over the rounds. The start of the workers, with their imports
and the opening of the supernet, is a column of its own: a run pays it once. Ray is left out where it is not installed;
its cluster is started on this host, on the loopback.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from hwnas.engines import EngineConfig, open_engine
from hwnas.files import Journal
from hwnas.spaces import make_space
from hwnas.supernet import Supernet, save_supernet
from hwnas.workflows.inputs import evaluator_of


def main() -> None:
    """Measure, compare all figures, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", type=Path, help="by default mobilenetv3-tiny without a training")
    parser.add_argument("--subnets", type=int, default=300)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    names = ["serial", "pool", *(["ray"] if importlib.util.find_spec("ray") else [])]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        supernet = given.supernet or untrained(Path(folder) / "supernet")
        for number in range(given.rounds):
            for name in names:
                start_s, run_s, found = measured(name, supernet, given, Path(folder) / f"{name}{number}")
                print(f"{name:8} start {start_s:6.2f} s, evaluations {run_s:6.2f} s", file=sys.stderr, flush=True)
                times[name].append((start_s, run_s))
                assert figures.setdefault(name, found) == found
    assert all(found == figures["serial"] for found in figures.values()), "the engines differ"
    seconds = {name: (median(s for s, _ in rows), median(r for _, r in rows)) for name, rows in times.items()}
    pool = seconds["pool"][1]
    print(
        f"\n{given.subnets} subnets on {given.images} images, {given.workers} workers of {torch.get_num_threads()} "
        f"threads on {len(os.sched_getaffinity(0))} cores; all figures are equal bit for bit\n"
    )
    print("| engine | start of the workers, s | evaluations, s | of the pool's |")
    print("|---|---:|---:|---:|")
    for name, (start_s, run_s) in seconds.items():
        print(f"| {name} | {start_s:.2f} | {run_s:.2f} | {run_s / pool:.1%} |")


def untrained(folder: Path) -> Path:
    """A supernet with its initial weights: an evaluation takes as long as that of a trained one."""
    data = {"name": "cluttered-digits", "path": None}
    supernet = Supernet(make_space("mobilenetv3-tiny"), seed=0)
    folder.mkdir()
    save_supernet(supernet, folder, data=data, classes=tuple("0123456789"), training={})
    return folder


def measured(
    name: str, supernet: Path, given: argparse.Namespace, folder: Path
) -> tuple[float, float, dict[str, float]]:
    """Seconds until every worker has evaluated a subnet, seconds of the other evaluations, and all figures."""
    config = EngineConfig(name=name, workers=None if name == "serial" else given.workers)
    with open_engine(config) as engine:
        evaluator, _ = evaluator_of(supernet, images=given.images, metric="auc", engine=engine)
        space = evaluator.supernet.space
        archs = list(dict.fromkeys(space.decode(space.sample(2 * given.subnets + given.workers, seed=0))))
        first, others = archs[: given.workers], archs[given.workers : given.workers + given.subnets]
        with Journal(folder / "evaluated.jsonl", {}) as journal:
            begin = time.perf_counter()
            evaluator.accuracies(first, journal, what="starting")
            started = time.perf_counter()
            evaluator.accuracies(others, journal, what="evaluating")
            done = time.perf_counter()
            return started - begin, done - started, dict(journal.entries)


if __name__ == "__main__":
    main()
