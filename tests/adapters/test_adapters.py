"""Adapters: what they change of a weight, and trainings with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from hwnas.adapters import ADAPTERS, Adapted, Adapter, AdapterChoice
from hwnas.adapters.dynamic import DynamicLowRank
from hwnas.adapters.low_rank import Dora, Kronecker, Lora
from hwnas.adapters.spectral import Gates, SpectralAdditive, SpectralRotation
from hwnas.data import ClutteredDigits
from hwnas.errors import InvalidValue
from hwnas.lowering import form_of
from hwnas.spaces import make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, extract, single, train
from hwnas.targets import Recipe
from hwnas.tracing.choices import ElasticOptions
from hwnas.tracing.network import network_of
from hwnas.tracing.ranks import blank
from hwnas.tracing.supernet import supernet_of
from hwnas.tracing.trace import trace

MADE = {name: kind.make for name, kind in ADAPTERS.items() if kind.make is not None}
DATA = ClutteredDigits()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def weight(out: int = 24, into: int = 16) -> Tensor:
    return torch.randn(out, into, generator=generator())


def moved(adapter: Adapter) -> Adapter:
    """An adapter whose parameters were trained, somehow."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
        if isinstance(adapter, Gates):
            adapter.gate[-3:] = -0.1
    return adapter


@pytest.mark.parametrize("name", MADE)
def test_a_merge_is_a_function_of_the_weight_and_the_parameters(name: str) -> None:
    make, before = MADE[name], weight()
    adapter = make(before, 4, generator())
    if name != "dynamic-rank":  # which cuts small singular values off at once
        torch.testing.assert_close(adapter.merge(before), before, rtol=0, atol=1e-5)
    moved(adapter)
    once = adapter.merge(before)
    assert once.shape == before.shape
    assert torch.equal(adapter.merge(before), once)
    if name != "dynamic-rank":
        assert not torch.allclose(once, before, atol=1e-2)
        once.square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in adapter.parameters())
    other = make(before, 4, torch.Generator().manual_seed(5))
    other.load_state_dict(adapter.state_dict())
    assert torch.equal(other.merge(before), once)


@pytest.mark.parametrize("name", MADE)
def test_a_rank_beyond_the_matrix(name: str) -> None:
    for rank in (0, 17):
        with pytest.raises(InvalidValue, match=rf"rank {rank} does not fit a matrix of 24 x 16; it is 1 to 16"):
            MADE[name](weight(), rank, generator())


def test_lora() -> None:
    before, adapter = weight(), moved(Lora(weight(), 3, generator()))
    assert isinstance(adapter, Lora)
    change = adapter.merge(before) - before
    assert torch.linalg.matrix_rank(change) == 3
    x = torch.randn(5, 16)
    unmerged = x @ before.T + (x @ adapter.a.T) @ adapter.b.T
    torch.testing.assert_close(x @ adapter.merge(before).T, unmerged, rtol=0, atol=1e-5)


def test_dora_has_the_norms_apart() -> None:
    before, adapter = weight(), moved(Dora(weight(), 3, generator()))
    assert isinstance(adapter, Dora)
    merged = adapter.merge(before)
    torch.testing.assert_close(merged.norm(dim=1, keepdim=True), adapter.magnitude.abs(), rtol=1e-5, atol=1e-5)
    direction = before + adapter.b @ adapter.a
    torch.testing.assert_close(
        merged / merged.norm(dim=1, keepdim=True), direction / direction.norm(dim=1, keepdim=True)
    )


@pytest.mark.parametrize(("rank", "n"), [(4, 4), (5, 4), (7, 4), (8, 8), (3, 2)])
def test_kronecker_products(rank: int, n: int) -> None:
    before, adapter = weight(), moved(Kronecker(weight(), rank, generator()))
    assert isinstance(adapter, Kronecker)
    assert adapter.a.shape == (n, n, n)
    change = sum(torch.kron(a, s @ t) for a, s, t in zip(adapter.a, adapter.s, adapter.t, strict=True))
    torch.testing.assert_close(adapter.merge(before), before + change, rtol=0, atol=1e-5)


