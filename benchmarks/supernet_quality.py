"""Inherited weights against training from scratch on cluttered-digits.

    python benchmarks/supernet_quality.py --out runs [--space mobilenetv3-tiny] [--training FILE.toml]

For each seed a supernet is trained by a training config, and eight of its subnets, spread evenly over the predicted
latency of the shipped table (of a space that it lacks: over the multiply-accumulates), are trained from scratch on as
many images, by the same config without everything that belongs to sharing. All are evaluated on the whole test split,
subnets of the supernet after BN re-calibration, whose gain is shown for random subnets of a space with BN. A killed run
resumes.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from torch import nn

from hwnas.accuracy import Evaluator, logits, top1
from hwnas.data import ClutteredDigits
from hwnas.latency import load_model, read_table
from hwnas.profiling.baselines import tau
from hwnas.progress import Progress
from hwnas.spaces import Arch, Space, make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, extract, read_training, train, usual_training
from hwnas.targets import resolve_target
from hwnas.training.metrics import METRICS

RECIPE = Path(__file__).parents[1] / "examples" / "training" / "mobilenetv3-tiny.toml"
TARGET = "amd-epyc-f25m17-2c/onnxruntime-cpu-fp32"
SUBNETS = 8
RANDOM_SUBNETS = 20
CALIBRATION_IMAGES = 2000


def main() -> None:
    """Train, compare, and print a Markdown table for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for trainings; finished ones are not done again"
    )
    parser.add_argument("--space", default="mobilenetv3-tiny")
    parser.add_argument("--training", type=Path, help=f"of the supernet (default for mobilenetv3-tiny: {RECIPE.name})")
    parser.add_argument("--steps", type=int, help="updates, instead of those of the config")
    parser.add_argument("--scratch-rate", type=float, help="peak learning rate of training from scratch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    space, data = make_space(given.space), ClutteredDigits()
    shipped = given.space == "mobilenetv3-tiny"
    file = given.training or (RECIPE if shipped else None)
    config = read_training(file) if file else usual_training(space)
    config = config.lasting(given.steps) if given.steps else config
    archs, costs = spread(space, shipped=shipped)
    kept = ("optimizer", "batch_size", "weight_decay", "momentum", "label_smoothing", "clip_norm", "ema_decay")
    rate = given.scratch_rate or max(phase.learning_rate for phase in config.phases)
    alone = TrainConfig(
        phases=[Phase(name="scratch", steps=config.steps, learning_rate=rate)],
        **{key: getattr(config, key) for key in kept},
    )
    for seed in given.seeds:
        folder = given.out / f"seed{seed}"
        supernet, cost_s = trained(Supernet(space, seed=seed), data, config, seed, folder / "supernet")
        inherited = accuracies(supernet, data, archs)
        scratch, costs_s = [], []
        for i, arch in enumerate(archs):
            net, seconds = trained(
                Supernet(space.fix(**dict(arch)), seed=seed), data, alone, seed, folder / f"scratch{i}"
            )
            scratch += accuracies(net, data, [arch])
            costs_s.append(seconds)
        report(seed, costs, inherited, scratch, cost_s, costs_s)
        if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in supernet.modules()):
            report_calibration(supernet, data, seed)


def spread(space: Space, *, shipped: bool) -> tuple[list[Arch], list[float]]:
    """Subnets spread evenly over the latency that a shipped table predicts, or over millions of MACs; and that cost."""
    codes = np.concatenate([space.sample(20_000, seed=0), space.encode([space.smallest, space.largest])])
    if shipped:
        costs = load_model(read_table(resolve_target(TARGET)), space).predict(codes)
    else:
        costs = space.macs(codes) / 1e6
    wanted = np.linspace(costs.min(), costs.max(), SUBNETS)
    chosen = [int(np.abs(costs - one).argmin()) for one in wanted]
    return space.decode(codes[chosen]), costs[chosen].tolist()


def trained(
    supernet: Supernet, data: ClutteredDigits, config: TrainConfig, seed: int, folder: Path
) -> tuple[Supernet, float]:
    """A trained supernet and the seconds that its steps took, those before a kill among them."""
    train(supernet, data, config, seed=seed, folder=folder, progress=printed(folder))
    with (folder / METRICS).open(newline="", encoding="utf-8") as file:
        return supernet, sum(config.batch_size / float(row["images_per_s"]) for row in csv.DictReader(file))


def printed(folder: Path) -> Progress:
    """Progress on one line a training."""

    def show(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        if done == total:
            print(f"  {folder.parent.name}/{folder.name}: {what} {done} {unit}, {note}", flush=True)

    return show


def accuracies(supernet: Supernet, data: ClutteredDigits, archs: list[Arch]) -> list[float]:
    """Accuracies on the test split, as fractions."""
    evaluator = Evaluator(supernet, data, images=None, calibration_images=CALIBRATION_IMAGES, seed=1)
    return [evaluator.test_accuracy(arch) for arch in archs]


def report(
    seed: int,
    costs: list[float],
    inherited: list[float],
    scratch: list[float],
    cost_s: float,
    costs_s: list[float],
) -> None:
    """Print what came out for a seed."""
    print(f"\nseed {seed}\n\n| ms or million MACs | inherited | from scratch | difference |\n|---:|---:|---:|---:|")
    for cost, ours, theirs in zip(costs, inherited, scratch, strict=True):
        print(f"| {cost:.4g} | {ours:.2%} | {theirs:.2%} | {100 * (ours - theirs):+.2f} |")
    gaps = 100 * (np.array(inherited) - np.array(scratch))
    rank = tau(np.array(inherited), np.array(scratch)[None])
    print(
        f"\nmean difference {gaps.mean():+.2f} points, worst {gaps.min():+.2f}; Kendall tau {rank:.2f}; "
        f"supernet {cost_s:.0f} s, from scratch {sum(costs_s):.0f} s in all: {cost_s / np.mean(costs_s):.2f} trainings",
        flush=True,
    )


def report_calibration(supernet: Supernet, data: ClutteredDigits, seed: int) -> None:
    """Print what BN re-calibration does for random subnets."""
    archs = supernet.space.decode(supernet.space.sample(RANDOM_SUBNETS, seed=seed))
    before = [top1(*logits(extract(supernet, arch), data.batches("test", arch["resolution"]))) for arch in archs]
    gains = np.array(accuracies(supernet, data, archs)) - before
    print(
        f"{RANDOM_SUBNETS} random subnets: {np.mean(before):.2%} with the BN statistics that they inherit, "
        f"{np.mean(before + gains):.2%} after re-calibration on {CALIBRATION_IMAGES} images; "
        f"gains of {100 * gains.min():.2f} to {100 * gains.max():.2f} points",
        flush=True,
    )


if __name__ == "__main__":
    main()
