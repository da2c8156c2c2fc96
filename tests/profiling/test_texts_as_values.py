"""Baselines of a validation on a space whose variables have texts as values."""

from __future__ import annotations

import numpy as np

from hwnas.profiling.baselines import _features
from hwnas.spaces import make_space


def test_a_text_is_a_column_for_each_value() -> None:
    space = make_space("sequence").fix(depth=[1, 2])
    codes = space.sample(50, seed=0)
    features = _features(space, codes)
    columns = sum(1 if isinstance(v.values[0], int) else len(v.values) for v in space.variables)
    assert features.shape == (50, 2 + columns)
    assert features.dtype == np.float64
    archs = [space.describe(arch) for arch in space.decode(codes)]
    at = 2
    for variable in space.variables:
        found = [arch.get(variable.name, 0) for arch in archs]
        if isinstance(variable.values[0], int):
            assert features[:, at].tolist() == found
            at += 1
            continue
        for value in variable.values:
            assert features[:, at].tolist() == [float(one == value) for one in found]
            at += 1