def test_spectral_changes_stay_with_the_largest_directions() -> None:
    before = weight()
    u, s, v = torch.linalg.svd(before, full_matrices=False)
    additive = moved(SpectralAdditive(before, 3, generator()))
    rest = before - u[:, :3] * s[:3] @ v[:3]
    torch.testing.assert_close(
        additive.merge(before) - rest,
        (additive.u + additive.a) * s[:3] @ (additive.v + additive.b),  # type: ignore[operator]
        rtol=0,
        atol=1e-4,
    )
    rotation = moved(SpectralRotation(before, 3, generator()))
    assert isinstance(rotation, SpectralRotation)
    with torch.no_grad():
        rotation.scale.zero_()
    # Only directions are turned: singular values stay, and so do the smaller ones with their directions.
    merged = rotation.merge(before)
    torch.testing.assert_close(torch.linalg.svdvals(merged), s, rtol=0, atol=1e-4)
    torch.testing.assert_close(u[:, 3:].T @ merged @ v[3:].T, torch.diag(s[3:]), rtol=0, atol=1e-4)
    with torch.no_grad():
        rotation.scale.fill_(0.5)
    values = torch.linalg.svdvals(rotation.merge(before))
    torch.testing.assert_close(values, torch.cat([1.5 * s[:3], s[3:]]).sort(descending=True).values, rtol=0, atol=1e-4)


def test_gates_drop_directions() -> None:
    before, adapter = weight(), Gates(weight(), 4, generator())
    with torch.no_grad():
        adapter.gate[[2, 15]] = -0.1
    assert adapter.found == 14
    values = torch.linalg.svdvals(before)
    left = torch.cat([values[:2], values[3:15], torch.zeros(2)])
    torch.testing.assert_close(torch.linalg.svdvals(adapter.merge(before)), left, rtol=0, atol=1e-4)


def test_dynamic_rank_finds_the_rank() -> None:
    noise = torch.randn(24, 3, generator=generator()) @ torch.randn(3, 16, generator=generator())
    adapter = DynamicLowRank(weight(), 1, generator())
    start = adapter.found
    for _ in range(200):
        adapter.advance(adapter.merge(weight()) - noise, 0.1)
    assert start > 3
    assert adapter.found == 3
    torch.testing.assert_close(adapter.merge(weight()), noise, rtol=0, atol=1e-3)


def test_a_step_of_dynamic_rank_is_that_of_the_gradient() -> None:
    """With full bases and nothing to cut off, a step is a step of gradient descent."""
    before = torch.diag(torch.linspace(1, 2, 8))
    adapter = DynamicLowRank(before, 8, generator())
    gradient = torch.randn(8, 8, generator=generator())
    adapter.advance(gradient, 0.01)
    torch.testing.assert_close(adapter.merge(before), before - 0.01 * gradient, rtol=0, atol=1e-5)


# -- trainings ---------------------------------------------------------------------------------------------------------


def net() -> Supernet:
    space = make_space("mobilenetv3-tiny", classes=10)
    whole = Supernet(space, seed=0)
    with torch.no_grad():  # programs leave biases of 0 out
        for name, parameter in whole.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return single(space, space.smallest, extract(whole, space.smallest))


def config(**changes: Any) -> TrainConfig:
    values = {"phases": [Phase(name="finetune", steps=12, learning_rate=0.05)], "batch_size": 16, "validate_every": 0}
    return TrainConfig(**{**values, **changes})


def trained(folder: Path, **changes: Any) -> tuple[Supernet, Any]:
    found = net()
    until = changes.pop("until", None)
    history = train(found, DATA, config(**changes), seed=0, folder=folder, until=until)
    return found, history


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_training_merges(method: str, tmp_path: Path, recipe: Recipe, usual: list[object]) -> None:
    before = net()
    found, history = trained(tmp_path / "one", adapter={"method": method, "rank": 4})
    old, new = dict(before.named_parameters()), dict(found.named_parameters())
    changed = {name for name in old if not torch.allclose(old[name], new[name], atol=1e-6)}
    head = [name for name in old if "classifier" in name][-2:]
    assert set(head) <= changed
    assert set(head) == changed if method == "head" else len(changed) > 10
    assert history.adapted["trained_parameters"] > 0
    if method != "dynamic-rank":  # whose factors are as large as the rank that it finds
        assert history.adapted["trained_parameters"] < sum(p.numel() for p in old.values())
    assert all(p.requires_grad for p in found.parameters())
    # The same network as one that was trained without adapters: its program has the same nodes and shapes.
    form, space = form_of(recipe), found.space
    program = form.lower(extract(found, space.largest), space.input_shape(space.largest))
    assert form_of_program(program) == usual


