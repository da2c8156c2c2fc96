"""Searched mixers beside pure attention, pure convolution and random search, at equal latency, on long sequences.

    python benchmarks/long_range.py --out DIR [listops pathfinder] [--seeds 0 1 2] [--steps 3000]

ListOps (to 512 tokens) and Pathfinder (32 x 32 pixels as 1,025 tokens), generated (`hwnas.data`). For each seed a
supernet of the space `sequence` is trained. Within a budget, a share of the predicted latency of the slowest network of
attention alone, four networks are taken, each the best of 20 evaluated ones: by search; of networks of attention alone;
of convolutions alone (both the 20 best by the accuracy model of 20,000 drawn ones); of random networks. They are
trained from scratch on as many sequences each, evaluated on the test split, and timed in the same passes. A killed run
resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from on_host import profiled
from search_closed_loop import timed
from supernet_quality import printed

from hwnas.accuracy import AccuracyModel, Evaluator, fit_on_subnets
from hwnas.data import Data, DataOptions, open_data
from hwnas.latency import LatencyModel
from hwnas.search import Problem, latency_objective
from hwnas.search.rerank import choose
from hwnas.shown_progress import shown_progress
from hwnas.spaces import Arch, Codes, Space, make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, train, usual_training

TASKS = {"listops": ({"length": 512}, 512), "pathfinder": ({"side": 32}, 1025)}
EVALUATED, DRAWN = 20, 20_000


def space_for(data: Data, length: int, width: int) -> Space:
    """The space `sequence` for data, of one width."""
    vocabulary = data.reads.vocabulary
    space = make_space(f"sequence+length={length}", vocabulary=vocabulary, classes=len(data.classes))
    return space.fix(width=width)


def of(space: Space, mixer: str) -> Codes:
    """Networks drawn of those with one mixer in all layers, as codes of the whole space."""
    alone = space.fix(**{v.name: mixer for v in space.variables if v.name.startswith("mixer_")})
    return space.encode(alone.decode(alone.sample(DRAWN, seed=3)))


def candidates(
    space: Space,
    accuracy: AccuracyModel,
    latency: LatencyModel,
    budget: float,
    evaluator: Evaluator,
    out: Path,
    sha: str,
) -> dict[str, Arch]:
    """The best network of each way to choose, within the budget."""
    objective = latency_objective(latency)
    problem = Problem(
        space=space, accuracy=accuracy, objectives=(objective,), budgets={objective.name: budget}, confidence=None
    )
    with shown_progress() as progress, evaluator.journal(out, sha) as journal:
        found = {
            "searched": choose(problem, evaluator, journal, candidates=EVALUATED, progress=progress).candidates[0].arch
        }
        ways = {"attention alone": of(space, "attention"), "convolution alone": of(space, "conv")}
        ways["random"] = space.sample(DRAWN, seed=5)
        for way, codes in ways.items():
            within = np.unique(codes[latency.predict(codes) <= budget], axis=0)
            if way == "random":
                order = np.random.default_rng(0).permutation(len(within))
            else:
                order = np.argsort(-accuracy.predict(within)[0])
            archs = space.decode(within[order[:EVALUATED]])
            accuracies = evaluator.accuracies(archs, journal, what=way, progress=progress)
            found[way] = archs[int(np.argmax(accuracies))]
    return found


def compared(task: str, data: Data, length: int, given: argparse.Namespace) -> None:
    """Print the table of a task."""
    space = space_for(data, length, given.width)
    out: Path = given.out / task
    usual = usual_training(space).model_copy(update={"batch_size": given.batch})
    config = usual.lasting(given.steps)
    rate = max(phase.learning_rate for phase in usual.phases)
    alone = TrainConfig(
        optimizer=usual.optimizer,
        batch_size=given.batch,
        weight_decay=usual.weight_decay,
        phases=[Phase(name="scratch", steps=given.steps, learning_rate=rate)],
    )
    with shown_progress() as progress:
        target, latency = profiled(space, given.recipe, out / "profile", progress)
    slowest = latency.predict(of(space, "attention")).max()
    budget = given.budget * float(slowest)
    print(f"\n{task}: budget {budget:.3f} ms, {given.budget:.0%} of the slowest network of attention alone", flush=True)
    print("\n| seed | way | mixers | inherited | trained alone, test | measured (ms) |\n|---|---|---|---:|---:|---:|")
    for seed in given.seeds:
        folder = out / f"seed{seed}"
        supernet = Supernet(space, seed=seed)
        train(supernet, data, config, seed=seed, folder=folder / "supernet", progress=printed(folder / "supernet"))
        evaluator = Evaluator(supernet, data, images=1000, seed=1)
        sha = f"seed{seed}-{given.steps}"
        with shown_progress() as progress, evaluator.journal(folder, sha) as journal:
            accuracy = fit_on_subnets(evaluator, journal, subnets=given.subnets, seed=0, progress=progress)
        found = candidates(space, accuracy, latency, budget, evaluator, folder, sha)
        measured = timed(evaluator, target, list(found.values()), progress)
        for (way, arch), ms in zip(found.items(), measured, strict=True):
            report(seed, way, arch, ms, evaluator, data, alone, folder)


def report(
    seed: int, way: str, arch: Arch, ms: float, evaluator: Evaluator, data: Data, alone: TrainConfig, folder: Path
) -> None:
    """Train a network alone, and print its line."""
    net = Supernet(evaluator.supernet.space.fix(**dict(arch)), seed=seed)
    place = folder / way.replace(" ", "-")
    train(net, data, alone, seed=seed, folder=place, progress=printed(place))
    test = Evaluator(net, data, images=None, seed=1).test_accuracy(arch)
    mixers = " ".join(str(arch[f"mixer_{i}"]) for i in range(1, int(arch["depth"]) + 1))
    print(f"| {seed} | {way} | {mixers} | {evaluator.accuracy(arch):.1%} | {test:.1%} | {ms:.3f} |", flush=True)


def main() -> None:
    """Compare on each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--subnets", type=int, default=100)
    parser.add_argument("--budget", type=float, default=0.5, help="share of the slowest network of attention alone")
    parser.add_argument("--recipe", default="onnxruntime-cpu-fp32")
    given = parser.parse_args()
    for task in given.tasks:
        options, length = TASKS[task]
        compared(task, open_data(task, options=DataOptions.model_validate(options)), length, given)


if __name__ == "__main__":
    main()
