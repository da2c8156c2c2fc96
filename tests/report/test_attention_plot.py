"""What heads read in examples: figures from a network, and their plot."""

from __future__ import annotations

import pytest
from torch import nn

from hwnas.data import open_data
from hwnas.data.options import DataOptions
from hwnas.pipeline.attention import attention_maps
from hwnas.report.attention_plot import attention_plots
from hwnas.report.token_figures import AttentionMap, AttentionRow
from hwnas.spaces import make_space
from hwnas.supernet import Supernet, extract


def test_maps_of_a_sequence_have_its_words() -> None:
    data = open_data("listops", options=DataOptions.model_validate({"length": 64}))
    space = make_space("sequence+length=64", reads=data.reads, classes=10).fix(width=32, depth=2)
    arch = space.arch({**space.largest, "mixer_1": "conv", "mixer_2": "attention", "heads_2": 4})
    subnet = extract(Supernet(space, seed=0), arch)
    maps = [AttentionMap.model_validate(one) for one in attention_maps(space, arch, lambda: subnet, data)]
    assert len(maps) == 3
    assert len({one.label for one in maps}) == 3
    for one in maps:
        assert one.tokens == 1
        assert one.columns[0] == "<start>"
        assert one.columns[1] in ("[MIN", "[MAX", "[MED", "[SM")
        assert "<pad>" not in one.columns
        assert [(row.layer, row.head) for row in one.rows] == [(1, 1), (1, 2), (1, 3), (1, 4)]
        assert all(sum(row.shares) == pytest.approx(1, abs=2e-3) for row in one.rows)
    plots = attention_plots(maps, "")
    assert [plot.name for plot in plots] == ["attention-1", "attention-2", "attention-3"]
    assert len(plots[0].rows) == 4
    assert plots[0].rows[0][0] == "attention 1, head 1"


def test_long_sequences_share_columns() -> None:
    data = open_data("pathfinder")
    space = make_space("sequence+length=1025", reads=data.reads, classes=2).fix(width=32, depth=1)
    arch = space.arch({**space.largest, "mixer_1": "window", "heads_1": 2})
    maps = attention_maps(space, arch, lambda: extract(Supernet(space, seed=0), arch), data)
    one = AttentionMap.model_validate(maps[0])
    assert one.tokens == 9
    assert one.columns[:2] == ["1", "10"]
    assert len(one.columns) == 114
    assert all(sum(row.shares) == pytest.approx(1, abs=2e-3) for row in one.rows)
    assert "A column is 9 tokens" in attention_plots([one], "")[0].note


@pytest.mark.parametrize("name", ["vit-tiny", "hybrid-tiny"])
def test_maps_of_images_have_a_length_each(name: str) -> None:
    data = open_data("cluttered-digits")
    space = make_space(name, reads=data.reads, classes=10)
    texts = {v.name: "attention" for v in space.variables if "attention" in v.values}
    arch = space.arch({**space.largest, **texts})
    maps = attention_maps(space, arch, lambda: extract(Supernet(space, seed=0), arch), data)
    rows = [AttentionMap.model_validate(one).rows for one in maps]
    assert len(maps) % 3 == 0
    assert {row.layer for each in rows for row in each} == set(range(1, max(row.layer for row in rows[-1]) + 1))


def test_there_are_none_without_attention() -> None:
    data = open_data("cluttered-digits")
    space = make_space("mobilenetv3-tiny", reads=data.reads, classes=10)

    def never() -> nn.Module:
        raise AssertionError("a network without attention is extracted")

    assert attention_maps(space, space.smallest, never, data) == []
    assert attention_plots([], "") == []


def test_a_share_for_each_column() -> None:
    with pytest.raises(ValueError, match="does not have 2 columns"):
        AttentionMap(label="a", columns=["x", "y"], tokens=1, rows=[AttentionRow(layer=1, head=1, shares=[1.0])])
