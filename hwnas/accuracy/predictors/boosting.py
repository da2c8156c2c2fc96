"""Gradient-boosted trees on the described networks; the standard deviation is that of several fits.

Source: Friedman, "Stochastic Gradient Boosting", 2002, by scikit-learn; members are fitted with the sample weights of a
Bayesian bootstrap (Rubin, 1981).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.accuracy.predictors.base import Floats, Sample
from hwnas.accuracy.predictors.encodings import Encoding, described
from hwnas.spaces import Codes, Space

_MEMBERS = 5


@dataclass(frozen=True, slots=True)
class Boosted:
    """Fitted members.

    Attributes:
        encode: the encoding.
        members: a ``sklearn.ensemble.GradientBoostingRegressor`` each.
    """

    encode: Encoding
    members: tuple[Any, ...]

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        """Codes ``(n, variables)`` -> mean of the members and their standard deviation, ``(n,)`` each."""
        features = self.encode(codes)
        found = np.stack([member.predict(features) for member in self.members])
        return found.mean(axis=0), found.std(axis=0)


def fit_boosting(space: Space, samples: Sequence[Sample], seed: int) -> list[Boosted]:
    """Members for each sample."""
    encode = described(space)
    return [_fit(encode, codes, values, seed) for codes, values in samples]


def _fit(encode: Encoding, codes: Codes, values: Floats, seed: int) -> Boosted:
    from sklearn.ensemble import GradientBoostingRegressor  # takes a second to import

    features, rng = encode(codes), np.random.default_rng(seed)
    members = []
    for _ in range(_MEMBERS):
        weights = rng.exponential(size=len(codes))
        model = GradientBoostingRegressor(
            n_estimators=200,
            learning_rate=0.06,
            max_depth=3,
            subsample=0.7,
            max_features=0.4,
            random_state=int(rng.integers(2**31)),
        )
        members.append(model.fit(features, values, sample_weight=weights))
    return Boosted(encode, tuple(members))
