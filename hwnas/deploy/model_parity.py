"""Parity of a user's model: each output of a program compared with that of the graph in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hwnas.deploy.model_manifest import ModelParity, OutputParity
from hwnas.errors import ParityError
from hwnas.models.metrics import METRICS
from hwnas.models.samples import Samples
from hwnas.runner.signature import Feeds
from hwnas.targets import Recipe, saturates_here

Array = npt.NDArray[Any]
_TINY = 1e-30
_FAINT = 0.01  # share of the largest norm of an output below which its direction is not compared


def compare_outputs(
    expected: Sequence[Feeds], got: Sequence[Feeds], samples: Samples, metric: str | None = None
) -> ModelParity:
    """The parity of a program.

    Args:
        expected: outputs of the graph in fp32, one entry per sample.
        got: those of the program.
        samples: the inputs, with the labels of the first output.
        metric: of the labels, a key of `hwnas.models.metrics.METRICS`; None compares outputs only.

    Raises:
        DataError: the labels have another shape than the first output.
        ParityError: the program has other outputs, or values that are not finite.
    """
    names = list(expected[0])
    outputs = []
    for name in names:
        pairs = [(np.asarray(a[name]), np.asarray(b[name])) for a, b in zip(expected, got, strict=True)]
        for number, (a, b) in enumerate(pairs):
            if a.shape != b.shape:
                raise ParityError(f"the output {name} has the shape {list(b.shape)}, in fp32 {list(a.shape)}")
            if b.dtype.kind == "f" and not np.isfinite(b).all():
                raise ParityError(f"the output {name} has NaN or infinite values on sample {number}")
        outputs.append(_output(name, pairs))
    labels = samples.labels
    reference, deployed, constant = None, None, None
    if metric is not None and labels is not None:
        known = METRICS[metric]
        reference, deployed = (known.value([each[names[0]] for each in of], labels) for of in (expected, got))
        constant = None if known.constant is None else known.constant(labels)
    return ModelParity(
        samples=len(expected),
        random=samples.random,
        outputs=outputs,
        metric=metric,
        reference=reference,
        deployed=deployed,
        constant=constant,
    )


def _output(name: str, pairs: Sequence[tuple[Array, Array]]) -> OutputParity:
    wide = [(a.astype(np.float64), b.astype(np.float64)) for a, b in pairs]
    floats = pairs[0][0].dtype.kind == "f"
    rows = [(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])) for a, b in wide if a.ndim and a.shape[-1] > 1]
    if not floats:
        same: float | None = float(np.mean([np.mean(a == b) for a, b in wide]))
    else:
        same = float(np.mean([np.mean(a.argmax(1) == b.argmax(1)) for a, b in rows])) if rows else None
    return OutputParity(
        name=name,
        largest=max(float(np.abs(a).max(initial=0.0)) for a, _ in wide),
        max_abs_error=max(float(np.abs(a - b).max(initial=0.0)) for a, b in wide),
        # A single element has no direction.
        min_cosine=_min_cosine(wide) if floats and wide[0][0].size > 1 else None,
        same=same,
    )


def _min_cosine(pairs: Sequence[tuple[Array, Array]]) -> float:
    """The smallest cosine similarity over the samples, without those whose output is faint beside that of others.

    The direction of a faint output is that of rounding errors: on random images, the map of a text detector was below
    4e-5 everywhere on one and reached 0.05 on another. Faint outputs are compared by their largest error.
    """
    norms = [float(np.linalg.norm(a)) for a, _ in pairs]
    least = _FAINT * max(norms)
    return min(_cosine(a.ravel(), b.ravel()) for (a, b), norm in zip(pairs, norms, strict=True) if norm >= least)


def _cosine(a: Array, b: Array) -> float:
    """Cosine similarity; 1 for two vectors of zeros."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms < _TINY:
        return 1.0 if np.allclose(a, b) else 0.0
    return float(a @ b) / norms


def exceeded(parity: ModelParity, recipe: Recipe) -> str | None:
    """Which limits of a recipe's ``[parity]`` a program exceeds, with the figures; None if none.

    The largest difference is a share of the output's largest magnitude. Random inputs do not count for `same`: their
    answers mean nothing.
    """
    limits, found = recipe.parity, []
    for one in parity.outputs:
        accepted = limits.max_abs_error * (one.largest or 1.0)
        if one.max_abs_error > accepted:
            found.append(f"{one.name}: max_abs_error {one.max_abs_error:.3g} > {accepted:.3g}")
        if one.min_cosine is not None and one.min_cosine < limits.min_cosine:
            found.append(f"{one.name}: min_cosine {one.min_cosine:.6f} < {limits.min_cosine:.6f}")
        if not parity.random and one.same is not None and one.same < limits.min_top1_agreement:
            found.append(f"{one.name}: the same on {one.same:.4f} < {limits.min_top1_agreement:.4f}")
    if not found:
        return None
    why = saturates_here(recipe)
    return "; ".join(found) + (f". {why}" if why else "") + ". The limits are in [parity] of the recipe"
