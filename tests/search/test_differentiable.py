from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.data import Data, DataOptions, open_data
from hwnas.errors import CheckpointError, InfeasibleBudget, InvalidValue, TrainingDiverged, UnknownName
from hwnas.latency import LatencyModel
from hwnas.search import latency_objective, resource
from hwnas.search.differentiable import (
    METHODS,
    DifferentiableConfig,
    most_probable,
    search_differentiable,
    usual_search,
)
from hwnas.search.differentiable.bilevel import first_order, second_order
from hwnas.search.differentiable.methods import Method
from hwnas.search.differentiable.mixed import MixedNet, Paths
from hwnas.search.differentiable.repair import log_probability
from hwnas.search.differentiable.run import Trained
from hwnas.search.differentiable.sampling import fair_paths, one_path, softmax, two_paths
from hwnas.search.differentiable.skips import skip_limits
from hwnas.search.problem import Constraints
from hwnas.spaces import Arch, Codes, SlotSum, Space, make_space
from hwnas.spaces.darts import CELLS as CELL_KINDS
from hwnas.spaces.darts import pairs
from hwnas.spaces.nasbench201 import NasBench201, nasbench201_string

CELLS = make_space("nasbench201-tiny")
ELASTIC = make_space("mobilenetv3-tiny").fix(resolution=24)
SPACES = {"nasbench201": CELLS, "darts": make_space("darts-tiny"), "mobilenetv3": ELASTIC}
TOKENS = make_space("sequence+length=48", vocabulary=17, classes=10).fix(width=32, depth=(1, 2))
WIDE = {"wide": make_space("nasbench201-tiny+aspect=2:1")}
NAME = "board/made-up"
QUICK = DifferentiableConfig(steps=6, batch_size=4, warmup=0.0, update_every=1)


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data("cluttered-digits")


def wanted(space: Space, share: float = 0.5, per_op: float = 1e-3, **changes: Any) -> Constraints:
    """A budget at a quantile of what random networks take."""
    total = space.slot_sum(lambda op: per_op + op.macs / 1e8)
    model = LatencyModel(space=space, target=NAME, total=total, plain=total, fit=None)
    budget = float(np.quantile(total(space.sample(2000, seed=0)), share))
    constraints = Constraints(
        space=space, objectives=(latency_objective(model),), budgets={NAME: budget}, confidence=None
    )
    return replace(constraints, **changes)


def one_hot(space: Space, arch: Arch) -> Paths:
    weights = {
        v.name: functional.one_hot(torch.tensor(v.values.index(arch[v.name])), len(v.values)).float()
        for v in space.variables
        if len(v.values) > 1
    }
    return Paths(weights, weights)


