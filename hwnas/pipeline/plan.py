"""From a job to its stages and their inputs, which are known before any stage is executed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from hwnas.accuracy import check_enough
from hwnas.accuracy.evaluate import check_positive
from hwnas.accuracy.predictors import check_predictor
from hwnas.data import Data, Split
from hwnas.deploy.exporter import included
from hwnas.engines import open_engine
from hwnas.errors import InvalidValue, UnknownName
from hwnas.latency.model import bound_networks_for
from hwnas.machines import machine_of
from hwnas.pipeline import stages as work
from hwnas.pipeline.cache import Stage
from hwnas.pipeline.checked import open_checked
from hwnas.pipeline.elastic import elastic_stage_of
from hwnas.pipeline.finetuning import finetune_stage
from hwnas.pipeline.job import Job, JobTraining
from hwnas.pipeline.rounds import Round
from hwnas.pipeline.stages import Context
from hwnas.pipeline.target_plan import TargetPlan
from hwnas.plugins import file_of
from hwnas.progress import Progress, silent
from hwnas.runtimes import any_batch_class
from hwnas.search import strategy_names
from hwnas.search.acquisition import check_acquisition
from hwnas.search.objectives import check_budget_text
from hwnas.search.solver import check_strategy
from hwnas.spaces import Domain, Space, base_of
from hwnas.supernet import read_facts
from hwnas.targets import Target, resolve_target
from hwnas.tasks.base import Metric
from hwnas.tasks.metrics import TOP1, parse_metric
from hwnas.tasks.weights import check_fit
from hwnas.training.launchers import launcher, started_by_training
from hwnas.workflows.budgets import runs_of
from hwnas.workflows.processes import check_devices
from hwnas.workflows.side_by_side import labelled


def plan_job(job: Job, out: Path, progress: Progress = silent, *, again: str | None = None) -> list[TargetPlan]:
    """A plan for each target of a job; all errors in a job are found here, before long work.

    Args:
        job: the job.
        out: its output folder; nothing is written.
        progress: callback of the stages, which name their target if there are several.
        again: name of a stage to execute again; ``check`` decides here which images are left out.

    Raises:
        UnknownName, InvalidValue, DataError: a name or a value in the job is unknown or invalid.
        TableError, RuntimeUnavailable: a target cannot run on this host.
        EngineError: the engine cannot run here.
    """
    if job.search.strategy not in strategy_names():
        raise UnknownName("search strategy", job.search.strategy, strategy_names())
    check_acquisition(job.search.acquisition)
    budgets = _budgets(job)
    needed = bound_networks_for(job.search.confidence)
    if job.latency.bound_networks < needed:
        raise InvalidValue(
            f"search.confidence is {job.search.confidence:g}, which requires {needed} bound networks; "
            f"latency.bound_networks is {job.latency.bound_networks}. Raise it, or lower the confidence"
        )
    targets = _targets(job)
    data, check, fingerprint = open_checked(job.data, out / "stages", progress, again=again == "check")
    check_positive(data, _parsed(job, data))
    space = job.space_for(data)
    job = job.for_space(space)
    _check_size(job, space)
    check_strategy(job.search.strategy, space)
    check_predictor(job.search.predictor, space)
    for phase in job.training.phases:
        phase.open(space)  # checks the restrictions of the phase
    _check_devices(job.training)
    open_engine(job.engine).close()  # checks that it can run here
    how = job.training
    size = space.input_size(space.largest)
    check_fit(data, weights=how.class_weights, sampler=how.sampler, augmentation=how.augmentation, resolution=size)
    for target in targets.values():  # checks that the runtime takes such programs
        included(data.transform(size), job.export.include, target.recipe, data.task)
        if job.export.dynamic_batch:
            any_batch_class(target.recipe)
    return [
        _plan(
            Context(
                job=job,
                target=target,
                budget=budgets[text],
                data=data,
                space=space,
                progress=labelled(progress, _label(target, targets.values())) if len(targets) > 1 else progress,
            ),
            out / "stages",
            fingerprint,
            check,
            progress,
        )
        for text, target in targets.items()
    ]


def _label(target: Target, targets: Collection[Target]) -> str:
    """How progress names a target: its recipe, on several devices the whole name."""
    return target.recipe.name if len({each.device.name for each in targets}) == 1 else target.name


def _budgets(job: Job) -> dict[str, str]:
    """Target as written in the job -> its budget."""
    given = job.budget if isinstance(job.budget, Mapping) else dict.fromkeys(job.targets, job.budget)
    for name in given:
        if name not in job.targets:
            raise UnknownName("target in [budget]", name, job.targets, "Use the names in `targets`.")
    if missing := [name for name in job.targets if name not in given]:
        raise InvalidValue(
            f"[budget] has no entry for {', '.join(missing)}; write one for each target, or one text for all"
        )
    for text in given.values():
        if "=" in text:
            raise InvalidValue(
                f"a job's budget is of the predicted latency, such as 0.8ms; not {text!r}. Budgets of other figures "
                'are keys of [bench], such as p95 = "1.2ms"'
            )
        _, unit = check_budget_text(text)
        if unit not in ("", "ms", "%"):  # checked here, before a profile that takes minutes
            raise InvalidValue(
                f"a job's budget must be a latency, 0.8ms, or 50% of the largest network's; not {text!r}"
            )
    return given


def _targets(job: Job) -> dict[str, Target]:
    """Target as written in the job -> the target, which can run on this host."""
    found: dict[str, Target] = {}
    for text in job.targets:
        target = resolve_target(text)
        if text in found or target in found.values():
            raise InvalidValue(f"targets contains {target.name} twice: {', '.join(job.targets)}; list it once")
        machine_of(target).check(target)
        found[text] = target
    return found


def _check_size(job: Job, space: Space) -> None:
    latency = job.latency
    networks = latency.calibration_networks + latency.bound_networks + latency.validation_networks
    if space.size < networks:
        raise InvalidValue(
            f"[latency] needs {networks} different networks ({latency.calibration_networks} to calibrate, "
            f"{latency.bound_networks} to bound the error, {latency.validation_networks} to validate), but "
            f"{space.name} has {space.size} under these restrictions. Lower the numbers, or restrict [space] less"
        )
    check_enough(space, job.accuracy.networks(space))


def _check_devices(training: JobTraining) -> None:
    """Check, before long work, that a training can run on the job's hardware.

    Raises:
        InvalidValue: a launcher started this command several times, or the devices are not available.
    """
    if training.devices > 1 and (started := launcher(os.environ)):
        raise InvalidValue(
            f"{started.name} started several processes of this command, but a job starts the processes of its training "
            "itself; start one process"
        )
    where, usual = (training.accelerator, training.devices, training.precision), JobTraining()
    # Loading Fabric takes a second, and the CPU needs no check.
    if where != (usual.accelerator, usual.devices, usual.precision) and not started_by_training():
        check_devices(*where)


def _runs_on(training: JobTraining) -> dict[str, object]:
    """Inputs of a training besides its config; empty for a training on the CPU, so that older stages stay valid.

    Raises:
        SpecError: the teacher's folder is not a supernet.
    """
    usual = JobTraining()
    on = {
        name: getattr(training, name)
        for name in ("accelerator", "precision", "devices")
        if getattr(training, name) != getattr(usual, name)
    }
    if training.teacher is None:
        return on
    return {**on, "teacher": read_facts(Path(training.teacher)).weights_sha256}


def _parsed(job: Job, data: Data) -> Metric:
    """The job's metric."""
    return parse_metric(job.accuracy.metric, data.classes, job.accuracy.positive, task=data.task)


