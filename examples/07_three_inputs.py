"""A transformer of your own with three inputs, of several depths: time it, export the deepest within a budget, verify.

A text, an image and the columns of a table are embedded into one sequence, as in LANISTR (Ebrahimi et al. 2023). Takes
about 40 seconds:

    python examples/07_three_inputs.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import hwnas
from hwnas import workflows
from hwnas.models import open_model

TARGET = "this/onnxruntime-cpu-fp32"
WIDTH, WORDS, CLASSES = 64, 500, 3
EXAMPLE = (torch.randint(1, WORDS, (1, 24)), torch.randn(1, 3, 32, 32), torch.randn(1, 6))  # text, image, table


class ThreeInputs(nn.Module):
    """Tokens ``(n, 24)``, images ``(n, 3, 32, 32)`` and numbers ``(n, 6)`` -> logits ``(n, 3)``."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.patches = nn.Conv2d(3, WIDTH, 8, 8)
        self.columns = nn.Parameter(torch.randn(6, WIDTH) / 8)  # a column is a vector times its value
        self.kinds = nn.Parameter(torch.randn(3, WIDTH) / 8)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, text: Tensor, image: Tensor, table: Tensor) -> Tensor:
        """All three as one sequence of 24 + 16 + 6 tokens."""
        words = self.words(text) + self.kinds[0]
        patches = self.patches(image).flatten(2).transpose(1, 2) + self.kinds[1]
        columns = table[:, :, None] * self.columns + self.kinds[2]
        made: Tensor = self.head(self.layers(torch.cat([words, patches, columns], dim=1)).mean(dim=1))
        return made


def main(out: Path) -> None:
    """Time networks of three depths, and export the deepest within a budget."""
    os.environ["HWNAS_HOME"] = str(out / "home")
    torch.manual_seed(0)
    models = {depth: open_model(ThreeInputs(depth).eval(), example=EXAMPLE) for depth in (1, 2, 4)}
    measured_ms = {}
    for depth, model in models.items():
        [timing] = workflows.bench_model(model, TARGET, layers=False).targets
        measured_ms[depth] = timing.measured_ms
        print(f"depth {depth}: {timing.measured_ms:.3f} ms")
    budget = 0.7 * measured_ms[4]
    chosen = max(depth for depth, ms in measured_ms.items() if ms <= budget)
    print(f"within {budget:.3f} ms: depth {chosen}")

    bundle = workflows.export_model(models[chosen], TARGET, out / "bundle")
    print("inputs:", ", ".join(value.text for value in models[chosen].signature.inputs))
    checked = hwnas.verify(bundle.folder)
    print(f"verified: {checked.files} files, outputs differ by {checked.max_abs_error:.1e} from those recorded")

    # Without hwnas: ONNX Runtime and numpy are enough.
    session = onnxruntime.InferenceSession(bundle.folder / "model.onnx")
    given = dict(zip((each.name for each in session.get_inputs()), (x.numpy() for x in EXAMPLE), strict=True))
    [logits] = session.run(None, given)
    print(f"the class of the example: {np.argmax(logits)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="folder to write into; a temporary one if it is left out")
    with tempfile.TemporaryDirectory() as scratch:
        main(parser.parse_args().out or Path(scratch))
