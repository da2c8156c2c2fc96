"""A device known from ten measurements, beside a full profile of it: errors on other networks, and budgets kept.

    python benchmarks/new_device.py --supernet supernet --out DIR [--like 'devices/amd-epyc*'] [--recipe NAME ...]

This host plays the new device. `profile --few-shot` times ten networks of the supernet's space and transfers the tables
of other machines; a full profile measures every op. For budgets over the range that a table gives the space, the best
network is searched with that table at 90% confidence. All of these and random networks, which neither table has seen,
are lowered and timed in the same passes. The speed of a virtual machine drifts by 10% and more within minutes: the ten
networks are timed in these passes, too, and the median ratio of their predictions to these times is the present speed.
Errors are printed as measured, and at the speed of each table; a network keeps its budget at that speed. A killed run
resumes. Close other work while it times.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from on_host import profiled
from scipy.stats import kendalltau
from search_closed_loop import timed

from hwnas.accuracy import Evaluator, fit_on_subnets
from hwnas.latency import LatencyModel, load_model, read_table
from hwnas.latency.transfer import choose as choose_networks
from hwnas.latency.transfer.tables import candidates
from hwnas.progress import Progress
from hwnas.search import Problem, latency_objective
from hwnas.search.rerank import Chosen, choose
from hwnas.shown_progress import shown_progress
from hwnas.spaces import Codes, Space
from hwnas.supernet import load_supernet
from hwnas.targets import resolve_target
from hwnas.workflows import profile_few_shot
from hwnas.workflows.inputs import reopen_data
from hwnas.workflows.older_tables import path_in
from hwnas.workflows.sources import known_sources

CONFIDENCE = 0.9


def transferred(space: Space, recipe: str, like: list[str], count: int, out: Path, progress: Progress) -> LatencyModel:
    """The latency model of this host from the tables of others and a few timed networks, unless it is there."""
    target = resolve_target(f"this/{recipe}")
    path = path_in(out, target)
    if not path.exists():
        start = time.perf_counter()
        answer = profile_few_shot(space, target, like, count=count, tables=out, progress=progress)
        print(f"{count} networks by {answer.method} from {', '.join(answer.sources)}", end="; ")
        print(f"{time.perf_counter() - start:.0f} s, noise {answer.noise:.1%}")
    return load_model(read_table(target, path), space)


def references(space: Space, recipe: str, like: list[str], count: int) -> Codes:
    """The networks that `profile --few-shot` times, ``(count, variables)``."""
    known, whole = known_sources(like, space, without=resolve_target(f"this/{recipe}").name)
    codes, terms = candidates(space, whole)
    return codes[choose_networks(known, terms, count)]


def main() -> None:
    """Measure, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", type=Path, required=True, help="folder from `hwnas train`")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and evaluations")
    parser.add_argument("--like", action="append", help="tables of other machines (default: devices/amd-epyc*)")
    parser.add_argument("--recipe", action="append", help="may be repeated; by default three")
    parser.add_argument("--measurements", type=int, default=10)
    parser.add_argument("--networks", type=int, default=40, help="random networks")
    parser.add_argument("--budgets", type=int, default=6)
    given = parser.parse_args()
    net, facts = load_supernet(given.supernet)
    evaluator = Evaluator(net, reopen_data(facts), images=1000, calibration_images=1000, seed=1)
    space, like = net.space, given.like or ["devices/amd-epyc*"]
    with shown_progress() as progress, evaluator.journal(given.out, facts.weights_sha256) as journal:
        accuracy = fit_on_subnets(evaluator, journal, subnets=100, seed=0, progress=progress)
        for recipe in given.recipe or ("onnxruntime-cpu-fp32", "openvino-cpu-fp32", "onnxruntime-cpu-int8"):
            few = transferred(space, recipe, like, given.measurements, given.out / "few", progress)
            start = time.perf_counter()
            target, full = profiled(space, recipe, given.out / "full", progress)
            print(f"full profile: {time.perf_counter() - start:.0f} s (0: it was there)")
            models = {f"{given.measurements} measurements": few, "full profile": full}
            ends = space.encode([space.smallest, space.largest])
            found: list[tuple[str, float, Chosen]] = []
            for name, model in models.items():
                objective = latency_objective(model)
                low, high = model.predict_upper(ends, CONFIDENCE)
                for budget in (low + (high - low) * np.linspace(0.15, 0.9, given.budgets)).tolist():
                    problem = Problem(
                        space=space,
                        accuracy=accuracy,
                        objectives=(objective,),
                        budgets={objective.name: budget},
                        confidence=CONFIDENCE,
                    )
                    found.append((name, budget, choose(problem, evaluator, journal, candidates=3, progress=progress)))
            codes, known = space.sample(given.networks, seed=7), references(space, recipe, like, given.measurements)
            archs = [*space.decode(codes), *space.decode(known), *(chosen.candidates[0].arch for _, _, chosen in found)]
            ms = np.array(timed(evaluator, target, archs, progress))
            others, known_ms, found_ms = np.split(ms, [len(codes), len(codes) + len(known)])
            print(f"\n{target.name}, {len(codes)} other networks\n")
            print("| table | error | speed | error at that speed | within 10% | τ | below the 90% bound |")
            print("|---|---:|---:|---:|---:|---:|---:|")
            speeds = {name: float(np.median(model.predict(known) / known_ms)) for name, model in models.items()}
            for name, model in models.items():
                predicted, upper = model.predict(codes), model.predict_upper(codes, CONFIDENCE)
                at_speed = others * speeds[name]
                off, tau = np.abs(predicted / at_speed - 1), kendalltau(predicted, others).statistic
                print(f"| {name} | {np.abs(predicted / others - 1).mean():.1%} | {speeds[name]:.2f} ", end="")
                print(
                    f"| {off.mean():.1%} | {np.mean(off <= 0.1):.0%} | {tau:.3f} | {np.mean(at_speed <= upper):.0%} |"
                )
            print("\n| table | budget (ms) | predicted | measured | at the table's speed | kept | accuracy |")
            print("|---|---:|---:|---:|---:|---|---:|")
            for (name, budget, chosen), found_at in zip(found, found_ms, strict=True):
                [predicted_ms] = chosen.candidates[0].costs.values()
                at = found_at * speeds[name]
                kept = "yes" if at <= budget else f"no, {at / budget - 1:+.1%}"
                print(f"| {name} | {budget:.3f} | {predicted_ms:.3f} | {found_at:.3f} | {at:.3f} | {kept} ", end="")
                print(f"| {chosen.accuracies[0]:.1%} |")
            print(flush=True)


if __name__ == "__main__":
    main()