def _metric(job: Job, data: Data) -> dict[str, str]:
    """The job's metric as an input of stages; the usual one is left out, so that older stages stay valid.

    Raises:
        UnknownName, InvalidValue, PluginError: no such metric or class.
    """
    metric = _parsed(job, data)
    return {} if metric is TOP1 else {"metric": metric.identity}


def _judged_by(job: Job, data: Data) -> dict[str, str]:
    """The metric and the images of validations, as inputs of a training that they end."""
    return {**_metric(job, data), "validated on": data.split_fingerprint("validation")}


def _plan(context: Context, place: Path, data: str, check: Stage | None, progress: Progress) -> TargetPlan:
    job, target = context.job, context.target
    domain, versions = Domain.of(context.space).model_dump(), context.machine.versions(target)
    # Stages are executed again when the space's file changes.
    if job.space and (file := file_of(base_of(job.space.name))):
        domain["file_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    shared, stage = replace(context, progress=progress), partial(Stage, place=place)
    profile = stage(
        name="profile",
        inputs={
            "target": target.name,
            "recipe": target.recipe.hash,
            "host": asdict(context.machine.host()),
            "versions": versions,
            "domain": domain,
            "networks": [job.latency.calibration_networks, job.latency.bound_networks],
            "protocols": [asdict(context.protocols.ops), asdict(context.protocols.networks)],
        },
        needs=(),
        work=partial(work.profile_stage, context),
    )
    validate = stage(
        name="validate",
        inputs={"target": target.name, "networks": job.latency.validation_networks, "seed": job.seed},
        needs=(profile,),
        work=partial(work.validate_stage, context, profiled=profile),
    )
    training = {
        "domain": domain,
        "training": job.training.config.model_dump(),
        "seed": job.seed,
        "versions": {name: versions[name] for name in ("hwnas", "torch")},
        **_runs_on(job.training),
        # With patience, validations decide which weights are kept.
        **(_judged_by(job, context.data) if job.training.patience else {}),
    }

    elastic: Stage | None = None

    def train_of(data_inputs: Mapping[str, str]) -> Stage:
        inputs = {**training, **data_inputs}
        return stage(
            name="train",
            inputs=inputs,
            needs=(elastic,) if elastic else (),
            work=partial(work.train_stage, shared, start=elastic),
        )

    if job.model is None:
        prints = _prints(context.data, data, train_of)
        train = train_of(prints["train"])
    else:
        splits: tuple[Split, ...] = ("train", "validation", "test")
        prints = {split: {"data": context.data.split_fingerprint(split)} for split in splits}
        elastic = elastic_stage_of(shared, stage, {**prints["train"], "order": prints["validation"]["data"]}, versions)
        train = train_of(prints["train"]) if job.model.train else elastic
    accuracy = stage(
        name="accuracy",
        inputs={"accuracy": job.accuracy.facts, "seed": job.seed, **_metric(job, context.data), **prints["validation"]},
        needs=(train,),
        work=partial(work.accuracy_stage, shared, trained=train),
    )
    # The measurement does not depend on the budgets, but high quantiles need many runs.
    runs = {"runs": runs_of(job.bench.budgets)} if job.bench.budgets else {}
    rounds: list[Round] = []
    for _ in range(1 + job.search.refits):
        earlier = tuple(rounds)
        search = stage(
            name="search",
            inputs={
                "target": target.name,
                "budget": context.budget,
                "search": job.search.model_dump(exclude={"refits"}),
                "seed": job.seed,
            },
            needs=(profile, accuracy, *(each.bench for each in earlier[-1:])),
            work=partial(
                work.search_stage, context, profiled=profile, trained=train, evaluated=accuracy, earlier=earlier
            ),
        )
        finetune = None
        if job.finetune.epochs:
            finetune = stage(
                name="finetune",
                inputs={
                    "target": target.name,
                    "training": job.finetune.training(job.training.config, context.data.size("train")).model_dump(),
                    "distil": job.finetune.distil,
                    "seed": job.seed,
                    **_metric(job, context.data),
                },
                needs=(search, train),
                work=partial(finetune_stage, context, trained=train, searched=search, teacher=elastic or train),
            )
        export = stage(
            name="export",
            # The recipe's hash excludes the limits of checks; the earlier stages depend on the rest.
            inputs={
                "target": target.name,
                "recipe": target.recipe.model_dump(mode="json", exclude={"description"}),
                **({"include": sorted(set(job.export.include))} if job.export.include else {}),
                **({"dynamic_batch": True} if job.export.dynamic_batch else {}),
                **prints["test"],
            },
            needs=(search, train, *([finetune] if finetune else [])),
            work=partial(
                work.export_stage,
                context,
                profiled=profile,
                trained=train,
                searched=search,
                finetuned=finetune,
                earlier=earlier,
            ),
        )
        bench = stage(
            name="bench",
            inputs={"target": target.name, **runs},
            needs=(export,),
            work=partial(work.bench_stage, context, exported=export),
            unsettled=work.bench_noise,
        )
        rounds.append(Round(search=search, finetune=finetune, export=export, bench=bench))
    return TargetPlan(
        context=context,
        check=check,
        profile=profile,
        validate=validate,
        elastic=elastic,
        train=train,
        accuracy=accuracy,
        rounds=tuple(rounds),
    )


def _prints(data: Data, whole: str, train: Callable[[Mapping[str, str]], Stage]) -> dict[Split, dict[str, str]]:
    """Fingerprints of the data as inputs of the stages that use a split: a changed test image leaves the training.

    Args:
        data: the data.
        whole: the fingerprint of all splits: the input of the training for data that have no other, and for a training
            that an older version has begun in this folder.
        train: the stage of the training with such inputs.
    """
    of_whole: dict[Split, dict[str, str]] = {"train": {"data": whole}, "validation": {}, "test": {}}
    prints: dict[Split, str] = {split: data.split_fingerprint(split) for split in of_whole}
    if prints["train"] == whole:
        return of_whole
    begun = train(of_whole["train"])
    found: dict[Split, dict[str, str]] = {split: {"data": own} for split, own in prints.items()}
    if begun.folder.exists() or begun.unfinished.exists():
        found["train"] = of_whole["train"]  # evaluations are repeated: older samples of a split were not stratified
    return found