# -- the relaxed network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_with_one_path_it_is_the_network(name: str) -> None:
    space = SPACES[name]
    net = MixedNet(space, seed=1).eval()
    for arch in [space.smallest, *space.decode(space.sample(3, seed=0))]:
        x = torch.randn(2, *space.input_shape(arch), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(net(x, one_hot(space, arch)), net.supernet(x, arch))


def test_with_one_path_it_is_the_network_of_tokens() -> None:
    net = MixedNet(TOKENS, seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    for arch in TOKENS.decode(TOKENS.sample(6, seed=0)):
        x = torch.randint(1, 17, (2, 48), generator=generator)
        x[1, 30:] = 0  # padding, which the masks leave out
        with torch.no_grad():
            torch.testing.assert_close(net(x, one_hot(TOKENS, arch)), net.supernet(x, arch))


def test_mixers_of_tokens_are_searched(tmp_path: Path) -> None:
    data = open_data("listops", options=DataOptions(length=48))
    constraints = wanted(TOKENS)
    config = usual_search(TOKENS).model_copy(update={"steps": 3, "batch_size": 4, "warmup": 0.0, "update_every": 1})
    assert (config.optimizer, config.learning_rate) == ("adamw", 1e-3)
    for strategy in ("gdas", "proxyless"):  # one path, and one that runs in the backward pass alone
        found = search_differentiable(constraints, data, strategy, config, folder=tmp_path / strategy)
        assert found.repaired.costs[NAME] <= constraints.budgets[NAME]
        assert len(found.probabilities["mixer_1"]) == 7
    calls = iter(range(10))
    part = search_differentiable(
        constraints, data, "gdas", config.model_copy(update={"checkpoint_every": 1}), folder=tmp_path / "b",
        stop=lambda: next(calls) == 1,
    )  # fmt: skip
    assert part.steps == 2
    again = search_differentiable(
        constraints, data, "gdas", config.model_copy(update={"checkpoint_every": 1}), folder=tmp_path / "b"
    )
    assert again == search_differentiable(constraints, data, "gdas", config, folder=tmp_path / "c")


def test_a_place_is_the_sum_of_its_ops_weighted_by_the_product_of_probabilities() -> None:
    space = ELASTIC.fix(**{n: v[0] for n, v in ELASTIC.choices.items() if n not in ("depth_3", "kernel_3_2")})
    net = MixedNet(space, seed=1).eval().double()
    p = {"depth_3": torch.tensor([0.2, 0.5, 0.3]), "kernel_3_2": torch.tensor([0.6, 0.3, 0.1])}
    weights = {name: value.double() for name, value in p.items()}
    x = torch.randn(2, *space.input_shape(space.smallest), dtype=torch.float64)
    seen: list[tuple[Tensor, Tensor]] = []
    second = next(place for place in space.places if place.name == "stage3.block2")
    before = net._mixed

    def mixed(place: Any, values: Any, *others: Any) -> Tensor | None:
        y = before(place, values, *others)
        if place == second:
            seen.append((values[place.reads[0]], y))
        return y

    net._mixed = mixed  # type: ignore[method-assign]
    with torch.no_grad():
        net(x, Paths(weights, {name: torch.ones_like(w) for name, w in weights.items()}))
        [(read, found)] = seen
        by_hand = 0.2 * read
        for k, kernel in enumerate(space.choices["kernel_3_2"]):
            [op] = [o for s, o in space.ops({**space.largest, "kernel_3_2": kernel}) if s.name == second.name]
            by_hand += 0.8 * p["kernel_3_2"][k].double() * net.supernet.elastic(second.name, op)(read, op)
    torch.testing.assert_close(found, by_hand, rtol=1e-6, atol=1e-8)


def saved_bytes(net: MixedNet, paths: Paths) -> int:
    """What the forward pass keeps for the backward one, without the weights."""
    own = {p.data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(8, *net.space.input_shape(net.space.largest))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = net(x, paths).square().sum()
        total = sum(kept.values())
        loss.backward()
    return total


@pytest.mark.long
def test_what_a_step_keeps_in_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    twice = NasBench201(name="nasbench201-tiny", channels=16, cells=2, classes=10, in_channels=1)
    space = twice.space(in_channels=1, classes=10)  # what stands between the cells is the same for all methods
    whole, part = MixedNet(space), MixedNet(space, partial=4, edge_normalisation=True)
    darts = saved_bytes(whole, softmax(whole.alphas, 1.0, generator))
    assert saved_bytes(part, softmax(part.alphas, 1.0, generator)) <= 0.5 * darts
    for name in ("gdas", "proxyless"):
        sizes = [saved_bytes(whole, METHODS[name].weights(whole.alphas, 1.0, generator)) for _ in range(8)]
        assert np.mean(sizes) <= 0.4 * darts, name
        with whole.held_weights():
            sizes = [saved_bytes(whole, METHODS[name].archs(whole.alphas, 1.0, generator)) for _ in range(8)]
        assert np.mean(sizes) <= 0.4 * darts, name


def test_part_of_the_channels() -> None:
    net = MixedNet(CELLS, partial=4, edge_normalisation=True)
    kernels = [p for n, p in net.supernet.named_parameters() if "edge_0_1" in n and n.endswith("conv.weight")]
    assert {tuple(k.shape[:2]) for k in kernels} == {(4, 4), (8, 8), (16, 16)}  # a quarter of 16, 32, 64
    for space in (ELASTIC, make_space("nasbench201-tiny")):
        with pytest.raises(InvalidValue, match="one of 3 channels"):
            MixedNet(space, partial=3)


def test_edges_are_weighted_only_where_the_space_chooses_among_them() -> None:
    """A node of NAS-Bench-201 reads all its edges, node 2 of DARTS both inputs: weights would change no network."""
    assert not MixedNet(CELLS, partial=4, edge_normalisation=True).edges
    cells = make_space("darts-tiny")
    net = MixedNet(cells, partial=4, edge_normalisation=True)
    assert sorted(len(p) for p in net.edges.values()) == [3, 3, 4, 4, 5, 5]
    assert set(net.edges) == {f"{kind}_{j}_inputs" for kind in CELL_KINDS for j in (3, 4, 5)}
    held = MixedNet(cells.fix(normal_3_inputs=1), edge_normalisation=True)
    assert sorted(len(p) for p in held.edges.values()) == [3, 4, 4, 5, 5]


def test_the_edges_of_a_network_are_those_of_the_largest_weights() -> None:
    cells = make_space("darts-tiny")
    cells = cells.fix(**{name: 6 for name in cells.column if name.endswith(("first", "second"))})
    net = MixedNet(cells, partial=4, edge_normalisation=True)
    before = net.probabilities()
    weights = net.edges["normal_4_inputs"]
    assert len(weights) == 4
    with torch.no_grad():
        weights[1], weights[3] = 2.0, 1.0
    after = net.probabilities()
    shares = weights.detach().softmax(dim=0)
    expected = torch.stack([shares[a] * shares[b] for a, b in pairs(4)])
    torch.testing.assert_close(after["normal_4_inputs"], expected / expected.sum())
    assert pairs(4)[int(after["normal_4_inputs"].argmax())] == (1, 3)
    assert all(torch.equal(after[name], before[name]) for name in before if name != "normal_4_inputs")
    found = most_probable(wanted(cells, share=1.0), after)
    assert pairs(4)[found.argmax["normal_4_inputs"]] == (1, 3)


def test_edge_weights_learn_from_the_latency(digits: Data) -> None:
    """What is held to the target is the expectation of the network that is made in the end."""
    constraints = wanted(make_space("darts-tiny"))
    run = Trained(constraints, digits, METHODS["pc-darts"], QUICK, seed=0, device=torch.device("cpu"))
    run.latency(run.net.probabilities()).sum().backward()
    assert all(p.grad is not None for p in run.net.edges.values())


def test_networks_of_different_sizes_cannot_be_mixed() -> None:
    with pytest.raises(InvalidValue, match="of resolution"):
        MixedNet(make_space("mobilenetv3-tiny"))
    with pytest.raises(InvalidValue, match="width_stem"):
        MixedNet(make_space("resnet50").fix(resolution=128))


# -- what runs ---------------------------------------------------------------------------------------------------------


def test_fair_paths_train_every_value_equally_often() -> None:
    counts = {v.name: torch.zeros(len(v.values)) for v in CELLS.variables if len(v.values) > 1}
    for step in range(7):
        paths = fair_paths(CELLS, 3, step)
        assert len(paths) == 5
        for path in paths:
            for name, weights in path.weights.items():
                counts[name] += weights
        assert all((c == step + 1).all() for c in counts.values())
    # Variables of fewer values come round sooner: never more than one apart.
    space = make_space("darts-tiny")
    counts = {v.name: torch.zeros(len(v.values)) for v in space.variables if len(v.values) > 1}
    for step in range(7):
        for path in fair_paths(space, 3, step):
            for name, weights in path.weights.items():
                counts[name] += weights
        assert all(c.max() - c.min() <= 1 for c in counts.values())


def test_an_epoch_of_fairnas_runs_every_op_of_every_edge_equally_often(digits: Data, tmp_path: Path) -> None:
    constraints = wanted(CELLS)
    run = Trained(constraints, digits, METHODS["fairnas"], QUICK, seed=0, device=torch.device("cpu"))
    calls: dict[str, int] = {}
    names = [n for n in run.net.supernet.slots if "edge" in n]
    for name in names:
        [op] = run.net.supernet.slots[name]._ops  # type: ignore[union-attr]
        module = run.net.supernet.slots[name].skeleton(op).module  # type: ignore[operator,union-attr]

        def count(*_: object, name: str = name) -> None:
            calls[name] = calls.get(name, 0) + 1

        module.register_forward_hook(count)
    images, labels = next(run.training_images(0))
    for step in range(4):
        run._learn_weights(step, (images, labels), 1.0, torch.Generator(), archs=False)
    assert set(calls) == set(names)
    assert set(calls.values()) == {4}


def test_two_paths() -> None:
    generator = torch.Generator().manual_seed(0)
    alpha = torch.tensor([0.3, -0.2, 1.0, 0.0], requires_grad=True)
    active = np.zeros(4)
    for _ in range(400):
        paths = two_paths({"x": alpha}, 1.0, generator)
        assert paths.open["x"].sum() == 2
        assert sorted(paths.weights["x"].tolist()) == [0, 0, 0, 1]
        assert paths.open["x"][paths.weights["x"].argmax()] == 1
        active[int(paths.weights["x"].argmax())] += 1
    assert active.argmax() == 2 and active.min() > 0
    (gradient,) = torch.autograd.grad((paths.weights["x"] * torch.arange(4.0)).sum(), alpha)
    assert (gradient != 0).sum() == 2
    assert gradient.sum() == pytest.approx(0, abs=1e-6)  # only which of the two is better
    assert not one_path({"x": alpha}, 1.0, generator).weights["x"].requires_grad


@pytest.mark.parametrize("name", ["gdas", "snas", "fbnet"])
def test_samples_follow_the_probabilities(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    alpha = torch.tensor([0.5, 0.0, -1.0], requires_grad=True)
    counts = torch.zeros(3)
    for _ in range(3000):
        weights = METHODS[name].archs({"x": alpha}, 0.1, generator).weights["x"].detach()
        assert weights.sum() == pytest.approx(1, abs=1e-5)
        counts[weights.argmax()] += 1
    torch.testing.assert_close(counts / 3000, alpha.detach().softmax(0), atol=0.04, rtol=0)


def test_a_temperature_of_zero_is_refused() -> None:
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidValue, match="temperatures are positive"):
            Method(source="", temperatures=(1.0, bad))


def test_comparing_two_values_leaves_the_others_probabilities(digits: Data) -> None:
    run = Trained(wanted(CELLS), digits, METHODS["proxyless"], QUICK, seed=0, device=torch.device("cpu"))
    batch = next(run.training_images(0))
    for step in range(4):
        before = {n: p.detach().clone() for n, p in run.net.probabilities().items()}
        paths = two_paths(run.net.alphas, 1.0, torch.Generator().manual_seed(step))
        run._learn_archs(step, paths, batch, batch, 1.0, 0.05)
        for name, p in run.net.probabilities().items():
            others = paths.open[name] == 0
            torch.testing.assert_close(p[others], before[name][others], rtol=1e-4, atol=1e-6)
            assert not torch.equal(p, before[name])


# -- two levels --------------------------------------------------------------------------------------------------------


def test_gradients_of_a_quadratic_problem() -> None:
    torch.manual_seed(0)
    n, m, rate = 5, 3, 0.1
    h = torch.randn(n, n, dtype=torch.float64)
    a_matrix, b = h @ h.T / n + torch.eye(n), torch.randn(n, m, dtype=torch.float64)
    c, d = torch.randn(n, dtype=torch.float64), torch.randn(m, dtype=torch.float64)
    w = torch.randn(n, dtype=torch.float64, requires_grad=True)
    a = torch.randn(m, dtype=torch.float64, requires_grad=True)

    def training() -> Tensor:
        return 0.5 * w @ a_matrix @ w - w @ b @ a

    def validation() -> Tensor:
        return 0.5 * (w - c).square().sum() + d @ a

    kept = w.detach().clone()
    after = w.detach() - rate * (a_matrix @ w.detach() - b @ a.detach())
    analytic = d + rate * b.T @ (after - c)
    [second] = second_order(training, validation, [w], [a], rate)
    [first] = first_order(validation, [a])
    torch.testing.assert_close(second, analytic, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(first, d)
    assert (second - first).abs().max() > 0.01
    assert torch.equal(w, kept)
    [same] = second_order(training, validation, [w], [a], 1e-12)
    torch.testing.assert_close(same, first)


# -- searches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy",
    [pytest.param(name, marks=[pytest.mark.long] if name == "darts-second-order" else []) for name in METHODS],
)
def test_every_method_ends_with_a_network_near_its_target(strategy: str, digits: Data, tmp_path: Path) -> None:
    constraints = wanted(CELLS)
    found = search_differentiable(constraints, digits, strategy, QUICK, folder=tmp_path)
    [budget], repaired = constraints.budgets.values(), found.repaired
    assert found.steps == 6 and found.ended is None
    assert 0.95 * budget <= repaired.costs[NAME] <= budget and repaired.near
    for name, p in found.probabilities.items():
        assert sum(p) == pytest.approx(1) and len(p) == len(CELLS.variable(name).values)
    uniform = {n: np.full(len(p), 1 / len(p)) for n, p in found.probabilities.items()}
    assert any(np.abs(np.array(p) - uniform[n]).max() > 1e-3 for n, p in found.probabilities.items())


@pytest.mark.parametrize(
    ("space", "strategy"),
    [
        ("darts", "gdas"),
        ("mobilenetv3", "darts"),
        ("wide", "gdas"),
        pytest.param("darts", "darts", marks=pytest.mark.long),
    ],
)
def test_other_spaces_take_part(strategy: str, space: str, digits: Data, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"steps": 2, "batch_size": 2})
    constraints = wanted((SPACES | WIDE)[space])
    found = search_differentiable(constraints, digits, strategy, config, folder=tmp_path)
    assert found.repaired.costs[NAME] <= constraints.budgets[NAME]


@pytest.mark.long
def test_the_expected_latency_goes_to_the_target(digits: Data, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"steps": 60, "arch_learning_rate": 0.1})
    for share in (0.2, 0.8):
        constraints = wanted(CELLS, share)
        found = search_differentiable(constraints, digits, "gdas", config, folder=tmp_path / str(share))
        assert found.expected[NAME] <= 1.03 * constraints.budgets[NAME]


@pytest.mark.parametrize(
    "strategy",
    ["gdas", pytest.param("pc-darts", marks=pytest.mark.long), pytest.param("fairnas", marks=pytest.mark.long)],
)
def test_a_search_that_was_stopped_goes_on_to_the_same_end(strategy: str, digits: Data, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"checkpoint_every": 2})
    calls = iter(range(100))
    constraints = wanted(CELLS)
    whole = search_differentiable(constraints, digits, strategy, config, folder=tmp_path / "a")
    part = search_differentiable(
        constraints, digits, strategy, config, folder=tmp_path / "b", stop=lambda: next(calls) == 2
    )
    assert part.steps == 3 and part.ended is not None and "3 of 6" in part.ended
    assert search_differentiable(constraints, digits, strategy, config, folder=tmp_path / "b") == whole
    assert search_differentiable(constraints, digits, strategy, config, folder=tmp_path / "c", seed=1) != whole
    with pytest.raises(CheckpointError, match="seed"):
        search_differentiable(constraints, digits, strategy, config, folder=tmp_path / "b", seed=1)
    # The device was profiled again: the same budget in ms is another share of the space.
    slower = wanted(CELLS, per_op=2e-3)
    with pytest.raises(CheckpointError, match="another latency"):
        search_differentiable(
            replace(slower, budgets=constraints.budgets), digits, strategy, config, folder=tmp_path / "b"
        )


