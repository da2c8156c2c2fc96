"""Profile the machine that runs this script, and check the predictions on networks that the fit did not use.

Shows the two figures that say how good a table is: the mean error of the predictions, and the noise floor, which is
the difference between two measurements of the same networks. Takes about a minute, and twice as long on a busy
machine; a machine that is too noisy ends it with an error:

    python examples/02_profile_this_machine.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import hwnas
from hwnas import workflows

TARGET = "this/onnxruntime-cpu-fp32"
# A small part of a space, of 20 distinct ops, which takes seconds; the whole space has 145 and takes two minutes.
FIX = {"resolution": 24, "depth_1": 1, "depth_2": 1, "depth_3": 2, "kernel_1_1": 3, "kernel_2_1": 3, "kernel_3_2": 3}


def main(out: Path) -> None:
    """Profile, validate, and predict the smallest and the largest network."""
    os.environ["HWNAS_HOME"] = str(out)  # tables and exported ops go here, not to the user's data folder
    space = hwnas.make_space("mobilenetv3-tiny").fix(**FIX)
    profile = workflows.profile(space, TARGET, networks=8, bound_networks=19)
    print(f"{profile.ops} ops of {space.size} networks timed on {profile.target}; the table is {profile.table}")
    print(f"error on networks left out of the fit: {profile.held_out_mape:.2%}")

    checked = workflows.validate(space, TARGET, networks=10, seed=7)
    print(f"error on {checked.networks} new networks: {checked.mape:.2%}; noise floor {checked.noise_floor:.2%}")
    print(f"rank correlation (Kendall tau) of prediction and measurement: {checked.kendall_tau:.3f}")

    model = hwnas.load_model(hwnas.read_table(hwnas.resolve_target(TARGET)), space)
    for name, arch in {"smallest": space.smallest, "largest": space.largest}.items():
        codes = space.encode([arch])
        predicted, upper = model.predict(codes)[0], model.predict_upper(codes, 0.95)[0]
        print(f"{name:8} network: {predicted:.4f} ms predicted, measured below {upper:.4f} ms at 95% confidence")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="folder to write into; a temporary one if it is left out")
    with tempfile.TemporaryDirectory() as scratch:
        main(parser.parse_args().out or Path(scratch))
