"""How fast does each strategy find the best network: regret on a benchmark's table, where nothing has to be trained.

The table is your own CSV file: a column `arch` with NAS-Bench-201's cells in the benchmark's notation, and columns of
accuracies, in percent or as fractions. Every strategy that accepts any accuracy evaluates the same number of networks.
The regret is how far the best of them within the budgets is below the table's best within the budgets, in points, as
the median over seeds. A repeated network is not another evaluation: a strategy that repeats itself ends with fewer.

    python benchmarks/nasbench201_oracle.py nasbench201.csv --column cifar10-valid
    python benchmarks/nasbench201_oracle.py nasbench201.csv --target this/onnxruntime-cpu-fp32 --budget 50%
    python benchmarks/nasbench201_oracle.py nasbench201.csv --budget macs=40M
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwnas.accuracy import BenchmarkTable, Oracle, read_benchmark
from hwnas.errors import HwnasError
from hwnas.search import STRATEGIES, Problem, resource, solve
from hwnas.search.problem import Constraints
from hwnas.spaces import Space, make_space
from hwnas.workflows.constraints import asked

HEURISTICS = [name for name in STRATEGIES if name not in ("exact", "milp")]  # those take a sum over slots alone
FIRST = 50  # evaluations of the first column; each further one has twice as many


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--column", help="of the accuracies; by default the only one")
    parser.add_argument("--target", help="device/recipe, for a budget of latency")
    parser.add_argument(
        "--budget", action="append", default=[], help="as `hwnas search` takes them, e.g. 50%% or macs=40M"
    )
    parser.add_argument("--confidence", type=float, help="of latency budgets; by default no margin")
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args(arguments)
    if bool(given.target) > bool(given.budget):
        parser.error("--target is for a budget; give --budget 50% with it")
    try:
        table, space = read_benchmark(given.csv), make_space("nasbench201")
        wanted = constraints(space, given.budget, given.target, given.confidence)
        print("\n".join(report(table, wanted, given.column, given.evaluations, given.seeds)))
    except HwnasError as error:
        sys.exit(str(error))


def constraints(space: Space, budgets: list[str], target: str | None, confidence: float | None) -> Constraints:
    """What networks may cost; without budgets, NSGA-II weighs MACs against accuracy."""
    if not budgets:
        return Constraints(space=space, objectives=(resource(space, "macs"),))
    found = asked(space, budgets, target, tables=None, family=False, confidence=confidence)
    [one] = found.constraints.values()
    return one


def report(table: BenchmarkTable, wanted: Constraints, column: str | None, evaluations: int, seeds: int) -> list[str]:
    """The lines of the Markdown table."""
    known = oracle(table, wanted, column)
    places = [n for k in range(30) if (n := FIRST * 2**k) < evaluations] + [evaluations]
    lines = [
        f"Best of the table{' within the budgets' if wanted.budgets else ''}: {known.best:.2%}. "
        f"Median regret over {seeds} seeds, in points:",
        "",
        f"| strategy | {' | '.join(map(str, places))} | different networks |",
        f"|---|{'---:|' * (len(places) + 1)}",
    ]
    for strategy in HEURISTICS:
        curves = [regret(strategy, oracle(table, wanted, column), wanted, evaluations, seed) for seed in range(seeds)]
        at = np.array([[curve[min(n, len(curve)) - 1] for n in places] for curve in curves])
        medians = 100 * np.median(np.where(np.isnan(at), np.inf, at), axis=0)  # no network within the budgets so far
        shown = " | ".join("none" if np.isinf(value) else f"{value:.2f}" for value in medians)
        lines.append(f"| `{strategy}` | {shown} | {np.median([len(curve) for curve in curves]):.0f} |")
    return lines


def oracle(table: BenchmarkTable, wanted: Constraints, column: str | None) -> Oracle:
    """One that has not been asked."""
    return Oracle(table, wanted.space, column=column, within=lambda codes: wanted.excess(codes) == 0)


def regret(strategy: str, asked: Oracle, wanted: Constraints, evaluations: int, seed: int) -> npt.NDArray[np.float64]:
    """The curve of one search."""
    problem = Problem.of(wanted, accuracy=asked, seed=seed)
    solve(problem, strategy, candidates=1, evaluations=evaluations)
    return asked.regret


if __name__ == "__main__":
    main()
