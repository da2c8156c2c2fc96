"""Latency of a program with a symbolic batch axis, beside the program with a fixed one, at one image a run.

    python benchmarks/dynamic_batch.py [--recipe NAME ...]

Each network is timed in four forms in the same passes: `fixed`, its program as it is profiled; `again`, the same once
more, whose difference is the noise floor; `fixed on load`, the program of `hwnas export --dynamic-batch` whose axis
the session fixes, as `hwnas bench` times it; and `symbolic`, the same program as the lines of a bundle's README run it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from recipe_facts import lowered, middle

from hwnas.lowering import Program, form_of
from hwnas.runner.opened import Opened
from hwnas.runtimes import Session, open_session
from hwnas.spaces import make_space
from hwnas.targets import Recipe, load_recipe
from hwnas.timing import Measurement, require_cores
from hwnas.timing.pinning import pinned
from hwnas.timing.protocol import Protocol
from hwnas.timing.sampler import SamplesHere
from hwnas.timing.timer import take

RECIPES = ("onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "openvino-cpu-fp32", "openvino-cpu-int8", "torch-cpu-fp32")
NETWORKS: dict[str, dict[str, int | list[int]]] = {
    "mobilenetv3-tiny": {},
    "mobilenetv3-small": {},
    "mobilenetv3": {"resolution": 160},
    "nasbench201-tiny": {},
    "darts-tiny": {},
}
FORMS = ("fixed", "again", "fixed on load", "symbolic")
PROTOCOL = Protocol(visit_ms=12.0, min_sessions=6, max_sessions=6, session_passes=10)


def main() -> None:
    """Measure, and print a Markdown table for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", action="append", help="by default " + ", ".join(RECIPES))
    for name in parser.parse_args().recipe or RECIPES:
        recipe = load_recipe(name)
        print(f"\n{name}\n\n| network | fixed, ms | {' | '.join(FORMS[1:])} | spread |\n|---|---:|---:|---:|---:|---:|")
        for space_name, fix in NETWORKS.items():
            space = make_space(space_name).fix(**fix)
            program = lowered(space, middle(space), recipe)
            measured = timed(program, form_of(recipe).any_batch(program), recipe)
            base, *others = (measured.p25_ms(form) for form in FORMS)
            shares = " | ".join(f"{100 * (ms / base - 1):+.1f}%" for ms in others)
            print(f"| {space_name} | {base:.4f} | {shares} | {measured.spread:.1%} |", flush=True)


def timed(program: Program, symbolic: Program, recipe: Recipe) -> Measurement:
    """The four forms, in the same passes."""
    programs: Mapping[str, tuple[Program, bool]] = {
        "fixed": (program, False),
        "again": (program, False),
        "fixed on load": (symbolic, False),
        "symbolic": (symbolic, True),
    }

    def load(name: str) -> Session:
        model, any_batch = programs[name]
        return open_session(model, recipe, any_batch=any_batch)

    held = require_cores(recipe)
    with (
        pinned(held) as cores,
        Opened(FORMS, load, cores=cores, in_threads=lambda: False, what=recipe.name) as opened,
    ):
        return take(FORMS, SamplesHere(opened.anew), PROTOCOL, held=held)


if __name__ == "__main__":
    main()