@pytest.fixture(scope="module")
def usual(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The program of a network whose weights were all trained."""
    whole, _ = trained(tmp_path_factory.mktemp("whole"))
    space = whole.space
    return form_of_program(form_of(recipe).lower(extract(whole, space.largest), space.input_shape(space.largest)))


def form_of_program(program: onnx.ModelProto) -> list[object]:
    """Nodes, with values named in the order in which they occur, and shapes of the weights."""
    names: dict[str, int] = {}
    shapes = {initializer.name: tuple(initializer.dims) for initializer in program.graph.initializer}
    return [
        (node.op_type, [(names.setdefault(name, len(names)), shapes.get(name)) for name in (*node.input, *node.output)])
        for node in program.graph.node
    ]


@pytest.mark.parametrize("method", ["lora", "dynamic-rank", "gates"])
def test_a_paused_training_goes_on(method: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"adapter": {"method": method, "rank": 4}, "ema_decay": 0.9}
    whole, one = trained(tmp_path / "whole", **how)
    trained(tmp_path / "parts", **how, until=5)
    parts, two = trained(tmp_path / "parts", **how)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    assert one.adapted == two.adapted


def test_lora_trains_what_its_factors_say(tmp_path: Path) -> None:
    found, _ = trained(tmp_path, adapter={"method": "lora", "rank": 2})
    before, after = net().state_dict(), found.state_dict()
    adapted = Adapted(net(), AdapterChoice(method="lora", rank=2), seed=0)
    names = {name.partition(":")[0] for name in adapted.trained if ":" in name}
    assert names
    for name in names:
        assert torch.linalg.matrix_rank((after[name] - before[name]).flatten(1), atol=1e-5) <= 2


def test_choices() -> None:
    with pytest.raises(InvalidValue, match=r"lora of rank 5000 has no fewer parameters than any layer; the largest, "):
        Adapted(net(), AdapterChoice(method="lora", rank=5000), seed=0)
    with pytest.raises(ValidationError, match="method of fine-tuning"):
        AdapterChoice(method="lore")
    assert "adapter" not in config().model_dump()
    everything = Adapted(net(), None, seed=0)
    assert set(everything.trained) == {name for name, _ in net().named_parameters()}
    assert everything.end() == {}


def small(last: nn.Module) -> nn.Module:
    """A network with a linear layer in its middle."""
    gate = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 16), nn.Sigmoid(), nn.Unflatten(1, (16, 1, 1))
    )

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gate, self.last = nn.Conv2d(1, 16, 3, 2, 1), gate, last

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            return self.last(x * self.gate(x))

    return Net().eval()


def traced(module: nn.Module, **options: Any) -> Supernet:
    found = trace(module, (1, 32, 32))
    spec = network_of(found, "small", ElasticOptions(**options))
    tensors = {key: weight.tensor for key, weight in found.weights.items()}
    return supernet_of(spec, blank(spec) | tensors)


@pytest.mark.parametrize(
    "last",
    [
        nn.Sequential(nn.Conv2d(16, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    ],
)
def test_the_head_is_the_last_layer(last: nn.Module, tmp_path: Path) -> None:
    found = traced(small(last), ranks=(0.5,), multiple=4)
    before = {name: p.detach().clone() for name, p in found.named_parameters()}
    train(found, DATA, config(adapter={"method": "head"}), seed=0, folder=tmp_path)
    changed = {name for name, p in found.named_parameters() if not torch.equal(p, before[name])}
    assert {before[name].shape[0] for name in changed} == {10}
    assert len(changed) == 2


def test_ranks_that_are_told_are_those_of_the_kept_weights(tmp_path: Path) -> None:
    """An average of matrices of low rank has a larger one."""
    for method in ("dynamic-rank", "gates"):
        found, history = trained(tmp_path / method, adapter={"method": method, "rank": 2}, ema_decay=0.99)
        weights = dict(found.named_parameters())
        assert history.adapted["ranks"]
        for name, rank in history.adapted["ranks"].items():
            values = torch.linalg.svdvals(weights[name].flatten(1).double())
            assert rank == int((values > 1e-5 * values[0]).sum())


def test_frozen_weights_stay_frozen(tmp_path: Path) -> None:
    for method in (None, "lora"):
        found = net()
        frozen = [name for name, _ in found.named_parameters()][:6]
        for name in frozen:
            found.get_parameter(name).requires_grad_(False)
        before = {name: p.detach().clone() for name, p in found.named_parameters()}
        how = {"adapter": {"method": method, "rank": 4}} if method else {}
        train(found, DATA, config(**how), seed=0, folder=tmp_path / str(method))
        assert all(torch.equal(found.get_parameter(name), before[name]) for name in frozen)
        assert [name for name, p in found.named_parameters() if not p.requires_grad] == frozen


def test_a_training_that_fails_leaves_nothing_frozen(tmp_path: Path) -> None:
    found = net()

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(found, DATA, config(adapter={"method": "head"}), seed=0, folder=tmp_path, progress=fail)
    assert all(p.requires_grad for p in found.parameters())


def test_gates_take_layers_of_any_size() -> None:
    wide, narrow = (Adapted(net(), AdapterChoice(method="gates", rank=rank), seed=0) for rank in (500, 1))
    assert wide.trained.keys() == narrow.trained.keys()
