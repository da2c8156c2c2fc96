"""`hwnas compile`: execute the stages of a job in order, and report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from hwnas.accuracy.figures import AccuracyModelFigures, ModelQuality
from hwnas.deploy.benchmark import Benchmark
from hwnas.deploy.bundle import open_bundle, write_bundle
from hwnas.deploy.sealed import check_output_folder
from hwnas.deploy.verdict import judged_ms, over_budget
from hwnas.errors import InfeasibleBudget, OutputError, UnknownName
from hwnas.pipeline.cache import StageRun, Stages
from hwnas.pipeline.gather import run_figures, target_figures
from hwnas.pipeline.job import Job
from hwnas.pipeline.plan import plan_job
from hwnas.pipeline.rounds import best_round
from hwnas.pipeline.stages import Result
from hwnas.pipeline.tables import TABLES, offer_table
from hwnas.pipeline.target_plan import STAGES, TargetPlan
from hwnas.progress import Progress, silent
from hwnas.report.page import write_page
from hwnas.report.text import write_report
from hwnas.search import check_feasible
from hwnas.training.launchers import started_by_training
from hwnas.workflows.budgets import over_budgets
from hwnas.workflows.side_by_side import side_by_side


def compile_job(job: Job, out: Path, *, again: str | None = None, progress: Progress = silent) -> Result:
    """Run a job: profile, validate, train, evaluate, search, export, benchmark, report.

    Targets share the training and the evaluation of subnets; the other stages run for each target. Different machines
    are profiled and validated at the same time.

    Args:
        job: the job.
        out: output folder: ``bundles/device/recipe/`` is the bundle to deploy, ``report.md`` and ``report.json``
            contain the results, ``report.html`` shows them (drawn from ``figures.json``), ``latency_tables/`` has the
            measured tables, ``stages/`` the cached stages. It can be moved. The tables are also written into the
            user's folder, if no figure changes there (`hwnas.pipeline.tables.offer_table`).
        again: name of a stage to execute again, with all stages that depend on it.
        progress: callback, invoked during every step.

    Returns:
        the content of ``report.json``: ``{"schema": 1, "targets": {"device/recipe": answer}}``.

    Raises:
        UnknownName, InvalidValue, DataError: a name or a value in the job is unknown or invalid.
        TableError, RuntimeUnavailable: a target cannot run on this host.
        InfeasibleBudget: no network of the space is within the budget.
        ParityError: the outputs of the lowered network differ.
        OutputError: a file cannot be written, or another process works in the folder.
        EngineError: the engine cannot run here, or an evaluation ended three of its workers.
        SystemExit: in a process that the training started, when the training is finished.
    """
    check_stage(again)
    plans = plan_job(job, out, progress, again=again)
    check_stage(again, plans)
    if started_by_training():  # by the train stage of the first process, which runs all other stages
        plans[0].train.work(plans[0].train.unfinished)
    runs = dict[str, list[StageRun]]()
    answers = dict[str, Result]()
    with Stages(out=out, again=again) as stages:
        check_output(out, plans)
        measured, failed = side_by_side(
            {plan.name: (plan.context.machine.name, partial(_measure, plan, stages)) for plan in plans}, progress
        )
        for error in failed.values():
            raise error
        for plan in plans:
            runs[plan.name] = measured[plan.name]
            # Checked before long work: a training of days must not end at an infeasible budget.
            offer_table(plan, out)
            check_feasible(plan.context.constraints(plan.profile.folder))
        for number, plan in enumerate(plans):
            runs[plan.name] += _make(plan, stages)
            plans[number] = replace(plan, taken=best_round(plan.outcomes()))
            answers[plan.name] = _answer(plans[number], runs[plan.name], out)
        report: Result = {"schema": 1, "targets": answers}
        write_report(out, report)
        stories = [target_figures(plan, answers[plan.name], out) for plan in plans]
        write_page(out, run_figures(plans[0], stories))
    return report


def _measure(plan: TargetPlan, stages: Stages, progress: Progress) -> list[StageRun]:
    """The stages that time; their own progress names the target."""
    return [stages.run(stage) for stage in plan.measured]


def _make(plan: TargetPlan, stages: Stages) -> list[StageRun]:
    """The training and the rounds of search, export and benchmark."""
    runs: list[StageRun] = []
    for stage in plan.made():
        try:
            runs.append(stages.run(stage))
        except InfeasibleBudget:
            if stage is plan.rounds[0].search:
                raise
            shutil.rmtree(stage.unfinished, ignore_errors=True)
            break  # no network is within the budget by the refitted model
    return runs


def check_stage(name: str | None, plans: Sequence[TargetPlan] = ()) -> None:
    """Check the name of a stage to execute again; None is valid.

    Raises:
        UnknownName: there is no such stage, or it is not part of these plans.
    """
    if name is not None and name not in STAGES:
        raise UnknownName("stage", name, STAGES)
    if name is not None and plans and not any(name in plan.stage_names for plan in plans):
        known = [stage for stage in STAGES if any(stage in plan.stage_names for plan in plans)]
        raise UnknownName("stage of this job", name, known)


def check_output(out: Path, plans: list[TargetPlan]) -> None:
    """Check, before long work, that the output paths of a run are free; nothing is written.

    Raises:
        OutputError: something else exists at such a path.
    """
    for plan in plans:
        check_output_folder(_bundle(out, plan))
        if (
            file := next((f for f in (out / TABLES, (out / TABLES / plan.name).parent) if f.is_file()), None)
        ) is not None:
            raise OutputError(f"{file} is a file, but the run writes its tables into a folder there; rename the file")


def _bundle(out: Path, plan: TargetPlan) -> Path:
    return out / "bundles" / plan.name


def _model_figures(plan: TargetPlan) -> Result:
    """The accuracy model of a target's search, with its quality by cross-validation."""
    subnets = len(plan.accuracy.result()["accuracies"])
    quality = {name: ModelQuality(**found) for name, found in plan.search.result()["accuracy_model"].items()}
    predictor = plan.context.job.search.predictor
    return AccuracyModelFigures(subnets=subnets, predictor=predictor, **quality).model_dump()


