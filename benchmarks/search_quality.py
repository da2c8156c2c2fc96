"""How good the strategies are: gap to the optimum, seconds and evaluations, in the same run.

First a problem with a known optimum (`note10`; left out if its tables are absent), then random additive problems on the
whole mobilenetv3-tiny, whose optimum exact search proves. One core, one thread: see the first line of the output.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/search_quality.py
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import note10
import numpy as np

from hwnas.accuracy import fit_accuracy, spread_over_cost
from hwnas.search import STRATEGIES, Objective, Problem, find_front, solve
from hwnas.spaces import SlotSum, Space, make_space

SLOW = ("milp",)  # proves the same optimum each time: one seed is enough


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES))
    given = parser.parse_args()
    print(f"cores: {len(os.sched_getaffinity(0))}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}")
    if note10.TABLES.is_dir():
        known(given.strategies, given.seeds)
    else:
        print(f"the known problem is left out: its tables are not at {note10.TABLES}")
    made_up(given.strategies, given.seeds)
    scoring()


def scoring() -> None:
    """A million networks scored for latency and, by both models, for accuracy; the values do not matter for it."""
    print("\n| a million networks of | latency (s) | stage-wise | ensemble |\n|---|---:|---:|---:|")
    for name in ("mobilenetv3-tiny", "mobilenetv3"):
        space = make_space(name)
        codes = spread_over_cost(space, 300, seed=0)
        share = space.macs(codes) / space.macs(codes).max()
        model = fit_accuracy(space, codes, 0.6 + 0.3 * share**0.3)
        latency, million = space.slot_sum(lambda op: op.macs / 2e8), space.sample(1_000_000, seed=0)
        seconds = []
        for score in (latency, model, model.ensemble_predict):
            score(million[:1000])
            began = time.perf_counter()
            score(million)
            seconds.append(time.perf_counter() - began)
        print(f"| {name} | " + " | ".join(f"{s:.2f}" for s in seconds) + " |", flush=True)


def known(strategies: list[str], seeds: int) -> None:
    """The problem with a known answer, and its whole front."""
    loaded = note10.note10_problem(None)
    find_front(loaded)  # what is loaded late is loaded
    began = time.perf_counter()
    front = find_front(loaded)
    print(f"\nwhole front: {len(front.candidates)} networks in {time.perf_counter() - began:.3f} s")
    print("\n| budget | strategy | gap, median | gap, worst | seconds | evaluations |\n|---|---|---:|---:|---:|---:|")
    for budget, optimum in note10.OPTIMA.items():
        for strategy in strategies:

            def make(seed: int, budget: float = budget) -> Problem:
                return note10.note10_problem(budget, seed=seed, loaded=loaded)

            line(f"{budget:g} ms", strategy, make, [optimum] * seeds, 1 if strategy in SLOW else seeds)


def made_up(strategies: list[str], seeds: int) -> None:
    """Random costs and gains: no larger network is better or slower for being larger."""
    space = make_space("mobilenetv3-tiny")
    print("\n| random problems | strategy | gap, median | gap, worst | seconds | evaluations |")
    print("|---|---|---:|---:|---:|---:|")
    problems = {seed: random_problem(space, seed) for seed in range(seeds)}
    optima = [solve(p, candidates=1).candidates[0].predicted_accuracy for p in problems.values()]
    for strategy in strategies:
        line("tiny", strategy, problems.__getitem__, optima, seeds)


def random_problem(space: Space, seed: int) -> Problem:
    """Every op costs something of its own, every value of a variable is worth something of its own."""
    rng = np.random.default_rng(seed)
    cost = {op: rng.uniform(0.01, 1) for op in space.distinct_ops}
    axes, arrays = [], []
    for i, variable in enumerate(space.variables):
        axes.append((i,) if variable.requires is None else (space.column[variable.requires[0]], i))
        effects = rng.normal(0, 1, [len(space.variables[axis].values) for axis in axes[-1]])
        if variable.requires:
            effects[np.array(space.variable(variable.requires[0]).values) < variable.requires[1]] = 0.0
        arrays.append(effects)
    objective = Objective(name="cost", unit="", total=space.slot_sum(cost.__getitem__))
    budget = float(np.quantile(objective.total(space.sample(2000, seed=0)), 0.3))
    accuracy = SlotSum(constant=0.0, axes=tuple(axes), arrays=tuple(arrays))
    return Problem(space=space, accuracy=accuracy, objectives=(objective,), budgets={"cost": budget}, seed=seed)


def line(what: str, strategy: str, make: Callable[[int], Problem], optima: list[float], seeds: int) -> None:
    """Run a strategy with some seeds and print a row of the table."""
    gaps, seconds, evaluations = [], [], 0
    for seed in range(seeds):
        problem = make(seed)
        began = time.perf_counter()
        found = solve(problem, strategy, candidates=1)
        seconds.append(time.perf_counter() - began)
        gaps.append(optima[seed] - found.candidates[0].predicted_accuracy)
        evaluations = found.evaluations
    print(
        f"| {what} | {strategy} | {np.median(gaps):.5f} | {max(gaps):.5f} | {np.median(seconds):.3f} | {evaluations} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
