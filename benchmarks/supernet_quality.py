"""Inherited weights against training from scratch: mobilenetv3-tiny on cluttered-digits.

    python benchmarks/supernet_quality.py --out runs

For each seed a supernet is trained by a training config, and eight of its subnets, spread evenly over the predicted
latency, are trained from scratch on as many images, by the same config without everything that belongs to sharing. All
are evaluated on the whole test split, subnets of the supernet after BN re-calibration, whose gain is shown for random
subnets. A killed run resumes.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from hwnas.accuracy import Evaluator, logits, top1
from hwnas.data import ClutteredDigits
from hwnas.latency import load_model, read_table
from hwnas.profiling.baselines import tau
from hwnas.progress import Progress
from hwnas.spaces import Arch, Space, make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, extract, read_training, train
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
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--scratch-rate", type=float, default=0.2, help="peak learning rate of training from scratch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    config, data = read_training(given.recipe), ClutteredDigits()
    space = make_space("mobilenetv3-tiny")
    archs, latencies_ms = spread(space)
    alone = TrainConfig(
        phases=[Phase(name="scratch", steps=config.steps, learning_rate=given.scratch_rate)],
        **config.model_dump(
            include={"batch_size", "weight_decay", "momentum", "label_smoothing", "clip_norm", "ema_decay"}
        ),
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
        report(seed, latencies_ms, inherited, scratch, cost_s, costs_s)
        report_calibration(supernet, data, seed)


def spread(space: Space) -> tuple[list[Arch], list[float]]:
    """Subnets spread evenly over the predicted latency, and that latency in milliseconds."""
    model = load_model(read_table(resolve_target(TARGET)), space)
    codes = np.concatenate([space.sample(20_000, seed=0), space.encode([space.smallest, space.largest])])
    predicted_ms = model.predict(codes)
    wanted = np.linspace(predicted_ms.min(), predicted_ms.max(), SUBNETS)
    chosen = [int(np.abs(predicted_ms - ms).argmin()) for ms in wanted]
    return space.decode(codes[chosen]), predicted_ms[chosen].tolist()


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
    latencies_ms: list[float],
    inherited: list[float],
    scratch: list[float],
    cost_s: float,
    costs_s: list[float],
) -> None:
    """Print what came out for a seed."""
    print(f"\nseed {seed}\n\n| predicted ms | inherited | from scratch | difference |\n|---:|---:|---:|---:|")
    for ms, ours, theirs in zip(latencies_ms, inherited, scratch, strict=True):
        print(f"| {ms:.4f} | {ours:.2%} | {theirs:.2%} | {100 * (ours - theirs):+.2f} |")
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
