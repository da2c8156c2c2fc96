"""The stages of a compilation, each a function of its inputs.

A stage gets its working folder and returns its result as JSON values; `hwnas.pipeline.compile` connects them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from hwnas.accuracy import Evaluator, fit_accuracy
from hwnas.accuracy.model import evaluate_subnets
from hwnas.data import Data
from hwnas.deploy.benchmark import summarise, time_bundle
from hwnas.deploy.bundle import Bundle, open_bundle
from hwnas.deploy.exporter import export, included, lower_subnet
from hwnas.deploy.verification import check_outputs
from hwnas.engines import Engine, open_engine
from hwnas.errors import InvalidValue
from hwnas.files import Journal
from hwnas.latency import LatencyModel, LatencyTable, read_table
from hwnas.lowering import form_of
from hwnas.machines import Machine, machine_of
from hwnas.pipeline.attention import attention_maps
from hwnas.pipeline.cache import Stage
from hwnas.pipeline.job import Job
from hwnas.pipeline.rounds import Finetuned, Round, evaluated_networks, timed_networks
from hwnas.profiling import validate
from hwnas.profiling.refit import refitted
from hwnas.progress import Progress
from hwnas.search import Candidate, Problem, draw_within, find_front, latency_objective, parse_budget
from hwnas.search.problem import Constraints
from hwnas.search.solver import Found
from hwnas.spaces import Arch, Space
from hwnas.supernet import Supernet, load_supernet
from hwnas.targets import Target
from hwnas.tasks import difference_of
from hwnas.timing.protocol import Protocols, usual
from hwnas.workflows.budgets import runs_of
from hwnas.workflows.inputs import evaluator_of, facts_of
from hwnas.workflows.measuring import profile_into
from hwnas.workflows.processes import launched
from hwnas.workflows.searching import best_network
from hwnas.workflows.training import train_into

Result = dict[str, Any]

_SHOWN = 300  # networks of a front to keep


@dataclass(frozen=True)
class Context:
    """Common objects of the stages of a target.

    Attributes:
        job: the job.
        target: the target.
        budget: of the target.
        data: its dataset, opened.
        space: its space.
        progress: callback that every stage invokes.
    """

    job: Job
    target: Target
    budget: str
    data: Data
    space: Space
    progress: Progress

    @cached_property
    def protocols(self) -> Protocols:
        """The job's timing protocols."""
        seconds = self.job.latency.max_seconds
        return usual() if seconds is None else replace(usual(), networks=replace(usual().networks, max_seconds=seconds))

    @cached_property
    def machine(self) -> Machine:
        """Where the target is timed."""
        return machine_of(self.target)

    @cached_property
    def data_facts(self) -> dict[str, JsonValue]:
        """The facts to open the data again."""
        return facts_of(self.job.data.name, self.job.data.path, self.data)

    def table(self, profiled: Path) -> LatencyTable:
        """The table of a finished profile."""
        return read_table(self.target, profiled / "table.csv")

    def model(self, profiled: Path, earlier: Sequence[Round] = ()) -> LatencyModel:
        """The latency model of a finished profile, refitted with the measurements of earlier rounds."""
        return refitted(self.table(profiled), self.space, timed_networks(earlier, self.space))

    def constraints(self, profiled: Path, earlier: Sequence[Round] = ()) -> Constraints:
        """The job's budget, on the prediction of `model`."""
        objective = latency_objective(self.model(profiled, earlier))
        return Constraints(
            space=self.space,
            objectives=(objective,),
            budgets={objective.name: parse_budget(self.budget, objective, self.space)},
            confidence=self.job.search.confidence,
        )

    def evaluator(self, trained: Path, engine: Engine | None = None) -> Evaluator:
        """An evaluator on a trained supernet; without an engine, in this process."""
        config = self.job.accuracy
        evaluator, _ = evaluator_of(
            trained,
            images=config.images,
            calibration_images=config.calibration_images,
            seed=self.job.seed + 1,
            data=self.data,
            metric=config.metric,
            positive=config.positive,
            engine=engine,
        )
        return evaluator


def profile_stage(context: Context, folder: Path) -> Result:
    """Time every op of the space on the target, and fit the context terms."""
    config = context.job.latency
    table = profile_into(
        folder / "table.csv",
        context.space,
        context.target,
        journals=folder,
        networks=config.calibration_networks,
        bound_networks=config.bound_networks,
        machine=context.machine,
        protocols=context.protocols,
        progress=context.progress,
    )
    return {"ops": len(table.rows), "measurement": table.manifest.measurement}


