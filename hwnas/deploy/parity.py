"""Parity: outputs of the lowered program in its runtime compared with those of the torch network, on real images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.accuracy import Evaluator
from hwnas.accuracy.evaluate import logits
from hwnas.deploy.manifest import ParityReport
from hwnas.errors import (
    BundleError,
    GraphError,
    InvalidValue,
    OutputError,
    ParityError,
    ProgramCrashed,
    RuntimeUnavailable,
    SpecError,
)
from hwnas.files import Journal, reason_of
from hwnas.lowering import Program
from hwnas.progress import Progress, silent
from hwnas.runtimes import open_session, session_class
from hwnas.runtimes.base import Array, Session
from hwnas.spaces import Arch
from hwnas.targets import Recipe, saturates_here
from hwnas.tasks.base import Metric
from hwnas.tasks.metrics import TOP1, difference_of, figures_of


def compare(
    network: nn.Module,
    program: Program | Path,
    recipe: Recipe,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    images: int | None = None,
    metric: Metric = TOP1,
    classes: Sequence[str] | None = None,
    probabilities: bool = False,
    any_batch: bool = False,
    progress: Progress = silent,
) -> tuple[ParityReport, str | None]:
    """Compare a network with its lowered program on images.

    Args:
        network: the torch network before BN was folded, in evaluation mode.
        program: the program from `Form.lower`, or its file.
        recipe: defines the runtime and the limits.
        batches: images ``(n, channels, height, width)`` and labels; one batch is in memory at a time.
        images: total number of images, for `progress`.
        metric: what is reported of both networks; its task decides when two answers agree.
        classes: names of the classes; with them, the report has figures of each class.
        probabilities: whether network and program include the activation of the metric's task.
        any_batch: run each batch at once, through a program with a symbolic batch axis.
        progress: callback, invoked after every batch.

    Returns:
        the report, and which limits of the recipe's ``[parity]`` are exceeded, with the figures; None if none is.

    Raises:
        ParityError: an output is not finite.
    """
    pairs, results, done = [], [], 0
    with open_session(program, recipe, any_batch=any_batch) as session:
        for batch in batches:
            pairs.append(logits(network, [batch]))
            results.append(outputs(session, batch[0].numpy()))
            done += len(batch[1])
            progress("checking parity", done, images or done)
    expected, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    got = torch.from_numpy(np.concatenate(results))
    if not (got.isfinite().all() and expected.isfinite().all()):
        raise ParityError(
            f"on some of {len(labels)} images the outputs of the torch network or of the lowered one are NaN or "
            "infinite: train the network again"
        )
    error = float((got - expected).abs().max())
    cosine = float(torch.cosine_similarity(got.double(), expected.double(), dim=1).min())
    if probabilities:
        got, expected = metric.task.of_probabilities(got), metric.task.of_probabilities(expected)
    report = ParityReport(
        images=len(labels),
        max_abs_error=error,
        min_cosine=cosine,
        top1_agreement=metric.task.agreement(got, expected),
        metric=metric.name,
        torch_accuracy=metric(expected, labels),
        deployed_accuracy=metric(got, labels),
        difference=difference_of(metric, got, expected, labels),
        figures=figures_of(got, labels, classes, metric) if classes else None,
    )
    return report, _refusal(report, recipe, outputs=expected.shape[1])


def _refusal(report: ParityReport, recipe: Recipe, *, outputs: int) -> str | None:
    limits = recipe.parity
    exceeded = {
        f"max_abs_error {report.max_abs_error:.3g} > {limits.max_abs_error:.3g}": report.max_abs_error
        > limits.max_abs_error,
        # Two logits are nearly (-z, z): their cosine is -1 or 1, and depends only on whether the class is the same.
        # `top1_agreement` is the share of those images.
        f"min_cosine {report.min_cosine:.6f} < {limits.min_cosine:.6f}": outputs > 2
        and report.min_cosine < limits.min_cosine,
        f"top1_agreement {report.top1_agreement:.4f} < {limits.min_top1_agreement:.4f}": report.top1_agreement
        < limits.min_top1_agreement,
    }
    if not any(exceeded.values()):
        return None
    return (
        f"the lowered network differs from the torch network on {report.images} images under {recipe.name}: "
        + "; ".join(text for text, bad in exceeded.items() if bad)
        + (f". {why}" if (why := saturates_here(recipe)) else "")
        + ". The limits are in [parity] of the recipe."
    )


def check_parity(
    network: nn.Module,
    program: Program | Path,
    recipe: Recipe,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    images: int | None = None,
    metric: Metric = TOP1,
    classes: Sequence[str] | None = None,
    probabilities: bool = False,
    any_batch: bool = False,
    progress: Progress = silent,
) -> ParityReport:
    """As `compare`, for a program that must be within the limits.

    Raises:
        ParityError: a limit of the recipe's ``[parity]`` is exceeded (the message has the figures), or an output is not
            finite.
    """
    report, why = compare(
        network,
        program,
        recipe,
        batches,
        images=images,
        metric=metric,
        classes=classes,
        probabilities=probabilities,
        any_batch=any_batch,
        progress=progress,
    )
    if why:
        raise ParityError(why)
    return report


def outputs(session: Session, images: Array) -> Array:
    """Run images ``(n, ...)``: at once, or in batches of the recipe's, the last padded with its first image."""
    if session.any_batch:
        return session.run(np.ascontiguousarray(images, session.dtype))
    batch, results = session.recipe.batch, []
    for start in range(0, len(images), batch):
        part = np.ascontiguousarray(images[start : start + batch], session.dtype)
        missing = batch - len(part)
        full = np.concatenate([part, np.repeat(part[:1], missing, axis=0)]) if missing else part
        results.append(session.run(full)[: len(part)])
    return np.concatenate(results)


