"""Time, compare and export a model that hwnas did not build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue, RuntimeUnavailable, TooNoisy
from hwnas.files import temporary_folder
from hwnas.progress import Progress, silent
from hwnas.workflows.inputs import Place
from hwnas.workflows.model_answers import ModelBenchAnswer, ModelSweepAnswer, SweptModel
from hwnas.workflows.model_runs import facts_of, recorded

if TYPE_CHECKING:
    from hwnas.deploy.model_bundle import ModelBundle
    from hwnas.deploy.model_fallback import Int8Programs
    from hwnas.deploy.model_manifest import ModelParity
    from hwnas.machines import Machine
    from hwnas.models import Model
    from hwnas.models.model import Source
    from hwnas.models.samples import Samples
    from hwnas.models.shapes import Shapes
    from hwnas.runner.signature import Feeds
    from hwnas.targets import Recipe, Target
    from hwnas.timing.protocol import Protocol


def bench_model(
    source: Source | Model,
    targets: str | Target | Sequence[str | Target],
    *,
    shapes: Shapes | Sequence[str] = (),
    inputs: Path | str | None = None,
    weights: Path | str | None = None,
    runs: int = 0,
    layers: bool = True,
    out: Place | None = None,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> ModelBenchAnswer:
    """Time a model under recipes, and its layers.

    Args:
        source: the model, or what `hwnas.models.open_model` takes.
        targets: ``device/recipe`` each; the recipe ``*`` stands for all of the device.
        shapes: of inputs with open axes (`hwnas.models.open_model`).
        inputs: samples to run on and to calibrate int8 (`hwnas.models.samples.read_samples`); random ones if None.
        weights: file of the weights of a torch module.
        runs: least number of timed runs.
        layers: whether to time the layers.
        out: folder to which the answer is added, with a page (`hwnas.workflows.model_runs`).
        machine: where it is timed; that of each target if None.
        protocol: the timing protocol; the default for networks if None.
        progress: callback, invoked after every visit.

    Raises:
        ModelError, DataError, InvalidValue: the model or its samples cannot be used.
        UnknownName, MachineError, TableError: a target is unknown, or its device is not the machine.
        RuntimeUnavailable: no target can run the model; the message has the reason for each.
        TooNoisy: the figures of a target cannot be trusted.
        OutputError: `out` has other things in it, or cannot be written.
    """
    from hwnas.deploy.model_bench import time_model
    from hwnas.models.lowered import lowered
    from hwnas.timing.protocol import usual

    model, samples = _opened(source, shapes, inputs, weights)
    facts = facts_of(model, samples.source, out)
    found, left_out = [], dict[str, str]()
    with temporary_folder("a model") as folder:
        for number, target in enumerate(_targets(targets)):
            there = machine or _machine(target)
            try:
                program = _written(lowered(model, target.recipe, samples), folder / str(number))
                timing = time_model(
                    program,
                    target,
                    there,
                    protocol or usual().networks,
                    feeds=samples.feeds[0],
                    runs=runs,
                    layers=layers,
                    progress=progress,
                )
            except _of_one_recipe() as error:
                left_out[target.name] = str(error)
                continue
            if timing.too_noisy:
                raise TooNoisy(
                    f"the machine was too noisy for {target.name} (spread {timing.spread:.1%}): close other programs, "
                    "and run the same command again"
                )
            found.append(timing)
    _require_one(found, left_out, model)
    return recorded(ModelBenchAnswer(model=facts, targets=found, left_out=left_out), out)


def sweep_model(
    source: Source | Model,
    *,
    device: str = "this",
    recipes: Sequence[str] = (),
    shapes: Shapes | Sequence[str] = (),
    inputs: Path | str | None = None,
    weights: Path | str | None = None,
    metric: str | None = None,
    max_drop: float = 0.005,
    out: Place | None = None,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> ModelSweepAnswer:
    """Lower, compare and time a model under every recipe of a device, and pick the fastest that is close enough.

    Outputs are compared with those of the graph in fp32, on the samples. int8 is calibrated on them; if it exceeds the
    limits of its recipe's ``[parity]``, or `max_drop`, the layers that cost most stay in float.

    Args:
        source: as for `bench_model`.
        device: name of the device; ``this`` is the present host.
        recipes: names of recipes; empty for all of the device.
        shapes: as for `bench_model`.
        inputs: as for `bench_model`.
        weights: as for `bench_model`.
        metric: of the samples' labels (`hwnas.models.metrics`): by default ``top1`` of classes, ``mse`` of values.
        max_drop: largest accepted loss of the metric, for samples with labels, as a fraction: of a share, or of the
            error of the best constant output.
        out: as for `bench_model`; layers are timed, too.
        machine: as for `bench_model`.
        protocol: as for `bench_model`.
        progress: callback, invoked during every step.

    Raises:
        HwnasError: as `bench_model`, but for noise, which the answer has; also ModelError if the outputs of the model
            are not finite, or differ between two runs.
    """
    from hwnas.deploy.model_bench import time_model
    from hwnas.models.lowered import reference_outputs
    from hwnas.models.metrics import metric_name
    from hwnas.timing.protocol import usual

    if not 0 <= max_drop <= 1:
        raise InvalidValue(f"the largest loss must be a fraction from 0 to 1, not {max_drop}")
    model, samples = _opened(source, shapes, inputs, weights)
    metric = metric_name(metric, samples.labels)
    facts = facts_of(model, samples.source, out)
    expected = reference_outputs(model, samples.feeds)
    found, left_out = [], dict[str, str]()
    int8: dict[str, Int8Programs] = {}
    with temporary_folder("a model") as folder:
        for number, target in enumerate(_targets([f"{device}/{name}" for name in recipes] or f"{device}/*")):
            there = machine or _machine(target)
            try:
                made = _made(
                    model, samples, expected, target, there, folder / str(number), metric, max_drop, progress, int8
                )
                timing = time_model(
                    made.program,
                    target,
                    there,
                    protocol or usual().networks,
                    feeds=samples.feeds[0],
                    layers=out is not None,
                    progress=progress,
                )
            except _of_one_recipe() as error:
                left_out[target.name] = str(error)
                continue
            found.append(
                SweptModel(
                    timing=timing,
                    parity=made.parity,
                    refused=made.refused,
                    quantized=target.recipe.quantization is not None,
                    float_layers=made.float_layers,
                )
            )
    _require_one(found, left_out, model)
    if samples.random and any(one.quantized for one in found):
        facts.notes.append(
            "int8 was calibrated on random inputs, so how close it is on real ones is not known: pass some (--inputs)."
        )
    found.sort(key=lambda one: one.timing.measured_ms)
    picked = next((one.timing.target for one in found if one.refused is None and not one.timing.too_noisy), None)
    answer = ModelSweepAnswer(
        model=facts,
        device=found[0].timing.target.partition("/")[0],
        max_drop=max_drop,
        picked=picked,
        recipes=found,
        left_out=left_out,
    )
    return recorded(answer, out)


def export_model(
    source: Source | Model,
    target: str | Target,
    out: Path | str,
    *,
    shapes: Shapes | Sequence[str] = (),
    inputs: Path | str | None = None,
    weights: Path | str | None = None,
    metric: str | None = None,
    max_drop: float = 0.005,
    machine: Machine | None = None,
    progress: Progress = silent,
) -> ModelBundle:
    """Lower a model, check its parity with the graph in fp32, and write a bundle.

    Args:
        source: as for `bench_model`.
        target: ``device/recipe``; the device ``this`` is the present host.
        out: folder for the bundle.
        shapes: as for `bench_model`.
        inputs: samples for the parity check, the recorded example and int8; random ones if None.
        weights: as for `bench_model`.
        metric: of the samples' labels (`hwnas.models.metrics`): by default ``top1`` of classes, ``mse`` of values.
        max_drop: largest accepted loss of the metric, for samples with labels, as a fraction: of a share, or of the
            error of the best constant output.
        machine: where outputs are computed; that of the target if None.
        progress: callback, invoked during calibration.

    Raises:
        HwnasError: as `sweep_model`.
        ParityError: the outputs differ more than the recipe's ``[parity]`` accepts; nothing is written.
        OutputError: the bundle cannot be written.
    """
    from hwnas.deploy.model_bundle import write_model_bundle
    from hwnas.deploy.sealed import check_output_folder
    from hwnas.errors import ParityError
    from hwnas.models.lowered import reference_outputs
    from hwnas.models.metrics import metric_name
    from hwnas.targets import Target

    out = Path(out)
    check_output_folder(out)
    [wanted] = _targets(target)
    model, samples = _opened(source, shapes, inputs, weights)
    metric = metric_name(metric, samples.labels)
    there = machine or _machine(wanted)
    expected = reference_outputs(model, samples.feeds)
    with temporary_folder("a model") as folder:
        made = _made(model, samples, expected, wanted, there, folder, metric, max_drop, progress)
        if made.refused:
            raise ParityError(f"{model.name} under {wanted.recipe.name}: {made.refused}")
        return write_model_bundle(
            out,
            made.program,
            model,
            Target(wanted.device, made.recipe),
            made.parity,
            samples.feeds[0],
            made.outputs[0],
            fallback=made.float_layers,
            versions=there.versions(wanted),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """The program of a model under a recipe, and how close its outputs are."""

    program: Path
    recipe: Recipe
    parity: ModelParity
    refused: str | None
    outputs: Sequence[Feeds]
    float_layers: list[str]


def _made(
    model: Model,
    samples: Samples,
    expected: Sequence[Feeds],
    target: Target,
    machine: Machine,
    folder: Path,
    metric: str | None,
    max_drop: float,
    progress: Progress,
    int8: dict[str, Int8Programs] | None = None,
) -> _Made:
    """Lower a model under a recipe, and compare its outputs; `int8` keeps what recipes that quantise alike share.

    Raises:
        HwnasError: the recipe cannot run the model.
    """
    from hwnas.deploy.model_fallback import Int8Programs
    from hwnas.deploy.model_parity import compare_outputs, exceeded
    from hwnas.models.lowered import lowered, require_takes_models
    from hwnas.targets import detect_host, with_weights

    recipe = with_weights(target.recipe, detect_host().flags)
    require_takes_models(recipe)

    def judged(graph: object, kept: list[str]) -> _Made:
        program = _written(graph, folder)
        got = machine.run_feeds(program, recipe, samples.feeds)
        parity = compare_outputs(expected, got, samples, metric)
        refused = exceeded(parity, recipe) if parity.lost is None else None
        if parity.lost is not None and parity.lost > max_drop:
            refused = f"it loses {parity.lost:.2%} of {parity.metric}; at most {max_drop:.2%} is accepted"
        return _Made(program=program, recipe=recipe, parity=parity, refused=refused, outputs=got, float_layers=kept)

    if recipe.quantization is None:
        return judged(lowered(model, recipe, samples), [])
    shared, key = {} if int8 is None else int8, recipe.quantization.model_dump_json()
    if key not in shared:
        shared[key] = Int8Programs(model, recipe, samples, expected)
    graph, kept = shared[key].within(lambda graph: judged(graph, []).refused, progress)
    return judged(graph, kept)


def _opened(
    source: Source | Model, shapes: Shapes | Sequence[str], inputs: Path | str | None, weights: Path | str | None
) -> tuple[Model, Samples]:
    from hwnas.models import Model, open_model
    from hwnas.models.samples import random_samples, read_samples

    model = (
        source
        if isinstance(source, Model)
        else open_model(source, shapes=shapes, weights=Path(weights) if weights else None)
    )
    samples = read_samples(Path(inputs), model.signature) if inputs else random_samples(model.signature)
    return model, samples


def _targets(given: str | Target | Sequence[str | Target]) -> list[Target]:
    """Targets by their names; the recipe ``*`` stands for all of a device."""
    from hwnas.targets import Target, resolve_target, targets_of

    found: list[Target] = []
    for each in [given] if isinstance(given, str | Target) else given:
        if isinstance(each, Target):
            found.append(each)
        elif each.endswith("/*"):
            found += targets_of(each.removesuffix("/*"))
        else:
            found.append(resolve_target(each))
    return list({target.name: target for target in found}.values())


def _machine(target: Target) -> Machine:
    """The machine of a target, which must be its device."""
    from hwnas.machines import machine_of

    machine = machine_of(target)
    machine.check(target)
    return machine


def _written(graph: object, folder: Path) -> Path:
    """A program's file in a folder."""
    import onnx

    from hwnas.files import write_whole
    from hwnas.lowering.serialized import serialized

    assert isinstance(graph, onnx.ModelProto)
    write_whole(folder / "model.onnx", serialized(graph))
    return folder / "model.onnx"


def _of_one_recipe() -> tuple[type[Exception], ...]:
    """Errors of a single recipe of several, which is then left out with the reason."""
    from hwnas.deploy.parity import OF_ONE_RECIPE

    return OF_ONE_RECIPE


def _require_one(found: Sequence[object], left_out: dict[str, str], model: Model) -> None:
    if not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise RuntimeUnavailable(f"no target can run {model.name}: {reasons}")
