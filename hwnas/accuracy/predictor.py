"""An additive model of accuracy, in the form that search works on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue
from hwnas.spaces import Codes, SlotSum, Space

Floats = npt.NDArray[np.float64]

_STRENGTHS = tuple(float(s) for s in np.logspace(-3, 3, 25))
_TREND = 2.0  # larger is better on the whole: a variable's trend is shrunk this much less than single values


def fit_accuracy(space: Space, codes: Codes, accuracies: Floats) -> tuple[SlotSum, float]:
    """Fit ``accuracy = constant + Σ over variables that matter  effect of the variable's value``.

    Ridge regression on a trend and an indicator of each value for each variable; its strength minimises the
    leave-one-out error.

    Args:
        space: the space.
        codes: evaluated networks, ``(n, variables)``.
        accuracies: as fractions, ``(n,)``.

    Returns:
        the model, and its leave-one-out mean absolute error.

    Raises:
        InvalidValue: fewer than 8 networks.
    """
    if len(codes) < 8:
        raise InvalidValue(f"an accuracy model needs at least 8 evaluated networks, not {len(codes)}")
    blocks = [_features(space, codes, i) for i in range(len(space.variables))]
    x = np.concatenate(blocks, axis=1)
    centre, mean = x.mean(axis=0), accuracies.mean()
    u, s, vt = np.linalg.svd(x - centre, full_matrices=False)
    projected = u.T @ (accuracies - mean)

    def leave_one_out(strength: float) -> Floats:
        """Errors of predicting each network from the others (closed form; Hastie et al., ESL, equation 7.52)."""
        shrunk = s**2 / (s**2 + strength)
        hat = (u**2 * shrunk).sum(axis=1) + 1 / len(x)
        errors: Floats = (accuracies - mean - u @ (shrunk * projected)) / (1 - hat)
        return errors

    best = min(_STRENGTHS, key=lambda strength: float((leave_one_out(strength) ** 2).mean()))
    weights = vt.T @ (s / (s**2 + best) * projected)
    axes: list[tuple[int, ...]] = []
    arrays: list[Floats] = []
    start = 0
    for i, (variable, block) in enumerate(zip(space.variables, blocks, strict=True)):
        own = weights[start : start + block.shape[1]]
        start += block.shape[1]
        effects = _basis(len(variable.values)) @ own
        if variable.requires is None:
            axes.append((i,))
            arrays.append(effects)
        else:
            # Where the variable does not matter it has no effect.
            axes.append((space.column[variable.requires[0]], i))
            arrays.append(_matters(space, i)[:, None] * effects)
    constant = float(mean - centre @ weights)
    model = SlotSum(constant=constant, axes=tuple(axes), arrays=tuple(arrays))
    return model, float(np.abs(leave_one_out(best)).mean())


def _basis(values: int) -> Floats:
    """Features of each value of a variable, ``(values, 1 + values)``: a trend and an indicator."""
    trend = np.linspace(-1, 1, values) if values > 1 else np.zeros(1)
    return np.column_stack([_TREND * trend, np.eye(values)])


def _matters(space: Space, column: int) -> Floats:
    """For each value of the variable that a variable requires: 1 where it matters, 0 where not."""
    name, least = space.variables[column].requires or ("", 0)
    return (np.array(space.variable(name).values) >= least).astype(np.float64)


def _features(space: Space, codes: Codes, column: int) -> Floats:
    features = _basis(len(space.variables[column].values))[codes[:, column]]
    requires = space.variables[column].requires
    if requires is not None:
        features = features * _matters(space, column)[codes[:, space.column[requires[0]]]][:, None]
    return features
