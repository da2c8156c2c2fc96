from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
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
