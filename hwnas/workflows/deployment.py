"""Export a network, compare it under all recipes of a device, and time its bundle."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue
from hwnas.progress import Progress, silent
from hwnas.workflows import inputs
from hwnas.workflows.arch_files import chosen_arch
from hwnas.workflows.deployed_answers import BenchAnswer, SweepAnswer, SweptRecipe
from hwnas.workflows.inputs import Place

if TYPE_CHECKING:
    from hwnas.deploy import Bundle
    from hwnas.deploy.sweep import Swept
    from hwnas.engines import EngineConfig
    from hwnas.latency import LatencyModel
    from hwnas.machines import Machine
    from hwnas.spaces import Space, Value
    from hwnas.targets import Recipe, Target
    from hwnas.timing.protocol import Protocol

log = logging.getLogger(__name__)


def export(
    arch: Place | Mapping[str, Value],
    supernet: Place,
    target: str | Target,
    out: Place,
    *,
    budget_ms: float | None = None,
    data_path: Place | None = None,
    tables: Place | None = None,
    metric: str | None = None,
    positive: str | None = None,
    include: Sequence[str] = (),
    dynamic_batch: bool = False,
    progress: Progress = silent,
) -> Bundle:
    """Extract a subnet, lower it, check its parity on the test images, and write a bundle.

    If the target has no latency table, or its table lacks the space, the bundle has no prediction
    (``manifest.predicted_ms`` is None), and a warning says why.

    Args:
        arch: file that has it (`hwnas.workflows.arch_files.read_arch`), or values.
        supernet: folder from `hwnas train`.
        target: ``device/recipe``; the device ``this`` is the present host.
        out: folder for the bundle.
        data_path: folder where the supernet's images are now, if they were moved.
        budget_ms: latency budget of the search in milliseconds; that of the arch's file if None.
        tables: folder of latency tables; the catalog's if None.
        metric: what the parity check measures, and a recipe's bound on the accuracy loss is of
            (`hwnas.tasks.parse_metric`).
        positive: class of the metric.
        include: steps that become part of the program: ``normalize`` (it then takes uint8 images
            ``(batch, height, width, channels)``) and ``softmax``.
        dynamic_batch: whether a run of the program takes any number of images, not only the recipe's batch.
        progress: callback, invoked during re-calibration, lowering and the parity check.

    Returns:
        the bundle.

    Raises:
        SpecError, DataError, UnknownName, InvalidValue: the arch, the supernet, its data, the metric or the target
            cannot be used.
        TableError: there is no such folder of tables, or the target's table cannot be used.
        ParityError: the outputs of the lowered network differ; nothing is written.
        OutputError: the bundle cannot be written.
    """
    from hwnas.deploy.exporter import export as make

    wanted = inputs.target_of(target)
    evaluator, _ = inputs.evaluator_of(supernet, images=None, metric=metric, positive=positive, data_path=data_path)
    space = evaluator.supernet.space
    chosen, of_file = chosen_arch(space, arch, wanted.name)
    latency, missing = inputs.prediction(wanted, Path(tables) if tables else None, space)
    if missing:
        log.warning("the bundle has no predicted latency: %s", missing)
    budget_ms = of_file if budget_ms is None else budget_ms
    return make(
        chosen,
        evaluator,
        wanted,
        latency,
        Path(out),
        budget_ms=budget_ms,
        include=include,
        dynamic_batch=dynamic_batch,
        progress=progress,
    )


def sweep(
    arch: Place | Mapping[str, Value],
    supernet: Place,
    *,
    device: str = "this",
    recipes: Sequence[str] = (),
    max_drop: float = 0.005,
    images: int | None = 2000,
    metric: str | None = None,
    positive: str | None = None,
    tables: Place | None = None,
    data_path: Place | None = None,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    engine: EngineConfig | None = None,
    progress: Progress = silent,
) -> SweepAnswer:
    """Lower, check and time a network under every recipe of a device, and pick the fastest of small accuracy loss.

    Accuracy is measured in the recipe's runtime on validation images. The same call resumes a killed one.

    Args:
        arch: file that has it (`hwnas.workflows.arch_files.read_arch`), or values.
        supernet: folder from `hwnas train`.
        device: name of the device, which must be this host or have a connection; ``this`` detects it.
        recipes: names of recipes; empty for all of the device.
        max_drop: largest accepted accuracy loss relative to torch, as a fraction.
        images: validation images; all if None.
        metric: what the accuracy loss is of (`hwnas.tasks.parse_metric`).
        positive: class of the metric.
        data_path: folder where the supernet's images are now, if they were moved.
        tables: folder of latency tables, for predictions; the catalog's if None.
        machine: where the network is timed; that of the device if None.
        protocol: the timing protocol; the default for networks if None.
        engine: where the network is lowered and compared with torch; times are not taken on it. This process if None.
        progress: callback, invoked during the work.

    Raises:
        SpecError, DataError, UnknownName, InvalidValue: the arch, the supernet, its data, the metric, the device or a
            recipe cannot be used.
        TableError: there is no such folder of tables, or the device is not this host.
        RuntimeUnavailable: no recipe can run the network on this host.
        OutputError: a file cannot be written, or another process sweeps this supernet.
        EngineError: the engine cannot run here, or its workers are on other hosts than this one.
    """
    from hwnas.deploy.sweep import sweep as sweep_recipes
    from hwnas.engines import open_engine
    from hwnas.files import only_one
    from hwnas.machines import machine_of
    from hwnas.targets import resolve_target, targets_of

    supernet = Path(supernet)
    targets = [resolve_target(f"{device}/{name}") for name in dict.fromkeys(recipes)] or targets_of(device)
    with open_engine(engine) as where:
        # The same network as in `export`.
        evaluator, facts = inputs.evaluator_of(
            supernet, images=images, metric=metric, positive=positive, data_path=data_path, engine=where
        )
        space = evaluator.supernet.space
        chosen = chosen_arch(space, arch)[0]
        place = inputs.evaluations_folder(supernet)
        # Supernets that are stages share the folder, and may be swept at the same time.
        lock = place / f".{facts.weights_sha256[:16]}.sweep.lock"
        latencies, unpredicted = _latencies(targets, Path(tables) if tables else None, space)
        with only_one(lock, f"a sweep of {supernet}"), evaluator.journal(place, facts.weights_sha256) as journal:
            swept = sweep_recipes(
                chosen,
                evaluator,
                targets,
                journal,
                max_drop=max_drop,
                latencies=latencies,
                machine=machine or machine_of(targets[0]),
                protocol=protocol,
                progress=progress,
            )
    return SweepAnswer(
        arch=dict(chosen),
        device=swept.recipes[0].target.device.name,
        max_drop=swept.max_drop,
        picked=swept.picked.target.name if swept.picked else None,
        recipes=[_swept(one) for one in swept.recipes],
        left_out=dict(swept.left_out),
        unpredicted=unpredicted,
    )


def _target_of(name: str | None, recipe: Recipe) -> Target:
    """The target of a bundle's recipe on a device; on this host if the name is None.

    Raises:
        InvalidValue: the name has another recipe.
        UnknownName: there is no such device.
    """
    from hwnas.targets import Target, load_device, this_device

    device, _, of_name = (name or f"this/{recipe.name}").partition("/")
    if of_name and of_name != recipe.name:
        raise InvalidValue(
            f"the bundle's recipe is {recipe.name}, and the target is {name}: use {device}/{recipe.name}"
        )
    return Target(this_device(recipe.facts.kind) if device == "this" else load_device(device), recipe)


def _latencies(
    targets: Sequence[Target], tables: Path | None, space: Space
) -> tuple[dict[str, LatencyModel], dict[str, str]]:
    """The latency model of each target with a table of the space, and why other tables cannot be used.

    Raises:
        TableError: there is no such folder of tables.
    """
    from hwnas.errors import SpecError, TableCorrupt, TableMismatch

    found, broken = dict[str, "LatencyModel"](), dict[str, str]()
    for target in targets:
        try:
            latency, _ = inputs.prediction(target, tables, space)
        except (SpecError, TableCorrupt, TableMismatch) as error:
            broken[target.name] = str(error)
            continue
        if latency:  # a recipe without a table is reported without a prediction
            found[target.name] = latency
    return found, broken


def _swept(one: Swept) -> SweptRecipe:
    return SweptRecipe(
        target=one.target.name,
        latency_ms=one.latency_ms,
        rounds_ms=list(one.rounds_ms),
        speeds=list(one.speeds),
        repeat=one.repeat,
        unsteady=one.unsteady,
        too_noisy=one.too_noisy,
        predicted_ms=one.predicted_ms,
        accuracy=one.parity.deployed_accuracy,
        lost=one.lost,
        refused=one.refused,
        size_bytes=one.size_bytes,
        parity=one.parity,
    )


def bench(
    bundle: Place,
    *,
    target: str | None = None,
    budget: str | Sequence[str] | None = None,
    require_budget: bool = False,
    runs: int | None = None,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> BenchAnswer:
    """Check that a bundle is unchanged, time it on a machine, and compare with its prediction.

    Args:
        bundle: folder of the bundle.
        target: ``device/recipe`` with the bundle's recipe; its device is at the end of a connection of that name, or is
            this host; this host if None.
        budget: budgets to compare with: the latency, ``0.8ms``, by default the bundle's; ``p95=1.2ms``, likewise p50,
            p90 and p99, for which there are as many timed runs as the quantile needs; ``images_per_s=500``, the least
            throughput of one stream.
        require_budget: raise before timing if there is no budget.
        runs: least number of timed runs; those of the protocol if None.
        machine: where it is timed; that of the target if None.
        protocol: the timing protocol; the default for networks if None.
        progress: callback, invoked after every visit.

    Raises:
        InvalidValue: a budget has another form, or is required and missing; `runs` is not positive; the machine does
            not have the cores that the recipe needs; the target has another recipe.
        UnknownName: there is no such device.
        BundleError: the bundle was changed, cannot be run, or its outputs differ on the machine.
        RuntimeUnavailable: its runtime cannot run on the machine.
        MachineError, TableError: the machine cannot be reached, or is not the target's device.
        TooNoisy: the figures cannot be trusted.
    """
    from hwnas.deploy import bench as measure
    from hwnas.deploy import open_bundle
    from hwnas.deploy.model_bench import bench_model_bundle
    from hwnas.deploy.model_bundle import ModelBundle, open_model_bundle
    from hwnas.deploy.model_manifest import SCHEMA
    from hwnas.deploy.sealed import schema_of
    from hwnas.machines import machine_of
    from hwnas.workflows.budgets import over_budgets, parse_budgets, runs_of

    bundle = Path(bundle)
    latency_ms, budgets = parse_budgets([budget] if isinstance(budget, str) else budget or ())
    of_model = schema_of(bundle) == SCHEMA
    opened = open_model_bundle(bundle) if of_model else open_bundle(bundle)
    of_search = None if isinstance(opened, ModelBundle) else opened.manifest.budget_ms
    budget_ms = of_search if latency_ms is None else latency_ms
    if needed := runs_of(budgets):
        runs = max(runs or 0, needed)
    if require_budget and budget_ms is None and not budgets:
        raise InvalidValue(f"{bundle} has no budget; set one: hwnas bench {shlex.quote(str(bundle))} --budget 0.8ms")
    wanted = _target_of(target, opened.manifest.recipe)
    machine = machine or machine_of(wanted)
    if target is not None:
        machine.check(wanted)
    if isinstance(opened, ModelBundle):
        result = bench_model_bundle(opened, wanted, machine, protocol=protocol, runs=runs or 0, progress=progress)
    else:
        result = measure(opened, wanted.device, machine=machine, protocol=protocol, runs=runs, progress=progress)
    result = replace(result, budget_ms=budget_ms)
    return BenchAnswer(
        **asdict(result),
        judged_ms=result.judged_ms,
        over_budget=result.over_budget,
        budgets=budgets,
        over_budgets=over_budgets(result, budgets),
        predicted_for=opened.manifest.target,
        saturates=opened.saturates,
    )
