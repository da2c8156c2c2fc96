"""Test suites for extensions: import one into a test file, and subclass it.

pytest is imported with a suite: `pip install 'hwnas[testing]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.lazy import lazily

if TYPE_CHECKING:
    from hwnas.testing.datasets import DatasetSuite, TokenSuite
    from hwnas.testing.predictors import PredictorSuite
    from hwnas.testing.sessions import SessionSuite
    from hwnas.testing.spaces import SpaceSuite
    from hwnas.testing.strategies import StrategySuite

__all__ = ["DatasetSuite", "PredictorSuite", "SessionSuite", "SpaceSuite", "StrategySuite", "TokenSuite"]

__getattr__ = lazily(
    __name__,
    {
        "datasets": ("DatasetSuite", "TokenSuite"),
        "predictors": ("PredictorSuite",),
        "sessions": ("SessionSuite",),
        "spaces": ("SpaceSuite",),
        "strategies": ("StrategySuite",),
    },
)
