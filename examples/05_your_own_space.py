"""Define a search space in a file: plain convolutions, in two stages of one to three.

Shows variables, slots and ops, and what a space must fulfil: an extracted network computes what the supernet computes.
Takes about 10 seconds:

    python examples/05_your_own_space.py

Every verb of the command line takes a space in a file: ``hwnas train --space examples/05_your_own_space.py:SPACE``.
In your tests, subclass `hwnas.testing.SpaceSuite` (``pip install 'hwnas[testing]'``), which checks more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import hwnas
from hwnas.spaces import Op, Slot, Variable, from_depth, make_op

SIDE, WIDTHS, MOST = 24, (16, 32), 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainConvolutions:
    """A family: it makes the space for the channels and classes of a dataset."""

    in_channels: int = 1
    classes: int = 10

    def space(self, *, in_channels: int, classes: int) -> hwnas.Space:
        """Variables, and slots that read some of them."""
        variables = [Variable(name="resolution", values=(SIDE,))]
        slots = []
        for s in (1, 2):
            depth = Variable(name=f"depth_{s}", values=tuple(range(1, MOST + 1)))
            variables.append(depth)
            for b in range(1, MOST + 1):
                # The kernel of a convolution that is not there does not matter: such networks are one network.
                matters = from_depth(depth, b)
                variables.append(Variable(name=f"kernel_{s}_{b}", values=(3, 5), matters=matters))
                op = partial(convolution, s, b, in_channels)
                slots.append(
                    Slot(
                        name=f"stage{s}.conv{b}", group=f"stage{s}", variables=(f"depth_{s}", f"kernel_{s}_{b}"), op=op
                    )
                )
        head = make_op("linear", (WIDTHS[1], SIDE // 4, SIDE // 4), (classes,))
        slots.append(Slot(name="classifier", group="head", variables=("resolution",), op=lambda resolution: head))
        return hwnas.Space(
            name="plain", variables=tuple(variables), slots=tuple(slots), classes=classes, in_channels=in_channels
        )


def convolution(stage: int, place: int, in_channels: int, depth: int, kernel: int) -> Op | None:
    """The op of a slot; None where the stage is not that deep. The first of a stage halves the side."""
    if place > depth:
        return None
    first, side, width = place == 1, SIDE // 2**stage, WIDTHS[stage - 1]
    before = (in_channels, WIDTHS[0])[stage - 1]
    shape = (before, 2 * side, 2 * side) if first else (width, side, side)
    return make_op("conv", shape, (width, side, side), kernel=kernel, stride=2 if first else 1, act="relu")


SPACE = PlainConvolutions()


def main() -> None:
    """Make the space by its name, extract networks, and compute a Pareto front from estimated latencies."""
    space = hwnas.make_space(f"{Path(__file__).resolve()}:SPACE")
    print(f"{space.size} networks, {len(space.distinct_ops)} distinct ops; the largest network:")
    for slot, op in space.ops(space.largest):
        print(f"  {slot.name:13} {op.macs:9,} MACs  {op.key}")

    supernet, images = hwnas.Supernet(space, seed=0).eval(), torch.randn(2, *space.input_shape(space.largest))
    for arch in (space.smallest, space.largest):
        with torch.no_grad():
            difference = (hwnas.extract(supernet, arch).eval()(images) - supernet(images, arch)).abs().max().item()
        print(f"extracted from the supernet: {dict(arch)}; outputs differ by {difference:.1e}")

    # Estimates from the device's peak figures; `hwnas profile` measures a table in their place.
    latency = hwnas.latency_objective(
        hwnas.estimated_model(space, hwnas.resolve_target("amd-epyc-f25m17-2c/roofline-cpu-fp32"))
    )
    problem = hwnas.Problem(space=space, accuracy=space.macs, objectives=(latency,), confidence=None)
    front = hwnas.find_front(problem).candidates
    print(f"{len(front)} networks on the Pareto front of MACs and estimated latency; each tenth:")
    for network in front[::10]:
        print(f"  {network.costs[latency.name]:.5f} ms {network.predicted_accuracy / 1e6:6.3f} MMACs")


if __name__ == "__main__":
    main()
