"""Traced networks as spaces: the largest is the original, all others are narrower parts of it."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from traceable import NETWORKS, Basic, Inverted, counted_macs, drawn, head, stem

from hwnas.errors import CheckpointError, InvalidValue, ModelError, SpecError, UnknownName
from hwnas.lowering import form_of
from hwnas.lowering.networks import assembled, lower_ops
from hwnas.nn.segment import _Built
from hwnas.runtimes import open_session
from hwnas.search.solver import check_strategy
from hwnas.spaces import make_op, make_space, parse_op
from hwnas.spaces.traced import NetworkSpec, NodeSpec, SegmentGraph, known, read_network
from hwnas.supernet import Supernet, extract, load_supernet, save_supernet, single
from hwnas.targets import Recipe
from hwnas.tracing.choices import ElasticOptions
from hwnas.tracing.network import network_of
from hwnas.tracing.order import ordered
from hwnas.tracing.source import open_network
from hwnas.tracing.supernet import check_traced, supernet_of
from hwnas.tracing.trace import trace

SHAPE = (3, 32, 32)


@cache
def traced(name: str) -> tuple[nn.Module, NetworkSpec, Supernet]:
    module = drawn(name)
    found = trace(module, SHAPE)
    spec = network_of(found, name, ElasticOptions())
    return module, spec, supernet_of(spec, {key: weight.tensor for key, weight in found.weights.items()})


def elastic(module: nn.Module, **options: Any) -> Supernet:
    found = trace(module, SHAPE)
    spec = network_of(found, "network", ElasticOptions(**options))
    return supernet_of(spec, {key: weight.tensor for key, weight in found.weights.items()})


@pytest.mark.parametrize("name", NETWORKS)
def test_the_largest_is_the_original_and_subnets_agree(name: str) -> None:
    module, _, supernet = traced(name)
    space, x = supernet.space, torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(supernet(x, space.largest), module(x))
        codes = space.sample(8, seed=1)
        for arch, params, macs in zip(
            space.decode(codes), space.params(codes).tolist(), space.macs(codes).tolist(), strict=True
        ):
            network = extract(supernet, arch)
            assert torch.equal(network(x), supernet(x, arch))
            assert sum(p.numel() for p in network.parameters()) == params
            assert counted_macs(network, x[:1]) == macs
            assert {type(layer).__module__.split(".")[0] for layer in network.modules()} == {"torch"}
    assert space.size > 10


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_profiled_is_what_is_deployed(name: str, recipe: Recipe, tmp_path: Path) -> None:
    _, _, supernet = traced(name)
    space, form = supernet.space, form_of(recipe)
    codes = space.sample(1, seed=2)
    [arch] = space.decode(codes)
    network = extract(supernet, arch)
    x = torch.randn(1, *SHAPE)
    lowered = form.lower(network, SHAPE)
    with open_session(lowered, recipe) as session, torch.no_grad():
        np.testing.assert_allclose(session.run(x.numpy()), network(x).numpy(), atol=1e-4)
    ops = list(dict.fromkeys(op for _, op in space.ops(arch)))
    [program] = assembled(space, form, codes, lower_ops(space, ops, form), tmp_path).values()
    assert isinstance(program, Path)
    assert sorted(n.op_type for n in onnx.load(program).graph.node) == sorted(n.op_type for n in lowered.graph.node)


class Plain(nn.Module):
    """A network whose narrower form can be written down by hand."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, first, 3, 2, 1), nn.BatchNorm2d(first)
        self.two, self.head = nn.Conv2d(first, second, 3, 2, 1), nn.Linear(second * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.two(functional.relu(self.norm(self.one(x)))))
        return self.head(x.flatten(1))


