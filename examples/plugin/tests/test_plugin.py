"""What the package adds keeps the rules of hwnas, wherever it is installed."""

from __future__ import annotations

import pytest

import hwnas
from hwnas.targets import load_recipe
from hwnas.testing import DatasetSuite, SessionSuite, SpaceSuite


class TestSpace(SpaceSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> hwnas.Space:
        return hwnas.make_space("plugin-space")


class TestRuntime(SessionSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls) -> hwnas.Recipe:
        return load_recipe("plugin-runtime")


class TestData(DatasetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> hwnas.Data:
        return hwnas.open_data("plugin-data")
