"""Which predictor ranks networks best: Kendall's rank correlation over the number of networks it was fitted on.

Three tasks. Latencies of two devices on NAS-Bench-201, from a CSV file with a column `arch` in the benchmark's
notation and a column of milliseconds for each device. Accuracies of subnets of a supernet, evaluated once and kept in
its folder, so that a killed run resumes. Every predictor gets the same networks and is judged on the same others; a
figure is the mean over draws. `error rank` is Spearman's correlation of absolute errors with standard deviations: 0 if
the uncertainty says nothing.

Last, which of the other subnets to evaluate next, by each acquisition function: how far the best of 20 is below the
best of all, after a fit on 50.

    python benchmarks/predictors.py --latencies nasbench201.csv --devices pixel3 gold_6240 --supernet supernet
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from hwnas.accuracy import Evaluator, fit_accuracy, spread_over_cost
from hwnas.accuracy.model import DEFAULT, evaluate_subnets
from hwnas.accuracy.predictors import fit_predictor, predictor_names
from hwnas.accuracy.stagewise import logit
from hwnas.errors import InvalidValue
from hwnas.search.acquisition import ACQUISITIONS
from hwnas.shown_progress import shown_progress
from hwnas.spaces import Codes, Space, make_space
from hwnas.spaces.nasbench201 import parse_nasbench201
from hwnas.supernet import load_supernet
from hwnas.workflows.inputs import reopen_data

Floats = npt.NDArray[np.float64]
SIZES = (20, 50, 100, 200, 500)
TEST = 1000  # networks of NAS-Bench-201 that judge
SUBNETS, TEST_SUBNETS = 500, 300
MODELS = (100, 300)  # subnets of an accuracy model; a search has 300 by default
FIRST, NEXT, AT_ONCE, TRIES = 50, 20, 10, 20
FAILED_MS = 0.1  # a latency below it is a failed measurement: pixel3 has some, the smallest is 0.003 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Networks with values: those to draw from and those that judge."""

    name: str
    space: Space
    codes: Codes
    values: Floats
    test_codes: Codes
    test_values: Floats