def test_a_narrower_network_is_the_module_with_the_first_channels() -> None:
    torch.manual_seed(1)
    module = Plain(32, 16).eval()
    supernet = elastic(module)
    assert {v.name: v.values for v in supernet.space.variables} == {
        "resolution": (32,), "width_1": (8, 16, 24, 32), "width_2": (8, 16),
    }  # fmt: skip
    small = Plain(24, 8).eval()
    state = module.state_dict()
    for name, tensor in small.state_dict().items():
        index = tuple(slice(n) for n in tensor.shape)
        tensor.copy_(state[name][index])
    x = torch.randn(2, *SHAPE)
    arch = supernet.space.arch({"resolution": 32, "width_1": 24, "width_2": 8})
    with torch.no_grad():
        torch.testing.assert_close(supernet(x, arch), small(x), rtol=0, atol=1e-6)


def test_a_block_can_be_left_out() -> None:
    module = drawn("residual")
    supernet = elastic(module)
    space = supernet.space
    assert [v.name for v in space.variables if v.name.startswith("block")] == ["block_1", "block_2"]
    shorter = nn.Sequential(*(layer for i, layer in enumerate(module) if i != 3)).eval()  # type: ignore[arg-type]
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(supernet(x, space.arch({**space.largest, "block_2": 0})), shorter(x))
    assert all(not v.name.startswith("block") for v in elastic(module, blocks=False).space.variables)


