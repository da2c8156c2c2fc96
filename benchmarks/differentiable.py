"""Does differentiable search meet its target: every method, several seeds, targets over the range of a space.

This host is profiled first. Every method searches `nasbench201-tiny` (one cell per stage, 32 px, cluttered digits) for
latencies at quantiles of the space's, with the same number of images. The resulting networks are lowered and timed in
the same passes. Printed are the latency expected under the probabilities, that of their most probable network, the
prediction of the repaired network, and its measurement; then time per step and peak memory of each method, in separate
processes; then accuracy after training from scratch, beside random networks in the same window with the same training.
A killed run resumes. Close other work while it times.

    python benchmarks/differentiable.py --out differentiable
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from on_host import profiled, timed_steadily

from hwnas.accuracy import Evaluator
from hwnas.data import open_data
from hwnas.files import Journal
from hwnas.latency import LatencyModel
from hwnas.lowering import form_of
from hwnas.nn import network
from hwnas.progress import Progress
from hwnas.search import latency_objective
from hwnas.search.differentiable import METHODS, DifferentiableConfig, search_differentiable
from hwnas.search.differentiable.run import Trained
from hwnas.search.problem import Constraints
from hwnas.shown_progress import shown_progress
from hwnas.spaces import Arch, Space, make_space
from hwnas.supernet import Supernet, TrainConfig, train
from hwnas.targets import Target

SPACE, DATA = "nasbench201-tiny", "cluttered-digits"
COST_SPACE = "nasbench201"  # as published: five cells a stage
QUANTILES = (0.2, 0.5, 0.8)
BELOW, ABOVE = 0.05, 0.03  # a run holds if it measures at most so far below and above its target


def main() -> None:
    """Measure, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and results")
    parser.add_argument("--recipe", default="onnxruntime-cpu-fp32")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--confidence", type=float, default=0.95, help="confidence that a network stays within its target"
    )
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--train-steps", type=int, default=300, help="of networks trained from scratch; 0 for none")
    parser.add_argument("--cost", help="only a few steps of this method: prints milliseconds a step and peak bytes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.cost:
        print(json.dumps(cost(given.cost, given.batch_size)))
        return
    space = make_space(SPACE)
    with shown_progress() as progress:
        target, latency = profiled(space, given.recipe, given.out, progress, networks=32, bound_networks=40)
        subject = {
            "steps": given.steps,
            "batch": given.batch_size,
            "quantiles": list(QUANTILES),
            "confidence": given.confidence,
        }
        with Journal(given.out / "searches.jsonl", subject) as journal:
            found = searched(space, latency, given, journal, progress)
        report_latencies(space, target, latency, found, progress)
        report_costs(given.methods, given.batch_size)
        if given.train_steps:
            with Journal(given.out / "trained.jsonl", {"steps": given.train_steps}) as journal:
                report_accuracies(space, latency, found, given, journal, progress)


def targets_ms(space: Space, latency: LatencyModel) -> list[float]:
    """Latencies that the searches are held to."""
    return [float(ms) for ms in np.quantile(latency.predict(space.sample(15_000, seed=0)), QUANTILES)]


def searched(
    space: Space, latency: LatencyModel, given: argparse.Namespace, journal: Journal, progress: Progress
) -> list[dict[str, Any]]:
    """Every search's result; those of a run before are not repeated."""
    objective, data = latency_objective(latency), open_data(DATA)
    for method in given.methods:
        for seed in range(given.seeds):
            for number, ms in enumerate(targets_ms(space, latency)):
                key = f"{method} {number} {seed}"
                if key in journal.entries:
                    continue
                wanted = Constraints(
                    space=space, objectives=(objective,), budgets={objective.name: ms}, confidence=given.confidence
                )
                config = DifferentiableConfig(steps=given.steps, batch_size=given.batch_size)
                folder = given.out / "search" / f"{method}-{number}-{seed}"
                before = time.monotonic()
                result = search_differentiable(
                    wanted, data, method, config, folder=folder, seed=seed, progress=progress
                )
                entry = {
                    "method": method,
                    "target": number,
                    "seed": seed,
                    "wanted": ms,
                    "expected": result.expected[objective.name],
                    "argmax": result.repaired.argmax_costs[objective.name],
                    "predicted": result.repaired.costs[objective.name],
                    "near": result.repaired.near,
                    "arch": dict(result.repaired.arch),
                    "seconds": time.monotonic() - before,
                }
                journal.record(key, entry)
    return [entry for entry in journal.entries.values() if entry["method"] in given.methods]


def report_latencies(
    space: Space, target: Target, latency: LatencyModel, found: list[dict[str, Any]], progress: Progress
) -> None:
    """Expected, discretised and measured latency of every run, and how many of a method's land on their target."""
    form = form_of(target.recipe)
    archs = {json.dumps(r["arch"]): space.arch(r["arch"]) for r in found}
    programs = {key: form.lower(network(space, arch).eval(), space.input_shape(arch)) for key, arch in archs.items()}
    measured = timed_steadily(programs, target, progress)
    print("\n| method | target (ms) | seed | expected | argmax | predicted | measured | off the target | holds |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    holds: dict[str, list[bool]] = {}
    for r in found:
        ms = measured.p25_ms(json.dumps(r["arch"]))
        off = ms / float(r["wanted"]) - 1
        ok = -BELOW <= off <= ABOVE
        holds.setdefault(str(r["method"]), []).append(ok)
        print(
            f"| {r['method']} | {r['wanted']:.4f} | {r['seed']} | {r['expected']:.4f} | {r['argmax']:.4f} "
            f"| {r['predicted']:.4f} | {ms:.4f} | {off:+.1%} | {'yes' if ok else 'no'} |"
        )
    print("\n| method | holds | seconds a search (median) |\n|---|---:|---:|")
    for method, each in holds.items():
        seconds = np.median([float(r["seconds"]) for r in found if r["method"] == method])
        print(f"| {method} | {sum(each)} of {len(each)} | {seconds:.0f} |", flush=True)


def cost(method: str, batch_size: int, steps: int = 6) -> dict[str, float]:
    """Milliseconds a step, and the most bytes that tensors of a step take, weights and optimisers included."""
    data = open_data(DATA)
    space = make_space(COST_SPACE, classes=len(data.classes), in_channels=data.in_channels)
    total = space.slot_sum(lambda op: 1e-3 + op.macs / 1e9)
    latency = LatencyModel(space=space, target="host/none", total=total, plain=total, fit=None)
    objective = latency_objective(latency)
    wanted = Constraints(
        space=space,
        objectives=(objective,),
        budgets={objective.name: float(total(space.sample(1, seed=0))[0])},
        confidence=None,
    )
    config = DifferentiableConfig(steps=steps, batch_size=batch_size, warmup=0.0)

    def new_run() -> Trained:
        return Trained(wanted, data, METHODS[method], config, seed=0, device=torch.device("cpu"))

    run = new_run()
    training, validation = next(run.training_images(0)), next(run.validation_images(0))
    times = []
    for step in range(steps):
        start = time.monotonic()
        run.step(step, training, validation)
        times.append(time.monotonic() - start)
    del run
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run = new_run()
        for step in range(2):
            run.step(step, training, validation)
    return {"ms": float(np.median(times[1:])) * 1e3, "bytes": peak_bytes(profiler)}


def peak_bytes(profiler: torch.profiler.profile) -> float:
    """The most that was allocated at a time, by the events of torch's allocator: exact, unlike the process's size."""
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return float(np.cumsum([event.nbytes() for event in events]).max())


def report_costs(methods: list[str], batch_size: int) -> None:
    """Time and memory of a step, each method in a process of its own; shares of `darts`'."""
    found = {}
    for method in dict.fromkeys(["darts", *methods]):
        command = [sys.executable, __file__, "--out", ".", "--cost", method, "--batch-size", str(batch_size * 2)]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
        found[method] = json.loads(run.stdout.splitlines()[-1])
    first = found["darts"]
    print(f"\n{COST_SPACE}, batches of {batch_size * 2}:\n\n| method | ms a step | of darts' | peak (MB) | of darts' |")
    print("|---|---:|---:|---:|---:|")
    for method, c in found.items():
        print(
            f"| {method} | {c['ms']:.0f} | {c['ms'] / first['ms']:.2f} | {c['bytes'] / 1e6:.0f} "
            f"| {c['bytes'] / first['bytes']:.2f} |",
            flush=True,
        )


def trained_accuracy(space: Space, arch: Arch, seed: int, steps: int, out: Path, progress: Progress) -> float:
    """Accuracy on the test images of a network that was trained from scratch."""
    data = open_data(DATA)
    own = Supernet(space.fix(**arch), seed=seed)
    config = TrainConfig().lasting(steps)
    train(own, data, config, seed=seed, folder=out, resume=False, progress=progress)
    return Evaluator(own, data, images=None, seed=1).test_accuracy(own.space.largest)


def report_accuracies(
    space: Space,
    latency: LatencyModel,
    found: list[dict[str, Any]],
    given: argparse.Namespace,
    journal: Journal,
    progress: Progress,
) -> None:
    """Networks of the first seed trained from scratch, beside random ones in the same window, trained alike."""

    def accuracy(arch: Arch) -> float:
        key = json.dumps(dict(arch))
        if key not in journal.entries:
            folder = given.out / "trained"
            journal.record(key, trained_accuracy(space, arch, 0, given.train_steps, folder, progress))
        return float(journal.entries[key])

    limit = latency_objective(latency).margin(given.confidence)
    print("\n| target (ms) | random networks: mean, best | " + " | ".join(given.methods) + " |")
    print("|---:|---:|" + "---:|" * len(given.methods))
    codes = space.sample(15_000, seed=1)
    predicted = latency.predict(codes)
    for number, ms in enumerate(targets_ms(space, latency)):
        within = codes[(predicted <= ms / (1 + limit)) & (predicted >= ms * (1 - BELOW))]
        random = [accuracy(arch) for arch in space.decode(within[: given.seeds])]
        own = []
        for method in given.methods:
            [arch] = [r["arch"] for r in found if (r["method"], r["target"], r["seed"]) == (method, number, 0)]
            own.append(accuracy(space.arch(arch)))
        cells = " | ".join(f"{a:.2%}" for a in own)
        print(f"| {ms:.4f} | {np.mean(random):.2%}, {max(random):.2%} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