def test_what_cannot_be_searched(digits: Data, tmp_path: Path) -> None:
    constraints = wanted(CELLS)

    def search(wanted: Constraints, strategy: str = "gdas", **changes: Any) -> None:
        search_differentiable(wanted, digits, strategy, QUICK.model_copy(update=changes), folder=tmp_path)

    with pytest.raises(UnknownName, match=r"'gads'.*Did you mean 'gdas'"):
        search(constraints, "gads")
    with pytest.raises(UnknownName, match="penalty"):
        search(constraints, penalty="quadratic")
    with pytest.raises(InvalidValue, match="none is given"):
        search(replace(constraints, budgets={}))
    macs = resource(CELLS, "macs")
    with pytest.raises(InvalidValue, match="and no others: macs"):
        search(replace(constraints, objectives=(macs,), budgets={"macs": 1e9}))
    with pytest.raises(InfeasibleBudget, match="The fastest is predicted at"):
        search(replace(constraints, budgets={NAME: 1e-3}))
    with pytest.raises(InvalidValue, match="channel in 10 classes"):
        search(wanted(make_space("nasbench201-tiny", classes=7)))
    with pytest.raises(InvalidValue, match="one of 4 channels"):
        search(wanted(ELASTIC), "pc-darts")
    with pytest.raises(InvalidValue, match="has one network"):
        search(wanted(CELLS.fix(**CELLS.largest)))
    with pytest.raises(TrainingDiverged, match="the loss is nan"):
        search(constraints, learning_rate=1e30)
    assert not list(tmp_path.iterdir())


