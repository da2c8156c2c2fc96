"""Does search keep its budgets: budgets over the range of a space on this host, the results deployed and timed.

The targets are profiled first. For each budget the best network is searched at 95% confidence and lowered, and all
networks are timed in the same passes: is the budget kept, how large is the prediction's error. Then one network for
three targets at once is timed on each. Last, and longest, random networks within each budget are evaluated like the
candidates; both winners are evaluated on the test images, which chose neither. A run that was killed, or that ended
because the machine was too noisy, resumes. Close other work while it times.

    python benchmarks/search_closed_loop.py --supernet supernet --out closed-loop
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from on_host import profiled, timed_steadily

from hwnas.accuracy import AccuracyModel, Evaluator, fit_on_subnets
from hwnas.deploy.exporter import lower_subnet
from hwnas.files import Journal
from hwnas.latency import LatencyModel
from hwnas.progress import Progress
from hwnas.search import Problem, latency_objective
from hwnas.search.rerank import Chosen, choose
from hwnas.shown_progress import shown_progress
from hwnas.spaces import Arch, Codes, Space
from hwnas.supernet import load_supernet
from hwnas.targets import Target
from hwnas.workflows.inputs import reopen_data

FLEET = ("onnxruntime-cpu-fp32", "openvino-cpu-fp32", "onnxruntime-cpu-int8")
BLOCK = 20_000  # random networks drawn at a time
DRAWS = 2_000_000  # at most


def main() -> None:
    """Measure, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", type=Path, required=True, help="folder from `hwnas train`")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and evaluations")
    parser.add_argument("--recipe", default=FLEET[0])
    parser.add_argument("--budgets", type=int, default=10)
    parser.add_argument("--images", type=int, default=None, help="validation images per evaluation; by default all")
    parser.add_argument("--calibration-images", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=9, help="evaluated for each budget")
    parser.add_argument("--random", type=int, default=1000, help="random networks within each budget")
    given = parser.parse_args()
    net, facts = load_supernet(given.supernet)
    evaluator = Evaluator(
        net, reopen_data(facts), images=given.images, calibration_images=given.calibration_images, seed=1
    )
    with shown_progress() as progress, evaluator.journal(given.out, facts.weights_sha256) as journal:
        accuracy = fit_on_subnets(evaluator, journal, subnets=300, seed=0, progress=progress)
        for name, quality in accuracy.quality.items():
            print(
                f"{name}: tau {quality.kendall_tau:.3f}, RMSE {quality.rmse:.2%}, one sigma {quality.within_one_sigma}"
            )
        target, latency = profiled(net.space, given.recipe, given.out, progress)
        problems = over_the_range(net.space, accuracy, latency, given.budgets)
        found = [choose(p, evaluator, journal, candidates=given.candidates, progress=progress) for p in problems]
        report_latencies(evaluator, target, problems, found, progress)
        report_fleet(net.space, accuracy, evaluator, journal, given.out, progress)
        report_random(evaluator, journal, problems, found, given.random, progress)


def over_the_range(space: Space, accuracy: AccuracyModel, latency: LatencyModel, budgets: int) -> list[Problem]:
    """Problems whose budgets are spread evenly between the smallest network's bound and the largest's."""
    objective = latency_objective(latency)
    low, high = latency.predict_upper(space.encode([space.smallest, space.largest]), 0.95)
    steps = np.linspace(0.05, 0.95, budgets)
    return [
        Problem(
            space=space,
            accuracy=accuracy,
            objectives=(objective,),
            budgets={objective.name: float(low + step * (high - low))},
        )
        for step in steps
    ]


def timed(evaluator: Evaluator, target: Target, archs: list[Arch], progress: Progress) -> list[float]:
    """Milliseconds of networks deployed with a recipe, timed in the same passes."""
    programs = {
        str(i): lower_subnet(evaluator.subnet(arch), evaluator, arch, target.recipe) for i, arch in enumerate(archs)
    }
    measured = timed_steadily(programs, target, progress)
    return [measured.p25_ms(name) for name in programs]


