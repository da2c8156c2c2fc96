"""Hybrids: stages of several networks in one space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwnas import workflows
from hwnas.accuracy import Evaluator
from hwnas.adapters import ADAPTERS, Adapted, AdapterChoice
from hwnas.data import open_data
from hwnas.errors import InvalidValue, ModelError
from hwnas.search.differentiable.mixed import MixedNet, Paths
from hwnas.spaces.traced import NetworkSpec
from hwnas.supernet import Supernet, TrainConfig, extract, for_classes, load_supernet
from hwnas.supernet.config import Phase
from hwnas.targets import Target

SHORT = TrainConfig(phases=[Phase(name="all", steps=3, learning_rate=0.05)], batch_size=8)
NETS = """
import torch
from torch import nn


def net(width, classes):
    layers = [nn.Conv2d(1, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(*layers, *end), torch.zeros(1, 1, 32, 32)


def one():
    return net(8, 10)


def two():
    return net(16, 3)
"""


def layer(given: int, made: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU())


def net(widths: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [layer(a, b) for a, b in zip((1, *widths), widths, strict=False)]
    made = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return made.eval()


def trunk() -> nn.Module:
    return net((8, 12, 16), 10, 0)


@pytest.fixture(scope="module")
def experts() -> list[nn.Module]:
    """One of other widths and classes, and one with the layers of the trunk."""
    return [net((16, 24, 32), 4, 1), net((8, 12, 16), 10, 2)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, experts: list[nn.Module]) -> Path:
    folder = tmp_path_factory.mktemp("hybrid") / "mixed"
    answer = workflows.hybrid(trunk(), experts, "cluttered-digits", folder, shape=(1, 32, 32))
    assert answer.networks == 27
    assert answer.trunk == "sequential"
    assert answer.experts == ["sequential-2", "sequential-3"]
    assert [stage.maps for stage in answer.stages] == [[8, 16, 16], [12, 8, 8], [16, 4, 4]]
    return folder


@pytest.fixture
def supernet(mixed: Path) -> Supernet:
    return load_supernet(mixed)[0]


def test_the_trunk_is_a_subnet(supernet: Supernet) -> None:
    x = torch.randn(3, 1, 32, 32)
    assert set(supernet.space.largest.values()) == {"sequential", 32}
    torch.testing.assert_close(supernet(x, supernet.space.largest), trunk()(x), rtol=1e-5, atol=1e-5)


def test_a_stage_of_an_expert_is_between_projections(supernet: Supernet, experts: list[nn.Module]) -> None:
    """Against the layers themselves, written out."""
    own, other = trunk(), experts[0]
    assert isinstance(own, nn.Sequential)
    assert isinstance(other, nn.Sequential)
    x = torch.randn(2, 1, 32, 32)
    arch = supernet.space.arch({**supernet.space.largest, "expert_2": "sequential-2"})
    [node] = [node for node in supernet.space.network(arch) if node.slot.name == "stage2"]
    layers = supernet.elastic(node.name, node.op).shared.get_submodule("layers")
    before, behind = layers.get_submodule("projection_in"), layers.get_submodule("projection_out")

    def expected(x: Tensor) -> Tensor:
        x = other[1](before(own[0](x)))
        for module in (behind, own[2], *own[3:]):
            x = module(x)
        return x

    with torch.no_grad():
        torch.testing.assert_close(supernet(x, arch), expected(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(extract(supernet, arch)(x), expected(x), rtol=1e-5, atol=1e-5)


def test_experts_with_equal_layers_have_their_own_weights(supernet: Supernet, experts: list[nn.Module]) -> None:
    x = torch.randn(2, 1, 32, 32)
    first = experts[1]
    assert isinstance(first, nn.Sequential)
    arch = supernet.space.arch({**supernet.space.largest, "expert_1": "sequential-3"})
    [node] = [node for node in supernet.space.network(arch) if node.slot.name == "stage1"]
    stage = supernet.elastic(node.name, node.op).shared
    with torch.no_grad():
        wanted = stage.get_submodule("layers.projection_out")(first[0](x))
        torch.testing.assert_close(stage(x), wanted, rtol=1e-5, atol=1e-5)


def test_costs_are_those_of_the_extracted_network(supernet: Supernet) -> None:
    space = supernet.space
    for arch in space.decode(space.sample(10, seed=0)):
        params = sum(p.numel() for p in extract(supernet, arch).parameters())
        assert int(space.params(space.encode([arch]))[0]) == params


def test_training_leaves_experts_as_they_are(mixed: Path, tmp_path: Path) -> None:
    workflows.train(
        None, "cluttered-digits", tmp_path / "trained", init=mixed, training=SHORT, accelerator="cpu",
        data_options=None,
    )  # fmt: skip
    before, after = load_supernet(mixed)[0], load_supernet(tmp_path / "trained")[0]
    changed = {name: not torch.equal(p, dict(after.named_parameters())[name]) for name, p in before.named_parameters()}
    frozen = {name for name, p in before.named_parameters() if not p.requires_grad}
    assert frozen
    assert not any(changed[name] for name in frozen)
    assert any(changed[name] for name in changed if "projection_in" in name)
    assert any(changed[name] for name in changed if "projection" not in name and name not in frozen)
    arch = after.space.decode(after.space.sample(1, seed=1))[0]
    value = Evaluator(after, open_data("cluttered-digits"), images=100, calibration_images=100, seed=0).accuracy(arch)
    assert 0 <= value <= 1


def test_the_relaxed_network_has_a_router(supernet: Supernet) -> None:
    net = MixedNet(supernet.space)
    probabilities = net.probabilities()
    assert {name: len(p) for name, p in probabilities.items()} == {"expert_1": 3, "expert_2": 3, "expert_3": 3}
    opened = {name: torch.ones_like(p) for name, p in probabilities.items()}
    net(torch.randn(4, 1, 32, 32), Paths(probabilities, opened)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.arch_parameters)
    assert all(p.requires_grad for p in net.weight_parameters)
    assert sum(not p.requires_grad for p in net.supernet.parameters()) > 0


def test_a_bundle_has_one_expert_a_place(mixed: Path, this: Target, tmp_path: Path, hwnas_cli: Any) -> None:
    space = load_supernet(mixed)[0].space
    arch = {**space.largest, "expert_1": "sequential-2", "expert_3": "sequential-3"}
    (tmp_path / "arch.json").write_text(json.dumps({"space": space.name, "arch": arch}), encoding="utf-8")
    words = ("export", tmp_path / "arch.json", "--supernet", mixed, "--target", this.name, "--out", tmp_path / "bundle")
    ran = hwnas_cli(*words)
    assert ran.code == 0, ran.err
    ran = hwnas_cli("verify", tmp_path / "bundle")
    assert ran.code == 0, ran.err


def test_the_command_line(tmp_path: Path, hwnas_cli: Any) -> None:
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    names = [f"{tmp_path / 'nets.py'}:{name}" for name in ("one", "two")]
    words = ("hybrid", names[0], "--expert", names[1], "--data", "cluttered-digits", "--out")
    ran = hwnas_cli(*words, tmp_path / "mixed")
    assert ran.code == 0, ran.err
    assert "4 networks of nets-one and nets-two" in ran.out
    assert "expert_2 -> 8x8x8: million MACs nets-two" in ran.out
    ran = hwnas_cli(*words, tmp_path / "again", "--json")
    assert json.loads(ran.out)["stages"][0]["maps"] == [8, 16, 16]
    ran = hwnas_cli(*words, tmp_path / "more", "--expert-weights", "a.pt", "--expert-weights", "b.pt")
    assert ran.code == 2
    assert "there are 1 experts, and 2 files of their weights" in ran.err
    ran = hwnas_cli("hybrid", names[1], "--expert", names[0], "--data", "cluttered-digits", "--out", tmp_path / "wrong")
    assert ran.code == 2
    assert "nets-two has 3 outputs, but cluttered-digits has 10 classes" in ran.err


def test_networks_without_maps_of_a_common_size(tmp_path: Path) -> None:
    odd = nn.Sequential(nn.Conv2d(1, 8, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    with pytest.raises(ModelError, match=r"no maps of a common size.*l has 16 x 16, 8 x 8, 4 x 4; sequential-2"):
        workflows.hybrid(trunk(), [odd], "cluttered-digits", tmp_path / "out", shape=(1, 32, 32))
    with pytest.raises(InvalidValue, match="at least one expert"):
        workflows.hybrid(trunk(), [], "cluttered-digits", tmp_path / "out", shape=(1, 32, 32))
    with pytest.raises(InvalidValue, match="experts are a list of networks, not str"):
        workflows.hybrid(trunk(), "nets.py:two", "cluttered-digits", tmp_path / "out", shape=(1, 32, 32))


class Branching(nn.Module):
    """What cannot be traced: a branch on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_errors_name_the_network(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^branching: "):
        workflows.hybrid(trunk(), [Branching()], "cluttered-digits", tmp_path / "out", shape=(1, 32, 32))


def test_a_spec_whose_expert_does_not_fit_is_refused(mixed: Path) -> None:
    document = json.loads((mixed / "network.json").read_text(encoding="utf-8"))
    first, second = document["segments"][:2]
    first["experts"]["sequential-2"] = second["experts"]["sequential-2"]
    with pytest.raises(ValueError, match=r"the stage stage1 of sequential-2 has .* maps of another shape"):
        NetworkSpec.model_validate(document)


def test_other_classes(supernet: Supernet) -> None:
    made, new = for_classes(supernet, 3, seed=0)
    assert made.space.classes == 3
    assert all(name.startswith("slots.head") for name in new)
    assert {name: len(v.values) for name, v in ((v.name, v) for v in made.space.variables)} == {
        "resolution": 1, "expert_1": 3, "expert_2": 3, "expert_3": 3,
    }  # fmt: skip
    before, after = dict(supernet.named_parameters()), dict(made.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in after.keys() - set(new))
    assert {name for name, p in after.items() if not p.requires_grad} == {
        name for name, p in before.items() if not p.requires_grad
    }


def test_a_differentiable_search_starts_from_its_weights(
    mixed: Path, this: Target, tmp_path: Path, hwnas_cli: Any
) -> None:
    tables = tmp_path / "tables"
    space = load_supernet(mixed)[0].space
    workflows.profile(space, this, tables=tables, networks=4, bound_networks=1)
    words = ("search", "--strategy", "gdas", "--init", mixed, "--data", "cluttered-digits", "--steps", "2")
    end = (
        "--budget",
        "200%",
        "--target",
        this.name,
        "--no-margin",
        "--tables",
        tables,
        "--out",
        tmp_path / "arch.json",
    )
    ran = hwnas_cli(*words, *end)
    assert ran.code == 0, ran.err
    assert f"hwnas subnet extract {tmp_path / 'arch.json'} --supernet {mixed}" in ran.out
    found = json.loads((tmp_path / "arch.json").read_text(encoding="utf-8"))
    assert set(found["probabilities"]) == {"expert_1", "expert_2", "expert_3"}
    ran = hwnas_cli(*words, "--space", "mobilenetv3-tiny", *end)
    assert ran.code == 2
    assert "has a space, so a space" in ran.err
    ran = hwnas_cli("search", "--strategy", "pc-darts", *words[3:], *end[:-1], tmp_path / "other.json")
    assert ran.code == 2
    assert "cannot start from the weights of all" in ran.err


def test_the_relaxed_network_has_the_weights_that_it_starts_from(supernet: Supernet) -> None:
    net = MixedNet(supernet.space, init=supernet)
    for name, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, net.supernet.state_dict()[name])


@pytest.mark.parametrize("method", sorted(ADAPTERS))
def test_no_method_of_fine_tuning_changes_an_expert(method: str, supernet: Supernet) -> None:
    before = {name: p.detach().clone() for name, p in supernet.named_parameters() if not p.requires_grad}
    adapted = Adapted(supernet, AdapterChoice(method=method, rank=2), seed=0)
    adapted.start(torch.device("cpu"), None)
    assert not before.keys() & {name.partition(":")[0] for name in adapted.trained}
    adapted.end()
    after = dict(supernet.named_parameters())
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {name for name, p in after.items() if not p.requires_grad} == before.keys()


class ChannelsLast(nn.Module):
    """Stages whose maps have the channels last, as LayerNorm of ConvNeXt's and Swin's blocks needs them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next = nn.Conv2d(1, 8, 4, 4), nn.Conv2d(8, 16, 2, 2)
        self.first, self.second = (nn.Sequential(nn.LayerNorm(n), nn.Linear(n, n), nn.Linear(n, n)) for n in (8, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x).permute(0, 2, 3, 1))
        x = self.second(self.next(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        made: Tensor = self.head(x.mean(dim=(1, 2)))
        return made


def test_maps_with_the_channels_last_are_no_cuts(tmp_path: Path) -> None:
    networks = [ChannelsLast().eval() for _ in range(2)]
    with pytest.raises(ModelError, match="channelslast has none; channelslast-2 has none"):
        workflows.hybrid(networks[0], networks[1:], "cluttered-digits", tmp_path / "out", shape=(1, 32, 32))
