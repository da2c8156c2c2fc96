"""Are figures taken over a connection those taken here? The same machine, profiled both ways in one run.

    hwnas devices connect board --ssh localhost          # or any connection that ends on this machine
    hwnas devices detect --on board --save
    python benchmarks/remote.py --device board --bundle BUNDLE

The space is profiled and validated on `this` and on the device, in turns. Printed are the error of each on new networks
beside its noise floor, the relative difference of the two tables' predictions for 1,000 networks, and the latency of a
bundle both ways, three times. Close other work while it times.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from hwnas import workflows
from hwnas.latency import load_model, read_table
from hwnas.shown_progress import shown_progress
from hwnas.spaces import make_space
from hwnas.targets import resolve_target


def main() -> None:
    """Measure, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", required=True, help="a device with a connection that ends on this machine")
    parser.add_argument("--recipe", default="onnxruntime-cpu-fp32")
    parser.add_argument("--space", default="mobilenetv3-tiny")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle of the recipe, timed both ways")
    given = parser.parse_args()
    space = make_space(given.space)
    models = {}
    with tempfile.TemporaryDirectory() as folder, shown_progress() as progress:
        tables = {device: Path(folder) / device for device in ("this", given.device)}
        for device, place in tables.items():
            target = f"{device}/{given.recipe}"
            answer = workflows.profile(space, target, tables=place, progress=progress)
            models[device] = load_model(read_table(resolve_target(target), Path(answer.table), space=space), space)
        for device, place in tables.items():
            found = workflows.validate(space, f"{device}/{given.recipe}", tables=place, progress=progress)
            print(
                f"{device}: MAPE {found.mape:.2%} on {found.networks} networks, noise floor {found.noise_floor:.2%}, "
                f"Kendall tau {found.kendall_tau:.3f}, speed {found.speed:.3f}"
            )
    codes = space.sample(1000, seed=0)
    here, there = (models[device].predict(codes) for device in tables)
    apart = there / here - 1
    print(
        f"predictions of the two tables for 1,000 networks: {given.device} differs by {np.median(apart):+.2%} "
        f"(median), {np.abs(apart).mean():.2%} on average, 95% of them by at most "
        f"{np.quantile(np.abs(apart), 0.95):.2%}"
    )
    if given.bundle:
        for _ in range(3):
            for device in tables:
                timed = workflows.bench(given.bundle, target=f"{device}/{given.recipe}")
                print(f"bundle on {device}: {timed.measured_ms:.4f} ms, {timed.judged_ms:.4f} at the profile's speed")


if __name__ == "__main__":
    main()