def test_a_block_whose_addition_is_activated_after_other_values_stays() -> None:
    """Without the block, values below 0 would pass where a ReLU was."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), Basic(16, 16), head(16)).eval()
    assert all(not v.name.startswith("block") for v in elastic(module).space.variables)


def test_heads_and_tied_widths_of_a_transformer() -> None:
    _, spec, supernet = traced("tokens")
    groups = {group.name: (group.width, group.choices) for group in spec.groups}
    assert groups["patch"] == (1, [16, 24, 32, 48])  # the width of all tokens
    assert groups["blocks.0.qkv"] == (16, [1, 2, 3])  # heads
    assert groups["blocks.0.up"] == (1, [24, 48, 72, 96])  # value and gate together
    assert spec.fixed["head"] == "the output"
    # Both blocks are the same op: they are profiled once.
    assert len({segment.graph for segment in spec.segments}) < len(spec.segments)
    assert len(supernet.space.distinct_ops) < 100


def test_groups_shuffles_and_halves() -> None:
    _, spec, _ = traced("shuffled")
    groups = {group.name: (group.width, group.choices) for group in spec.groups}
    assert groups["stem.0"] == (8, [2, 4, 6, 8])  # groups of the grouped convolution
    assert groups["left"] == (1, [8, 16, 24])


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exact_search_can_decompose_the_space(name: str) -> None:
    check_strategy("exact", traced(name)[2].space)


def test_blocks_that_are_numbered_through_are_stages_of_some_blocks_each() -> None:
    """As one stage, which the accuracy model couples, twelve blocks would be too many networks to enumerate."""
    torch.manual_seed(0)
    layers = [stem(16), *(Inverted(16, 64) for _ in range(6)), Basic(16, 32, 2), *(Inverted(32, 64) for _ in range(6))]
    space = elastic(nn.Sequential(OrderedDict(features=nn.Sequential(*layers), head=head(32)))).space
    check_strategy("exact", space)
    stages = list(dict.fromkeys(slot.group for slot in space.slots))
    assert len(stages) > 3
    assert len(stages) < len(space.slots)
    one = replace(space, slots=tuple(replace(slot, group="all") for slot in space.slots))
    with pytest.raises(InvalidValue, match=r"too densely coupled for exact search.*such as milp"):
        check_strategy("exact", one)


def test_options() -> None:
    module = drawn("residual")
    options = ElasticOptions(keep=("1.two", "nothing"), shares=(0.5, 1.0), multiple=16)
    kept = network_of(trace(module, SHAPE), "n", options)
    # The stem and the first block are added, so they change together, or not at all.
    assert [group.layers for group in kept.groups if "0.0" in group.layers] == []
    assert "kept by 1.two" in kept.fixed.values()
    assert all(count * group.width % 16 == 0 for group in kept.groups for count in group.choices)
    [tied] = [group.layers for group in traced("residual")[1].groups if "0.0" in group.layers]
    assert tied == ["0.0", "1.two"]


def test_a_segment_with_too_many_ops_loses_choices() -> None:
    spec = network_of(trace(drawn("inverted"), SHAPE), "n", ElasticOptions(most_ops=8))
    assert any("at most 8 are measured" in why for why in spec.fixed.values())
    for segment in spec.segments:
        assert math.prod(len(spec.groups[g].choices) for g in segment.groups) <= 8


# -- files -------------------------------------------------------------------------------------------------------------


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(known, "_networks", {})
    monkeypatch.setattr(known, "_graphs", {})


def test_a_moved_folder_is_opened_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, spec, supernet = traced("residual")
    save_supernet(supernet, tmp_path / "one", data={}, classes=tuple("abcdefghij"), training={})
    (tmp_path / "one").rename(tmp_path / "two")
    forget(monkeypatch)
    with pytest.raises(UnknownName, match=r"traced network.*residual@.*network.json"):
        make_space(spec.space)
    opened, _ = load_supernet(tmp_path / "two")
    x = torch.randn(1, *SHAPE)
    with torch.no_grad():
        assert torch.equal(opened(x, opened.space.largest), module(x))
    assert make_space(spec.space).size == supernet.space.size
    # A single network of it is stored in the same way, and trained further.
    [arch] = opened.space.decode(opened.space.sample(1, seed=5))
    save_supernet(
        single(opened.space, arch, extract(opened, arch)), tmp_path / "subnet", data={}, classes=tuple("abcdefghij"),
        training={},
    )  # fmt: skip
    forget(monkeypatch)
    alone, _ = load_supernet(tmp_path / "subnet")
    assert alone.space.size == 1
    with torch.no_grad():
        torch.testing.assert_close(alone(x, alone.space.largest), opened(x, arch))


def test_the_file_is_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, spec, supernet = traced("inverted")
    path = tmp_path / "network.json"
    path.write_text(spec.json_text())
    forget(monkeypatch)
    space = make_space(str(path))
    assert (space.name, space.size) == (spec.space, supernet.space.size)
    with pytest.raises(InvalidValue, match=r"takes images of 3 channels and has 10 outputs"):
        make_space(str(path), classes=7)
    with pytest.raises(InvalidValue, match="has no options"):
        make_space(str(path), options={"width": 0.5})
    path.write_text(spec.json_text().replace('"aten.hardswish.default"', '"aten.relu.default"', 1))
    with pytest.raises(SpecError, match=r"is not a traced network: .*was changed"):
        read_network(path)


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        ("aten.from_file.default", "does more than compute"),
        ("aten.relu_.default", "does more than compute"),
        ("aten.copy_.default", "does more than compute"),
        ("prim.device.default", "is not an operator of torch"),
        ("aten.nothing.default", "is not an operator of torch"),
        ("os.system.x", "is not an operator of torch"),
        ("aten", "is not an operator of torch"),
    ],
)
def test_a_file_can_only_compute_tensors(operator: str, words: str) -> None:
    node = NodeSpec(name="y", op=operator, args=[{"value": "input"}], sizes=[1, [[-1, 4]]])
    graph = SegmentGraph(input=[[[-1, 4]]], nodes=[node], weights={}, groups=0)
    with pytest.raises(InvalidValue, match=words):
        _Built(graph, (), {})


def test_more_parameters_than_bytes(tmp_path: Path) -> None:
    _, spec, supernet = traced("inverted")
    save_supernet(supernet, tmp_path, data={}, classes=tuple("abcdefghij"), training={})
    changed = json.loads((tmp_path / "network.json").read_text())
    graph = changed["segments"][0]["graph"]
    document = changed["graphs"].pop(graph)
    document["weights"]["w0"]["sizes"][1] = [[-1, 2_000_000_000]]
    digest = SegmentGraph.model_validate(document).digest
    changed["graphs"][digest], changed["segments"][0]["graph"] = document, digest
    (tmp_path / "network.json").write_text(json.dumps(changed))
    renamed = NetworkSpec.model_validate(changed).space
    facts = (tmp_path / "supernet.json").read_text().replace(spec.space, renamed)
    (tmp_path / "supernet.json").write_text(facts)
    with pytest.raises(CheckpointError, match=r"parameters, and the file has"):
        load_supernet(tmp_path)


def test_slots_whose_names_differ_by_a_dot_only() -> None:
    torch.manual_seed(0)
    layers = nn.ModuleDict({"a_0": stem(16), "a": nn.ModuleDict({"0": nn.Conv2d(16, 16, 1)}), "head": head(16)})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.layers["a"]["0"](self.layers["a_0"](x)))  # type: ignore[index]
            return self.layers["head"](x)

    module = Net().eval()
    supernet = elastic(module)
    names = [slot.name.replace(".", "_") for slot in supernet.space.slots]
    assert len(set(names)) == len(names)
    x = torch.randn(1, *SHAPE)
    with torch.no_grad():
        assert torch.equal(supernet(x, supernet.space.largest), module(x))


def test_the_key_of_an_op() -> None:
    _, _, supernet = traced("residual")
    for op in supernet.space.distinct_ops:
        assert parse_op(op.key) == op
    with pytest.raises(InvalidValue, match=r"segment s000 belongs to a traced network that is not open"):
        _ = make_op("segment", (3, 8, 8), (8, 8, 8), graph="s000", sizes="u8").macs


# -- what cannot be traced ---------------------------------------------------------------------------------------------


class Branching(nn.Module):
    """Its code depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class Counting(nn.Module):
    """A shape depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nonzero(x).sum().float().expand(len(x), 2)


class Shared(nn.Module):
    """One layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.head = stem(16), nn.Conv2d(16, 16, 1), head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.layer(functional.relu(self.layer(self.stem(x))))))


