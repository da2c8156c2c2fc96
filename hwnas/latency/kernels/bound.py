"""Upper bounds of the latencies of networks that were predicted from kernels.

The bound is conformal (Vovk et al., "Algorithmic Learning in a Random World", 2005): a quantile of the errors of
networks that were measured. It is normalised (Papadopoulos et al., "Inductive Confidence Machines for Regression",
2002): the error of a network is compared with what its kernels let expect. A network of convolutions, which are
predicted within a few percent, gets a bound of a few percent; one of kernels that are hard to predict gets a wide one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.latency.kernels.kernel import Kernel
from hwnas.latency.kernels.regression import Floats

_FREEDOM = 3.0  # degrees of freedom: with normal errors, two networks of 80 that were off by 2 decided the scale
_START = (math.log(0.05), 0.0)  # logarithms of the common error and of the factor


@dataclass(frozen=True, slots=True)
class Bound:
    """Upper bounds for networks like those whose errors are known.

    ``ln(measured / predicted)`` has the scale ``sqrt(common**2 + (factor * spread)**2)``.

    Attributes:
        common: of the error that every network has.
        factor: of a network's spread (`spread_of`).
        scores: the known errors over their scales, ascending.
    """

    common: float
    factor: float
    scores: Floats

    def over(self, spread: float, confidence: float) -> float | None:
        """Upper bound over prediction, at least 1; None if too few errors are known for the confidence.

        Args:
            spread: of the network (`spread_of`).
            confidence: probability that the latency is at most the bound, 0 to 1.
        """
        place = math.ceil((len(self.scores) + 1) * confidence)
        if not 0 < place <= len(self.scores):
            return None
        scale = math.hypot(self.common, self.factor * spread)
        return max(1.0, math.exp(float(self.scores[place - 1]) * scale))


def fitted_bound(errors: Sequence[float], spreads: Sequence[float]) -> Bound:
    """The bound that errors of networks support.

    The scale is the most likely one if the errors over it follow Student's distribution with `_FREEDOM` degrees of
    freedom.

    Args:
        errors: ``measured / predicted - 1``.
        spreads: of the same networks; those of tables that have none are 0.
    """
    from scipy.optimize import minimize

    if not errors:
        return Bound(0.0, 0.0, np.zeros(0))
    logs, known = np.log1p(np.array(errors, np.float64)), np.array(spreads, np.float64)

    def unlikely(terms: Floats) -> float:
        scales = np.hypot(math.exp(terms[0]), math.exp(terms[1]) * known)
        squares = (logs / scales) ** 2
        return float(np.sum(np.log(scales) + (_FREEDOM + 1) / 2 * np.log1p(squares / _FREEDOM)))

    found = minimize(unlikely, _START, method="Nelder-Mead", bounds=[(-10.0, 3.0), (-10.0, 3.0)]).x
    common, factor = math.exp(found[0]), math.exp(found[1])
    return Bound(common, factor, np.sort(logs / np.hypot(common, factor * known)))


def spread_of(kernels: Sequence[Kernel], ms: Sequence[float], spreads: Mapping[str, float]) -> float:
    """The relative error of a sum of kernels, if those of distinct kernels are independent.

    Kernels that occur several times have the same error each time.

    Args:
        kernels: of a network.
        ms: their predicted latencies, ``(kernels,)``.
        spreads: kind -> relative error of its kernels. Kinds without one are unknown, and widen a bound on their own.
    """
    shares, total = defaultdict[Kernel, float](float), sum(ms)
    for kernel, part in zip(kernels, ms, strict=True):
        shares[kernel] += part / total
    return math.hypot(*(spreads.get(kernel.kind, 0.0) * share for kernel, share in shares.items()))


def spreads_of(kernels: Sequence[Kernel], ms: Floats, predicted: Floats) -> dict[str, float]:
    """The relative error of kernels by kind: the root of the mean square of ``ln(measured / predicted)``.

    Args:
        kernels: those that were predicted without themselves.
        ms: measured latencies, ``(kernels,)``; longer kernels count more.
        predicted: predicted latencies, ``(kernels,)``.
    """
    sums = defaultdict[str, list[float]](lambda: [0.0, 0.0])
    for kernel, weight, log in zip(kernels, ms.tolist(), np.log(ms / predicted).tolist(), strict=True):
        sums[kernel.kind][0] += weight * log**2
        sums[kernel.kind][1] += weight
    return {kind: math.sqrt(squares / weights) for kind, (squares, weights) in sorted(sums.items())}
