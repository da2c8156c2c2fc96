"""Predict models on devices that are not at hand, from tables of kernels; and measure such tables."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue
from hwnas.files import only_one, temporary_folder
from hwnas.progress import Progress, silent
from hwnas.report.model_figures import PredictedKernel
from hwnas.workflows import inputs
from hwnas.workflows.inputs import Place
from hwnas.workflows.model_answers import KernelsAnswer, KernelsValidationAnswer, PredictAnswer
from hwnas.workflows.model_runs import facts_of, recorded

if TYPE_CHECKING:
    from hwnas.latency.kernels import Kernel, KernelTable
    from hwnas.machines import Machine
    from hwnas.models import Model
    from hwnas.models.model import Source
    from hwnas.models.shapes import Shapes
    from hwnas.targets import Target
    from hwnas.timing.protocol import Protocol

MINUTES = 15.0


def profile_kernels(
    target: str | Target,
    *,
    like: Sequence[Source] = (),
    minutes: float | None = None,
    tables: Place | None = None,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> KernelsAnswer:
    """Measure kernels on a target, and write its table of kernels, which replaces an older one.

    The same call resumes a killed one.

    Args:
        target: ``device/recipe``; the device ``this`` is the present host.
        like: models whose kernels are measured, too.
        minutes: time that it takes, about; `MINUTES` if None.
        tables: folder of latency tables; the user's data folder or ``$HWNAS_HOME`` if None.
        machine: where networks are timed; the target's if None.
        protocol: for the latencies of networks.
        progress: callback, invoked while networks are measured.

    Raises:
        UnknownName, InvalidValue: a name or a value is unknown or invalid.
        ModelError: a model of `like` cannot be read.
        TableError: the target's device is not the machine.
        RuntimeUnavailable: the runtime cannot run there, or does not report layers.
        TooNoisy: the figures cannot be trusted; nothing is written.
        OutputError: a file cannot be written, or another process measures this table.
    """
    from hwnas.latency.kernels import kernel_path, parse_kernel, write_kernels
    from hwnas.latency.table import table_lock
    from hwnas.machines import machine_of
    from hwnas.models import open_model
    from hwnas.models.lowered import require_takes_models
    from hwnas.profiling.kernels import FIT_SHARE
    from hwnas.profiling.kernels import profile_kernels as measure
    from hwnas.targets import writable_home

    minutes = MINUTES if minutes is None else minutes
    if not 0 < minutes <= 24 * 60:
        raise InvalidValue(f"the time for measuring must be above 0 and at most 1,440 minutes, not {minutes:g}")
    wanted = inputs.target_of(target)
    require_takes_models(wanted.recipe)
    models = [open_model(each) for each in like]
    path = kernel_path(Path(tables) if tables else writable_home() / "latency_tables", wanted)
    journals = path.with_name(f".{path.stem}.journals")
    with only_one(table_lock(path), f"the table of kernels of {wanted.name}"):
        table = measure(
            wanted,
            journals=journals,
            seconds=60 * minutes * (1 - FIT_SHARE),
            like=models,
            machine=machine or machine_of(wanted),
            protocol=protocol,
            progress=progress,
        )
        write_kernels(table, path)
        shutil.rmtree(journals, ignore_errors=True)
    assert table.validation is not None
    return KernelsAnswer(
        target=wanted.name,
        kernels=len(table.rows),
        kinds=sorted({parse_kernel(row.kernel).kind for row in table.rows}),
        networks=len(table.networks),
        profiler_ms=table.profiler_ms,
        validation=table.validation,
        table=str(path),
    )


def predict(
    source: Source | Model,
    target: str | Target,
    *,
    shapes: Shapes | Sequence[str] = (),
    weights: Path | str | None = None,
    tables: Place | None = None,
    confidence: float = 0.95,
    out: Place | None = None,
    progress: Progress = silent,
) -> PredictAnswer:
    """Predict the latency of a model on a target, kernel by kernel, without the device.

    The target's runtime on this host compiles the model and shows its kernels. Nothing is timed.

    Args:
        source: the model, or what `hwnas.models.open_model` takes.
        target: ``device/recipe``.
        shapes: of inputs with open axes (`hwnas.models.open_model`).
        weights: file of the weights of a torch module.
        tables: folder of latency tables; the catalog's if None.
        confidence: of the upper bound.
        out: folder to which the answer is added, with a page (`hwnas.workflows.model_runs`).
        progress: callback.

    Raises:
        ModelError, GraphError, InvalidValue: the model, or a value, cannot be used.
        UnknownName: the target is unknown.
        TableError: there is no table of kernels of the target.
        RuntimeUnavailable: the runtime is not installed here, or does not take the model.
        OutputError: `out` has other things in it, or cannot be written.
    """
    from hwnas.latency.kernels import HOW, load_kernels
    from hwnas.models import Model, open_model

    if not 0 < confidence < 1:
        raise InvalidValue(f"a confidence is between 0 and 1, not {confidence:g}")
    wanted = inputs.target_of(target)
    table = table_of(wanted, tables)
    model = (
        source
        if isinstance(source, Model)
        else open_model(source, shapes=shapes, weights=Path(weights) if weights else None)
    )
    facts = facts_of(model, "nothing: it was not run", out)
    progress("compiling", 0, 1)
    names, kernels = kernels_of(model, wanted)
    found = load_kernels(table).network(kernels, confidence=confidence)
    share = {how: sum(one.ms for one in found.kernels if one.how == how) for how in HOW}
    total = sum(share.values())
    unknown = sorted({one.kernel.kind for one in found.kernels if one.how == "unknown"})
    notes = [*model.notes, *_notes(table, wanted)]
    if unknown:
        notes.append(
            f"the table has no kernel of {', '.join(unknown)}: these are estimated from other kinds, and widen the "
            f"bound. Measure them with: hwnas profile --kernels --target {wanted.name} --like MODEL"
        )
    if found.upper_ms is None:
        notes.append(f"{len(table.networks)} networks are too few for a bound at {confidence:.0%} confidence")
    answer = PredictAnswer(
        model=facts,
        target=wanted.name,
        predicted_ms=found.ms,
        upper_ms=found.upper_ms,
        confidence=confidence,
        shares={how: ms / total for how, ms in share.items()},
        between_ms=found.context_ms,
        kernels=[
            PredictedKernel(name=name, kernel=one.kernel.key, ms=one.ms, share=one.ms / found.ms, how=one.how)
            for name, one in zip(names, found.kernels, strict=True)
        ],
        validation=table.validation,
        measured_on=table.date,
        notes=notes,
    )
    return recorded(answer, out)


def validate_kernels(
    target: str | Target,
    *,
    networks: int = 32,
    tables: Place | None = None,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> KernelsValidationAnswer:
    """Time networks that a table of kernels has not seen, twice, and compare them with their predictions.

    Args:
        target: ``device/recipe``; the device ``this`` is the present host.
        networks: number of new networks of the prior.
        tables: folder of latency tables; the catalog's if None.
        machine: where they are timed; the target's if None.
        protocol: as for `profile_kernels`.
        seed: of the networks.
        progress: callback, invoked while networks are measured.

    Raises:
        UnknownName, InvalidValue: a name or a value is unknown or invalid.
        TableError: there is no table of kernels, or the target's device is not the machine.
        RuntimeUnavailable: the runtime cannot run there.
        TooNoisy: the figures cannot be trusted.
    """
    from hwnas.machines import machine_of
    from hwnas.profiling.kernel_validation import LEAST
    from hwnas.profiling.kernel_validation import validate_kernels as measure

    if networks < LEAST:
        raise InvalidValue(f"a validation needs at least {LEAST} networks, not {networks}")
    wanted = inputs.target_of(target)
    table = table_of(wanted, tables)
    return KernelsValidationAnswer(
        target=wanted.name,
        **measure(
            table,
            wanted,
            networks=networks,
            seed=seed,
            machine=machine or machine_of(wanted),
            protocol=protocol,
            progress=progress,
        ),
    )


def table_of(target: Target, tables: Place | None) -> KernelTable:
    """The table of kernels of a target, in a folder of tables or the catalog."""
    from hwnas.latency.kernels import kernel_path, read_kernels
    from hwnas.targets import kernel_table_path, writable_home

    if tables:
        return read_kernels(kernel_path(Path(tables), target), target)
    found = kernel_table_path(target)
    return read_kernels(found or kernel_path(writable_home() / "latency_tables", target), target)


def kernels_of(model: Model, target: Target) -> tuple[list[str], list[Kernel]]:
    """The names and kernels of a model's layers, as the target's runtime on this host cuts it."""
    from hwnas.latency.kernels.kernel import kernel_of
    from hwnas.machines import LocalMachine
    from hwnas.profiling.kernels import written

    with temporary_folder("a prediction") as folder:
        program = written(model, target.recipe, folder / "model.onnx")
        layers = LocalMachine().layers({model.name: program}, target.recipe, runs=1)[model.name].layers
    return [layer.name for layer in layers], [kernel_of(layer) for layer in layers]


def _notes(table: KernelTable, target: Target) -> list[str]:
    from hwnas.targets.runtimes import installed_version

    runtime = target.recipe.runtime
    here, there = installed_version(runtime), table.versions.get(runtime, "").split("+")[0]
    notes = []
    if here != there:
        notes.append(
            f"the kernels were measured with {runtime} {there}, and {here} on this host cuts the model: their kernels "
            "may differ"
        )
    if not any("+" in row.kernel for row in table.rows):  # a kind has a variant after it
        notes.append(
            "the kernels were measured by an older hwnas, without what is fused into them, and the bound does not "
            f"hold: measure them again with hwnas profile --kernels --target {target.name}"
        )
    return notes
