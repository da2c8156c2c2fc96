"""What comes with hwnas keeps the rules that extensions are held to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hwnas.accuracy.predictors import PREDICTORS
from hwnas.data import ClutteredDigits, Data
from hwnas.search import STRATEGIES
from hwnas.spaces import Space, make_space
from hwnas.testing import DatasetSuite, PredictorSuite, SpaceSuite, StrategySuite


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


class TestPredictors(PredictorSuite):
    @pytest.fixture(scope="class", params=PREDICTORS)
    @classmethod
    def predictor(cls, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def short(cls) -> Iterator[None]:
        """Fits of a sixth of a second instead of several: the suite tests the interface and a simple law."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hwnas.accuracy.predictors.members._STEPS", 60)
            patch.setattr("hwnas.accuracy.ensemble._STEPS", 100)
            yield


class TestPredictorsOfChains(TestPredictors):
    @pytest.fixture(scope="class", params=["gp", "graph", "lstm", "adjacency"])
    @classmethod
    def predictor(cls, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> Space:
        return make_space("mobilenetv3-tiny")