class Fixed(nn.Module):
    """Nothing in it has a width."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Branching(), r"torch.export cannot trace Branching on images \(3, 32, 32\)"),
        (Counting(), r"Counting|shape depends on values"),
        (Shared(), r"the weight layer.weight is used by conv2d_1 and by conv2d_2; layers cannot share weights"),
        (Fixed(), r"nothing to shrink: .*head: the output"),
        (stem(8), r"the output of Sequential is \[11, 8, 16, 16\] for 11 images; it should be one vector of logits"),
    ],
)
def test_what_cannot_be_traced_is_named(module: nn.Module, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        network_of(trace(module, SHAPE), "n", ElasticOptions())


def test_an_operator_without_a_rule_keeps_what_it_reads() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.more, self.head = stem(16), nn.Conv2d(16, 24, 1), head(24)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(functional.relu(self.more(torch.flip(self.stem(x), [1]))))

    torch.manual_seed(0)
    module = Odd().eval()
    found = trace(module, SHAPE)
    assert found.kept == ["flip.default"]
    supernet = elastic(module)
    assert [v.name for v in supernet.space.variables] == ["resolution", "width_1"]  # of `more` only
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(supernet(x, supernet.space.largest), module(x))


def test_the_module_is_not_changed(capsys: pytest.CaptureFixture[str]) -> None:
    module = drawn("residual").train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    trace(module, SHAPE)
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert capsys.readouterr() == ("", "")


# -- operators that were traced wrongly once ---------------------------------------------------------------------------


class Between(nn.Module):
    """A function of 32 channels between a stem and a head."""

    def __init__(self, function: Callable[[nn.ModuleDict, Tensor], Tensor], out: int = 32, **layers: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(stem(24), nn.Conv2d(24, 32, 1), nn.ReLU())
        self.layers, self.head, self.function = nn.ModuleDict(layers), head(out), function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.layers, self.stem(x)))


class Encoder(nn.Module):
    """torch's own transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 48, 8, 8), nn.Linear(48, 10)
        self.layer = nn.TransformerEncoderLayer(48, 3, 96, batch_first=True, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


def gated(layers: nn.ModuleDict, x: Tensor) -> Tensor:
    gate = torch.sigmoid(layers["gate"](x.mean((2, 3))))
    return x * gate.view(len(x), -1, 1, 1).expand_as(x)


ODD: dict[str, Callable[[], nn.Module]] = {
    "swapped halves": lambda: Between(lambda _, x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    "two layers for two halves": lambda: Between(
        lambda m, x: m["a"](x.split(16, 1)[0]) + m["b"](x.split(16, 1)[1]),
        24,
        a=nn.Conv2d(16, 24, 1),
        b=nn.Conv2d(16, 24, 1),
    ),
    "a gate that is expanded": lambda: Between(gated, gate=nn.Linear(32, 32)),
    "normalised weights": lambda: Between(
        lambda m, x: m["a"](x), 16, a=nn.utils.parametrizations.weight_norm(nn.Conv2d(32, 16, 1))
    ),
    "a weight that is computed": lambda: Between(
        lambda m, x: functional.conv2d(x, m["a"].weight * 2), 16, a=nn.Conv2d(32, 16, 1, bias=False)
    ),
    "casts": lambda: Between(lambda _, x: x.float()),
    "the largest values": lambda: Between(lambda _, x: functional.adaptive_max_pool2d(x, 4)),
    "infinite limits": lambda: Between(lambda _, x: x.clamp(0, float("inf"))),
    "rolled channels": lambda: Between(lambda _, x: torch.roll(x, 4, 1)),
    "a convolution over channels": lambda: Between(
        lambda m, x: (m["a"](x.mean((2, 3))[:, None]).flatten(1))[:, :, None, None] * x[:, :1], 30, a=nn.Conv1d(1, 1, 3)
    ),
    "pooled channels": lambda: Between(lambda _, x: functional.avg_pool2d(x.permute(0, 2, 3, 1), (1, 2)), 16),
    "scaled additions": lambda: Between(lambda m, x: torch.add(m["a"](x), x, alpha=2), a=nn.Conv2d(32, 32, 1)),
    "torch's transformer": Encoder,
}


@pytest.mark.parametrize("name", ODD)
def test_operators_that_were_traced_wrongly(name: str) -> None:
    torch.manual_seed(0)
    module = ODD[name]().eval()
    found = trace(module, SHAPE)
    spec = network_of(found, "network", ElasticOptions())
    tensors = {key: weight.tensor for key, weight in found.weights.items()}
    check_traced(module, spec, tensors)
    orders = {number: torch.arange(group.units).flip(0) for number, group in enumerate(spec.groups)}
    check_traced(module, spec, ordered(spec, tensors, orders))
    supernet = supernet_of(spec, tensors)
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        for arch in supernet.space.decode(supernet.space.sample(4, seed=0)):
            torch.testing.assert_close(extract(supernet, arch)(x), supernet(x, arch))


def test_a_number_of_images_in_the_code_is_refused() -> None:
    torch.manual_seed(0)
    for function in (
        lambda _, x: x + torch.ones(len(x), 1, 16, 16),
        lambda _, x: torch.cat([x, x * 2], 0).chunk(2, 0)[1],
    ):
        module = Between(function).eval()
        found = trace(module, SHAPE)
        spec = network_of(found, "network", ElasticOptions())
        with pytest.raises(ModelError, match=r"was traced, but does not run on [13] images as the largest subnet"):
            check_traced(module, spec, {key: weight.tensor for key, weight in found.weights.items()})


def test_modes_are_restored_layer_by_layer() -> None:
    module = drawn("residual").train()
    norm = module[0][1]  # type: ignore[index]
    norm.eval()
    trace(module, SHAPE)
    assert module.training
    assert not norm.training


def test_an_exported_program(tmp_path: Path) -> None:
    module = drawn("inverted")
    images = torch.export.Dim("images", min=1, max=64)
    program = torch.export.export(module, (torch.zeros(2, *SHAPE),), dynamic_shapes=({0: images},))
    torch.export.save(program, tmp_path / "net.pt2")
    source = open_network(str(tmp_path / "net.pt2"), weights=None, channels=3, classes=10)
    assert source.shape == SHAPE
    found = trace(source.module, SHAPE)
    spec = network_of(found, "network", ElasticOptions())
    check_traced(source.module, spec, {key: weight.tensor for key, weight in found.weights.items()})


def test_other_types_are_refused() -> None:
    with pytest.raises(ModelError, match=r"has weights of the type bfloat16: call its .float\(\)"):
        trace(drawn("inverted").bfloat16(), SHAPE)
