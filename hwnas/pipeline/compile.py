"""`hwnas compile`: the stages of a job in their order, and the answer."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

from hwnas.accuracy import check_enough
from hwnas.data import open_data
from hwnas.deploy.bundle import check_output_folder, open_bundle, write_bundle
from hwnas.errors import InvalidValue, OutputError, UnknownName
from hwnas.latency.model import bound_networks_for
from hwnas.latency.profile import NETWORKS, OPS, check_host, runtime_versions
from hwnas.pipeline import stages as work
from hwnas.pipeline.cache import Stages
from hwnas.pipeline.figures import RunFigures
from hwnas.pipeline.gather import run_figures, target_figures
from hwnas.pipeline.job import Job
from hwnas.pipeline.page import write_page
from hwnas.pipeline.report import write_report
from hwnas.pipeline.stages import Context, Result
from hwnas.progress import Progress, silent
from hwnas.search import STRATEGIES, check_feasible
from hwnas.search.objectives import check_budget_text
from hwnas.spaces import Domain
from hwnas.targets import detect_host, resolve_target


def compile_job(job: Job, out: Path, *, progress: Progress = silent) -> Result:
    """Do a job: profile, validate, train, evaluate, search, export, benchmark, report.

    Args:
        job: what to do.
        out: folder for everything; ``bundle/`` in it is what is deployed, ``report.md`` and ``report.json`` say what
            came out, ``report.html`` shows it (drawn from ``figures.json``), ``stages/`` keeps what need not be done
            again.
        progress: told about all of it.

    Returns:
        the answer, as ``report.json`` holds it.

    Raises:
        UnknownName, InvalidValue, DataError: the job names something that does not exist or cannot be.
        InfeasibleBudget: no network of the space is that fast.
        ParityError: the lowered network computes something else.
        OutputError: a file cannot be written.
    """
    context = _context(job, progress)
    check_host(context.target)
    with Stages(out) as stages:
        check_output_folder(out / "bundle")
        answer, figures = _run(context, stages, out)
        write_report(out, answer)
        write_page(out, figures)
    return answer


def _context(job: Job, progress: Progress) -> Context:
    """All that can be wrong with a job is found here, before anything long begins."""
    if job.search.strategy not in STRATEGIES:
        raise UnknownName("search strategy", job.search.strategy, STRATEGIES)
    check_budget_text(job.budget)
    needed = bound_networks_for(job.search.confidence)
    if job.latency.bound_networks < needed:
        raise InvalidValue(
            f"search.confidence is {job.search.confidence:g}, which takes {needed} bound networks; "
            f"latency.bound_networks is {job.latency.bound_networks}. Raise it, or lower the confidence"
        )
    target = resolve_target(job.target)
    data = open_data(job.data.name, path=Path(job.data.path) if job.data.path else None)
    space = job.make_space(in_channels=data.in_channels, classes=len(data.classes))
    latency = job.latency
    networks = latency.calibration_networks + latency.bound_networks + latency.validation_networks
    if space.size < networks:
        raise InvalidValue(
            f"[latency] asks for {networks} different networks ({latency.calibration_networks} to calibrate, "
            f"{latency.bound_networks} to bound the error, {latency.validation_networks} to validate), and "
            f"{space.name} has {space.size} under these restrictions. Ask for fewer, or leave more choices in [space]"
        )
    check_enough(space, job.accuracy.networks(space))
    return Context(job, target, data, space, progress)


def _run(context: Context, stages: Stages, out: Path) -> tuple[Result, RunFigures]:
    job, target = context.job, context.target
    domain = Domain.of(context.space).model_dump()
    versions = runtime_versions(target)
    data = context.data.fingerprint()
    profiled = stages.run(
        "profile",
        {
            "target": target.name,
            "recipe": target.recipe.hash,
            "host": asdict(detect_host()),
            "versions": versions,
            "domain": domain,
            "networks": [job.latency.calibration_networks, job.latency.bound_networks],
            "protocols": [asdict(OPS), asdict(NETWORKS)],
        },
        partial(work.profile_stage, context),
    )
    validated = stages.run(
        "validate",
        {"profile": profiled.key, "networks": job.latency.validation_networks, "seed": job.seed},
        partial(work.validate_stage, context, profiled=profiled.folder),
    )
    # Known before anything long: a training of days must not end at an impossible budget.
    check_feasible(context.constraints(profiled.folder))
    trained = stages.run(
        "train",
        {
            "domain": domain,
            "data": data,
            "training": job.training.model_dump(),
            "seed": job.seed,
            "versions": {name: versions[name] for name in ("hwnas", "torch")},
        },
        partial(work.train_stage, context),
    )
    evaluated = stages.run(
        "accuracy",
        {"train": trained.key, "accuracy": job.accuracy.model_dump(), "seed": job.seed},
        partial(work.accuracy_stage, context, trained=trained.folder),
    )
    searched = stages.run(
        "search",
        {
            "profile": profiled.key,
            "accuracy": evaluated.key,
            "budget": job.budget,
            "search": job.search.model_dump(),
            "seed": job.seed,
        },
        partial(
            work.search_stage,
            context,
            profiled=profiled.folder,
            trained=trained.folder,
            evaluated=evaluated.result(),
        ),
    )
    exported = stages.run(
        "export",
        {"search": searched.key, "train": trained.key, "parity": target.recipe.parity.model_dump()},
        partial(
            work.export_stage,
            context,
            profiled=profiled.folder,
            trained=trained.folder,
            searched=searched.result(),
        ),
    )
    compared = exported.result()["accuracy"]
    benched = stages.run(
        "bench",
        {"export": exported.key},
        partial(work.bench_stage, context, exported=exported.folder, compared=list(compared)),
    )
    found, timed = searched.result(), benched.result()
    made = open_bundle(exported.folder / "bundle")
    final = write_bundle(
        out / "bundle",
        lambda folder: _copied(made.program, folder),
        made.manifest.model_copy(update={"measured_ms": timed["bundle"]["measured_ms"]}),
    )
    parity, validation = made.manifest.parity, validated.result()["summary"]
    answer = {
        "target": target.name,
        "space": context.space.name,
        "space_size": context.space.size,
        "budget": job.budget,
        "budget_ms": found["budget_ms"],
        "arch": found["arch"],
        "network": context.space.describe(found["arch"]),
        "predicted_ms": found["predicted_ms"],
        "measured_ms": timed["bundle"]["measured_ms"],
        "relative_error": timed["bundle"]["relative_error"],
        "accuracy": {"supernet": parity.torch_accuracy, "deployed": parity.deployed_accuracy},
        "parity": parity.model_dump(include={"images", "max_abs_error", "min_cosine", "top1_agreement"}),
        **{
            name: {"measured_ms": timed["compared"][name], "accuracy": compared[name]} if name in compared else None
            for name in ("largest", "best_random")
        },
        "random_networks": found["best_random"]["networks"],
        "macs": final.manifest.macs,
        "params": final.manifest.params,
        "validation": validation,
        "noise": {"spread": timed["bundle"]["spread"], "too_noisy": timed["bundle"]["too_noisy"]},
        "stages": [asdict(run) for run in stages.runs],
        "bundle": str(final.folder),
    }
    own = target_figures(
        context,
        answer,
        profiled=profiled.folder,
        validated=validated.result(),
        searched=found,
        bundle=final,
        out=out,
    )
    return answer, run_figures(context, trained.folder, [own])


def _copied(program: Path, folder: Path) -> Path:
    try:
        return Path(shutil.copyfile(program, folder / program.name))
    except OSError as error:
        raise OutputError(f"cannot write {folder / program.name}: {error.strerror}") from error