# -- from probabilities to a network -----------------------------------------------------------------------------------


def probabilities(space: Space, seed: int, sharp: float = 2.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        v.name: (sharp * torch.randn(len(v.values), generator=generator, dtype=torch.float64)).softmax(0)
        for v in space.variables
        if len(v.values) > 1
    }


def all_networks(space: Space) -> Codes:
    grids = np.meshgrid(*(np.arange(len(v.values), dtype=np.uint8) for v in space.variables), indexing="ij")
    return np.unique(space.canonical(np.stack([g.reshape(-1) for g in grids], axis=1)), axis=0)


RESTRICTED = ELASTIC.fix(
    **{n: v[: 1 + ("kernel" in n and not n.endswith("_1"))] for n, v in ELASTIC.choices.items() if "depth" not in n}
)


@pytest.mark.parametrize("space", [CELLS, RESTRICTED], ids=["cells", "elastic"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_most_probable_network_near_the_target(space: Space, share: float) -> None:
    codes = all_networks(space)
    for seed in range(4):
        constraints, p = wanted(space, share), probabilities(space, seed)
        found = most_probable(constraints, p)
        gain = log_probability(space, {name: value.numpy() for name, value in p.items()})(codes)
        [latency], [budget] = constraints.costs(codes).T[:1], constraints.budgets.values()
        window = (latency <= budget) & (latency >= 0.95 * budget)
        argmax = codes[gain.argmax()]
        assert space.encode([found.argmax]).tolist() == [argmax.tolist()]
        allowed = window if window.any() else latency <= budget
        assert found.near == bool(window.any())
        assert found.probability == pytest.approx(gain[allowed].max(), rel=1e-9)
        assert found.costs[NAME] == pytest.approx(constraints.costs(space.encode([found.arch]))[0, 0])


def test_a_probable_network_near_its_target_is_left_alone() -> None:
    constraints = wanted(CELLS)
    codes = all_networks(CELLS)
    [latency] = constraints.costs(codes).T
    budget = constraints.budgets[NAME]
    near = codes[(latency <= budget) & (latency >= 0.97 * budget)][0]
    [arch] = CELLS.decode(near[None])
    p = {name: 0.9 * w.double() + 0.1 / len(w) for name, w in one_hot(CELLS, arch).weights.items()}
    found = most_probable(constraints, p)
    assert found.arch == found.argmax == arch and found.near


def test_a_margin_wider_than_the_window(make_model: Callable[..., LatencyModel]) -> None:
    """Then it lies near what the confidence leaves of the target."""
    constraints = wanted(CELLS)
    total = constraints.objectives[0].total
    assert isinstance(total, SlotSum)
    uncertain = latency_objective(make_model(CELLS, total, margin=0.2))
    constraints = replace(constraints, objectives=(uncertain,), confidence=0.95)
    limit = constraints.budgets[NAME] / 1.2
    for seed in range(3):
        found = most_probable(constraints, probabilities(CELLS, seed))
        assert found.near and 0.99 * limit <= found.costs[NAME] <= limit


def test_both_sides_of_the_window_are_held_with_confidence(make_model: Callable[..., LatencyModel]) -> None:
    constraints = wanted(CELLS)
    total = constraints.objectives[0].total
    assert isinstance(total, SlotSum)
    uncertain = latency_objective(make_model(CELLS, total, margin=0.02))
    constraints = replace(constraints, objectives=(uncertain,), confidence=0.95)
    budget = constraints.budgets[NAME]
    for seed in range(3):
        found = most_probable(constraints, probabilities(CELLS, seed))
        assert 0.95 * 1.02 * budget <= found.costs[NAME] <= budget / 1.02


def test_a_closed_gate_has_the_gradient_of_its_output(digits: Data) -> None:
    """The same as if both ops had run, though one of them runs only when its gradient is asked for."""
    net = MixedNet(CELLS, seed=2).double()
    net.eval()
    images, _ = digits.train_batch(0, 2, 32, seed=0)
    pair = {name: torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0]) for name in net.alphas}
    found = []
    for lazily in (True, False):
        gates = {name: torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64) for name in net.alphas}
        if not lazily:  # so small that nothing changes, but not nothing
            gates = {name: gate + 1e-9 * pair[name] for name, gate in gates.items()}
        for gate in gates.values():
            gate.requires_grad_()
        net(images.double(), Paths(gates, pair)).square().sum().backward()
        found.append(torch.stack([gate.grad for gate in gates.values() if gate.grad is not None]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert (found[0][:, 2] != 0).all()


def test_no_network_lies_in_the_window() -> None:
    """Then the window is doubled until one does, though those that are much faster are more probable."""
    space = CELLS.fix(**{n: 1 for n in CELLS.column if n.startswith("edge") and n != "edge_0_3"}, edge_0_3=[1, 3, 4])
    skip, small, large = np.sort(wanted(space).costs(all_networks(space))[:, 0])
    assert skip < 0.98 * small and small < 0.9 * large
    faster = {"edge_0_3": torch.tensor([0.9, 0.05, 0.05], dtype=torch.float64)}
    found = most_probable(wanted(space, budgets={NAME: 0.99 * large}), faster, window=1 - small / large)
    assert found.costs[NAME] == small and found.near
    found = most_probable(wanted(space, budgets={NAME: 0.99 * large}), faster, window=0.51 * (1 - small / large))
    assert found.costs[NAME] == small and not found.near
    found = most_probable(wanted(space, budgets={NAME: 0.99 * small}), faster, window=0.01)
    assert found.costs[NAME] == skip and not found.near


def test_skip_connections_are_counted() -> None:
    [(count, half)] = skip_limits(CELLS)
    assert half == 3
    codes = CELLS.sample(200, seed=0)
    texts = [nasbench201_string(arch) for arch in CELLS.decode(codes)]
    assert count(codes).tolist() == [text.count("skip_connect") for text in texts]
    limits = skip_limits(make_space("darts-tiny"))
    assert [half for _, half in limits] == [4, 4]
    assert skip_limits(ELASTIC) == []


def test_the_guard_returns_no_cell_of_skip_connections() -> None:
    skips = torch.tensor([0.05, 0.8, 0.05, 0.05, 0.05], dtype=torch.float64)
    skipping = {name: skips for name in CELLS.column if "edge" in name}
    constraints = wanted(CELLS, 0.05)
    with_guard = most_probable(constraints, skipping, limits=skip_limits(CELLS))
    without = most_probable(constraints, skipping)
    assert nasbench201_string(with_guard.arch).count("skip_connect") <= 3
    assert nasbench201_string(without.arch).count("skip_connect") > 3


def test_a_guard_that_no_network_keeps_is_known_before_the_search(digits: Data, tmp_path: Path) -> None:
    space = CELLS.fix(**{name: [1, 4] for name in CELLS.column if "edge" in name})
    constraints = wanted(space, 0.02)
    most_probable(constraints, probabilities(space, 0))
    config = QUICK.model_copy(update={"skip_guard": True})
    with pytest.raises(InfeasibleBudget, match="skip_guard = false"):
        search_differentiable(constraints, digits, "darts", config, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_guard_ends_a_search(digits: Data) -> None:
    config = QUICK.model_copy(update={"skip_guard": True})
    run = Trained(wanted(CELLS), digits, METHODS["darts"], config, seed=0, device=torch.device("cpu"))
    assert not run.skips_dominate()
    with torch.no_grad():
        for logits in run.net.alphas.values():
            logits[1] = 3.0
    assert run.skips_dominate()


def test_weights_and_probabilities_are_parameters_of_different_levels() -> None:
    net = MixedNet(CELLS, edge_normalisation=True)
    ours = {id(p) for p in net.arch_parameters} | {id(p) for p in net.weight_parameters}
    held = {
        id(p)
        for name, module in net.supernet.slots.items()
        if "edge" in name
        for layer in module.modules()
        if isinstance(layer, nn.BatchNorm2d)
        for p in layer.parameters()
    }
    assert held and not held & ours
    assert ours | held == {id(p) for p in net.parameters()}
