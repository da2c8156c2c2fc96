"""Compare the speed of this checkout with that of another one: imports, predictions, exact search, a supernet's step.

    git worktree add ../before TAG
    python benchmarks/versions.py ../before

Each figure is measured in new processes, in turns and in alternating order, on one core; ratios are of 25% quantiles.
This checkout takes part twice: a ratio is only more than noise if it exceeds the one of this checkout to itself. The
figures use only names that both checkouts have.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[1]

# Each prints its seconds.
COMMAND = """
import time
from importlib.metadata import entry_points
[command] = entry_points(group="console_scripts", name="hwnas")
began = time.perf_counter()
command.load()
print(time.perf_counter() - began)
"""
QUERY = """
import time
from hwnas.spaces import make_space
space = make_space("mobilenetv3")
total, codes = space.slot_sum(lambda op: 0.002 + op.macs / 2e8), space.sample(1_000_000, seed=0)
total(codes[:1000])
began = time.perf_counter()
for _ in range(5):
    total(codes)
print(time.perf_counter() - began)
"""
NETWORKS = """
import time
from hwnas.spaces import make_space
space = make_space("nasbench201")
archs = space.decode(space.sample(2000, seed=0))
began = time.perf_counter()
for arch in archs:
    space.network(arch)
print(time.perf_counter() - began)
"""
EXACT = """
import time
import numpy as np
from hwnas.search import Objective, Problem, find_front
from hwnas.spaces import make_space
space = make_space("mobilenetv3")
rng = np.random.default_rng(0)
cost, gain = ({op: rng.uniform(0.01, 1) for op in space.distinct_ops} for _ in range(2))
objective = Objective(name="cost", unit="", total=space.slot_sum(cost.__getitem__))
problem = Problem(space=space, accuracy=space.slot_sum(gain.__getitem__), objectives=(objective,), budgets={})
find_front(problem)
began = time.perf_counter()
find_front(problem)
print(time.perf_counter() - began)
"""
STEP = """
import time
import torch
from torch.nn import functional
from hwnas.spaces import make_space
from hwnas.supernet import Supernet
torch.set_num_threads(1)
space = make_space("mobilenetv3-tiny").fix(resolution=32)
supernet = Supernet(space).train()
archs = space.decode(space.sample(20, seed=0))
x, labels = torch.randn(64, 1, 32, 32), torch.randint(10, (64,))
def steps():
    for arch in archs:
        supernet.zero_grad(set_to_none=True)
        functional.cross_entropy(supernet(x, arch), labels).backward()
steps()
began = time.perf_counter()
steps()
print(time.perf_counter() - began)
"""
FIGURES = {
    "import hwnas": "import time; began = time.perf_counter(); import hwnas; print(time.perf_counter() - began)",
    "import of the command line": COMMAND,
    "5 million predictions": QUERY,
    "2,000 wired networks": NETWORKS,
    "exact front of mobilenetv3": EXACT,
    "20 steps of a supernet": STEP,
}


def seconds(checkout: Path, program: str, core: int) -> float:
    """What a program prints, run with a checkout's package on one core."""
    environ = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    pinned = f"import os; os.sched_setaffinity(0, {{{core}}})\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", pinned], cwd="/", env=environ, capture_output=True, encoding="utf-8", check=True
    )
    return float(done.stdout)


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="root of the other checkout")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    print("| figure | the other (s) | this one (s) | this / the other | this / itself |\n|---|---:|---:|---:|---:|")
    for name, program in FIGURES.items():
        runs: list[tuple[Path, list[float]]] = [(given.other.resolve(), []), (HERE, []), (HERE, [])]
        for number in range(given.rounds):
            for checkout, times in runs[:: 1 if number % 2 else -1]:
                times.append(seconds(checkout, program, core))
        other, this, again = (float(np.quantile(times, 0.25)) for _, times in runs)
        print(f"| {name} | {other:.4f} | {this:.4f} | {this / other:.3f} | {this / again:.3f} |", flush=True)


if __name__ == "__main__":
    main()