def validate_stage(context: Context, folder: Path, profiled: Stage) -> Result:
    """Validate predictions on held-out networks: the figures and the networks."""
    networks = context.job.latency.validation_networks
    report = validate(
        context.model(profiled.folder),
        context.target,
        networks=networks,
        seed=context.job.seed,
        programs=folder / "programs",
        machine=context.machine,
        protocol=context.protocols.networks,
        progress=context.progress,
    )
    return {
        "summary": report.summary.model_dump(),
        "codes": report.codes.tolist(),
        "predicted_ms": report.predicted_ms.tolist(),
        "measured_ms": report.measured_ms.tolist(),
    }


def train_stage(context: Context, folder: Path, start: Stage | None = None) -> Result:
    """Train a supernet, from the beginning or from another one, which is then its teacher."""
    job, training = context.job, context.job.training
    supernet, started = load_supernet(start.folder) if start else (Supernet(context.space, seed=job.seed), None)
    teacher = Path(training.teacher) if training.teacher else start.folder if start else None
    history = train_into(
        folder,
        supernet,
        context.data,
        training.config,
        launched(
            training.accelerator,
            training.devices,
            training.precision,
            config=training.config,
            alone=training.devices == 1,
        ),
        seed=job.seed,
        data_facts=context.data_facts,
        metric=job.accuracy.metric,
        positive=job.accuracy.positive,
        teacher=teacher,
        started_from=started,
        progress=context.progress,
    )
    return {"steps": history.found[-1].step if history.stopped else training.steps}


def accuracy_stage(context: Context, folder: Path, trained: Stage) -> Result:
    """Evaluate subnets with inherited weights, spread over cost."""
    job = context.job
    with open_engine(job.engine) as engine, Journal(folder / "evaluated.jsonl", {}) as journal:
        codes, found = evaluate_subnets(
            context.evaluator(trained.folder, engine),
            journal,
            subnets=job.accuracy.subnets,
            seed=job.seed,
            progress=context.progress,
        )
    return {"codes": codes.tolist(), "accuracies": found}


def search_stage(
    context: Context,
    folder: Path,
    profiled: Stage,
    trained: Stage,
    evaluated: Stage,
    earlier: Sequence[Round],
) -> Result:
    """Find the best network within the budget and the best random one, both by evaluation.

    After earlier rounds, which missed the budget or the bound, the latency model is refitted with their measurements.
    """
    space, config, seed = context.space, context.job.search, context.job.seed
    known = evaluated.result()
    codes = np.array(known["codes"], np.uint8)
    model = fit_accuracy(space, codes, np.array(known["accuracies"]), predictor=config.predictor, seed=seed)
    constraints = context.constraints(profiled.folder, earlier)
    problem = Problem.of(constraints, accuracy=model, seed=seed)
    with open_engine(context.job.engine) as engine, Journal(folder / "evaluated.jsonl", {}) as journal:
        evaluator = context.evaluator(trained.folder, engine)
        drawn = problem.candidates(draw_within(problem, config.random_networks))
        random_accuracies = evaluator.accuracies(
            [c.arch for c in drawn], journal, what="evaluating random subnets", progress=context.progress
        )
        best = best_network(
            constraints,
            model,
            evaluator,
            journal,
            strategy=config.strategy,
            candidates=config.candidates,
            acquisition=config.acquisition,
            evaluated=dict(zip(space.decode(codes), known["accuracies"], strict=True))
            | evaluated_networks(earlier, space),
            seed=seed,
            progress=context.progress,
        )
        answer = best.answer
        largest = problem.candidates(space.encode([space.largest]))
        largest_accuracies = evaluator.accuracies(
            [space.largest], journal, what="evaluating the largest subnet", progress=context.progress
        )
    [objective] = problem.objectives
    random = _evaluated(drawn, random_accuracies)
    best_random = max(range(len(random)), key=random_accuracies.__getitem__, default=None)
    front = _front(problem, context.progress)
    return {
        "budget_ms": answer.budget_ms,
        "limit_ms": problem.limit(objective),
        "arch": answer.arch,
        "predicted_ms": answer.predicted_ms,
        "validation_accuracy": answer.validation_accuracy,
        "figures": answer.figures.model_dump() if answer.figures else None,
        "proof": answer.proof,
        "accuracy_model": {name: quality.known() for name, quality in model.quality.items()},
        "candidates": _evaluated(best.chosen.candidates[: config.candidates], best.chosen.accuracies),
        "random": random,
        "largest": _evaluated(largest, largest_accuracies)[0],
        "front": {
            "strategy": front.strategy,
            "size": len(front.candidates),
            "networks": _evaluated(_thinned(front.candidates)),
        },
        # With a tight budget the search may find a network, and the random baseline none.
        "best_random": {
            "arch": None if best_random is None else random[best_random]["arch"],
            "networks": len(random),
            "validation_accuracy": None if best_random is None else random_accuracies[best_random],
        },
    }


