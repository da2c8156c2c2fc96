from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from hwnas.errors import RuntimeUnavailable, SpecError
from hwnas.lowering import form_of
from hwnas.runtimes import open_session
from hwnas.targets import load_recipe


def test_the_values_of_an_option_are_checked() -> None:
    recipe = load_recipe("torch-cpu-fp32").model_copy(update={"options": {"compile": "always"}})
    with pytest.raises(SpecError, match=r"\[options\] of torch: compile: .* not 'always'\. Known options: compile\."):
        open_session(Path("never read"), recipe)


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler there is cl, found in another way")
def test_a_machine_without_a_compiler_says_so(
    network_of: Callable[[bool], nn.Module], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    recipe = load_recipe("torch-compile-cpu-fp32")
    program = form_of(recipe).lower(network_of(True), (3, 24, 24))
    monkeypatch.setattr(config.cpp, "cxx", (str(tmp_path / "no-compiler"),))
    with fresh_cache(), pytest.raises(RuntimeUnavailable, match=r"torch.compile fails: .* needs a C\+\+ compiler"):
        open_session(program, recipe)
