"""Latency as a term of a loss: the expectation against the model, and the penalties against their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hwnas.errors import InvalidValue, UnknownName
from hwnas.latency import LatencyModel
from hwnas.latency.expectation import check_probabilities
from hwnas.latency.loss import LatencyLoss
from hwnas.latency.penalties import (
    PENALTIES,
    AugmentedLagrangian,
    HingePenalty,
    LinearPenalty,
    LogPenalty,
    MulLogPenalty,
    Penalty,
)
from hwnas.spaces import SPACES, Codes, Op, Space, make_space

TINY = make_space("nasbench201-tiny")


def cost(op: Op) -> float:
    return 0.003 + op.macs / 2e8 + op.params / 5e7


def model(space: Space, factor: float = 1.0, target: str = "board/fp32") -> LatencyModel:
    """A model that nothing was measured for, with a constant as fits have one."""
    total = space.grouped_sum(lambda group, op: factor * cost(op) * (1 + len(group) / 10))
    with_constant = type(total)(constant=0.25 * factor, axes=total.axes, arrays=total.arrays)
    return LatencyModel(space=space, target=target, total=with_constant, plain=total, fit=None)


def certain(space: Space, codes: Codes) -> dict[str, Tensor]:
    """Networks as probabilities of 0 and 1: codes ``(n, variables)`` -> ``(n, choices)`` each."""
    columns = torch.from_numpy(codes.astype(np.int64))
    return {v.name: one_hot(columns[:, i], len(v.values)).double() for i, v in enumerate(space.variables)}


def drawn(space: Space, seed: int, batch: int | None = None) -> dict[str, Tensor]:
    """Random logits of every variable that has a choice."""
    generator = torch.Generator().manual_seed(seed)
    shape = () if batch is None else (batch,)
    return {
        v.name: torch.randn(*shape, len(v.values), dtype=torch.float64, generator=generator)
        for v in space.variables
        if len(v.values) > 1
    }


def softmax(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.softmax(dim=-1) for name, values in logits.items()}


# -- the expectation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_of_certain_networks_it_is_the_prediction(name: str) -> None:
    space = make_space(name)
    codes = space.sample(1000, seed=5)
    made = model(space)
    found = LatencyLoss(made)(certain(space, codes))
    assert found.dtype == torch.float64
    assert found.shape == (1000, 1)
    np.testing.assert_allclose(found[:, 0].numpy(), made.predict(codes), rtol=1e-12)
    # One network alone, without a batch.
    [alone] = LatencyLoss(made)({name: p[0] for name, p in certain(space, codes).items()})
    assert alone.item() == pytest.approx(found[0, 0].item(), rel=1e-12)


def test_gradients() -> None:
    small = make_space("mobilenetv3-tiny").fix(resolution=24, depth_1=(1, 2), kernel_1_1=3, kernel_2_1=(3, 5))
    for space, batch in ((small, None), (TINY, None), (TINY, 2)):
        loss, logits = LatencyLoss(model(space), model(space, 2.0)), drawn(space, 1, batch)

        def expected(*values: Tensor, loss: LatencyLoss = loss, names: tuple[str, ...] = tuple(logits)) -> Tensor:
            found: Tensor = loss(softmax(dict(zip(names, values, strict=True))))
            return found

        assert torch.autograd.gradcheck(expected, [values.requires_grad_() for values in logits.values()])


def test_it_is_the_mean_over_networks_that_are_drawn() -> None:
    space = make_space("mobilenetv3-tiny")
    probabilities, made, rng = softmax(drawn(space, 2)), model(space), np.random.default_rng(0)
    count = 1_000_000
    codes = np.stack(
        [rng.choice(len(v.values), count, p=probabilities[v.name].numpy()).astype(np.uint8) for v in space.variables],
        axis=1,
    )
    drawn_ms = made.predict(codes)
    error = drawn_ms.std() / math.sqrt(count)
    [found] = LatencyLoss(made)(probabilities).tolist()
    assert abs(drawn_ms.mean() - found) < 4 * error
    assert error < 1e-3 * found


def test_several_targets_stand_in_their_order() -> None:
    models = [model(TINY, factor, f"board/{factor}") for factor in (1.0, 3.0, 0.5)]
    loss = LatencyLoss(*models)
    assert loss.targets == ("board/1.0", "board/3.0", "board/0.5")
    for batch in (None, 4):
        probabilities = softmax(drawn(TINY, 3, batch))
        found = loss(probabilities)
        assert found.shape == ((3,) if batch is None else (4, 3))
        torch.testing.assert_close(found, torch.stack([LatencyLoss(m)(probabilities)[..., 0] for m in models], dim=-1))
        torch.testing.assert_close(found, found[..., :1] * torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64))


def test_some_probabilities_batched_and_others_not() -> None:
    codes = TINY.sample(5, seed=0)
    one = certain(TINY, codes) | {"edge_0_1": torch.tensor([0.0, 0, 0, 0, 1])}
    codes[:, TINY.column["edge_0_1"]] = 4
    found = LatencyLoss(model(TINY))(one)
    np.testing.assert_allclose(found[:, 0].numpy(), model(TINY).predict(codes), rtol=1e-12)
    assert LatencyLoss(model(TINY))({name: p[:0] for name, p in certain(TINY, codes).items()}).shape == (0, 1)


def test_a_space_without_a_choice_has_one_latency() -> None:
    space = TINY.fix(**dict(TINY.largest))
    [found] = LatencyLoss(model(space))({}).tolist()
    assert found == pytest.approx(model(space).predict(space.encode([space.largest]))[0], rel=1e-6)


def test_half_precision_is_computed_in_single() -> None:
    logits = {name: values.float() for name, values in drawn(TINY, 4).items()}
    loss = LatencyLoss(model(TINY)).bfloat16()  # as a part of a module that is cast
    exact = loss(softmax(logits)).double()
    assert loss(softmax(logits)).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(softmax(logits))
        learned = {n: v.requires_grad_() for n, v in logits.items()}
        loss(softmax(learned)).sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)
    assert all(v.grad is not None and v.grad.dtype == torch.float32 for v in learned.values())
    # Shares that half precision holds exactly.
    halves = dict.fromkeys(logits, torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625]))
    found = loss({name: p.bfloat16() for name, p in halves.items()})
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(halves))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    loss, probabilities = LatencyLoss(model(TINY)).cuda(), softmax(drawn(TINY, 5, 3))
    moved = {name: p.cuda().requires_grad_() for name, p in probabilities.items()}
    found = loss(moved)
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), loss(probabilities))
    penalty = AugmentedLagrangian([1.0]).cuda()
    penalty(torch.zeros((), device="cuda"), found.mean(dim=0)).backward()
    assert all(p.grad is not None for p in moved.values())
    with torch.autocast("cuda", dtype=torch.float16):
        assert loss({name: p.float() for name, p in moved.items()}).dtype == torch.float32


# -- bad probabilities ---------------------------------------------------------------------------------------------

EVEN = [0.2] * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"edge_0_1": [0.2, 0.2, 0.2, 0.2, 0.3]},
            r"edge_0_1 must be at least 0 and sum to 1, as from a softmax, not: ",
        ),
        ({"edge_0_1": [0.5, 0.5, 0.5, -0.5, 0.0]}, r"edge_0_1 must be at least 0 and sum to 1, .*, 0.5, -0.5, 0.0\]"),
        ({"edge_0_1": [math.nan, 0.5, 0.5, 0.0, 0.0]}, r"edge_0_1 must be at least 0 and sum to 1, .* not: \[nan, 0.5"),
        ({"edge_0_1": [math.inf, 0.0, 0.0, 0.0, 0.0]}, r"edge_0_1 must be at least 0 and sum to 1, .* not: \[inf, 0.0"),
        ({"edge_0_1": [EVEN, EVEN, [1.0] * 5]}, r"edge_0_1 must be .*, not: \[1.0, 1.0, 1.0, 1.0, 1.0\]$"),
        ({"edge_0_1": [0.25] * 4}, r"edge_0_1 must have the shape \(5,\) or \(batch, 5\), not \(4,\)"),
        ({"edge_0_1": [[EVEN]]}, r"edge_0_1 must have the shape \(5,\) or \(batch, 5\), not \(1, 1, 5\)"),
        ({"edge_0_1": 1.0}, r"edge_0_1 must have the shape \(5,\) or \(batch, 5\), not \(\)"),
        ({"edge_0_1": None}, "probabilities of edge_0_1 are missing: 5 values"),
        ({"edge_0_1": [EVEN] * 2, "edge_0_2": [EVEN] * 3}, r"have the same batch size, not \[2, 3\]"),
        ({"resolution": [0.5]}, "resolution must be at least 0 and sum to 1"),
    ],
)
def test_bad_probabilities(change: dict[str, object], message: str) -> None:
    given = {v.name: torch.tensor(EVEN) for v in TINY.variables if len(v.values) > 1}
    for name, values in change.items():
        if values is None:
            del given[name]
        else:
            given[name] = torch.tensor(values)
    with pytest.raises(InvalidValue, match=message):
        LatencyLoss(model(TINY))(given)


def test_unknown_variables_and_models_that_do_not_go_together() -> None:
    with pytest.raises(UnknownName, match="edge_9_9"):
        LatencyLoss(model(TINY))(softmax(drawn(TINY, 0)) | {"edge_9_9": torch.tensor(EVEN)})
    with pytest.raises(InvalidValue, match="at least one latency model"):
        LatencyLoss()
    for other in (make_space("nasbench201"), TINY.fix(edge_0_1=[0, 1])):
        with pytest.raises(
            InvalidValue, match="the latency models of a loss must belong to one space, not to nasbench201-tiny"
        ):
            LatencyLoss(model(TINY), model(other))


# -- penalties -----------------------------------------------------------------------------------------------------

WANTED, FOUND, TASK = (2.0, 5.0), (3.0, 4.0), 0.7
Formula = Callable[[float, float], tuple[float, float]]  # latency and its target -> a term or a factor, its derivative


def _linear(t: float, target: float) -> tuple[float, float]:
    return 0.1 * t / target, 0.1 / target


def _hinge(t: float, target: float) -> tuple[float, float]:
    return (10 * (t / target - 1), 10 / target) if t > target else (0.0, 0.0)


def _log(t: float, target: float) -> tuple[float, float]:
    us = math.log(1000 * t)
    return 0.2 * us**0.6, 0.2 * 0.6 * us**-0.4 / t


def _mul_log(t: float, target: float) -> tuple[float, float]:
    us, wanted = math.log(1000 * t), math.log(1000 * target)
    return (us / wanted) ** 0.6, 0.6 * (us / wanted) ** -0.4 / wanted / t


def _lagrangian(t: float, target: float) -> tuple[float, float]:
    g = t / target - 1  # multiplier 0 and weight 1, at first
    return (g * g / 2, g / target) if g > 0 else (0.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "formula", "multiplied"),
    [
        (LinearPenalty, _linear, False),
        (HingePenalty, _hinge, False),
        (LogPenalty, _log, True),
        (MulLogPenalty, _mul_log, True),
        (AugmentedLagrangian, _lagrangian, False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_penalty_is_its_formula(
    kind: type[Penalty], formula: Formula, multiplied: bool, dtype: torch.dtype
) -> None:
    task = torch.tensor(TASK, dtype=dtype, requires_grad=True)
    latency = torch.tensor(FOUND, dtype=dtype, requires_grad=True)
    found = kind(WANTED)(task, latency)
    assert found.dtype == dtype
    found.backward()
    (one, by_one), (other, by_other) = (formula(t, target) for t, target in zip(FOUND, WANTED, strict=True))
    value = TASK * one * other if multiplied else TASK + one + other
    slopes = [TASK * by_one * other, TASK * one * by_other] if multiplied else [by_one, by_other]
    rel = 1e-12 if dtype == torch.float64 else 1e-5
    assert found.item() == pytest.approx(value, rel=rel)
    assert task.grad is not None
    assert latency.grad is not None
    assert task.grad.item() == pytest.approx(one * other if multiplied else 1.0, rel=rel)
    assert latency.grad.tolist() == pytest.approx(slopes, rel=rel)


def test_every_penalty_is_listed() -> None:
    assert set(PENALTIES.values()) == set(Penalty.__subclasses__())


def test_the_multipliers_follow_the_violation() -> None:
    penalty = AugmentedLagrangian([2.0, 5.0], weight=4.0, most=10.0)

    def state() -> list[list[float]]:
        return [penalty.get_buffer(name).tolist() for name in ("multipliers", "weights", "violations")]

    penalty.update(torch.tensor([3.0, 4.0]))  # half too slow, and a fifth to spare
    assert state() == [[pytest.approx(2.0), 0.0], [4.0, 4.0], [pytest.approx(0.5), 0.0]]
    penalty.update(torch.tensor([2.8, 6.0]))  # most of the violation is still there, so its square weighs twice as much
    assert state() == [[pytest.approx(3.6), pytest.approx(0.8)], [8.0, 8.0], [pytest.approx(0.4), pytest.approx(0.2)]]
    penalty.update(torch.tensor([2.6, 5.0]))
    assert state() == [[pytest.approx(6.0), pytest.approx(0.8)], [10.0, 8.0], [pytest.approx(0.3), 0.0]]
    # Within the targets the multipliers shrink, down to 0, and the penalty still pulls with what is left of them.
    penalty.update(torch.tensor([1.8, 1.0]))
    assert state()[:2] == [[pytest.approx(5.0), 0.0], [10.0, 8.0]]
    latency = torch.tensor([2.0, 5.0], requires_grad=True)
    penalty(torch.tensor(1.0), latency).backward()
    assert latency.grad is not None
    assert latency.grad.tolist() == pytest.approx([5.0 / 2.0, 0.0])
    # What adapts is stored with the weights.
    again = AugmentedLagrangian([2.0, 5.0])
    again.load_state_dict(penalty.state_dict())
    assert torch.equal(again.get_buffer("multipliers"), penalty.get_buffer("multipliers"))


@pytest.mark.parametrize("start", [-3.0, 0.0, 3.0])
def test_an_augmented_lagrangian_meets_its_target(start: float) -> None:
    # A fast op of 1 ms and a slow one of 3 ms, which is the more accurate.
    latency_ms, gain = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    logits = torch.tensor([0.0, start], requires_grad=True)
    penalty = AugmentedLagrangian([1.7])
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for step in range(1500):
        p = logits.softmax(dim=0)
        loss = penalty(-(p @ gain), (p @ latency_ms)[None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 19:
            penalty.update((logits.softmax(dim=0) @ latency_ms)[None])
    assert (logits.softmax(dim=0) @ latency_ms).item() == pytest.approx(1.7, rel=0.01)
    # At the optimum the multiplier is what a share of the target's milliseconds is worth: 0.5 a millisecond.
    assert penalty.get_buffer("multipliers").item() == pytest.approx(0.5 * 1.7, rel=0.05)


def test_a_target_that_is_met_anyway_costs_nothing() -> None:
    penalty = AugmentedLagrangian([4.0])
    for _ in range(5):
        penalty.update(torch.tensor([3.0]))
        assert penalty(torch.tensor(0.5), torch.tensor([3.0])).item() == 0.5


@pytest.mark.parametrize("name", PENALTIES)
def test_bad_targets_and_latencies(name: str) -> None:
    kind = PENALTIES[name]
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(
            InvalidValue, match=f"a target latency must be a positive number of milliseconds, not {wrong}"
        ):
            kind([1.0, wrong])
    with pytest.raises(InvalidValue, match="at least one target"):
        kind([])
    for shape in ((), (1,), (3,), (4, 2)):
        for take in (lambda p, t: p(torch.tensor(1.0), t), lambda p, t: p.update(t)):
            with pytest.raises(InvalidValue, match=r"takes \(2,\) latencies, one per target, not \("):
                take(kind([1.0, 2.0]), torch.ones(shape))


@pytest.mark.parametrize("kind", [LogPenalty, MulLogPenalty])
def test_logarithms_below_a_microsecond(kind: type[Penalty]) -> None:
    for latency in (1e-3, 5e-4, 0.0):
        with pytest.raises(
            InvalidValue, match=r"requires latencies above a microsecond, not .* use linear, hinge or lag"
        ):
            kind([1.0])(torch.tensor(1.0), torch.tensor([latency]))
    assert kind([1.0])(torch.tensor(1.0), torch.tensor([1.1e-3])).item() > 0


def test_what_a_penalty_cannot_be_made_of() -> None:
    with pytest.raises(InvalidValue, match=r"above a microsecond, not \[0.0005\] ms"):
        MulLogPenalty([5e-4])
    with pytest.raises(InvalidValue, match="the weight of an augmented Lagrangian's square must be above 0, not 0"):
        AugmentedLagrangian([1.0], weight=0.0)


@pytest.mark.parametrize("kind", PENALTIES.values())
def test_a_penalty_in_a_module_of_half_precision_keeps_its_targets(kind: type[Penalty]) -> None:
    targets = [0.123456789012345, 7.1]
    penalty = kind(targets)
    torch.nn.ModuleDict({"penalty": penalty}).half().to(torch.bfloat16)
    assert penalty.get_buffer("targets_ms").tolist() == targets
    assert {buffer.dtype for buffer in penalty.buffers()} == {torch.float64}
    assert penalty.to("meta").get_buffer("targets_ms").device.type == "meta"


@pytest.mark.parametrize(
    "given", [[0.2] * 5, np.full(5, 0.2), torch.full((5,), 0.2 + 0j)], ids=["list", "array", "complex"]
)
def test_probabilities_are_tensors_of_real_numbers(given: object) -> None:
    probabilities: dict[str, Any] = {"edge_0_1": given}
    with pytest.raises(InvalidValue, match="edge_0_1 must be a tensor of real numbers"):
        check_probabilities(make_space("nasbench201-tiny"), probabilities)
