"""What a search among recipes leaves out before it begins."""

from __future__ import annotations

import importlib

import pytest

from hwnas.errors import InfeasibleBudget, SpecError, TableError
from hwnas.spaces import make_space

module = importlib.import_module("hwnas.workflows.constraints")


@pytest.mark.parametrize("error", [SpecError("t.toml: not TOML"), TableError("t.toml: not TOML")])
def test_one_broken_table_does_not_end_a_search_among_recipes(monkeypatch, error):
    def broken(*_):
        raise error

    monkeypatch.setattr(module.inputs, "latency_model", broken)
    space = make_space("mobilenetv3-tiny")
    with pytest.raises(InfeasibleBudget, match=r"no recipe of .* has a table that covers .*: t.toml: not TOML"):
        module.asked(space, ["1ms"], "this/*", tables=None, family=False, confidence=None)