def report_latencies(
    evaluator: Evaluator, target: Target, problems: list[Problem], found: list[Chosen], progress: Progress
) -> None:
    """Budget, prediction and measurement of each network found."""
    name = problems[0].objectives[0].name
    measured = timed(evaluator, target, [chosen.candidates[0].arch for chosen in found], progress)
    print("\n| budget (ms) | predicted | measured | off | kept |\n|---:|---:|---:|---:|---|")
    kept, off = [], []
    for problem, chosen, ms in zip(problems, found, measured, strict=True):
        predicted, budget = chosen.candidates[0].costs[name], problem.budgets[name]
        kept.append(ms <= budget)
        off.append(ms / predicted - 1)
        print(f"| {budget:.4f} | {predicted:.4f} | {ms:.4f} | {off[-1]:+.1%} | {'yes' if kept[-1] else 'no'} |")
    print(f"\nkept: {sum(kept)} of {len(kept)}; largest error {max(map(abs, off)):.1%}", flush=True)


def report_fleet(
    space: Space, accuracy: AccuracyModel, evaluator: Evaluator, journal: Journal, out: Path, progress: Progress
) -> None:
    """One network under budgets for three targets at once, timed on each."""
    fleet = [profiled(space, recipe, out, progress) for recipe in FLEET]
    middle = space.sample(2000, seed=0)
    objectives = tuple(latency_objective(latency) for _, latency in fleet)
    budgets = {o.name: float(np.quantile(o.total(middle), 0.4)) for o in objectives}
    problem = Problem(space=space, accuracy=accuracy, objectives=objectives, budgets=budgets)
    best = choose(problem, evaluator, journal, candidates=9, progress=progress)
    # Among the others that were evaluated: a profile times networks in turns, and none finds its memory in the caches.
    times = {target: timed(evaluator, target, [c.arch for c in best.candidates], progress)[0] for target, _ in fleet}
    print("\n| target | budget (ms) | predicted | measured | kept |\n|---|---:|---:|---:|---|")
    for target, ms in times.items():
        predicted, budget = best.candidates[0].costs[target.name], budgets[target.name]
        print(f"| {target.name} | {budget:.4f} | {predicted:.4f} | {ms:.4f} | {'yes' if ms <= budget else 'no'} |")
    print(f"\n{best.accuracies[0]:.2%} on validation. {best.proof}", flush=True)


def report_random(
    evaluator: Evaluator,
    journal: Journal,
    problems: list[Problem],
    found: list[Chosen],
    count: int,
    progress: Progress,
) -> None:
    """The best of random networks within each budget, beside the network found."""
    print("\n| budget (ms) | found | best random | found, test | best random, test | random networks |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    for problem, chosen in zip(problems, found, strict=True):
        archs = problem.space.decode(within(problem, count))
        [budget] = problem.budgets.values()
        if not archs:
            print(f"| {budget:.4f} | {chosen.accuracies[0]:.2%} | none drawn |", flush=True)
            continue
        accuracies = evaluator.accuracies(archs, journal, what=f"random within {budget:.4f} ms", progress=progress)
        best = int(np.argmax(accuracies))
        ours, theirs = (evaluator.test_accuracy(arch) for arch in (chosen.candidates[0].arch, archs[best]))
        print(
            f"| {budget:.4f} | {chosen.accuracies[0]:.2%} | {accuracies[best]:.2%} | {ours:.2%} | {theirs:.2%} "
            f"| {len(archs)} |",
            flush=True,
        )


def within(problem: Problem, count: int) -> Codes:
    """The first distinct networks within a budget among uniform draws, the same draws for every budget."""
    kept = np.zeros((0, len(problem.space.variables)), np.uint8)
    for block in range(DRAWS // BLOCK):
        codes = problem.space.sample(BLOCK, seed=(99, block))
        both = np.concatenate([kept, codes[problem.excess(codes) == 0]])
        _, first = np.unique(both, axis=0, return_index=True)
        kept = both[np.sort(first)]
        if len(kept) >= count:
            break
    return kept[:count]


if __name__ == "__main__":
    main()
