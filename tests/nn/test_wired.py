from __future__ import annotations

import copy
import weakref

import torch
from torch import Tensor, nn

from hwnas.nn import build, network, plain
from hwnas.nn.wired import Wired, run_wired
from hwnas.spaces import make_space, parse_op
from hwnas.spaces.wiring import FROM_IMAGE

SUM2, SUM3 = (parse_op(f"sum 3x5x5>3x5x5 terms={terms}") for terms in (2, 3))


def parts() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1).double(), nn.Conv2d(3, 3, 1).double()


def test_modules_run_on_what_they_read() -> None:
    a, b = parts()
    made = Wired(
        {"a": a, "b": b, "again": a, "sum": build(SUM3), "last": build(SUM2)},
        [(FROM_IMAGE,), (0,), (1,), (0, 2, FROM_IMAGE), (3, 3)],
    )
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    first = a(x)
    torch.testing.assert_close(made(x), 2 * (first + a(b(first)) + x))
    assert [type(part) for part in made.parts[:3]] == [nn.Conv2d] * 3
    assert made.parts[2] is made.parts[0] is a
    # The weights that stand twice are there once.
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for m in (a, b) for p in m.parameters())


def test_a_module_that_stands_twice_learns_from_both() -> None:
    a, _ = parts()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    expected = copy.deepcopy(a)
    expected(expected(x)).square().sum().backward()
    Wired({"a": a, "again": a}, [(FROM_IMAGE,), (0,)])(x).square().sum().backward()
    for ours, theirs in zip(a.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_as_a_graph_of_torchs_own_layers() -> None:
    space = make_space("darts-tiny")
    [arch] = space.decode(space.sample(1, seed=3))
    torch.manual_seed(0)
    made = network(space, arch).eval()
    flat = plain(made)
    assert {type(m).__module__.split(".")[0] for m in flat.modules()} == {"torch"}
    x = torch.randn(2, *space.input_shape(arch))
    values = {FROM_IMAGE: x}
    for i, (part, node) in enumerate(zip(made.parts, space.network(arch), strict=True)):
        values[i] = part(*(values[read] for read in node.reads))
    for y in (made(x), flat(x)):
        torch.testing.assert_close(y, values[len(values) - 2])


def test_values_are_let_go_when_nobody_reads_them() -> None:
    alive: list[weakref.ref[Tensor]] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = 0

        def forward(self, *xs: Tensor) -> Tensor:
            self.before = sum(ref() is not None for ref in alive)
            y = torch.stack(xs).sum(dim=0)
            alive.append(weakref.ref(y))
            return y

    modules = [Counting() for _ in range(5)]
    with torch.no_grad():
        run_wired(modules, [(FROM_IMAGE,), (0,), (1,), (2, 0), (3,)], torch.zeros(1))
    # The first is kept for the fourth; all others go with their only reader.
    assert [module.before for module in modules] == [0, 1, 2, 2, 1]
