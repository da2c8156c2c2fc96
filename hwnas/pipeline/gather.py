"""Collect the figures of a run from the results of its stages."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hwnas.deploy.bundle import Bundle, open_bundle
from hwnas.deploy.manifest import ParityReport
from hwnas.errors import some
from hwnas.latency import LatencyModel, LatencyTable
from hwnas.latency.manifest import Validation
from hwnas.latency.model import slot_latencies
from hwnas.pipeline.job import Job
from hwnas.pipeline.mixers import length_curves
from hwnas.pipeline.stages import Context, Result
from hwnas.pipeline.target_plan import TargetPlan
from hwnas.report.figures import (
    Curve,
    Facts,
    Loss,
    Network,
    RunFigures,
    Search,
    SlotCost,
    StageTime,
    TableCell,
    TableRow,
    TargetFigures,
    Tested,
    TimedNetwork,
    Training,
)
from hwnas.spaces import Slot, Space, Value
from hwnas.supernet.store import read_facts
from hwnas.training.metrics import METRICS

_LOSSES: tuple[Loss, ...] = get_args(Loss)
_POINTS = 200  # points of a curve
_SHARES = {"tolerance", "max_disagreement", "disagreement", "drift", "reference_spread"}  # timing facts in percent
_MOST_SHOWN = 100  # classes on the page
_MOST_CHOICES = 64  # choices of a slot: the largest number of columns of a heat map


def run_figures(plan: TargetPlan, targets: list[TargetFigures]) -> RunFigures:
    """The figures of a run with finished stages.

    Args:
        plan: of any of its targets: they share the training.
        targets: one entry per target.
    """
    context, trained = plan.context, plan.train.folder
    job, space = context.job, context.space
    supernet = read_facts(trained)
    classes = list(context.data.classes)
    return RunFigures(
        space=space.name,
        space_size=float(space.size),
        data=job.data.name,
        training=training_figures(trained, {phase.name: phase.steps for phase in job.training.phases}),
        provenance={
            "Job": _texts(
                {
                    "seed": job.seed,
                    "space": space.name,
                    **_origin(job),
                    "search strategy": job.search.strategy,
                    "subnets evaluated for the accuracy model": job.accuracy.networks(space),
                    "validation images of an evaluation": job.accuracy.images,
                    "images for BN re-calibration": job.accuracy.calibration_images,
                }
            ),
            "Data": _texts(
                {
                    "name": job.data.name,
                    **({"folder": Path(job.data.path).name} if job.data.path else {}),
                    "fingerprint": context.data.fingerprint(),
                    **_how_read(context),
                    "classes": f"{len(classes)}: {some(classes)}",
                }
            ),
            "Training": _texts(
                {
                    **(_training(job) if job.model is None or job.model.train else {"supernet": "not trained"}),
                    "seed": job.seed,
                    "weights, sha256": supernet.weights_sha256,
                }
            ),
        },
        targets=targets,
    )


def _origin(job: Job) -> dict[str, object]:
    """What of the space is fixed; or the network that it was made of."""
    if job.space is not None:
        return {"fixed": ", ".join(f"{name} = {value}" for name, value in job.space.fix.items()) or "nothing"}
    assert job.model is not None
    return {"network": Path(job.model.network).name, "weights of the network": Path(job.model.weights or "none").name}


def _training(job: Job) -> dict[str, object]:
    training = job.training
    phases = ", ".join(f"{phase.name} ({phase.steps})" for phase in training.phases)
    return {"steps": training.steps, "phases": phases, "batch size": training.batch_size}


def _how_read(context: Context) -> dict[str, object]:
    """How the images were read, where that is not the only way, and how many were left out."""
    facts = context.data_facts.get("options")
    if not isinstance(facts, dict):
        return {}
    left = facts.get("skip")
    shown: dict[str, object] = {
        name: json.dumps(value) for name, value in facts.items() if name not in ("skip", "skip_bad")
    }
    return shown | ({"images left out": len(left)} if isinstance(left, list) else {})


def target_figures(plan: TargetPlan, answer: Result, out: Path) -> TargetFigures:
    """The figures of a target with finished stages.

    Args:
        plan: of the target.
        answer: its answer.
        out: the run's folder.
    """
    context, profiled = plan.context, plan.profile.folder
    validated, searched = plan.validate.result(), plan.search.result()
    bundle = open_bundle(out / answer["bundle"])
    space, parity = context.space, bundle.manifest.parity
    model, table = context.model(profiled, plan.earlier), context.table(profiled)

    def tested(found: Mapping[str, float] | None) -> Tested | None:
        return Tested(measured_ms=found["measured_ms"], test_accuracy=found["accuracy"]) if found else None

    largest = tested(answer["largest"])
    assert largest
    return TargetFigures(
        target=answer["target"],
        budget=answer["budget"],
        budget_ms=answer["budget_ms"],
        limit_ms=searched["limit_ms"],
        confidence=context.job.search.confidence,
        predicted_ms=answer["predicted_ms"],
        measured_ms=answer["measured_ms"],
        speed=answer["speed"],
        budgets=answer["budgets"],
        over_budgets=answer["over_budgets"],
        test_accuracy=parity.deployed_accuracy,
        torch_accuracy=parity.torch_accuracy,
        top1_agreement=parity.top1_agreement,
        max_abs_error=parity.max_abs_error,
        images=parity.images,
        size_bytes=bundle.program.stat().st_size,
        macs=bundle.manifest.macs,
        params=bundle.manifest.params,
        bundle=answer["bundle"],
        too_noisy=answer["noise"]["too_noisy"],
        spread=answer["noise"]["spread"],
        largest=largest,
        best_random=tested(answer["best_random"]),
        classification=parity.figures,
        finetuned=answer["finetuned"],
        rounds=answer["rounds"],
        taken=answer["taken"],
        rounds_ended=answer["rounds_ended"],
        search=search_figures(space, searched),
        validation=Validation.model_validate(validated["summary"]),
        networks=timed_networks(model, validated),
        slots=slot_costs(model, answer["arch"]),
        table=table_rows(table, space, answer["arch"]),
        lengths=length_curves(table, space, answer["arch"]),
        attention=plan.export.result().get("attention", []),
        stages=[StageTime(**{name: s[name] for name in StageTime.model_fields}) for s in answer["stages"]],
        provenance=_provenance(context, table, model, bundle),
    )


def _accuracy_facts(parity: ParityReport) -> dict[str, Facts]:
    """The figures of the deployed network on the test images; empty for a bundle of an older version."""
    figures, difference = parity.figures, parity.difference
    if figures is None or difference is None:
        return {}
    constant = "undefined" if figures.baseline is None else f"{figures.baseline:.2%}"
    facts = _texts(
        {
            "images": figures.images,
            "metric": figures.metric,
            "deployed": f"{figures.value:.2%}, 95% confidence interval {figures.interval.words}",
            "deployed compared with the torch network": difference.words,
            f"{figures.constant} for every image": constant
            + ("" if figures.majority_share is None else f" (top-1 accuracy {figures.majority_share:.2%})"),
        }
    )
    shares = {
        one.name: f"{one.images} images, "
        + ", ".join(
            f"{name} {'undefined' if value is None else f'{value:.2%}'}"
            for name, value in (("recall", one.recall), ("precision", one.precision), ("F1", one.f1))
        )
        for one in figures.classes[:_MOST_SHOWN]
    }
    confused = {f"{one.label} classified as {one.predicted}": f"{one.images} images" for one in figures.confusions}
    return {"Accuracy on the test images": facts, "Classes on the test images": shares} | (
        {"Most frequent confusions on the test images": confused} if confused else {}
    )


def _provenance(context: Context, table: LatencyTable, model: LatencyModel, bundle: Bundle) -> dict[str, Facts]:
    target, manifest, fit = context.target, table.manifest, model.fit
    recipe = target.recipe
    host = {name: value for name, value in manifest.host.items() if name != "flags"}
    return {
        "Device and recipe": _texts(
            {
                "device": target.device.name,
                **{name.replace("_", " "): value for name, value in host.items()},
                "device fingerprint": manifest.device_fingerprint,
                "recipe": recipe.name,
                "runtime": f"{recipe.runtime} {manifest.versions[recipe.runtime]}",
                "precision": recipe.precision,
                "threads": recipe.threads,
                "batch": recipe.batch,
                "recipe, sha256": manifest.recipe_hash,
            }
        ),
        "Versions": _texts(bundle.manifest.versions),
        "Latency table": _texts(
            {"measured on": manifest.date, "ops": len(table.rows), "sha256 of the CSV": manifest.csv_sha256}
        ),
        "How ops were timed": _measurement(manifest.measurement),
        **(
            {
                "How whole networks were timed": _texts({"seed of the draw": fit.seed}) | _measurement(fit.measurement),
                "Context factors": _texts(
                    {
                        "calibration networks": len(fit.calibration_ms),
                        "their error, each under a fit on the others": f"{fit.held_out_mape:.2%} MAPE",
                        "bound networks": fit.bound_networks,
                    }
                ),
            }
            if fit
            else {}
        ),
        **_accuracy_facts(bundle.manifest.parity),
        "Bundle, sha256": {name: file.sha256 for name, file in bundle.manifest.files.items()}
        | {"manifest": bundle.manifest.manifest_sha256},
    }


def _texts(facts: Mapping[str, object]) -> Facts:
    return {name: str(value) for name, value in facts.items()}


def _measurement(facts: Mapping[str, object]) -> Facts:
    """The facts of a measurement; shares in percent."""
    return {
        name.replace("_", " "): f"{value:.1%}" if name in _SHARES and isinstance(value, float) else str(value)
        for name, value in facts.items()
    }


def search_figures(space: Space, searched: Mapping[str, Any]) -> Search:
    """Figures of the search stage."""

    def networks(found: Iterable[Mapping[str, Any]]) -> list[Network]:
        return [Network.model_validate({**each, "arch": space.describe(each["arch"])}) for each in found]

    return Search(
        front=networks(searched["front"]["networks"]),
        front_size=searched["front"]["size"],
        front_strategy=searched["front"]["strategy"],
        candidates=networks(searched["candidates"]),
        random=networks(searched["random"]),
        largest=networks([searched["largest"]])[0],
        proof=searched["proof"],
    )


def timed_networks(model: LatencyModel, validated: Mapping[str, Any]) -> list[TimedNetwork]:
    """Figures of the validate stage."""
    codes = np.array(validated["codes"], np.uint8)
    rows = zip(
        model.space.decode(codes),
        validated["predicted_ms"],
        model.plain(codes),
        *validated["measured_ms"],
        strict=True,
    )
    return [
        TimedNetwork(
            arch=model.space.describe(arch), predicted_ms=predicted, plain_ms=float(plain), measured_ms=[first, second]
        )
        for arch, predicted, plain, first, second in rows
    ]


def slot_costs(model: LatencyModel, found: Mapping[str, Value]) -> list[SlotCost]:
    """Every slot with an op in the result or in the largest network, in the order of execution."""
    space = model.space
    of_found, of_largest = slot_latencies(model, found), slot_latencies(model, space.largest)
    costs = []
    for slot in space.slots:
        if slot.name in of_found or slot.name in of_largest:
            op = slot.op(*(found[name] for name in slot.variables))
            costs.append(
                SlotCost(
                    slot=slot.name,
                    group=slot.group,
                    op=op.key if op else None,
                    found_ms=of_found.get(slot.name, 0.0),
                    largest_ms=of_largest.get(slot.name, 0.0),
                    fixed=set(slot.variables) <= {space.reads.size},
                )
            )
    return costs


def table_rows(table: LatencyTable, space: Space, found: Mapping[str, Value]) -> list[TableRow]:
    """The table by slots; shared variables, such as the resolution, are fixed to the values of the result.

    If slots have no variables of their own, as the edges of a cell that every stage shares, all but the resolution
    vary. Slots with more choices than a heat map shows are left out: a sum in a cell reads the variables of all its
    inputs, i.e. millions of choices for a few cheap ops.
    """
    parents = {v.matters[0] for v in space.variables if v.matters}
    rows = [row for slot in space.slots if (row := _row(table, space, slot, found, parents, set(space.shared)))]
    if rows:
        return rows
    return [row for slot in space.slots if (row := _row(table, space, slot, found, parents, {space.reads.size}))]


def _row(
    table: LatencyTable, space: Space, slot: Slot, found: Mapping[str, Value], parents: set[str], shared: set[str]
) -> TableRow | None:
    # Where the result lacks the slot, a depth is fixed to a value for which the block exists.
    exists = slot.op(*(found[name] for name in slot.variables)) is not None
    held = {
        name: found[name] if exists or name not in parents else space.variable(name).values[-1]
        for name in slot.variables
    }
    own = [name for name in slot.variables if name not in parents | shared]
    own = [name for name in own if space.has_effect(name, {**found, **held})]
    sizes = [len(space.variable(name).values) for name in own]
    if not own or math.prod(sizes) > _MOST_CHOICES:
        return None
    choices = []
    for index in np.ndindex(*sizes):
        values = {name: space.variable(name).values[i] for name, i in zip(own, index, strict=True)}
        op = slot.op(*({**held, **values}[name] for name in slot.variables))
        if op is not None and not op.free:
            stands = slot.op(*(found[name] for name in slot.variables)) == op
            chosen = stands and all(found[name] == value for name, value in values.items())
            choices.append(TableCell(values=list(values.values()), latency_ms=table.latency_ms(op), chosen=chosen))
    kinds = [re.sub(r"_\d+", "", name) for name in own]
    if not choices:  # all choices are free, e.g. an edge that is fixed to `none` or `skip_connect`
        return None
    shown = {name: value for name, value in held.items() if name not in {*parents, *own}}
    return TableRow(slot=slot.name, group=slot.group, variables=kinds, held=shown, choices=choices)


def training_figures(trained: Path, phases: Mapping[str, int]) -> Training | None:
    """Curves from a training's metrics; None if there are none.

    Args:
        trained: folder of the training.
        phases: name of a phase -> its steps.
    """
    path = trained / METRICS
    if not path.is_file():
        return None
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    if not rows:
        return None
    steps = np.array_split([float(row["step"]) for row in rows], min(_POINTS, len(rows)))
    curves = []
    for name in _LOSSES:
        # A phase with a single network has only one loss: all curves use the same steps, with gaps.
        losses = np.array_split([float(row[name] or "nan") for row in rows], len(steps))
        known = [part[~np.isnan(part)] for part in losses]
        if any(map(len, known)):
            values = [float(part.mean()) if len(part) else None for part in known]
            curves.append(Curve(name=name, steps=[float(part.mean()) for part in steps], values=values))
    ends = np.cumsum(list(phases.values())).tolist()
    return Training(curves=curves, phases=dict(zip(phases, ends, strict=True)))
