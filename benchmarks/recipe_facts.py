"""One network of each space under every CPU recipe, timed in the same minutes: what the recipe alone decides.

    python benchmarks/recipe_facts.py

The network is the arch in the middle of the space (the middle value of every variable). Recipes alternate, a short
measurement each, several times; the figure is the median of their p25, and torch's eager execution on one thread is
1.0. int8 scales are taken from noise, because they change no kernel.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from hwnas.errors import RuntimeUnavailable
from hwnas.lowering import Program, form_of
from hwnas.nn import network
from hwnas.nn.blocks import initialise
from hwnas.spaces import Arch, Space, make_space
from hwnas.targets import Recipe, load_recipe, recipes
from hwnas.timing import Protocol, time_programs

BASE = "torch-cpu-fp32"
SPACES = {"mobilenetv3": {"resolution": 160}, "mobilenetv3-tiny": {}}
PROTOCOL = Protocol(visit_ms=20.0, session_passes=2, max_sessions=2)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    rounds = parser.parse_args().rounds
    known = {name: load_recipe(name) for name in recipes()}
    measured = {name: recipe for name, recipe in known.items() if recipe.facts.measured}
    for name, fixed in SPACES.items():
        space = make_space(name).fix(**fixed)
        arch = middle(space)
        programs = {recipe: lowered(space, arch, spec) for recipe, spec in measured.items()}
        times: dict[str, list[float]] = {recipe: [] for recipe in measured}
        for _ in range(rounds):
            for recipe, program in programs.items():
                try:
                    timed = time_programs({"network": program}, measured[recipe], PROTOCOL)
                except RuntimeUnavailable as error:
                    print(f"{recipe}: {error}")
                    continue
                times[recipe].append(timed.p25_ms("network"))
        base = float(np.median(times[BASE]))
        [macs] = space.macs(space.encode([arch]))
        print(f"\n{name} at {arch['resolution']} px, {macs / 1e6:.1f} million MACs\n")
        print("| recipe | ms | times as fast as torch eager |\n|---|---:|---:|")
        for recipe, found in sorted(times.items(), key=lambda item: np.median(item[1])):
            print(f"| `{recipe}` | {np.median(found):.4g} | {base / np.median(found):.2f} |")


def middle(space: Space) -> Arch:
    """The arch with the middle value of every variable."""
    return space.arch({v.name: v.values[len(v.values) // 2] for v in space.variables})


def lowered(space: Space, arch: Arch, recipe: Recipe) -> Program:
    """The whole network, as `hwnas export` lowers it."""
    made = network(space, arch)
    initialise(made, seed=0)
    shape = space.ops(arch)[0][1].input
    images = torch.randn(recipe.quantization.images, *shape) if recipe.quantization else None
    return form_of(recipe).lower(made.eval(), shape, images)


if __name__ == "__main__":
    main()
