"""The interface of predictors, and the record of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hwnas.spaces import Codes, Space

Floats = npt.NDArray[np.float64]
Sample = tuple[Codes, Floats]
"""Networks ``(n, variables)`` and their values ``(n,)``."""


class Fitted(Protocol):
    """A predictor that was fitted on networks of one space."""

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        """Codes ``(n, variables)`` -> means and standard deviations of the values, ``(n,)`` each.

        The standard deviation is that of the mean: it does not contain the noise of evaluations or measurements.
        """
        ...


Fit = Callable[[Space, Sequence[Sample], int], Sequence[Fitted]]
"""A space, samples and a seed -> a fitted predictor for each sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A predictor, described without loading its libraries.

    Attributes:
        fit: the function that fits it, or its path, ``package.module:name``: a `Fit`. It gets canonical codes, and
            values with mean 0 and standard deviation 1 (all 0 if they are equal); it may fit all samples at the same
            time.
        cells: whether it encodes spaces of cells only.
    """

    fit: str | Fit
    cells: bool = False
