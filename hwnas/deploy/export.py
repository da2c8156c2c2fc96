"""From a supernet and an arch to a bundle: extract, re-calibrate, lower, check, write."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from hwnas.accuracy import Evaluator
from hwnas.deploy.bundle import Bundle, BundleManifest, check_output_folder, write_bundle
from hwnas.deploy.fallback import lower_within_bound
from hwnas.deploy.parity import check_parity
from hwnas.latency import LatencyModel
from hwnas.latency.profile import runtime_versions
from hwnas.lowering import Program, form_of
from hwnas.lowering.onnx import OnnxForm
from hwnas.progress import Progress, silent
from hwnas.spaces import Arch, Domain
from hwnas.targets import Recipe, Target


def lower_subnet(
    network: nn.Module, evaluator: Evaluator, arch: Arch, recipe: Recipe, *, progress: Progress = silent
) -> Program:
    """The program of an arch's network (`Evaluator.subnet`), ranges taken from training images.

    Raises:
        GraphError: the recipe's bound on what int8 costs holds only with no layer in int8.
    """
    form = form_of(recipe)
    if recipe.quantization is not None and recipe.quantization.max_accuracy_drop is not None:
        assert isinstance(form, OnnxForm)
        return lower_within_bound(form, network, evaluator, arch, progress=progress)
    count = form.images_needed
    images = evaluator.training_images(arch["resolution"], count) if count else None
    return form.lower(network, evaluator.supernet.space.image_shape(arch), images)


def export(
    arch: Arch,
    evaluator: Evaluator,
    target: Target,
    latency: LatencyModel,
    folder: Path,
    *,
    budget_ms: float | None = None,
    progress: Progress = silent,
) -> Bundle:
    """Make the bundle of an arch, checked for parity on the whole test split.

    Args:
        arch: the network.
        evaluator: holds the supernet and the data.
        target: what it is lowered for.
        latency: predicts it.
        folder: for the bundle.
        budget_ms: that the network was searched for.
        progress: told about the parity check.

    Raises:
        ParityError: the lowered network computes something else; nothing is written.
        OutputError: the bundle cannot be written.
    """
    check_output_folder(folder)
    space, data, form = evaluator.supernet.space, evaluator.data, form_of(target.recipe)
    network = evaluator.subnet(arch)
    program = lower_subnet(network, evaluator, arch, target.recipe, progress=progress)
    batches = data.batches("test", arch["resolution"])
    parity = check_parity(network, program, target.recipe, batches, images=data.size("test"), progress=progress)
    codes = space.encode([arch])
    manifest = BundleManifest(
        target=target.name,
        recipe=target.recipe,
        domain=Domain.of(space),
        arch=dict(arch),
        classes=list(data.classes),
        input={
            "name": "input",
            "shape": [target.recipe.batch, *space.image_shape(arch)],
            "transform": data.transform(arch["resolution"]),  # type: ignore[dict-item]
        },
        output={"name": "output", "shape": [target.recipe.batch, space.classes], "meaning": "logits, one a class"},
        predicted_ms=float(latency.predict(latency.space.encode([arch]))[0]),
        measured_ms=None,
        budget_ms=budget_ms,
        accuracy=parity.deployed_accuracy,
        parity=parity,
        macs=int(space.macs(codes)[0]),
        params=int(space.params(codes)[0]),
        versions=runtime_versions(target),
        files={},
    )
    return write_bundle(folder, lambda place: form.write(program, place), manifest)
