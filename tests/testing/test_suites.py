"""What comes with hwnas keeps the rules that extensions are held to."""

from __future__ import annotations

import pytest

from hwnas.data import ClutteredDigits, Data
from hwnas.search import STRATEGIES
from hwnas.spaces import Space, make_space
from hwnas.testing import DatasetSuite, SpaceSuite, StrategySuite


class TestSpaces(SpaceSuite):
    @pytest.fixture(
        scope="class", params=["mobilenetv3-tiny", "nasbench201-tiny", "darts-tiny", "mobilenetv3-tiny+aspect=2:1"]
    )
    @classmethod
    def space(cls, request: pytest.FixtureRequest) -> Space:
        return make_space(request.param)


class TestDatasets(DatasetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> Data:
        return ClutteredDigits()


class TestStrategies(StrategySuite):
    @pytest.fixture(params=STRATEGIES)
    def strategy(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)