def main() -> None:
    """Fit, and print a Markdown table for each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latencies", type=Path, help="CSV: arch, and a column of milliseconds per device")
    parser.add_argument("--devices", nargs="+", default=["pixel3", "gold_6240"], help="columns of the CSV")
    parser.add_argument("--supernet", type=Path, help="folder from `hwnas train`, for accuracies")
    parser.add_argument("--predictors", nargs="+", default=predictor_names())
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--draws", type=int, default=3)
    given = parser.parse_args()
    if not given.latencies and not given.supernet:
        parser.error("give --latencies, --supernet, or both")
    accuracy = partial(accuracy_task, given.supernet)
    tasks: list[Callable[[], Task]] = []
    if given.latencies:
        tasks += [partial(latency_task, given.latencies, device) for device in given.devices]
    if given.supernet:
        tasks.append(accuracy)
    for make in tasks:
        task = make()
        report(task, given.predictors, given.sizes, given.draws)
        if make is accuracy:
            report_models(task, given.predictors, given.draws)
            report_next(task, given.predictors)


def latency_task(file: Path, device: str) -> Task:
    """Logarithms of the latencies of a device."""
    space = make_space("nasbench201")
    with file.open(newline="", encoding="utf-8") as opened:
        rows = [(row["arch"], float(row[device])) for row in csv.DictReader(opened)]
    rows = [row for row in rows if row[1] >= FAILED_MS]
    order = np.random.default_rng(0).permutation(len(rows))[: TEST + 4 * max(SIZES)]
    codes = space.encode([parse_nasbench201(space, rows[i][0]) for i in order])
    values = np.log([rows[i][1] for i in order])
    return Task(
        name=f"latency on {device}",
        space=space,
        codes=codes[TEST:],
        values=values[TEST:],
        test_codes=codes[:TEST],
        test_values=values[:TEST],
    )


def accuracy_task(folder: Path) -> Task:
    """Logits of the accuracies of subnets spread over cost; others, spread likewise, judge."""
    net, facts = load_supernet(folder)
    evaluator = Evaluator(net, reopen_data(facts), images=2000, calibration_images=500, seed=1)
    with shown_progress() as progress, evaluator.journal(folder, facts.weights_sha256) as journal:
        codes, accuracies = evaluate_subnets(evaluator, journal, subnets=SUBNETS, seed=0, progress=progress)
        known = {row.tobytes() for row in codes}
        others = spread_over_cost(net.space, TEST_SUBNETS, seed=1)
        test = np.array([row for row in others if row.tobytes() not in known])
        archs = net.space.decode(test)
        judged = evaluator.accuracies(archs, journal, what="evaluating test subnets", progress=progress)
    return Task(
        name=f"accuracy of subnets of {net.space.name}",
        space=net.space,
        codes=codes,
        values=logit(np.array(accuracies)),
        test_codes=test,
        test_values=logit(np.array(judged)),
    )


def report(task: Task, predictors: list[str], sizes: list[int], draws: int) -> None:
    """Print the rank correlations of a task."""
    print(f"\n{task.name}: {len(task.test_codes)} test networks, mean of {draws} draws, Kendall tau\n")
    print(f"| predictor | {' | '.join(map(str, sizes))} | std of tau | error rank | fit at {sizes[-1]} (s) |")
    print(f"|---|{'---:|' * (len(sizes) + 3)}", flush=True)
    for name in predictors:
        found, trusted, seconds = np.zeros((len(sizes), draws)), np.zeros((len(sizes), draws)), 0.0
        try:
            for at, draw in np.ndindex(found.shape):
                rows = np.random.default_rng((draw, sizes[at])).permutation(len(task.codes))[: sizes[at]]
                begin = time.perf_counter()
                fitted = fit_predictor(name, task.space, task.codes[rows], task.values[rows], seed=draw)
                seconds = time.perf_counter() - begin
                mean, deviation = fitted.predict(task.test_codes)
                found[at, draw] = stats.kendalltau(mean, task.test_values).statistic
                trusted[at, draw] = stats.spearmanr(np.abs(mean - task.test_values), deviation).statistic
        except InvalidValue as error:
            print(f"| `{name}` | {error} |", flush=True)
            continue
        shown = " | ".join(f"{value:.3f}" for value in found.mean(axis=1))
        print(
            f"| `{name}` | {shown} | {found.std(axis=1).mean():.3f} | {np.nanmean(trusted):.2f} | {seconds:.1f} |",
            flush=True,
        )


def report_models(task: Task, predictors: list[str], draws: int) -> None:
    """Print how accuracy models with each predictor, as a search fits them, rank the test networks."""
    last = MODELS[-1]
    print(f"\nAccuracy models, mean of {draws} draws; the last columns are of {last} subnets\n")
    print(f"| predictor | {' | '.join(f'tau at {size}' for size in MODELS)} | minus `{DEFAULT}` ", end="")
    print(f"| RMSE | within one sigma | weight | fit (s) |\n|---|{'---:|' * (len(MODELS) + 5)}", flush=True)
    usual = np.zeros(draws)
    for name in [DEFAULT, *(each for each in predictors if each != DEFAULT)]:
        try:
            figures = np.array([[model_figures(task, name, size, draw) for draw in range(draws)] for size in MODELS])
        except InvalidValue as error:
            print(f"| `{name}` | {error} |", flush=True)
            continue
        if name == DEFAULT:
            usual = figures[-1, :, 0]
        apart = figures[-1, :, 0] - usual
        _, rmse, inside, weight, seconds = figures[-1].mean(axis=0)
        print(f"| `{name}` | {' | '.join(f'{tau:.3f}' for tau in figures[..., 0].mean(axis=1))} ", end="")
        print(f"| {apart.mean():+.3f} ± {apart.std() / np.sqrt(draws):.3f} | {rmse:.2%} | {inside:.2f} ", end="")
        print(f"| {weight:.2f} | {seconds:.1f} |", flush=True)


def model_figures(task: Task, name: str, size: int, draw: int) -> tuple[float, ...]:
    """Kendall tau, RMSE, share within one sigma, weight of the predictor, and seconds of a fit on some subnets."""
    rows = np.random.default_rng((draw, size)).permutation(len(task.codes))[:size]
    begin = time.perf_counter()
    model = fit_accuracy(task.space, task.codes[rows], special.expit(task.values[rows]), predictor=name, seed=draw)
    seconds = time.perf_counter() - begin
    mean, deviation = model.predict(task.test_codes)
    errors = np.abs(mean - special.expit(task.test_values))
    tau = float(stats.kendalltau(mean, task.test_values).statistic)
    return tau, float(np.sqrt((errors**2).mean())), float((errors <= deviation).mean()), model.weight, seconds


def report_next(task: Task, predictors: list[str]) -> None:
    """Print what the best of the networks chosen next lacks to the best of all, for each acquisition function."""
    codes = np.concatenate([task.codes, task.test_codes])
    values = np.concatenate([task.values, task.test_values])
    accuracies = special.expit(values)
    print(
        f"\nThe best of {NEXT} more after {FIRST}: points below the best of all {len(codes)}, mean of {TRIES} draws\n"
    )
    print(f"| predictor | {' | '.join(ACQUISITIONS)} |\n|---|{'---:|' * len(ACQUISITIONS)}", flush=True)
    for name in predictors:
        regret = np.zeros((TRIES, len(ACQUISITIONS)))
        try:
            for draw in range(TRIES):
                order = np.random.default_rng((draw, FIRST)).permutation(len(codes))
                known, rest = order[:FIRST], order[FIRST:]
                fitted = fit_predictor(name, task.space, codes[known], values[known], seed=draw)
                mean, deviation = fitted.predict(codes[rest])
                for i, acquisition in enumerate(ACQUISITIONS.values()):
                    best, left = values[known].max(), np.arange(len(rest))
                    for _ in range(NEXT // AT_ONCE):
                        left = left[np.argsort(-acquisition(mean[left], deviation[left], best), kind="stable")]
                        best, left = max(best, values[rest[left[:AT_ONCE]]].max()), left[AT_ONCE:]
                    regret[draw, i] = 100 * (accuracies.max() - special.expit(best))
        except InvalidValue as error:
            print(f"| `{name}` | {error} |", flush=True)
            continue
        print(f"| `{name}` | {' | '.join(f'{value:.2f}' for value in regret.mean(axis=0))} |", flush=True)


if __name__ == "__main__":
    main()
