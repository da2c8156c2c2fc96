"""How well latencies are predicted: every CPU recipe on every space, profiled and validated on this host in one run.

Each line is a new table (16 calibration networks), compared with other networks, beside the noise floor and the
usual alternatives, fitted on the same networks. Tables that are already in the output folder and validated with this
seed are kept, so a killed run resumes. Close other work first: it takes about an hour and a half. For the space of
sequences, the time of each mixer over the length is printed, too.

    python benchmarks/latency_error.py --tables latency_tables [--spaces vit-tiny ...] [--recipes NAME ...]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from hwnas.errors import HwnasError, TooNoisy
from hwnas.latency import load_model, read_table, write_table
from hwnas.latency.manifest import Validation
from hwnas.pipeline.mixers import length_curves
from hwnas.profiling import profile, validate
from hwnas.spaces import Space, make_space
from hwnas.targets import Target, load_recipe, recipes, resolve_target

T = TypeVar("T")
WIDTH, LENGTHS = 64, (128, 512, 1024)  # of the space `sequence`

SPACES: dict[str, tuple[str, dict[str, int]]] = {
    "mobilenetv3@160": ("mobilenetv3", {"resolution": 160}),
    "mobilenetv3@224": ("mobilenetv3", {"resolution": 224}),
    "mobilenetv3-tiny": ("mobilenetv3-tiny", {}),
    "autoformer-tiny": ("autoformer-tiny", {}),
    "vit-tiny": ("vit-tiny", {}),
    **{f"sequence@{length}": (f"sequence+length={length}", {"width": WIDTH}) for length in LENGTHS},
}
ATTEMPTS = 3  # other load on the machine may spoil a measurement; hwnas then says so and writes nothing


def main() -> None:
    """Measure, print, and keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [name for name in recipes() if load_recipe(name).facts.measured]
    parser.add_argument("--recipes", nargs="+", default=known, choices=known)
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tables", type=Path, required=True, help="folder for the tables")
    given = parser.parse_args()
    print(HEADER, flush=True)
    passed: list[bool] = []
    validations: list[Validation] = []
    for name in given.spaces:
        space_name, fixed = SPACES[name]
        space = make_space(space_name).fix(**fixed)
        for recipe in given.recipes:
            target = resolve_target(f"this/{recipe}")
            try:
                found, seconds = measured(space, target, given.tables, given.networks, given.seed)
            except HwnasError as error:
                print(f"{name:<17} {recipe:<25} {type(error).__name__}: {error}", flush=True)
                passed.append(False)
                continue
            validations.append(found)
            passed.append(meets(found, load_recipe(recipe).threads))
            print(line(name, recipe, found, seconds, passed[-1]), flush=True)
    print(f"{sum(passed)} of {len(passed)} within the bounds", flush=True)
    if {f"sequence@{length}" for length in LENGTHS} <= set(given.spaces):
        print_mixers(given.recipes, given.tables)
    below = [v.below_upper for v in validations if v.below_upper is not None]
    margins = [v.upper_margin for v in validations if v.upper_margin is not None]
    if below:
        print(f"upper bound: {np.mean(below):.1%} of {len(below) * given.networks} networks lie below it, and it adds")
        print(f"{np.median(margins):.2%} to the prediction at the median, {max(margins):.2%} at the most")


def print_mixers(names: list[str], folder: Path) -> None:
    """The time of each mixer of `sequence` over the length."""
    space = make_space(f"sequence+length={','.join(map(str, LENGTHS))}").fix(width=WIDTH)
    for name in names:
        target = resolve_target(f"this/{name}")
        print(f"\n| {name}, µs | {' | '.join(f'{length} tokens' for length in LENGTHS)} |")
        print(f"|---|{'---:|' * len(LENGTHS)}")
        curves = length_curves(read_table(target, folder / f"{target.name}.csv"), space, space.largest)
        for curve in sorted(curves, key=lambda curve: curve.latency_ms[-1]):
            print(f"| `{curve.mixer}` | {' | '.join(f'{1e3 * ms:.0f}' for ms in curve.latency_ms)} |", flush=True)


def measured(space: Space, target: Target, folder: Path, networks: int, seed: int) -> tuple[Validation, float]:
    """The validation of a new table, and the seconds of its profile (0 if it existed)."""
    path = folder / f"{target.name}.csv"
    old = read_table(target, path) if path.is_file() else None
    fit = old.fit_for(space) if old else None
    if fit and fit.validation and (fit.validation.networks, fit.validation.seed) == (networks, seed):
        return fit.validation, 0.0
    seconds = 0.0
    if old is None or fit is None:
        start = time.monotonic()
        journals = path.parent / f".{path.stem}.journals"
        old = write_table(steadily(lambda: profile(space, target, journals=journals, old=old)), path)
        shutil.rmtree(journals)
        seconds = time.monotonic() - start
    model = load_model(old, space)
    report = steadily(lambda: validate(model, target, networks=networks, seed=seed))
    write_table(old.with_validation(space, report.summary), path)
    return report.summary, seconds


def steadily(work: Callable[[], T]) -> T:
    """What the work returns, tried again where the machine was too noisy."""
    for _ in range(ATTEMPTS - 1):
        try:
            return work()
        except TooNoisy as error:
            print(f"  (again: {error})", file=sys.stderr, flush=True)
    return work()


def meets(v: Validation, threads: int) -> bool:
    """Whether an error is as small as we claim: MAPE, outliers, ranks."""
    bound = max(0.015 if threads == 1 else 0.025, 1.25 * v.noise_floor)
    ranks = v.kendall_tau >= 0.95 or v.kendall_tau >= v.kendall_tau_repeat - 0.01
    return v.mape <= bound and (threads > 1 or (v.within_5pct >= 0.975 and v.within_10pct == 1 and ranks))


COLUMNS = (
    *("space", "recipe", "MAPE", "noise", "<5%", "<10%", "τ", "τ rep", "speed", "below", "bound"),
    *("plain", "MACs", "params", "boost", "profile", ""),
)
HEADER = f"| {' | '.join(COLUMNS)} |\n|---|---|{'---:|' * (len(COLUMNS) - 2)}"


def line(space: str, recipe: str, v: Validation, seconds: float, ok: bool) -> str:
    """One row of the report, in Markdown; the columns are explained in docs/latency-error.md."""
    figures = [f"{x:.2%}" for x in (v.mape, v.noise_floor)] + [f"{x:.1%}" for x in (v.within_5pct, v.within_10pct)]
    ranks = [f"{v.kendall_tau:.3f}", f"{v.kendall_tau_repeat:.3f}", f"{v.speed:.1%}"]
    bound = ["-" if v.below_upper is None else f"{v.below_upper:.1%}"]
    bound += ["-" if v.upper_margin is None else f"{v.upper_margin:.2%}"]
    others = [f"{baseline.mape:.1%}" for baseline in v.baselines.values()]
    took = f"{seconds:.0f} s" if seconds else "kept"
    cells = (space, f"`{recipe}`", *figures, *ranks, *bound, *others, took, "" if ok else "missed")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
