"""Models that packages on PyPI carry: latency and layers, closeness under every CPU recipe, a bundle of the pick.

    pip install --no-deps rapidocr-onnxruntime==1.4.4 silero-vad==6.2.3
    python benchmarks/real_models.py [--only NAME] [--seconds 10]

`onnx` carries classic networks with constant weights. Models of packages that are not installed are left out, said so.
Latencies are of one run of this script; close other work while it times.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hwnas import workflows
from hwnas.deploy import verify
from hwnas.errors import HwnasError
from hwnas.timing.protocol import usual

# Package, file below it, shapes.
MODELS: tuple[tuple[str, str, Sequence[str]], ...] = (
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", ["x=1x3x320x320"]),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", ["x=1x3x48x320"]),
    ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", ["x=1x3x48x192"]),
    ("silero_vad", "data/silero_vad_16k_op15.onnx", ["input=1x512", "state=2x1x128"]),
    ("silero_vad", "data/silero_vad.onnx", ["input=1x512", "state=2x1x128"]),
    *(
        ("onnx", f"backend/test/data/light/light_{name}.onnx", [])
        for name in ("resnet50", "densenet121", "squeezenet", "shufflenet", "inception_v1")
    ),
)


def found(only: str | None) -> Iterator[tuple[Path, Sequence[str]]]:
    """The models that are installed, and their shapes."""
    for package, file, shapes in MODELS:
        if only and only not in file:
            continue
        spec = importlib.util.find_spec(package)  # nothing is imported: some need other packages
        places = list(spec.submodule_search_locations or ()) if spec else []
        if not places:
            print(f"{Path(file).stem}: left out, the package {package} is not installed")
            continue
        yield Path(places[0]) / file, shapes


def main() -> None:
    """Print a section per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="models whose file name contains this")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for a recipe, on a noisy machine")
    given = parser.parse_args()
    protocol = replace(usual().networks, max_seconds=given.seconds)
    for path, shapes in found(given.only):
        print(f"\n## {path.stem}\n", flush=True)
        try:
            swept = workflows.sweep_model(path, shapes=shapes, protocol=protocol)
        except HwnasError as error:
            print(f"refused: {error}")
            continue
        for note in swept.model.notes:
            print(note)
        print("| recipe | p25 (ms) | error of fp32's largest | cosine | layers in float | |")
        print("|---|---:|---:|---:|---:|---|")
        for one in swept.recipes:
            worst = max(one.parity.outputs, key=lambda output: output.max_abs_error / (output.largest or 1.0))
            cosine = min((each.min_cosine for each in one.parity.outputs if each.min_cosine is not None), default=1.0)
            print(
                f"| {one.timing.target.partition('/')[2]} | {one.timing.measured_ms:.4f} | "
                f"{worst.max_abs_error / (worst.largest or 1.0):.2e} | {cosine:.6f} | {len(one.float_layers)} | "
                f"{one.refused or ''} |"
            )
        for name, why in swept.left_out.items():
            if "torch" not in name:
                print(f"{name}: {why}")
        for target in [one.timing.target for one in swept.recipes if one.timing.target.endswith("-cpu-fp32")]:
            try:
                [timed] = workflows.bench_model(path, target, shapes=shapes, protocol=protocol).targets
            except HwnasError as error:
                print(f"{target}: {error}")
                continue
            layers = sum(layer.ms for layer in timed.layers)
            print(
                f"{target}: {len(timed.layers)} layers, which sum to {layers / timed.measured_ms:.1%} of "
                f"{timed.measured_ms:.4f} ms; the profiler added {(timed.profiler_ms or 0) * 1e3:.1f} µs per layer"
            )
        if swept.picked:
            with tempfile.TemporaryDirectory() as folder:
                workflows.export_model(path, swept.picked, Path(folder) / "bundle", shapes=shapes)
                print(f"picked {swept.picked}: its bundle is verified, {verify(Path(folder) / 'bundle').files} files")


if __name__ == "__main__":
    main()
