"""Regression of the latency of one kind of kernels on what it computes and moves.

The base is a roofline with overlap of neither (`Kernel.macs`, `Kernel.bytes`): it rises with work and bytes, and
extrapolates. What it misses by shape (channels that do not fill a vector, tall or flat matrices) is learned by gradient
boosting on the logarithm of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hwnas.latency.kernels.kernel import SEVERAL, Kernel

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import ThreadpoolController

Floats = npt.NDArray[np.float64]

_AXES = 5  # axes of a shape that are features, counted from the last
_SHAPES = 3  # inputs whose shapes are features
_FEW = 40  # fewer rows do not support boosting: the base alone predicts
_REMAINDERS = (8, 16, 64)  # elements of a vector register, of two, and int8 ones of a matrix register's row
_ROW = 64  # int8 elements of a row of a matrix register: products of rows of 196 took a third longer than of 192
_OF_TRANSPOSES = ("perm=", SEVERAL)  # what they cost is that of runs
_ROUNDS = 10  # of least squares of logarithms
_LEAST_RATIO = 1e-3
_TO_ZERO = 0.01  # weight of a cost of a trait per call, where a kernel has 1
_LEAST_LEAF = 6
_MOST = math.log(20.0)  # the ratio to the base is kept within this


def features(kernel: Kernel) -> list[float]:
    """Numbers that a kernel's time depends on, for trees: logarithms of sizes, ratios, and remainders of channels."""
    macs, weight = kernel.macs or 0, kernel.weight
    given, made = kernel.inputs[0] if kernel.inputs else (), kernel.outputs[0] if kernel.outputs else ()
    elements = [math.prod(shape) for shape in kernel.inputs]
    found = [
        _log(macs),
        _log(kernel.bytes),
        macs / max(1, kernel.bytes),
        len(kernel.inputs),
        len(kernel.outputs),
        _log(math.prod(made)),
        _log(sum(elements)),
        _log(max(elements[1:], default=0)),
        math.prod(made) / max(1, math.prod(given)),
    ]
    # Scales and zero points of int8 kernels stand before their weights.
    others = sorted(kernel.inputs[1:], key=math.prod, reverse=True)
    shapes = [made, given, *others, *[()] * _SHAPES]
    for shape in shapes[: 1 + _SHAPES]:
        last = list(shape[::-1][:_AXES])
        found += [len(shape), *map(_log, last), *[-1.0] * (_AXES - len(last))]
    if weight is not None and len(given) > 1 and made:
        axis = kernel.channel_axis
        sides = -1 if axis == 1 else -2
        kernel_area, grouped = math.prod(weight[-(len(given) - 2) :]), len(weight) - len(given)
        per_group = weight[1 + grouped]
        groups = weight[0] if grouped else max(1, given[axis] // max(1, per_group))
        found += [_log(kernel_area), _log(groups), _log(per_group), given[sides] / max(1, made[sides])]
        found += [float(shape[axis] % size) for shape in (given, made) for size in _REMAINDERS]
    else:
        ends = (made[-1] if made else 1, given[-1] if given else 1)
        found += [-1.0] * 4 + [float(end % size) for end in ends for size in _REMAINDERS]
    together = _copied(kernel)
    steps = math.prod(given) // max(1, together)
    # A walk over lines that are a power of 2 apart shares few sets of a cache: a mean over the sides of 1x56x56x256
    # takes 4.4 ns per element in ONNX Runtime, one of 1x56x56x384 takes 1.5.
    conflicts = steps * (together & -together)
    return [float(number) for number in (*found, _log(together), _log(conflicts), _padding(kernel))]


def _copied(kernel: Kernel) -> int:
    """Elements that are adjacent in memory before and after.

    Elements of the last axes that a transpose keeps in their places, or that the first input and the output of another
    kernel share. A mean over the sides of 1x56x56x256 takes 3.5 ms in ONNX Runtime, one of 1x256x56x56 takes 0.06.
    """
    together = 1
    if kernel.permutation is None:
        given, made = kernel.inputs[0] if kernel.inputs else (), kernel.outputs[0] if kernel.outputs else ()
        for before, after in zip(reversed(given), reversed(made), strict=False):
            if before != after:
                break
            together *= before
        return together
    for axis in reversed(range(len(kernel.permutation))):
        if kernel.permutation[axis] != axis:
            break
        together *= kernel.inputs[0][axis]
    return together


def _broadcast(kernel: Kernel) -> int:
    """Adjacent outputs for which all inputs are read in a row, or stay the same; all of them without a broadcast."""
    made = kernel.outputs[0] if kernel.outputs else ()
    least = math.prod(made)
    for given in kernel.inputs if kernel.permutation is None else ():
        padded = (1,) * (len(made) - len(given)) + given
        if len(padded) > len(made) or any(size not in (1, side) for size, side in zip(padded, made, strict=True)):
            continue  # not broadcast: axes, indices, weights
        axes = [*zip(padded[::-1], made[::-1], strict=True)]
        read = math.prod(side for _, side in takewhile(lambda axis: axis[0] == axis[1], axes))
        same = math.prod(side for _, side in takewhile(lambda axis: axis[0] == 1, axes))
        least = min(least, max(read, same))
    return max(1, least)


class KindRegression:
    """Latencies of the kernels of one kind.

    Args:
        kernels: those that were measured.
        ms: their latencies, ``(kernels,)``.
        weights: how much each counts in the boosting, ``(kernels,)``.
        traits: whether traits count; those of all kinds together say nothing of another kind.
    """

    def __init__(self, kernels: Sequence[Kernel], ms: Floats, weights: Floats, *, traits: bool = True) -> None:
        kernels = [kernel.simplest for kernel in kernels]
        self._traits = sorted({trait for kernel in kernels for trait in kernel.traits}) if traits else []
        self._costs = [trait for trait in self._traits if not trait.startswith(_OF_TRANSPOSES)]
        work = self._columns(kernels)
        self._base = _fitted_base(work, ms, len(self._costs))
        self._boosted: HistGradientBoostingRegressor | None = None
        ratio = np.log(ms / self._base_ms(work))
        self._offset = float(np.average(ratio, weights=weights))
        if len(kernels) >= _FEW:
            from sklearn.ensemble import HistGradientBoostingRegressor

            boosted = HistGradientBoostingRegressor(
                max_iter=150,
                learning_rate=0.12,
                min_samples_leaf=_LEAST_LEAF,
                l2_regularization=1.0,
                random_state=0,
            )
            with _one_thread():
                self._boosted = boosted.fit(self._matrix(kernels), ratio, sample_weight=weights)

    def predict(self, kernels: Sequence[Kernel]) -> Floats:
        """Latencies in milliseconds, ``(kernels,)``."""
        kernels = [kernel.simplest for kernel in kernels]
        base = self._base_ms(self._columns(kernels))
        ratio = np.full(len(kernels), self._offset)
        if self._boosted is not None:
            with _one_thread():
                ratio = self._boosted.predict(self._matrix(kernels))
        return np.asarray(base * np.exp(np.clip(ratio, -_MOST, _MOST)), np.float64)

    def _matrix(self, kernels: Sequence[Kernel]) -> Floats:
        """The features, and how often each trait occurs: ``(kernels, features + traits)``.

        Traits are apart, because combinations are many: OpenVINO drops a bias of zeros, which left kernels of published
        networks with drawn weights in none of the combinations that were measured.
        """
        return np.array(
            [[*features(kernel), *map(kernel.traits.count, self._traits)] for kernel in kernels], np.float64
        )

    def _columns(self, kernels: Sequence[Kernel]) -> Floats:
        """What the base sums: the work of the kernel, and what each trait adds to a call and to each output.

        A cubic resize takes 100 times as long as a linear one. With eight of them in a profile, boosting alone found a
        factor of 15.
        """
        own = np.array([_work(kernel) for kernel in kernels])
        found = np.array([[kernel.traits.count(trait) for trait in self._costs] for kernel in kernels], np.float64)
        found = found.reshape(len(kernels), len(self._costs))
        made = np.array([[math.prod(kernel.outputs[0]) if kernel.outputs else 0] for kernel in kernels]) / 1e6
        return np.concatenate([own, found * made, found], axis=1)

    def _base_ms(self, work: Floats) -> Floats:
        return np.asarray(np.maximum(work @ self._base, 1e-9), np.float64)


def _work(kernel: Kernel) -> list[float]:
    """What costs: a call; in millions, multiply-accumulates, depthwise ones, bytes, outputs in small groups, and runs.

    Depthwise convolutions are of another algorithm: OpenVINO computes 7 to 20 GMAC/s of them, and in groups of 16, 32
    and 64 channels 25, 45 and 66.

    Outputs in small groups are what small products cost whatever their size: in int8, ONNX Runtime computes 3 GMAC/s in
    groups of 4 channels, 10 in groups of 8, and 90 without groups. Runs are of adjacent elements that stay adjacent, or
    of those between two steps of a broadcast: adding 4 numbers to 1x196x196x4 takes 32 ns for each row of 4 in int8.
    They count twice, once for transposes of several axes alone, which ONNX Runtime copies run by run.
    """
    weight, macs, depthwise, small, runs, several = kernel.weight, kernel.macs or 0, 0, 0, 0, 0
    given, made = kernel.inputs[0] if kernel.inputs else (), kernel.outputs[0] if kernel.outputs else ()
    if weight is not None and made:
        grouped = len(weight) - len(given)
        channels, filters, per_group = given[kernel.channel_axis], math.prod(weight[: 1 + grouped]), weight[1 + grouped]
        if per_group == 1 and filters == channels:
            macs, depthwise = 0, macs
        elif per_group < channels:
            small = math.prod(made) * math.prod(weight[2 + grouped :])
    elif not kernel.macs:
        runs = max(math.prod(given) // max(1, _copied(kernel)), math.prod(made) // max(1, _broadcast(kernel)))
        several = runs * kernel.traits.count(SEVERAL)
    return [1.0, *(number / 1e6 for number in (macs, depthwise, kernel.bytes, small, runs, several))]


def _padding(kernel: Kernel) -> float:
    """The length of a product's rows when they fill registers of `_ROW` elements, over their length; 1 for others."""
    if not kernel.macs or kernel.weight is not None or not kernel.inputs[0]:
        return 1.0
    length = kernel.inputs[0][-1]
    return math.ceil(length / _ROW) * _ROW / length


def _fitted_base(work: Floats, ms: Floats, calls: int) -> Floats:
    """Costs of the columns of `KindRegression._columns`, none below 0, by least squares of logarithms.

    Args:
        work: the columns, ``(kernels, columns)``.
        ms: latencies, ``(kernels,)``.
        calls: number of the last columns, costs of traits per call. They are drawn to 0 a little: a trait of a single
            kernel costs by its outputs.
    """
    from scipy.optimize import nnls

    drawn = np.zeros((calls, work.shape[1]))
    drawn[:, work.shape[1] - calls :] = np.eye(calls) * _TO_ZERO / float(np.median(ms))

    def solve(terms: Floats, sums: Floats) -> Floats:
        found, _ = nnls(np.concatenate([terms, drawn]), np.concatenate([sums, np.zeros(calls)]))
        return np.asarray(found, np.float64)

    found = of_logarithms(work / ms[:, None], solve)
    if not found.any():
        found[0] = float(np.median(ms))
    found[0] = max(found[0], 0.1 * float(ms.min()))
    return found


def of_logarithms(terms: Floats, solve: Callable[[Floats, Floats], Floats]) -> Floats:
    """The factors of terms whose sums are close to 1 by the squares of their logarithms.

    Least squares of relative errors count a sum of 100 as 10,000, and one of 1/100 as 1: one resize to the same size, a
    copy, made all cubic resizes cheap. Here the squares are weighted, in rounds, by those of the logarithms over them.

    Args:
        terms: ``(rows, terms)``, each divided by what its row sums to.
        solve: least squares of weighted terms ``(rows, terms)`` and what they should sum to ``(rows,)``.
    """
    weights = np.ones(len(terms))
    for _ in range(_ROUNDS):
        found = np.asarray(solve(terms * weights[:, None], weights), np.float64)
        ratio = np.maximum(terms @ found, _LEAST_RATIO)
        off = ratio - 1
        near = np.abs(off) < 1e-6
        weights = np.where(near, 1.0, np.log(ratio) / np.where(near, 1.0, off))
    return found


def _one_thread() -> AbstractContextManager[object]:
    """Boosting on one thread: with two beside other work, threads that wait for each other took eight times as long."""
    limits: AbstractContextManager[object] = _pools().limit(limits=1, user_api="openmp")
    return limits


@cache
def _pools() -> ThreadpoolController:
    """The libraries with threads that are loaded; to find them took a seventh of the time of a table's errors."""
    import sklearn.ensemble  # noqa: F401 - it loads the library whose threads are limited
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _log(number: float) -> float:
    return math.log1p(number)