def _finetuned(plan: TargetPlan) -> Result | None:
    """What fine-tuning has changed; None without it."""
    tuned = plan.rounds[plan.taken].finetuned
    if tuned is None:
        return None
    return {
        "epochs": plan.context.job.finetune.epochs,
        "validation": {"inherited": tuned.inherited, "finetuned": tuned.finetuned},
        "kept": tuned.kept,
        "inherited": plan.export.result().get("inherited"),
    }


def _answer(plan: TargetPlan, runs: list[StageRun], out: Path) -> Result:
    """The answer of a target with finished stages; its bundle is copied to ``bundles/``."""
    context, found, timed = plan.context, plan.search.result(), plan.bench.result()
    speed = timed["bundle"].get("speed")  # missing in stages of older versions
    compared, differences = plan.export.result()["accuracy"], plan.export.result().get("differences", {})
    made = open_bundle(plan.export.folder / "bundle")
    final = write_bundle(
        _bundle(out, plan),
        made.copy_program,
        made.manifest.model_copy(
            update={
                "measured_ms": timed["bundle"]["measured_ms"],
                "measured_cores": timed["bundle"].get("cores") or None,  # missing in stages of older versions
                "measured_p95_ms": timed["bundle"].get("p95_ms"),  # these, too
                "measured_p99_ms": timed["bundle"].get("p99_ms"),
                "measured_images_per_s": timed["bundle"].get("images_per_s"),
            }
        ),
    )
    parity, budgets = made.manifest.parity, context.job.bench.budgets
    return {
        "target": plan.name,
        "space": context.space.name,
        "space_size": context.space.size,
        "budget": context.budget,
        "budget_ms": found["budget_ms"],
        "arch": found["arch"],
        "network": context.space.describe(found["arch"]),
        "predicted_ms": found["predicted_ms"],
        "measured_ms": timed["bundle"]["measured_ms"],
        "speed": speed,
        "relative_error": timed["bundle"]["relative_error"],
        "rounds": [outcome.facts() for outcome in plan.outcomes()],
        "taken": plan.taken,
        "rounds_ended": plan.why_ended(),
        "over_budget": over_budget(judged_ms(timed["bundle"]["measured_ms"], speed), found["budget_ms"]),
        "budgets": budgets,
        "over_budgets": over_budgets(Benchmark(**timed["bundle"]), budgets) if budgets else {},
        "accuracy": {"supernet": parity.torch_accuracy, "deployed": parity.deployed_accuracy},
        "finetuned": _finetuned(plan),
        "figures": parity.figures.model_dump() if parity.figures else None,
        "deployment": parity.difference.model_dump() if parity.difference else None,
        "accuracy_model": _model_figures(plan),
        "parity": parity.model_dump(include={"images", "max_abs_error", "min_cosine", "top1_agreement"}),
        **{
            name: {
                "measured_ms": timed["compared"][name],
                "accuracy": compared[name],
                "difference": differences.get(name),
            }
            if name in compared
            else None
            for name in ("largest", "best_random")
        },
        "random_networks": found["best_random"]["networks"],
        "macs": final.manifest.macs,
        "params": final.manifest.params,
        "validation": plan.validate.result()["summary"],
        "noise": {"spread": timed["bundle"]["spread"], "too_noisy": timed["bundle"]["too_noisy"]},
        "stages": [asdict(run) for run in runs],
        "bundle": final.folder.relative_to(out).as_posix(),
    }
