"""Predict published architectures from a table of kernels that has not seen them, beside simpler predictors.

    pip install --no-deps timm torchvision huggingface_hub
    python benchmarks/kernels.py --out DIR [--recipe onnxruntime-cpu-fp32 ...] [--minutes 15] [--models FOLDER]
        [--device DEVICE]

For each recipe: kernels are profiled into DIR (a killed run resumes), and 77 architectures of timm with random
weights, exported to ONNX, are timed among the reference networks of the profile, whose present speed is corrected for.
Twelve of them were added when the predictions were final; their figures are printed beside those of all.
`--models` takes a folder of ONNX files instead. `--device` takes one that is reached over ssh: all is timed there, and
predicted from the table and this host's runtime alone. The predictors that are compared are fitted on the networks of
the same profile: multiply-accumulates, bytes, both with a cost of the call, and gradient boosting on whole networks.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import nnls
from scipy.stats import kendalltau
from sklearn.ensemble import GradientBoostingRegressor

from hwnas import workflows
from hwnas.errors import TooNoisy
from hwnas.latency.kernels import Kernel, kernel_path, load_kernels, parse_kernel, read_kernels
from hwnas.machines import machine_of
from hwnas.models import open_model
from hwnas.profiling.kernels import TOGETHER, measured_batch, speed_of
from hwnas.shown_progress import shown_progress
from hwnas.targets import Target, resolve_target
from hwnas.timing.protocol import usual
from hwnas.workflows.predicting import kernels_of

_ATTEMPTS = 6  # to time a few models on a machine that is sometimes too noisy
_SLOWEST = 0.8  # share of the table's speed at which models are timed
WORST = 6  # kinds of kernels whose errors are printed
Floats = npt.NDArray[np.float64]

ARCHITECTURES = (
    *("resnet18", "resnet50", "seresnet50", "resnext50_32x4d", "cspresnet50", "res2net50_26w_4s"),
    *("nfnet_l0", "regnety_008", "vgg11", "repvgg_a0", "dla34", "dpn68", "densenet121", "vovnet39a"),
    *("inception_v3", "xception41", "hrnet_w18_small", "mobilenetv2_100", "mobilenetv3_large_100"),
    *("mobilenetv4_conv_small", "mnasnet_100", "lcnet_100", "tinynet_c", "ghostnet_100"),
    *("efficientnet_b0", "efficientnetv2_rw_t", "tf_efficientnet_lite0", "convnext_atto"),
    *("convmixer_768_32", "poolformer_s12", "fastvit_t8", "edgenext_small", "mobilevit_s"),
    *("efficientformer_l1", "levit_128", "pit_ti_224", "vit_tiny_patch16_224", "deit_small_patch16_224"),
    *("swin_tiny_patch4_window7_224", "mixer_s32_224", "crossvit_tiny_240"),
    *("gernet_m", "selecsls42b", "hardcorenas_c", "rexnet_100", "mobileone_s1", "semnasnet_100"),
    *("resnetv2_50", "twins_pcpvt_small", "visformer_tiny", "coat_lite_tiny", "tiny_vit_5m_224"),
    *("ghostnetv2_100", "resnest14d", "skresnet18", "gcresnext26ts", "pvt_v2_b0", "convnextv2_atto"),
    *("inception_next_atto", "mobilenetv4_conv_medium", "cait_xxs24_224", "repghostnet_100", "caformer_s18"),
    *("hgnet_tiny", "regnetx_008"),
)
# Added after the features of kernels and the prior were chosen.
ADDED = (
    *("starnet_s2", "efficientvit_b0", "mobilenetv1_100", "darknet53", "fbnetv3_b", "regnetz_b16"),
    *("resmlp_12_224", "gmlp_ti16_224", "mobilevitv2_050", "convformer_s18", "focalnet_tiny_srf", "eca_nfnet_l0"),
)


def exported(folder: Path) -> list[Path]:
    """The architectures as ONNX files; those in the folder already are kept."""
    from timm_here import network

    folder.mkdir(parents=True, exist_ok=True)
    for name in ARCHITECTURES + ADDED:
        if (folder / f"{name}.onnx").exists():
            continue
        module, shape = network(name)
        part = folder / f"{name}.part"
        torch.onnx.export(module, (torch.randn(1, *shape),), str(part), dynamo=True, external_data=False, verbose=False)
        part.rename(folder / f"{name}.onnx")
    return [folder / f"{name}.onnx" for name in ARCHITECTURES + ADDED]


def measured(files: list[Path], target: Target, place: Path, before_ms: Mapping[str, float]) -> dict[str, Any]:
    """Latency and kernels of each model, and the references beside it; kept in a file.

    Models whose times disagree are timed again, at most `_ATTEMPTS` times in all, and so are those of a phase in which
    other virtual machines slowed this one: the same int8 networks then took 1.3 to 1.6 times as long, each its own,
    which no common speed corrects.

    Args:
        files: ONNX files.
        target: where they are timed.
        place: of what is found.
        before_ms: name of a reference -> its latency in the table.
    """
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    machine = machine_of(target)
    machine.check(target)
    for _ in range(_ATTEMPTS):
        waiting = [file for file in files if file.stem not in found]
        for start in range(0, len(waiting), TOGETHER // 2):
            models = {file.stem: open_model(file) for file in waiting[start : start + TOGETHER // 2]}
            try:
                batch = measured_batch(models, target, machine, usual().kernels, lambda: None)
            except TooNoisy as error:
                print(f"  again: {error}", flush=True)
                continue
            speed = speed_of(batch["references"], before_ms)
            if speed < _SLOWEST:
                print(f"  again: the machine has {speed:.2f} of the speed that it had for the table", flush=True)
                continue
            for one in batch["networks"]:
                found[one["name"]] = {"ms": one["ms"], "layers": one["layers"], "references": batch["references"]}
            place.write_text(json.dumps(found), encoding="utf-8")
    left = [file.stem for file in files if file.stem not in found]
    if left:
        print(f"  left out, refused by the recipe or too noisy {_ATTEMPTS} times: {', '.join(left)}", flush=True)
    return found


def totals(kernels: list[Kernel]) -> list[float]:
    """Multiply-accumulates and bytes in millions, and the number of kernels."""
    return [
        sum(kernel.macs or 0 for kernel in kernels) / 1e6,
        sum(kernel.bytes for kernel in kernels) / 1e6,
        len(kernels),
    ]


def others(known: Floats, ms: Floats) -> dict[str, Callable[[Floats], Floats]]:
    """Simpler predictors, fitted on totals of networks ``(n, 3)`` and their latencies, by relative errors."""
    made: dict[str, Callable[[Floats], Floats]] = {}
    for name, columns in (("MACs", [0]), ("bytes", [1]), ("MACs + bytes + calls", [0, 1, 2])):
        terms, _ = nnls(known[:, columns] / ms[:, None], np.ones(len(ms)))
        made[name] = lambda x, terms=terms, columns=columns: x[:, columns] @ terms  # type: ignore[misc]
    boosted = GradientBoostingRegressor(random_state=0).fit(np.log1p(known), np.log(ms))
    made["boosting on networks"] = lambda x: np.exp(boosted.predict(np.log1p(x)))
    return made


def row(name: str, predicted: Floats, ms: Floats, below: float | None = None) -> str:
    """The accuracy of predictions in a line."""
    off = np.abs(predicted / ms - 1)
    bound = "" if below is None else f", {below:.1%} below the 95% bound"
    return (
        f"  {name:24s} MAPE {off.mean():6.1%}, median {np.median(off):6.1%}, within 10% {np.mean(off <= 0.1):6.1%}, "
        f"τ {kendalltau(predicted, ms).statistic:.3f}{bound}"
    )


def main() -> None:
    """Profile, measure and compare each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", action="append", help="may be repeated; by default three")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--device", default="this")
    parser.add_argument("--models", type=Path, help="folder of ONNX files (default: architectures of timm)")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    files = sorted(given.models.glob("*.onnx")) if given.models else exported(given.out / "models")
    for recipe in given.recipe or ("onnxruntime-cpu-fp32", "openvino-cpu-fp32", "onnxruntime-cpu-int8"):
        target = resolve_target(f"{given.device}/{recipe}")
        path = kernel_path(given.out / "tables", target)
        if not path.exists():
            with shown_progress() as progress:
                workflows.profile_kernels(target, minutes=given.minutes, tables=given.out / "tables", progress=progress)
        table = read_kernels(path, target)
        model, rows = load_kernels(table), [parse_kernel(one.kernel) for one in table.rows]
        found = measured(files, target, given.out / f"measured-{recipe}.json", table.references)
        paths = {file.stem: file for file in files}
        ms, predicted, upper, sizes = [], [], [], []
        off = defaultdict[str, list[tuple[float, str]]](list)
        for name, one in sorted(found.items()):
            if given.device == "this":
                kernels = [parse_kernel(key) for key, _ in one["layers"]]
            else:
                _, kernels = kernels_of(open_model(paths[name]), target)
            answer = model.network(kernels)
            speed = speed_of(one["references"], table.references)
            ms.append(float(one["ms"]) * speed)
            predicted.append(answer.ms)
            upper.append(answer.upper_ms or np.inf)
            sizes.append(totals(kernels))
            unknown = sorted({part.kernel.kind for part in answer.kernels if part.how == "unknown"})
            for part, (_, layer_ms) in zip(answer.kernels, one["layers"], strict=False):
                off[part.kernel.kind].append((part.ms - (layer_ms - table.profiler_ms) * speed, name))
            note = f"   unknown: {', '.join(unknown)}" if unknown else ""
            print(f"  {name:32s} {ms[-1]:9.2f} ms, predicted {answer.ms:9.2f} ({answer.ms / ms[-1] - 1:+.1%}){note}")
        for kind in sorted(off, key=lambda kind: -sum(abs(ms) for ms, _ in off[kind]))[:WORST]:
            models = ", ".join(f"{name} {ms:+.2f}" for ms, name in sorted(off[kind], key=lambda one: -abs(one[0]))[:4])
            print(f"  {kind:28s} {sum(abs(ms) for ms, _ in off[kind]):8.2f} ms of errors: {models}")
        true, guess, below = np.array(ms), np.array(predicted), np.array(ms) <= np.array(upper)
        new = np.array([name in ADDED for name in sorted(found)])
        print(f"{target.name}: {len(true)} models; {len(table.rows)} kernels of {len(table.networks)} networks")
        print(row("kernels", guess, true, float(below.mean())))
        for name, part in (("kernels, known before", ~new), ("kernels, added", new)):
            if new.any() and part.any():
                print(row(name, guess[part], true[part], float(below[part].mean())))
        known = np.array([totals([rows[i] for i in network.kernels]) for network in table.networks])
        for name, predict in others(known, np.array([network.ms for network in table.networks])).items():
            print(row(name, predict(np.array(sizes)), true), flush=True)


if __name__ == "__main__":
    main()
