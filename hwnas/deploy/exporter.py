"""From a supernet and an arch to a bundle: extract, re-calibrate, lower, check, write."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwnas.deploy.bundle import Bundle, write_bundle, write_example
from hwnas.deploy.manifest import BundleManifest, DeviceFacts, Example, Input, Output, tolerance
from hwnas.deploy.sealed import check_output_folder
from hwnas.deploy.verification import batch_difference
from hwnas.errors import InvalidValue, ParityError
from hwnas.files import temporary_folder, write_whole
from hwnas.latency import LatencyModel
from hwnas.lowering import Form, Program, form_of
from hwnas.progress import Progress, silent
from hwnas.runtimes import any_batch_class, open_session, session_class
from hwnas.spaces import Arch, Domain
from hwnas.targets import Recipe, Target
from hwnas.timing.host import runtime_versions

if TYPE_CHECKING:
    from torch import nn

    from hwnas.accuracy import Evaluator
    from hwnas.lowering.included import Included

# Modules that import torch are imported locally: `hwnas verify` needs this package but not torch.


def lower_subnet(
    network: nn.Module, evaluator: Evaluator, arch: Arch, recipe: Recipe, *, progress: Progress = silent
) -> Program:
    """The program of an arch's network (`Evaluator.subnet`), calibrated on training images.

    Raises:
        GraphError: the recipe's `max_accuracy_drop` holds only without int8 layers.
    """
    form = form_of(recipe)
    if recipe.quantization is not None and recipe.quantization.max_accuracy_drop is not None:
        from hwnas.deploy.fallback import lower_within_bound
        from hwnas.lowering.onnx import OnnxForm

        assert isinstance(form, OnnxForm)
        return lower_within_bound(form, network, evaluator, arch, progress=progress)
    count = form.images_needed
    space = evaluator.supernet.space
    images = evaluator.training_images(space.input_size(arch), count) if count else None
    return form.lower(network, space.input_shape(arch), images, dtype=space.dtype)


def export(
    arch: Arch,
    evaluator: Evaluator,
    target: Target,
    latency: LatencyModel | None,
    folder: Path,
    *,
    budget_ms: float | None = None,
    include: Sequence[str] = (),
    dynamic_batch: bool = False,
    progress: Progress = silent,
) -> Bundle:
    """Create the bundle of an arch, with a parity check on the whole test split.

    Args:
        arch: the network.
        evaluator: has the supernet and the data.
        target: the target of the bundle.
        latency: model of its latency; None for a bundle without a prediction.
        folder: for the bundle.
        budget_ms: latency budget of the search.
        include: steps of an image's way that are part of the program: ``normalize``, which then takes uint8 images
            ``(batch, height, width, channels)``, and ``softmax``, or ``sigmoid`` for several labels per image. Parity
            is checked without and with them.
        dynamic_batch: whether a run of the program takes any number of images; predicted and measured latencies are
            still those of the recipe's batch.
        progress: callback, invoked during re-calibration, lowering and the parity check.

    Raises:
        InvalidValue: a step to include is unknown, or the runtime cannot take uint8 images or any number of images.
        GraphError: the runtime does not accept the graph, or the network contains the number of images.
        ParityError: the outputs of the lowered network differ; nothing is written.
        OutputError: the bundle cannot be written.
    """
    from hwnas.deploy.parity import check_parity, outputs

    check_output_folder(folder)
    if dynamic_batch:
        any_batch_class(target.recipe)  # checks that the runtime takes such programs
    space, data, form = evaluator.supernet.space, evaluator.data, form_of(target.recipe)
    size = space.input_size(arch)
    transform = data.transform(size)
    steps = included(transform, include, target.recipe, data.task)
    network = evaluator.subnet(arch, progress=progress)
    progress(f"lowering for {target.recipe.name}", 0, 1)
    program = lower_subnet(network, evaluator, arch, target.recipe, progress=progress)
    progress(f"lowering for {target.recipe.name}", 1, 1)
    batches = data.batches("test", size)
    check = partial(
        check_parity,
        recipe=target.recipe,
        images=data.size("test"),
        metric=evaluator.metric,
        classes=data.classes,
        progress=progress,
    )
    float_layers = form.float_layers(program)
    weights = weights_sha256(network)
    sample = data.batches("test", size, limit=1)
    if steps:
        check(network, program, batches=batches)  # of logits: an activation hides their differences
        program, network = steps.into(program, target.recipe), steps.around(network)
        batches = steps.batches(data.batches("test", size))
        sample = steps.batches(sample)
    if dynamic_batch:
        program = form.any_batch(program)
    activated = steps is not None and steps.activation is not None
    parity = check(network, program, batches=batches, probabilities=activated, any_batch=dynamic_batch)
    image, _ = next(iter(sample))
    x = np.ascontiguousarray(image.numpy())
    codes = space.encode([arch])
    predicted_ms = float(latency.predict(latency.space.encode([arch]))[0]) if latency else None
    opened = open_session(program, target.recipe, any_batch=dynamic_batch)
    with temporary_folder("an export") as temporary, opened as session:
        references = _references(latency, predicted_ms, form, temporary, progress)
        y = outputs(session, x)
        accepted = tolerance(target.recipe.precision, float(np.abs(y).max()))
        if dynamic_batch and not (apart := batch_difference(session, x)) <= accepted:
            raise ParityError(
                f"under {target.recipe.name}, outputs of several images in a run differ from those of the images one "
                f"by one by {apart:.3g}; at most {accepted:.3g} is accepted. Export with a fixed batch"
            )
        manifest = BundleManifest(
            target=target.name,
            device=DeviceFacts(name=target.device.name, kind=target.device.kind, fingerprint=target.device.fingerprint),
            recipe=target.recipe,
            domain=Domain.of(space),
            arch=dict(arch),
            weights_sha256=weights,
            data=data.name,
            data_folder=data.folder,
            data_fingerprint=data.fingerprint(),
            classes=list(data.classes),
            task=data.task,
            include=list(steps.steps) if steps else [],
            dynamic_batch=dynamic_batch,
            input=Input(
                name="input",
                shape=[target.recipe.batch, *x.shape[1:]],
                dtype=x.dtype.name,  # type: ignore[arg-type]
                transform=steps.transform(transform) if steps else transform,  # type: ignore[arg-type]
            ),
            output=Output(
                name="output",
                shape=[target.recipe.batch, space.classes],
                meaning=f"{'probabilities' if activated else 'logits'}, one per class",
            ),
            example=Example(max_abs_error=accepted),
            predicted_ms=predicted_ms,
            measured_ms=None,
            budget_ms=budget_ms,
            accuracy=parity.deployed_accuracy,
            parity=parity,
            fallback=float_layers,
            macs=int(space.macs(codes)[0]),
            params=int(space.params(codes)[0]),
            references={path.name: profiled_ms for path, profiled_ms in references.items()},
            versions={**runtime_versions(target), **session.facts()},
            files={},
        )

        def write(place: Path) -> Path:
            write_example(place, x, y)
            for path in references:
                write_whole(place / path.name, path.read_bytes())
            session.write_compiled(place)
            return form.write(program, place)

        return write_bundle(folder, write, manifest)


def _references(
    latency: LatencyModel | None, predicted_ms: float | None, form: Form, folder: Path, progress: Progress
) -> dict[Path, float]:
    """Files of a bundle's reference programs, named as in the bundle, and their latencies in the profile."""
    if latency is None or predicted_ms is None:
        return {}
    from hwnas.profiling.references import references_for

    found = {}
    for name, reference in references_for(latency, predicted_ms, form, folder, progress).items():
        program = reference.program
        path = program if isinstance(program, Path) else form.write(program, folder / name)
        found[path.rename(folder / f"reference-{name}{path.suffix}")] = reference.profiled_ms
    return found


def included(
    transform: Mapping[str, object], include: Sequence[str], recipe: Recipe, task: str = "classification"
) -> Included | None:
    """The steps to include in a program, from their names; None without one.

    Raises:
        InvalidValue: a step is unknown, is the activation of another task, or the recipe's runtime does not take uint8
            images.
        RuntimeUnavailable: the runtime cannot run on this host.
    """
    if not include:
        return None
    from hwnas.lowering.included import Included
    from hwnas.tasks import task_of

    steps, of = Included.of(transform, include), task_of(task)
    if steps.activation and steps.activation != of.activation:
        raise InvalidValue(
            f"{steps.activation} cannot be included in a network for {of.images}, whose probabilities are those of the "
            f"{of.activation}; include {of.activation} instead"
        )
    if steps.normalizes and not session_class(recipe).takes_uint8:
        raise InvalidValue(
            f"{recipe.name} cannot include normalize: sessions of {recipe.runtime} take float32 images only. Leave "
            "normalize out, or choose a recipe of onnxruntime, openvino or torch on the CPU"
        )
    return steps


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 (hex) of a network's tensors: name, type, shape and little-endian values of each, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
