"""An additive model of accuracy, in the form that search works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue
from hwnas.spaces import Codes, SlotSum, Space

Floats = npt.NDArray[np.float64]

_STRENGTHS = tuple(float(s) for s in np.logspace(-3, 3, 25))
_TREND = 2.0  # larger is better on the whole: a variable's trend is shrunk this much less than single values
_INTERACTION = 0.5  # what a value does at one resolution rather than at all is shrunk this much more


@dataclass(frozen=True, slots=True)
class _Term:
    """A part of the sum: the columns that it reads, and the features of each of their values, ``(*choices, f)``."""

    axes: tuple[int, ...]
    basis: Floats

    def features(self, codes: Codes) -> Floats:
        found: Floats = self.basis[tuple(codes[:, axis] for axis in self.axes)]
        return found


def fit_accuracy(space: Space, codes: Codes, accuracies: Floats) -> tuple[SlotSum, float]:
    """Fit ``accuracy = constant + Σ over variables that matter  effect of the variable's value``.

    The effect of a value may differ with the variables that slots of several groups read (the resolution): a larger
    kernel is worth more on a larger image. The sum is no harder to search for it, because exact search holds those.
    Ridge regression on a trend and an indicator of each value; its strength minimises the leave-one-out error.

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
    terms = _terms(space)
    blocks = [term.features(codes) for term in terms]
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
    ends = np.cumsum([block.shape[1] for block in blocks])
    arrays = [term.basis @ own for term, own in zip(terms, np.split(weights, ends[:-1]), strict=True)]
    model = SlotSum(
        constant=float(mean - centre @ weights), axes=tuple(term.axes for term in terms), arrays=tuple(arrays)
    )
    return model, float(np.abs(leave_one_out(best)).mean())


def _terms(space: Space) -> list[_Term]:
    """A term for each variable, and one for each pair of a variable and one that slots of several groups read."""
    shared = [space.column[name] for name in space.shared]
    terms = []
    for i, variable in enumerate(space.variables):
        own = _Term((i,), _basis(len(variable.values)))
        if variable.requires is not None:
            # Where the variable does not matter it has no effect.
            name, least = variable.requires
            matters = np.array(space.variable(name).values) >= least
            own = _Term((space.column[name], i), matters[:, None, None] * own.basis)
        terms.append(own)
        terms += [_interaction(space, held, own) for held in shared if held not in own.axes]
    return terms


def _interaction(space: Space, held: int, own: _Term) -> _Term:
    """The features of a term once for each value of another variable."""
    values = len(space.variables[held].values)
    each = np.einsum("hg,...f->h...gf", np.eye(values), _INTERACTION * own.basis)
    return _Term((held, *own.axes), each.reshape(*each.shape[:-2], -1))


def _basis(values: int) -> Floats:
    """Features of each value of a variable, ``(values, 1 + values)``: a trend and an indicator."""
    trend = np.linspace(-1, 1, values) if values > 1 else np.zeros(1)
    return np.column_stack([_TREND * trend, np.eye(values)])
