"""Find defective solar cells: F1, recall and AUC with default settings, and with those for unbalanced classes.

    pip install elpv-dataset
    python benchmarks/elpv.py --out DIR [--seeds 3] [--steps 1000] [--epochs 30]

The 2,624 photographs of the package `elpv-dataset` (Deitsch et al., "Automatic classification of defective photovoltaic
module cells in electroluminescence images", Solar Energy 185, 2019; CC BY-NC-SA 4.0) are read where it is installed. A
cell with a probability of a defect of at least 0.5 is defective: 31%. Files are ordered by the SHA-256 of their names:
the first 60% are for training, the next 15% for validation, the rest for the test.

Both jobs search the same space at 64 to 96 pixels. `default` maximises top-1 accuracy; `unbalanced` reads gray images,
learns the probabilities, weights the classes, keeps whole cells in training, maximises the F1 of the defective class,
and fine-tunes the network found. The lines in the `README.md` of each bundle, which need its runtime, numpy and Pillow,
run on every test image; their figures must be those of the manifest. A killed run resumes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from hwnas.accuracy import parse_metric
from hwnas.pipeline import compile_job, read_job
from hwnas.shown_progress import shown_progress
from hwnas.tasks.metrics import TOP1

CLASSES = ("defective", "functional")
SHARES = (0.60, 0.15)
JOB = """
schema = 1
targets = ["this/onnxruntime-cpu-fp32"]
budget = "50%"
seed = {seed}

[space]
name = "mobilenetv3-small"
resolution = [64, 80, 96]
width = 0.5
expansions = [2, 3]

[data]
name = "images"
path = {path}
{data}
[latency]
max_seconds = 20

[training]
batch_size = 32
phases = [{{ name = "all", steps = {steps}, learning_rate = 0.05 }}]
{training}
[accuracy]
subnets = 100
calibration_images = 500
{accuracy}
{finetune}
"""
ARMS = {
    "default": {"data": 'labels = "labels.csv"\nchannels = 3', "training": "", "accuracy": "", "finetune": ""},
    "unbalanced": {
        "data": 'labels = "shares.csv"\nchannels = 1',
        "training": 'class_weights = "balanced"\naugmentation = "any-orientation"',
        "accuracy": 'metric = "f1"\npositive = "defective"',
        "finetune": "[finetune]\nepochs = {epochs}\nlearning_rate = 0.05\ndistil = false",
    },
}
OUTSIDE = """
files = sys.argv[1:]
rows = []
for name in files:
    rows.append(run(prepared(name).repeat(BATCH, axis=0))[:1])
np.save("outputs-of-test.npy", np.concatenate(rows))
"""


def source_of(given: Path | None) -> Path:
    """The folder with labels.csv and images/: the given one, or that of the package."""
    if given is not None:
        return given
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        sys.exit("the package elpv-dataset is missing; install it with `pip install elpv-dataset`, or use --data")
    return Path(spec.origin).parent / "data"


def labelled(source: Path, folder: Path) -> list[tuple[str, str]]:
    """Write ``labels.csv`` and ``shares.csv`` into a folder with a link to the images; the test images and classes."""
    rows = [line.split() for line in (source / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
    rows.sort(key=lambda row: hashlib.sha256(Path(row[0]).name.encode()).hexdigest())
    first, second = (round(len(rows) * share) for share in (SHARES[0], sum(SHARES)))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "images").exists():
        (folder / "images").symlink_to(source / "images")
    labels, shares, found = [["file", "label", "split"]], [["file", *CLASSES, "split"]], []
    for place, (name, probability, _) in enumerate(rows):
        label = CLASSES[0] if float(probability) >= 0.5 else CLASSES[1]
        split = "train" if place < first else "val" if place < second else "test"
        labels.append([name, label, split])
        shares.append([name, probability, f"{1 - float(probability):.4f}", split])
        if split == "test":
            found.append((name, label))
    for table, lines in (("labels.csv", labels), ("shares.csv", shares)):
        with (folder / table).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)
    return found


def outside(bundle: Path, files: list[Path]) -> torch.Tensor:
    """Outputs of a bundle on image files by the lines in its ``README.md``, in a process of their own."""
    [block] = re.findall(r"^```python\n(.*?)^```", (bundle / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    lines = block.split("\nx = ")[0] + OUTSIDE
    subprocess.run([sys.executable, "-c", lines, *map(str, files)], cwd=bundle, check=True)
    found = torch.from_numpy(np.load(bundle / "outputs-of-test.npy"))
    (bundle / "outputs-of-test.npy").unlink()  # a bundle has no other files
    return found


def figures(outputs: torch.Tensor, labels: torch.Tensor) -> dict[str, tuple[float, float, float]]:
    """Figures of the defective class with 95% intervals, and top-1 accuracy."""
    found = {}
    for name, positive in (("f1", CLASSES[0]), ("auc", CLASSES[0]), ("balanced", None), ("top1", None)):
        metric = parse_metric(name, CLASSES, positive)
        found[name] = (metric(outputs, labels), *metric.interval(outputs, labels))
    defective = labels == 0
    found["recall"] = (
        TOP1(outputs[defective], labels[defective]),
        *TOP1.interval(outputs[defective], labels[defective]),
    )
    return found


def main() -> None:
    """Run the jobs of both settings with each seed, and print the figures of their bundles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with labels.csv and images/ (default: of the package)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000, help="updates of the supernet")
    parser.add_argument("--epochs", type=int, default=30, help="of the fine-tuning")
    given = parser.parse_args()
    source = source_of(given.data)
    test = labelled(source.resolve(), given.out / "data")
    files = [(given.out / "data" / name).resolve() for name, _ in test]
    labels = torch.tensor([CLASSES.index(label) for _, label in test])
    for seed in range(given.seeds):
        for arm, settings in ARMS.items():
            folder = given.out / arm  # all seeds share the profile
            folder.mkdir(exist_ok=True)
            path = json.dumps(str((given.out / "data").resolve()))
            chosen = {name: text.replace("{epochs}", str(given.epochs)) for name, text in settings.items()}
            job = JOB.format(seed=seed, steps=given.steps, path=path, **chosen)
            (folder / "job.toml").write_text(job, encoding="utf-8")
            with shown_progress() as progress:
                report = compile_job(read_job(folder / "job.toml"), folder / "out", progress=progress)
            [answer] = report["targets"].values()
            bundle = folder / "out" / answer["bundle"]
            found = figures(outside(bundle, files), labels)
            claimed = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["accuracy"]
            recomputed = found["f1" if arm == "unbalanced" else "top1"][0]
            if abs(claimed - recomputed) > 1e-9:
                sys.exit(f"{bundle}: the manifest says {claimed:.6f}, recomputed {recomputed:.6f}")
            shown = ", ".join(
                f"{name} {value:.3f} ({low:.3f} to {high:.3f})" for name, (value, low, high) in found.items()
            )
            print(f"{arm}, seed {seed}: {shown}; {answer['measured_ms']:.3f} ms", flush=True)


if __name__ == "__main__":
    main()
