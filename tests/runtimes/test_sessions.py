"""The suite of `hwnas.testing` for every recipe, and what only our own runtimes show."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hwnas.errors import RuntimeUnavailable
from hwnas.runtimes import open_session, session_class
from hwnas.targets import Recipe, load_recipe, recipes
from hwnas.targets.runtimes import installed_version
from hwnas.testing import SessionSuite


class TestSessions(SessionSuite):
    # A C++ compiler takes 18 seconds; `tests/deploy/test_sweep.py` runs that recipe, too.
    @pytest.fixture(
        scope="class",
        params=[
            pytest.param(name, marks=pytest.mark.long) if name.startswith("torch-compile") else name
            for name in sorted(recipes())
        ],
    )
    @classmethod
    def recipe(cls, request: pytest.FixtureRequest, runs_here: Callable[[str], Recipe]) -> Recipe:
        return runs_here(request.param)

    def test_the_version_is_that_of_the_library(self, recipe: Recipe) -> None:
        version = session_class(recipe).version()
        assert re.match(r"\d+", version)
        assert installed_version(recipe.runtime) == version.split("+")[0]
        library = {
            "roofline": "torch",
            "torch-cuda": "torch",
            "onnxruntime-cuda": "onnxruntime-gpu",
            "onnxruntime-tensorrt": "onnxruntime-gpu",
        }
        expected = importlib.metadata.version(library.get(recipe.runtime, recipe.runtime))
        assert expected.split("+")[0] == version.split("+")[0]


def test_what_hwnas_does_not_drive_has_no_session() -> None:
    external = Recipe.model_validate(
        load_recipe("torch-cpu-fp32").model_dump(by_alias=True) | {"name": "phone", "runtime": "external"}
    )
    for act in (lambda: session_class(external), lambda: open_session(Path("never read"), external)):
        with pytest.raises(RuntimeUnavailable, match=r"phone has the runtime 'external', which hwnas does not drive"):
            act()
