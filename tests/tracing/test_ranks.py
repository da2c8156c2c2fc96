"""Ranks: a layer as two thinner ones."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from traceable import counted_macs, drawn

from hwnas.lowering import form_of
from hwnas.runtimes import open_session
from hwnas.spaces.traced import NetworkSpec, remember, with_classes
from hwnas.spaces.traced.costs import units_of
from hwnas.spaces.traced.space import space_of
from hwnas.supernet import Supernet, extract, load_supernet, save_supernet, single
from hwnas.targets import Recipe
from hwnas.tracing.choices import ElasticOptions
from hwnas.tracing.network import network_of
from hwnas.tracing.ranks import blank, factored, factors, moments
from hwnas.tracing.supernet import supernet_of
from hwnas.tracing.trace import trace

SHAPE = (3, 32, 32)
THIN = ("tokens", "inverted", "residual")


def images() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(16, *SHAPE, generator=generator), torch.zeros(16)) for _ in range(2)]


@cache
def ranked(name: str) -> tuple[nn.Module, NetworkSpec, Supernet]:
    module = drawn(name)
    found = trace(module, SHAPE)
    spec = network_of(found, name, ElasticOptions(ranks=(0.25, 0.5), multiple=4, shares=(0.5, 1.0)))
    tensors = {key: weight.tensor for key, weight in found.weights.items()}
    moment = moments(supernet_of(spec, blank(spec) | tensors), spec, images())
    return module, spec, supernet_of(spec, tensors | factors(spec, tensors, moment))


@pytest.mark.parametrize("name", ["residual", *(pytest.param(name, marks=pytest.mark.long) for name in THIN[:2])])
def test_the_largest_is_the_original_and_subnets_agree(name: str, recipe: Recipe) -> None:
    module, spec, supernet = ranked(name)
    space, x = supernet.space, torch.randn(2, *SHAPE)
    assert any(group.rank for group in spec.groups)
    form = form_of(recipe)
    with torch.no_grad():
        assert torch.equal(supernet(x, space.largest), module(x))
        codes = space.sample(12, seed=1)
        thinner = 0
        for arch, params, macs in zip(
            space.decode(codes), space.params(codes).tolist(), space.macs(codes).tolist(), strict=True
        ):
            network = extract(supernet, arch)
            assert torch.equal(network(x), supernet(x, arch))
            assert sum(p.numel() for p in network.parameters()) == params
            thinner += any(".down." in key for key, _ in network.named_parameters())
            with open_session(form.lower(network, SHAPE), recipe) as session:
                np.testing.assert_allclose(session.run(x[:1].numpy()), network(x[:1]).numpy(), atol=1e-4)
            assert counted_macs(network, x[:1]) == macs
        assert thinner > 3


def test_a_rank_is_that_of_the_layer() -> None:
    """With one thinner layer, the network computes what it does with the product of the factors as the weight."""
    module, spec, supernet = ranked("tokens")
    space = supernet.space
    names = [v.name for v in space.variables if v.name.startswith("rank_")]
    groups = [group for group in spec.groups if group.rank]
    number = next(i for i, group in enumerate(groups) if group.name == "blocks.0.proj")
    rank = groups[number].choices[0]
    arch = space.arch({**space.largest, names[number]: rank})
    network = extract(supernet, arch)
    state = network.state_dict()
    [down] = [tensor for name, tensor in state.items() if ".down." in name]
    [up] = [tensor for name, tensor in state.items() if name.endswith(".up.weight")]
    assert (down.shape, up.shape) == ((rank, 48), (48, rank))
    other = drawn("tokens")
    other.blocks[0].proj.weight.data = up @ down  # type: ignore[index, union-attr]
    x = torch.randn(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(network(x), other(x), rtol=0, atol=1e-5)
        assert not torch.allclose(network(x), module(x), atol=1e-4)


def test_factors_minimise_the_error_of_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 16, generator=generator)
    x = torch.randn(500, 16, generator=generator) * torch.linspace(3, 0.01, 16)
    moment = (x.T @ x).double() / len(x)

    def error(product: Tensor) -> float:
        return float(((weight - product) @ x.T).square().mean())

    left, values, right = torch.linalg.svd(weight)
    for rank in (2, 5, 11):
        down, up = factored(weight, moment, rank)
        plain = left[:, :rank] * values[:rank] @ right[:rank]
        assert error(up @ down) < 0.9 * error(plain)
        # The smallest possible error: that of the best approximation of the outputs.
        outputs = torch.linalg.svdvals((weight @ x.T).double())
        assert error(up @ down) == pytest.approx(float(outputs[rank:].square().sum()) / (24 * 500), rel=1e-3)
        more_down, more_up = factored(weight, moment, rank + 3)
        torch.testing.assert_close(more_up[:, :rank] @ more_down[:rank], up @ down, rtol=1e-4, atol=1e-5)
    down, up = factored(weight, moment, 16)
    torch.testing.assert_close(up @ down, weight, rtol=1e-3, atol=1e-3)


def test_an_input_that_never_occurs_is_no_error() -> None:
    weight, moment = torch.randn(8, 6), torch.zeros(6, 6, dtype=torch.float64)
    for each in (moment, moment + torch.eye(6) * torch.tensor([1.0, 1, 1, 1, 1, 0])):
        down, up = factored(weight, each, 3)
        assert torch.isfinite(up @ down).all()


def test_a_rank_that_saves_nothing_is_the_layer_itself() -> None:
    _, spec, supernet = ranked("inverted")
    space = supernet.space
    assert remember(spec).space == space.name
    for segment in spec.segments:
        graph = spec.graphs[segment.graph]
        slot = next(slot for slot in space_of(spec).slots if slot.name == segment.name)
        for op in {op for op in space.slot_ops(slot).flat if op is not None}:
            units = units_of(op)
            for rank in graph.ranks.values():
                out, into, *_ = graph.weights[rank.whole].shape(units)
                assert units[rank.group] == rank.full or units[rank.group] * (out + into) < out * into


def test_options_of_ranks() -> None:
    found = trace(drawn("tokens"), SHAPE)
    without = network_of(found, "n", ElasticOptions())
    assert not any(group.rank for group in without.groups)
    assert '"rank' not in without.json_text()  # files without ranks are what they were before there were any
    kept = network_of(found, "n", ElasticOptions(ranks=(0.25,), keep=("blocks.0.*",)))
    names = [group.name for group in kept.groups if group.rank]
    assert names
    assert not any(name.startswith("blocks.0.") for name in names)
    few = network_of(found, "n", ElasticOptions(ranks=(0.25, 0.5), most_ops=4))
    for segment in few.segments:
        assert math.prod(len(few.groups[g].choices) for g in segment.groups) <= 4
    assert NetworkSpec.model_validate_json(kept.json_text()) == kept


def test_only_the_layer_that_is_used_is_trained() -> None:
    _, _, supernet = ranked("tokens")
    space = supernet.space
    thin = {v.name: v.values[0] for v in space.variables if v.name.startswith("rank_")}
    supernet.zero_grad()
    supernet(torch.randn(2, *SHAPE), space.arch({**space.largest, **thin})).sum().backward()
    graded = {name for name, p in supernet.named_parameters() if p.grad is not None}
    supernet.zero_grad()
    layers = {name.removesuffix(".down.weight") for name in graded if name.endswith(".down.weight")}
    assert layers
    assert not any(f"{layer}.0.weight" in graded for layer in layers)
    assert all(f"{layer}.up.weight" in graded for layer in layers)


def test_files(tmp_path: Path) -> None:
    _, _, supernet = ranked("tokens")
    space = supernet.space
    save_supernet(supernet, tmp_path / "all", data={}, classes=tuple("abcdefghij"), training={})
    opened, _ = load_supernet(tmp_path / "all")
    [arch] = [a for a in space.decode(space.sample(1, seed=3)) if any(n.startswith("rank") for n in a)]
    x = torch.randn(1, *SHAPE)
    with torch.no_grad():
        assert torch.equal(opened(x, arch), supernet(x, arch))
    one = single(opened.space, arch, extract(opened, arch))
    save_supernet(one, tmp_path / "one", data={}, classes=tuple("abcdefghij"), training={})
    alone, _ = load_supernet(tmp_path / "one")
    with torch.no_grad():
        torch.testing.assert_close(alone(x, alone.space.largest), supernet(x, arch))


def test_fewer_images_than_inputs() -> None:
    """The moments of a pooled head have no inverse: with 40 images, 60 of 100 directions never occur."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 100, generator=generator) + 5
    weight = torch.randn(10, 100, generator=generator)
    down, up = factored(weight, (x.double().T @ x.double()) / len(x), 4)
    assert torch.isfinite(down).all()
    assert torch.isfinite(up).all()
    outputs = torch.linalg.svdvals((x @ weight.T).double())
    error = ((x @ weight.T) - x @ (up @ down).T).square().sum()
    assert float(error) <= 1.05 * float(outputs[4:].square().sum())


def test_the_last_layer_has_no_rank() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 64), nn.ReLU(),
        nn.Linear(64, 40),
    ).eval()  # fmt: skip
    spec = network_of(trace(module, SHAPE), "n", ElasticOptions(ranks=(0.25,)))
    assert [group.name for group in spec.groups if group.rank] == ["4"]
    assert with_classes(spec, 3).classes == 3