def _evaluated(candidates: Sequence[Candidate], accuracies: Sequence[float] | None = None) -> list[Result]:
    """Networks with one latency objective as JSON values; the accuracy is None if it was not evaluated."""
    found, known = [], accuracies or itertools.repeat(None)
    for candidate, accuracy in zip(candidates, known, strict=False):
        [predicted_ms] = candidate.costs.values()
        found.append(
            {
                "arch": dict(candidate.arch),
                "predicted_accuracy": candidate.predicted_accuracy,
                "predicted_ms": predicted_ms,
                "validation_accuracy": accuracy,
            }
        )
    return found


def _front(problem: Problem, progress: Progress) -> Found:
    """The Pareto front without the budget: exact, or by NSGA-II if the space cannot be decomposed."""
    free = replace(problem, budgets={})
    try:
        return find_front(free, "exact", progress=progress)
    except InvalidValue:
        return find_front(free, "nsga2", progress=progress)


def _thinned(front: list[Candidate]) -> list[Candidate]:
    """An even selection of the front for a picture, with both ends."""
    rows = np.linspace(0, len(front) - 1, min(len(front), _SHOWN)).round().astype(int)
    return [front[row] for row in rows]


def export_stage(
    context: Context,
    folder: Path,
    profiled: Stage,
    trained: Stage,
    searched: Stage,
    finetuned: Stage | None,
    earlier: Sequence[Round],
) -> Result:
    """Create the bundle with a parity check, and lower the baselines in the same way.

    The baselines have inherited weights; so has the network found, if fine-tuning did not raise its accuracy.
    """
    evaluator, space, found = context.evaluator(trained.folder), context.space, searched.result()
    arch, deployed = space.arch(found["arch"]), evaluator
    if finetuned and Finetuned(**finetuned.result()).kept:
        deployed = context.evaluator(finetuned.folder)
    export(
        arch,
        deployed,
        context.target,
        context.model(profiled.folder, earlier),
        folder / "bundle",
        budget_ms=found["budget_ms"],
        include=context.job.export.include,
        dynamic_batch=context.job.export.dynamic_batch,
        progress=context.progress,
    )
    form, accuracy, compared = form_of(context.target.recipe), {}, _compared(space, found)
    differences: dict[str, Result] = {}
    [own], labels = deployed.outputs([arch], "test")
    for name, other in compared.items():
        what, recipe = f"the baseline {name.replace('_', ' ')}", context.target.recipe
        network = evaluator.subnet(other, progress=context.progress)
        context.progress(f"lowering {what}", 0, 1)
        program = lower_subnet(network, evaluator, other, recipe, progress=context.progress)
        transform = context.data.transform(space.input_size(other))
        if steps := included(transform, context.job.export.include, recipe, context.data.task):
            program = steps.into(program, recipe)
        form.write(program, folder / name)
        context.progress(f"testing {what}", 0, 1)
        [outputs], _ = evaluator.outputs([other], "test")
        accuracy[name] = evaluator.metric(outputs, labels)
        differences[name] = difference_of(evaluator.metric, own, outputs, labels).model_dump()
        context.progress(f"testing {what}", 1, 1)
    maps = attention_maps(space, arch, lambda: deployed.subnet(arch), context.data)
    result = {"accuracy": accuracy, "differences": differences, **({"attention": maps} if maps else {})}
    if deployed is evaluator:
        return result
    [outputs], _ = evaluator.outputs([arch], "test")
    inherited = {
        "accuracy": evaluator.metric(outputs, labels),
        "difference": difference_of(evaluator.metric, own, outputs, labels).model_dump(),
    }
    return {**result, "inherited": inherited}


def bench_stage(context: Context, folder: Path, exported: Stage) -> Result:
    """Time the bundle and the baselines in common passes."""
    bundle: Bundle = open_bundle(exported.folder / "bundle")
    filename = form_of(context.target.recipe).filename
    programs = {"bundle": bundle.compiled} | {
        name: exported.folder / name / filename for name in exported.result()["accuracy"]
    }
    check_outputs(bundle, context.machine)
    found = time_bundle(
        programs,
        bundle,
        context.machine,
        context.protocols.networks,
        runs=runs_of(context.job.bench.budgets),
        what="timing the bundle",
        progress=context.progress,
    )
    return {
        "bundle": asdict(summarise(bundle, context.target.device, found, "bundle")),
        "compared": {name: found.p25_ms(name) for name in programs},
        "measurement": found.measured.summary(),
    }


def bench_noise(result: Mapping[str, Any]) -> str | None:
    """Why a bench stage does not count as finished because of noise; None if it does."""
    timed = result["bundle"]
    return f"the machine was too noisy for its figures (spread {timed['spread']:.1%})" if timed["too_noisy"] else None


def _compared(space: Space, searched: Result) -> dict[str, Arch]:
    random = searched["best_random"]["arch"]
    return {"largest": space.largest} | ({"best_random": space.arch(random)} if random else {})
