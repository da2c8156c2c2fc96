"""Train a small supernet, search it, export the network to ONNX, and verify the bundle.

Shows the way from data to what you ship: a folder with the ONNX file, checksums, an example input with its output, and
a README with the lines that run it without hwnas. The training is too short for a useful accuracy. Takes about 40
seconds:

    python examples/04_export_and_verify.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

import hwnas
from hwnas import workflows

TARGET = "amd-epyc-f25m17-2c/onnxruntime-cpu-fp32"  # its table is shipped, so nothing is profiled
FIX = {"resolution": 24, "depth_1": 1, "depth_2": 1, "depth_3": (1, 2)}


def main(out: Path) -> None:
    """Train, search, export, verify, and run the bundle without hwnas."""
    os.environ["HWNAS_HOME"] = str(out / "home")
    supernet = out / "supernet"
    trained = workflows.train("mobilenetv3-tiny", "cluttered-digits", supernet, fix=FIX, steps=100, batch_size=32)
    print(f"supernet of {trained.space} trained for {trained.steps} updates")

    # Few subnets and images, to be quick; the defaults are 300 and 2,000.
    quick = {"subnets": 30, "images": 300, "calibration_images": 300, "candidates": 3}
    best = hwnas.search(supernet, target=TARGET, budget="60%", **quick).best
    print(f"found: {best.validation_accuracy:.1%} on validation, {best.predicted_ms:.4f} of {best.budget_ms:.4f} ms")

    bundle = workflows.export(best.arch, supernet, TARGET, out / "bundle", budget_ms=best.budget_ms)
    parity = bundle.manifest.parity
    print(f"exported: {parity.deployed_accuracy:.1%} on {parity.images:,} test images")
    print(f"parity with torch: logits within {parity.max_abs_error:.1e}, same class on {parity.top1_agreement:.2%}")
    for file in sorted(bundle.folder.iterdir()):
        print(f"  {file.name:20} {file.stat().st_size:9,} bytes")

    checked = hwnas.verify(bundle.folder)
    print(
        f"verified: {checked.files} files unchanged, outputs differ by {checked.max_abs_error:.1e} from those recorded"
    )

    # What the README of the bundle shows: ONNX Runtime and numpy are enough.
    session = onnxruntime.InferenceSession(bundle.folder / "model.onnx")
    image = np.load(bundle.folder / "example-input.npy")
    [scores] = session.run(None, {session.get_inputs()[0].name: image})
    print(f"the example image is a {bundle.manifest.classes[scores[0].argmax()]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="folder to write into; a temporary one if it is left out")
    with tempfile.TemporaryDirectory() as scratch:
        main(parser.parse_args().out or Path(scratch))
