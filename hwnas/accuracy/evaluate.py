"""Accuracy of subnets with inherited weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from hwnas.data import Augmentation, Data, Split
from hwnas.data.base import USUAL
from hwnas.data.options import Size
from hwnas.engines import SERIAL, Engine
from hwnas.errors import InvalidValue, some
from hwnas.files import Journal
from hwnas.nn import channels_last, laid_out
from hwnas.nn.norm import fold_batch_norms
from hwnas.progress import Progress, silent
from hwnas.spaces import Arch, Space, Value
from hwnas.spaces.ops import Shape
from hwnas.supernet import Supernet, extract
from hwnas.tasks.base import Metric
from hwnas.tasks.figures import ClassificationFigures
from hwnas.tasks.metrics import TOP1, figures_of, parse_metric

_BATCH = 250
_FIGURES = "figures"  # first word of a journal's key of all figures of an arch
_TOGETHER = 16  # networks that share a pass over the images; more would only need more memory
Found = TypeVar("Found")


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Re-calibrate BN statistics on training images; return the network in evaluation mode.

    A subnet inherits statistics that mix those of all subnets. Its own statistics are the mean over these batches
    (Yu and Huang, "Universally Slimmable Networks", ICCV 2019, section 3.4).

    Args:
        network: an extracted network, modified in place.
        batches: images ``(n, channels, height, width)`` each.
    """
    recalibrate_all([network], batches)
    return network


