"""Encodings, graphs and single predictors; the suite of `hwnas.testing` holds all predictors to the interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hwnas.accuracy import fit_accuracy
from hwnas.accuracy.predictors import check_predictor, fit_predictor
from hwnas.accuracy.predictors.base import Floats, Predictor, Sample
from hwnas.accuracy.predictors.catalog import PREDICTORS
from hwnas.accuracy.predictors.encodings import adjacency, paths
from hwnas.accuracy.predictors.structure import Structure
from hwnas.accuracy.stagewise import _kinds, fit_stagewise
from hwnas.errors import InvalidValue, PluginError, UnknownName
from hwnas.spaces import Codes, Space, make_space
from hwnas.spaces.nasbench201 import parse_nasbench201

CELLS, CHAIN = make_space("nasbench201"), make_space("mobilenetv3-tiny")
MIXED = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"


def cell(text: str) -> Codes:
    return CELLS.encode([parse_nasbench201(CELLS, text)])


# -- encodings -----------------------------------------------------------------------------------------------


def test_the_adjacency_encoding_has_an_indicator_of_each_value() -> None:
    features = adjacency(CELLS)(cell(MIXED))
    chosen = [CELLS.variables[i].values[c] for i, c in enumerate(cell(MIXED)[0])]
    values = [value for variable in CELLS.variables for value in variable.values]
    names = [variable.name for variable in CELLS.variables for _ in variable.values]
    assert features.shape == (1, len(values))
    shown = [(n, v) for n, v, on in zip(names, values, features[0], strict=True) if on]
    assert shown == list(zip((v.name for v in CELLS.variables), chosen, strict=True))


def test_a_variable_without_effect_has_no_indicator() -> None:
    features = adjacency(CHAIN)(CHAIN.encode([CHAIN.smallest, CHAIN.largest]))
    effects = [sum(CHAIN.has_effect(v.name, arch) for v in CHAIN.variables) for arch in (CHAIN.smallest, CHAIN.largest)]
    assert features.sum(axis=1).tolist() == effects
    assert effects[0] < effects[1]


def test_the_paths_of_a_cell() -> None:
    """A skip connection is a path without operations, and an edge `none` is no path."""
    found = Structure.of(CELLS).paths(cell(MIXED)[0])
    kernels = {tuple(label.partition("kernel=")[2][:1] for label in path[1:]) for path in found}
    assert kernels == {(), ("3", "3"), ("3", "1", "3")}  # skip; 3x3 and pooling; 3x3, 1x1, 3x3


def test_equal_functions_have_equal_paths() -> None:
    """The second operation reads the input in both, once through a node that only passes it on."""
    direct = "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|"
    around = "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|"
    structure = Structure.of(CELLS)
    assert structure.paths(cell(direct)[0]) == structure.paths(cell(around)[0])
    assert not np.array_equal(cell(direct), cell(around))


def test_paths_that_no_network_of_the_fit_has_are_left_out() -> None:
    encode = paths(CELLS, cell(MIXED))
    other = "|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    assert encode(cell(MIXED)).tolist() == [[1, 1, 1]]
    assert encode(cell(other)).sum() == 1  # the skip connection


def test_a_chain_has_no_path_encoding() -> None:
    codes = CHAIN.sample(10, seed=0)
    with pytest.raises(InvalidValue, match=r"paths encodes cells, and mobilenetv3-tiny has none; use another one"):
        fit_predictor("paths", CHAIN, codes, CHAIN.macs(codes))


# -- graphs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cells"), [("nasbench201", 1), ("nasbench201-tiny", 1), ("darts-tiny", 2)])
def test_one_copy_of_each_kind_of_cell_is_kept(name: str, cells: int) -> None:
    space = make_space(name)
    structure = Structure.of(space)
    assert len(structure.cells) == cells
    variables = {slot.name: {*slot.variables, *slot.needed_by} for slot in space.slots}
    kept = [variables[place.slot] for place in space.places if place.name in structure.places]
    assert set().union(*kept) == set(space.column)
    assert len(structure.places) < len(space.places)


@pytest.mark.parametrize("name", ["nasbench201", "mobilenetv3-tiny", "darts-tiny", "vit-tiny"])
def test_different_networks_have_different_graphs(name: str) -> None:
    space = make_space(name)
    codes = space.sample(60, seed=0)
    graphs = Structure.of(space).graphs(codes)
    rows = {(ops.tobytes(), edges.tobytes()) for ops, edges in zip(graphs.ops, graphs.edges, strict=True)}
    functions = {tuple((n.name, n.op, n.reads) for n in space.network(arch)) for arch in space.decode(codes)}
    assert len(rows) == len(functions) > 40
    at = {(int(to), int(source)) for edges in graphs.edges for to, source in np.argwhere(edges)}
    assert at
    assert all(source < to for to, source in at)  # in the order of execution
    assert (graphs.ops[~graphs.present] == 0).all()


# -- predictors ----------------------------------------------------------------------------------------------


def test_the_deviation_of_the_stagewise_model_is_that_of_its_posterior() -> None:
    """The posterior of the same process over both sets of networks, computed without the shortcuts."""
    codes, fresh = CHAIN.sample(40, seed=0), CHAIN.sample(10, seed=1)
    values = np.log(CHAIN.macs(codes)) - 10
    [model] = fit_stagewise(CHAIN, [(codes, values)])
    both = np.concatenate([codes, fresh])
    prior = np.full((50, 50), model.constant)
    for kind, variance in zip((k for k in _kinds(CHAIN).values() if k), model.variances, strict=True):
        x = np.concatenate([term(both) for term in kind], axis=1)
        prior += variance * x @ x.T
    noisy = model.factor @ model.factor.T
    gain = prior[40:, :40] @ np.linalg.inv(noisy)
    mean, deviation = model.predict(fresh)
    np.testing.assert_allclose(mean, values.mean() + gain @ (values - values.mean()), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(deviation**2, np.diag(prior[40:, 40:] - gain @ prior[:40, 40:]), atol=1e-6)
    assert model.predict(codes)[1].mean() < deviation.mean()


def test_the_process_is_less_certain_far_from_its_networks() -> None:
    small = CHAIN.fix(depth_1=1, depth_2=1, depth_3=1)
    codes = small.sample(60, seed=0)
    known = [CHAIN.arch(dict(arch)) for arch in small.decode(codes)]
    values = np.log(small.macs(codes)) + np.random.default_rng(0).normal(0, 0.05, 60)
    process = fit_predictor("gp", CHAIN, known, values)
    near, far = (process.predict(each)[1].mean() for each in (known, [CHAIN.largest]))
    assert far > 2 * near


def test_every_predictor_may_re_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accuracy model averages it with the stage-wise model, and is not worse than that on what it has not seen."""
    monkeypatch.setattr("hwnas.accuracy.predictors.members._STEPS", 40)
    space = make_space("nasbench201-tiny")
    codes = space.sample(60, seed=0)
    accuracies = 0.5 + 0.4 * space.macs(codes) / space.macs(codes).max()
    for name in ("gp", "boosting", "paths"):
        model = fit_accuracy(space, codes, accuracies, predictor=name)
        assert model.predictor.name == name
        assert 0 <= model.weight <= 1
        assert model.quality["ensemble"].rmse <= model.quality["stagewise"].rmse * 1.05
        mean, deviation = model.predict(codes)
        assert ((mean > 0) & (mean < 1) & (deviation > 0)).all()


