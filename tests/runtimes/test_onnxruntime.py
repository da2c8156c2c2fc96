from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from hwnas.errors import SpecError
from hwnas.lowering import form_of
from hwnas.runtimes import open_session
from hwnas.targets import load_recipe


def test_the_values_of_an_option_are_checked() -> None:
    recipe = load_recipe("onnxruntime-cpu-fp32").model_copy(update={"options": {"graph_optimization": "most"}})
    with pytest.raises(SpecError, match=r"graph_optimization: .*'none', 'basic', 'extended' or 'all', not 'most'"):
        open_session(Path("never read"), recipe)


@pytest.mark.parametrize(("name", "tolerance"), [("onnxruntime-cpu-fp32", 1e-4), ("onnxruntime-cpu-int8", 1.0)])
def test_rewriting_changes_no_output(
    network_of: Callable[[bool], nn.Module], pictures: Callable[[int, int], Tensor], name: str, tolerance: float
) -> None:
    recipe = load_recipe(name)
    made = network_of(False)
    program = form_of(recipe).lower(made, (3, 24, 24), pictures(64, 1))
    x = pictures(1, 2)
    with torch.no_grad():
        expected = made(x).numpy()
    for level in ("none", "basic", "extended", "all"):
        chosen = recipe.model_copy(update={"options": {"graph_optimization": level}})
        with open_session(program, chosen) as session:
            assert np.abs(session.run(x.numpy()) - expected).max() <= tolerance


def test_each_thread_has_a_core_of_its_own(
    network_of: Callable[[bool], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []

    class Recorded(ort.SessionOptions):  # type: ignore[misc]  # the package declares no types
        def add_session_config_entry(self, key: str, value: str) -> None:
            asked[-1][key] = value
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(ort, "SessionOptions", Recorded)
    program = form_of(load_recipe("onnxruntime-cpu-fp32")).lower(network_of(False), (3, 24, 24), None)
    for threads, cores, expected in ((1, {0, 1}, None), (2, {0, 1}, "1"), (2, {0}, None)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: cores)
        asked.append({})
        recipe = load_recipe("onnxruntime-cpu-fp32").model_copy(update={"threads": threads})
        with open_session(program, recipe) as session:
            assert session.run(np.zeros((1, 3, 24, 24), np.float32)).shape[0] == 1
        assert asked[-1].get("session.intra_op_thread_affinities") == expected