def recalibrate_all(networks: Sequence[nn.Module], batches: Iterable[Tensor]) -> None:
    """`recalibrate` for several networks of one resolution, in one pass over the images; none without BN."""
    norms = [layer for network in networks for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
    for network in networks:
        network.train()
    with torch.inference_mode():
        for images in batches:
            moved = laid_out(images)
            for network in networks:
                network(moved)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    for network in networks:
        network.eval()


def calibration_batches(
    data: Data, count: int, resolution: Size, *, seed: int, augmentation: Augmentation
) -> Iterator[Tensor]:
    """Batches of `count` training images that re-calibrate BN, each ``(n, channels, height, width)``.

    About equal in size: BN averages over batches, not over images.
    """
    size = math.ceil(count / math.ceil(count / _BATCH))
    for step, done in enumerate(range(0, count, size)):
        yield data.train_batch(step, size, resolution, seed=seed, augmentation=augmentation)[0][: count - done]


def logits(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Outputs ``(n, classes)`` and labels over batches of images."""
    with torch.inference_mode():
        pairs = [(network(laid_out(x)), y) for x, y in batches]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def check_positive(data: Data, metric: Metric) -> None:
    """Check that some validation image has the class of a metric; without one it is the same for every network.

    Raises:
        InvalidValue: none has it.
    """
    sizes = data.class_sizes("validation")
    if metric.positive is not None and sizes is not None and not sizes[data.classes.index(metric.positive)]:
        raise InvalidValue(
            f"no validation image of {data.name} has the class {metric.positive}, so {metric.name} would be the same "
            "for every network; add such images to the split, or choose another metric"
        )


class Evaluator:
    """Evaluates subnets of a supernet, all on the same images.

    Args:
        supernet: the trained supernet.
        data: its dataset.
        images: number of validation images, the first ones; None for all.
        calibration_images: training images for BN re-calibration (once-for-all uses about 2,000); all if there are
            fewer.
        seed: of the calibration images.
        metric: what is evaluated, and what a search with this evaluator maximises; None for the usual metric of the
            data's task.
        augmentation: of the images of the BN re-calibration (`hwnas.data.augment.calibration_augmentation`).
        engine: where groups of subnets are evaluated.

    Attributes:
        again: opens the evaluator again in a worker, from names and paths; needed by engines with workers.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: Data,
        *,
        images: int | None,
        calibration_images: int = 2000,
        seed: int,
        metric: Metric | None = None,
        augmentation: Augmentation = USUAL,
        engine: Engine = SERIAL,
    ) -> None:
        self.supernet = supernet
        self.data = data
        self.images = images
        self.calibration_images = min(calibration_images, data.size("train"))
        self.seed = seed
        self.metric = metric or parse_metric(None, data.classes, task=data.task)
        check_positive(data, self.metric)
        self.augmentation = augmentation
        self.engine = engine
        self.again: Callable[[], Evaluator] | None = None

    @property
    def source(self) -> Callable[[], Evaluator]:
        """Returns this evaluator, or opens it again in a worker (`hwnas.engines.Engine.map`)."""
        return self.again or (lambda: self)

    def journal(self, folder: Path, weights: str) -> Journal:
        """The journal of evaluations of a supernet with these settings; other settings have other journals.

        Args:
            folder: folder of the journal, the supernet's or another; supernets with other weights may share it.
            weights: hash of the weights.
        """
        subject = self.subject(weights)
        key = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:16]
        return Journal(folder / f"evaluated-{key}.jsonl", subject)

    def subject(self, weights: str) -> dict[str, object]:
        """What evaluations of a supernet depend on, as JSON values.

        Args:
            weights: hash of the weights.
        """
        train, validation = (self.data.split_fingerprint(split) for split in ("train", "validation"))
        return {
            # Data with a fingerprint for each split are photographs: their samples were not stratified in earlier
            # versions, whose journals are therefore not used. Other data have the same one for all splits.
            "data": train if train == validation else [train, validation],
            "weights": weights,
            "images": self.images,
            "calibration_images": self.calibration_images,
            "seed": self.seed,
            **({} if self.metric is TOP1 else {"metric": self.metric.identity}),
            **({} if self.augmentation.crop else {"augmentation": self.augmentation.model_dump(mode="json")}),
        }

    def subnet(self, arch: Mapping[str, Value], *, progress: Progress = silent) -> nn.Module:
        """The extracted network of an arch, re-calibrated, in evaluation mode."""
        [network] = self._subnets([arch], progress)
        return network

    def _subnets(self, archs: Sequence[Mapping[str, Value]], progress: Progress = silent) -> list[nn.Module]:
        """The networks of archs of one resolution, with BN re-calibrated in one pass over the images."""
        networks = [channels_last(extract(self.supernet, arch)) for arch in archs]
        count, resolution, done = self.calibration_images, self.supernet.space.input_size(archs[0]), 0

        def batches() -> Iterator[Tensor]:
            nonlocal done
            for images in calibration_batches(
                self.data, count, resolution, seed=self.seed, augmentation=self.augmentation
            ):
                yield images
                done += len(images)
                progress("re-calibrating BN", done, count)

        recalibrate_all(networks, batches())
        return networks

    def training_images(self, resolution: Size, count: int) -> Tensor:
        """The first `count` images of the training split with the test transform: ``(count, channels, height, width)``.

        Fewer if the split is smaller. They calibrate the ranges of int8 graphs.
        """
        return torch.cat([x for x, _ in self.data.batches("train", resolution, limit=count)])

    def evaluated(self, journal: Journal) -> dict[Arch, float]:
        """The archs of the supernet's space that a journal holds, and their accuracies."""
        found = {}
        for key, accuracy in journal.entries.items():
            if not isinstance(accuracy, int | float):  # all figures of an arch, or a parity
                continue
            with suppress(InvalidValue, ValueError):  # written by another version, or another space
                pairs = [pair.partition("=") for pair in key.split(" ")]
                values = {name: int(value) if value.isdecimal() else value for name, _, value in pairs}
                found[self.supernet.space.arch(values)] = float(accuracy)
        return found

    def accuracy(self, arch: Mapping[str, Value]) -> float:
        """The metric of an arch on the validation images, usually top-1 accuracy, as a fraction."""
        [accuracy] = self._measured([arch], "validation", self.images)
        return accuracy

    def outputs(
        self, archs: Sequence[Mapping[str, Value]], split: Split, limit: int | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Outputs of archs of one resolution on a split, in one pass over the images.

        Args:
            archs: the networks.
            split: of the data.
            limit: largest number of images; all if None.

        Returns:
            outputs ``(n, classes)`` of each network, and labels.
        """
        networks = [channels_last(fold_batch_norms(network)) for network in self._subnets(archs)]
        outputs: list[list[Tensor]] = [[] for _ in archs]
        every: list[Tensor] = []
        with torch.inference_mode():
            for images, labels in self.data.batches(split, self.supernet.space.input_size(archs[0]), limit=limit):
                moved = laid_out(images)
                every.append(labels)
                for network, own in zip(networks, outputs, strict=True):
                    own.append(network(moved))
        return [torch.cat(own) for own in outputs], torch.cat(every)

    def _measured(self, archs: Sequence[Mapping[str, Value]], split: Split, limit: int | None) -> list[float]:
        """The metric of archs of one resolution on a split."""
        found, labels = self.outputs(archs, split, limit)
        return [self.metric(own, labels) for own in found]

    def test_accuracy(self, arch: Mapping[str, Value]) -> float:
        """The metric of an arch on the whole test split, as a fraction."""
        [accuracy] = self._measured([arch], "test", None)
        return accuracy

    def accuracies(
        self, archs: Sequence[Arch], journal: Journal, *, what: str, progress: Progress = silent
    ) -> list[float]:
        """`accuracy` of each arch; those in the journal are not evaluated again.

        Archs of one resolution share a pass over the images, a few at a time.
        """
        keys = [_key(arch) for arch in archs]
        waiting = [arch for key, arch in zip(keys, archs, strict=True) if key not in journal.entries]
        done = len({*keys} & {*journal.entries})
        for group, found in self._in_groups(_accuracies, waiting, what, progress, done=done):
            for arch, accuracy in zip(group, found, strict=True):
                journal.record(_key(arch), accuracy)
        return [float(journal.entries[key]) for key in keys]

    def figures(
        self, archs: Sequence[Arch], journal: Journal, *, what: str = "evaluating", progress: Progress = silent
    ) -> list[ClassificationFigures]:
        """All figures of each arch on the validation images; those in the journal are not computed again.

        They take longer than `accuracies`, because of their intervals: use them for networks that are reported.
        """
        keys = [f"{_FIGURES} {_key(arch)}" for arch in archs]
        waiting = [arch for key, arch in zip(keys, archs, strict=True) if key not in journal.entries]
        done = len({*keys} & {*journal.entries})
        for group, found in self._in_groups(_figures, waiting, what, progress, done=done):
            for arch, figures in zip(group, found, strict=True):
                journal.record(f"{_FIGURES} {_key(arch)}", figures.model_dump())
                if _key(arch) not in journal.entries:
                    journal.record(_key(arch), figures.value)
        return [ClassificationFigures.model_validate(journal.entries[key]) for key in keys]

    def _in_groups(
        self,
        run: Callable[[Evaluator, Sequence[Arch]], Sequence[Found]],
        archs: Sequence[Arch],
        what: str,
        progress: Progress,
        *,
        done: int,
    ) -> Iterator[tuple[Sequence[Arch], Sequence[Found]]]:
        """Evaluate distinct archs, groups of one resolution at a time: they share a pass over the images."""
        groups = _groups(self.supernet.space, archs, self.engine.workers)
        total = done + sum(map(len, groups))
        progress(what, done, total)
        for index, found in self.engine.map(self.source, run, groups, name=_names):
            yield groups[index], found
            done += len(groups[index])
            progress(what, done, total)


def _accuracies(evaluator: Evaluator, archs: Sequence[Arch]) -> list[float]:
    """The metric of archs of one resolution on the validation images."""
    return evaluator._measured(archs, "validation", evaluator.images)


def _figures(evaluator: Evaluator, archs: Sequence[Arch]) -> list[ClassificationFigures]:
    """All figures of archs of one resolution on the validation images."""
    found, labels = evaluator.outputs(archs, "validation", evaluator.images)
    return [figures_of(own, labels, evaluator.data.classes, evaluator.metric) for own in found]


def _key(arch: Arch) -> str:
    """The key of an arch in a journal."""
    return " ".join(f"{name}={value}" for name, value in arch.items())


def _names(archs: Sequence[Arch]) -> str:
    return f"the evaluation of {some([_key(arch) for arch in archs], most=3)}"


def _groups(space: Space, archs: Sequence[Arch], workers: int) -> list[list[Arch]]:
    """Distinct archs in groups of one size of inputs, at least as many groups as workers if there are enough archs."""
    waiting: dict[Shape, dict[Arch, None]] = {}
    for arch in archs:
        waiting.setdefault(space.input_shape(arch), {})[arch] = None
    share = math.ceil(sum(map(len, waiting.values())) / workers)
    size = max(1, min(_TOGETHER, share))
    return [list(same)[start : start + size] for same in waiting.values() for start in range(0, len(same), size)]