def test_an_unknown_predictor() -> None:
    with pytest.raises(
        UnknownName, match=r"unknown predictor 'grap'. Did you mean 'graph'\? Known: stagewise, ensemble"
    ):
        check_predictor("grap", CHAIN)
    with pytest.raises(UnknownName, match="unknown predictor"):
        fit_accuracy(CHAIN, CHAIN.sample(60, seed=0), np.linspace(0.1, 0.9, 60), predictor="grap")


def test_the_stagewise_model_as_a_predictor_keeps_its_deviations() -> None:
    """Its means are those of the stage-wise model up to rounding, which must not decide its weight."""
    codes = CHAIN.sample(120, seed=0)
    accuracies = 0.5 + 0.3 * CHAIN.macs(codes) / CHAIN.macs(codes).max()
    model = fit_accuracy(CHAIN, codes, accuracies, predictor="stagewise")
    assert model.weight == 1.0
    assert (model.predict(codes, noise=False)[1] > 0).all()


def test_an_accuracy_model_of_three_networks() -> None:
    edges = [variable.name for variable in CELLS.variables if variable.name.startswith("edge")]
    space = CELLS.fix(**dict.fromkeys(edges[1:], 1), **{edges[0]: [0, 1, 2]})
    codes = space.encode(space.decode(space.sample(200, seed=0)))
    codes = np.unique(codes, axis=0)
    assert len(codes) == 3
    predicted = fit_accuracy(space, codes, np.array([0.5, 0.6, 0.7])).predict(codes)[0]
    assert np.isfinite(predicted).all()


class Broken:
    """A plugin's predictor that returns what it is told to."""

    def __init__(self, answer: Callable[[int], tuple[Floats, Floats]]) -> None:
        self.answer = answer

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        return self.answer(len(codes))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda n: (np.zeros(n + 1), np.zeros(n + 1)), r"returns the shapes \(6,\) and \(6,\) for 5 networks"),
        (lambda n: (np.zeros(1), np.zeros(1)), r"returns the shapes \(1,\)"),
        (lambda n: (np.full(n, np.nan), np.zeros(n)), "NaN, infinite or below 0"),
        (lambda n: (np.zeros(n), np.full(n, -1.0)), "NaN, infinite or below 0"),
    ],
)
def test_a_plugin_that_returns_something_else(
    answer: Callable[[int], tuple[Floats, Floats]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(space: Space, samples: Sequence[Sample], seed: int) -> list[Broken]:
        return [Broken(answer) for _ in samples]

    monkeypatch.setitem(PREDICTORS, "broken", Predictor(fit=fit))
    codes = CHAIN.sample(5, seed=0)
    with pytest.raises(PluginError, match=message):
        fit_predictor("broken", CHAIN, codes, CHAIN.macs(codes)).predict(codes)


def test_a_plugin_that_returns_too_few_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PREDICTORS, "broken", Predictor(fit=lambda space, samples, seed: []))
    codes = CHAIN.sample(5, seed=0)
    with pytest.raises(PluginError, match="returns 0 fits for 1 samples"):
        fit_predictor("broken", CHAIN, codes, CHAIN.macs(codes))
