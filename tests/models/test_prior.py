"""The prior of networks from which kernels are drawn."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from hwnas.models.model import open_graph
from hwnas.models.prior import maps, random_network, tokens
from hwnas.models.prior.builder import Builder, Value
from hwnas.models.prior.references import reference_networks


@pytest.mark.parametrize("number", range(8))
def test_networks_are_valid_and_finite(number: int) -> None:
    graph = random_network(7, number)
    onnx.checker.check_model(graph, full_check=True)
    model = open_graph(graph, "network")
    [out] = session_of(graph).run(None, model.signature.noise(np.random.default_rng(0)))
    assert np.isfinite(out).all()
    assert 1e-6 < np.abs(out).max() < 1e6


def test_a_network_is_a_function_of_its_seed_and_number() -> None:
    assert random_network(3, 5).SerializeToString() == random_network(3, 5).SerializeToString()
    assert random_network(3, 5).SerializeToString() != random_network(3, 6).SerializeToString()
    assert random_network(3, 5).SerializeToString() != random_network(4, 5).SerializeToString()


@pytest.fixture
def drawn_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of zeros: drawing those of a hundred networks takes ten seconds. Other choices are then others, too."""

    def weight(b: Builder, *shape: int, fan_in: int = 0) -> str:
        return b.constant(np.zeros(shape, np.float32))

    monkeypatch.setattr(Builder, "weight", weight)


@pytest.mark.usefixtures("drawn_quickly")
def test_many_networks_have_many_operators() -> None:
    found = Counter(node.op_type for number in range(40) for node in random_network(1, number).graph.node)
    assert {"Conv", "Gemm", "MatMul", "Softmax", "LayerNormalization", "Concat", "MaxPool", "Split", "Gelu"} <= set(
        found
    )


@pytest.mark.usefixtures("drawn_quickly")
def test_some_networks_have_uneven_widths_and_strips() -> None:
    graphs = [random_network(1, number).graph for number in range(60)]
    depthwise = [
        tuple(weight.dims)
        for graph in graphs
        for weight in graph.initializer
        if len(weight.dims) == 4 and weight.dims[1] == 1
    ]
    remainders = {dims[0] % 8 for dims in depthwise}
    assert {0, 4} <= remainders
    assert remainders & {2, 6}
    sides = {dims[2:] for dims in depthwise}
    assert any(height == 1 < width for height, width in sides)
    assert any(width == 1 < height for height, width in sides)


def test_softmax_is_over_tokens_too() -> None:
    axes = set()
    for seed in range(30):
        b = Builder(np.random.default_rng(seed))
        graph = b.model(tokens.linear_attention(b, b.input((1, 49, 64)))).graph
        axes |= {one.i for node in graph.node if node.op_type == "Softmax" for one in node.attribute}
    assert axes == {-1, 1, 2}


@pytest.mark.parametrize("multiple", [2, 8])
@pytest.mark.parametrize("block", sorted(maps.OF_ANY_WIDTH, key=lambda block: block.__name__))
def test_blocks_of_any_width_run_with_uneven_ones(block: Any, multiple: int) -> None:
    for seed in range(3):
        b = Builder(np.random.default_rng(seed))
        b.multiple = multiple
        _runs(b, block(b, b.input((1, 18, 14, 14)), b.near(25, 8), 2))


@pytest.mark.parametrize("block", list(maps.BLOCKS), ids=lambda block: block.__name__)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("recent", [True, False])
def test_every_block_of_maps_has_the_shape_that_it_says(block: object, stride: int, recent: bool) -> None:
    b = Builder(np.random.default_rng(0), recent=recent)
    assert callable(block)
    out = block(b, b.input((1, 24, 16, 16)), 32, stride)
    assert out.shape[0] == 1
    assert out.shape[2:] == (16 // stride, 16 // stride)
    _runs(b, out)


@pytest.mark.parametrize("block", list(tokens.BLOCKS), ids=lambda block: block.__name__)
@pytest.mark.parametrize("recent", [True, False])
def test_every_block_of_tokens_keeps_its_shape(block: object, recent: bool) -> None:
    for seed in range(2):
        b = Builder(np.random.default_rng(seed), recent=recent)
        assert callable(block)
        out = block(b, b.input((1, 49, 64)))
        assert out.shape == (1, 49, 64)
        _runs(b, out)


def session_of(graph: onnx.ModelProto) -> ort.InferenceSession:
    """A session on one thread: two beside each other's tests would wait for each other."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    return ort.InferenceSession(graph.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def _runs(b: Builder, out: Value) -> None:
    graph = b.model(out)
    onnx.checker.check_model(graph, full_check=True)
    session = session_of(graph)
    x = np.random.default_rng(0).standard_normal(session.get_inputs()[0].shape, np.float32)
    [found] = session.run(None, {"x": x})
    assert found.shape == out.shape


def test_the_prior_has_the_operators_of_branches_and_of_padding() -> None:
    found = set()
    for seed in range(10):
        b = Builder(np.random.default_rng(seed))
        x = b.input((1, 32, 8, 8))
        values = [maps.split_attention(b, x, 32, 1), maps.squared(b, x, 32, 1)]
        rows = b.reshape(x, 1, 64, 32)
        values += [tokens.windows(b, rows), tokens.linear_attention(b, rows), tokens.few_channels(b, rows)]
        found |= {node.op_type for node in b.model(*values).graph.node}
    assert {"ReduceSum", "Unsqueeze", "Pow", "Pad"} <= found


def test_reference_networks_are_those_of_earlier_tables() -> None:
    """Who changes a reference gives it another name, as its latency is compared with that in tables made before."""
    networks = reference_networks()
    assert {name: _structure(graph) for name, graph in networks.items()} == {
        "reference residual": "da4bf8782a03e66c",
        "reference depthwise": "cf1c48085dcf74c3",
        "reference tokens": "2f288842a04e91f5",
    }
    for graph in networks.values():
        session = session_of(graph)
        x = np.random.default_rng(0).standard_normal(session.get_inputs()[0].shape, np.float32)
        assert np.isfinite(session.run(None, {"x": x})[0]).all()


def _structure(graph: onnx.ModelProto) -> str:
    """A digest of the nodes and of the shapes of the constants."""
    digest = hashlib.sha256()
    for node in graph.graph.node:
        digest.update(node.SerializeToString(deterministic=True))
    for weight in graph.graph.initializer:
        digest.update(f"{weight.name} {list(weight.dims)}".encode())
    return digest.hexdigest()[:16]