# Errors that affect a single recipe of several; it is then left out with the reason. They include a full disk and a
# limit of processes: some runtimes write gigabytes and start compilers, others do not.
OF_ONE_RECIPE = (
    *(BundleError, GraphError, InvalidValue, OutputError, ParityError, ProgramCrashed, RuntimeUnavailable, SpecError),
    OSError,
)


def told(error: Exception) -> str:
    """The message of an error in `OF_ONE_RECIPE`: why its recipe is left out."""
    return reason_of(error) if isinstance(error, OSError) else str(error)


def parity_key(arch: Arch, metric: Metric, recipe: Recipe) -> str:
    """The key of a parity in a journal: arch, recipe and version of the runtime.

    Raises:
        RuntimeUnavailable: the runtime cannot run on this host.
    """
    of = "" if metric is TOP1 else f"{metric.identity} "
    version = session_class(recipe).version()
    return f"{recipe.model_dump_json()} {version} {of}" + " ".join(f"{n}={v}" for n, v in arch.items())


def measured_parity(
    arch: Arch,
    evaluator: Evaluator,
    recipe: Recipe,
    lowered: Callable[[], tuple[nn.Module, Program | Path]],
    progress: Progress = silent,
) -> tuple[ParityReport, str | None]:
    """As `deployed_parity`, without a journal."""
    network, program = lowered()
    available = evaluator.data.size("validation")
    return compare(
        network,
        program,
        recipe,
        evaluator.data.batches("validation", evaluator.supernet.space.input_size(arch), limit=evaluator.images),
        images=min(evaluator.images or available, available),
        metric=evaluator.metric,
        classes=evaluator.data.classes,
        progress=progress,
    )


def deployed_parity(
    arch: Arch,
    evaluator: Evaluator,
    recipe: Recipe,
    journal: Journal,
    lowered: Callable[[], tuple[nn.Module, Program | Path]],
    progress: Progress = silent,
) -> tuple[ParityReport, str | None]:
    """Parity of a network in the recipe's runtime on the validation images, and why it is refused (`compare`).

    Args:
        arch: the network.
        evaluator: defines the images.
        recipe: the recipe with the limits of parity.
        journal: record of results, by arch, recipe and version of the runtime; those in it are not computed again. A
            refused one is not recorded: another host or version of hwnas may accept it.
        lowered: returns the torch network and its program, or its file; called if the journal has no result.
        progress: callback, invoked after every batch.

    Raises:
        BundleError: the runtime cannot load the program.
        ParityError: an output is not finite.
        RuntimeUnavailable: the runtime cannot run on this host.
    """
    key = parity_key(arch, evaluator.metric, recipe)
    if key not in journal.entries:
        report, why = measured_parity(arch, evaluator, recipe, lowered, progress)
        if why:
            return report, why
        journal.record(key, report.model_dump())
    return ParityReport.model_validate(journal.entries[key]), None
