"""A Gaussian process on the described networks.

A sum of a linear and a Matérn 5/2 kernel, whose parameters maximise the marginal likelihood (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", 2006, sections 2.2, 4.2 and 5.4.1), by scikit-learn.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.accuracy.predictors.base import Floats, Sample
from hwnas.accuracy.predictors.encodings import COSTS, Encoding, described
from hwnas.spaces import Codes, Space

_ENOUGH = 500  # networks for estimating the kernel, which takes cubic time


@dataclass(frozen=True, slots=True)
class Process:
    """A fitted process.

    Attributes:
        encode: the encoding.
        inputs: mean and scale of the features, ``(2, features)``.
        process: a ``sklearn.gaussian_process.GaussianProcessRegressor``.
        noise: variance of the noise of a value.
    """

    encode: Encoding
    inputs: Floats
    process: Any
    noise: float

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        """Codes ``(n, variables)`` -> posterior means and standard deviations, ``(n,)`` each."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of variances that rounding makes negative, which are set to 0
            mean, deviation = self.process.predict(
                (self.encode(codes) - self.inputs[0]) / self.inputs[1], return_std=True
            )
        return mean, np.sqrt(np.maximum(deviation**2 - self.noise, 0.0))


def fit_gp(space: Space, samples: Sequence[Sample], seed: int) -> list[Process]:
    """A process for each sample."""
    encode = described(space)
    return [_fit(encode, codes, values, seed) for codes, values in samples]


def _fit(encode: Encoding, codes: Codes, values: Floats, seed: int) -> Process:
    from sklearn.gaussian_process import GaussianProcessRegressor  # takes a second to import
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    features = encode(codes)
    spread = features.std(axis=0)
    # Both parts, the variables and the cost, have length 1 on average, whatever their number of features.
    sizes = np.where(np.arange(len(spread)) < len(spread) - COSTS, len(spread) - COSTS, COSTS)
    inputs = np.stack([features.mean(axis=0), np.where(spread > 1e-9, spread, 1.0) * np.sqrt(sizes)])
    x = (features - inputs[0]) / inputs[1]
    linear = ConstantKernel(1.0, (1e-6, 1e3)) * DotProduct(sigma_0=0.0, sigma_0_bounds="fixed")
    smooth = ConstantKernel(1.0, (1e-6, 1e3)) * Matern(1.0, (0.1, 30.0), nu=2.5)
    kernel = linear + smooth + WhiteKernel(0.1, (1e-5, 10.0))
    rows = np.random.default_rng(seed).permutation(len(codes))[:_ENOUGH]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters at their bounds: kernels that the values do not support
        kernel = GaussianProcessRegressor(kernel, alpha=1e-8).fit(x[rows], values[rows]).kernel_
        process = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=None).fit(x, values)
    return Process(encode, inputs, process, float(kernel.k2.noise_level))
