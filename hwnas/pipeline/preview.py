"""Preview of a run: which stages it would execute, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from hwnas.pipeline.cache import UNFINISHED, Stage, known_inputs, last_seconds
from hwnas.pipeline.compile import check_output, check_stage
from hwnas.pipeline.job import Job
from hwnas.pipeline.plan import plan_job
from hwnas.search import check_feasible

_SHOWN = 3  # shown differences of a stage from the most similar earlier one
_LONGEST = 40  # characters of a value


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The preview of a stage.

    Attributes:
        name, key: of the stage.
        target: target that it belongs to; None if all share it.
        cached: whether it would be reused.
        why: the reasons to execute it; empty if it is reused.
        seconds: of its execution; None if it is not finished, or an older hwnas executed it.
        expected_s: seconds of the last stage of this name in the folder; None if it is reused, or unknown. Other
            settings may change the time.
        expected_of: the target of that last stage; None if targets share it.
    """

    name: str
    key: str
    target: str | None
    cached: bool
    why: tuple[str, ...]
    seconds: float | None
    expected_s: float | None
    expected_of: str | None


def preview_job(job: Job, out: Path, *, again: str | None = None) -> list[Preview]:
    """The stages that `compile_job` would execute, in order; nothing is timed or written.

    Raises:
        InfeasibleBudget: a profile exists, and no network is within the budget.
        UnknownName, InvalidValue, DataError, TableError, RuntimeUnavailable: as in `compile_job`.
        OutputError: a file, or a folder that is not a bundle, exists at the path of a bundle.
    """
    check_stage(again)
    plans = plan_job(job, out)
    check_stage(again, plans)
    check_output(out, plans)
    found: dict[str, Preview] = {}
    for stage in chain(*(plan.measured for plan in plans), *(plan.made() for plan in plans)):
        if stage.key not in found:
            why = tuple(_reasons(stage, again, found))
            expected_s, expected_of = (last_seconds(stage) if why else None) or (None, None)
            found[stage.key] = Preview(
                name=stage.name,
                key=stage.key,
                target=stage.target,
                cached=not why,
                why=why,
                seconds=None if why else stage.took_s(),
                expected_s=expected_s,
                expected_of=expected_of,
            )
    for plan in plans:
        if found[plan.profile.key].cached:
            check_feasible(plan.context.constraints(plan.profile.folder))
    return list(found.values())


def _reasons(stage: Stage, again: str | None, found: Mapping[str, Preview]) -> Iterator[str]:
    """Why a stage would be executed: an earlier stage, a changed input, or an unfinished attempt."""
    after = [need.name for need in stage.needs if not found[need.key].cached]
    if stage.name == again:
        yield "requested by --from"
    if after:
        yield f"after {' and '.join(after)}"
    whole = stage.is_whole()
    if whole and not after and (unsettled := stage.why_unsettled()):
        yield unsettled
        return
    if whole and not after and stage.name != again:
        return
    if stage.unfinished.exists():
        yield "resumes"
    elif stage.folder.exists():
        if not whole:
            yield "its files were changed"
    else:
        yield from _differences(stage)


def _differences(stage: Stage) -> Iterator[str]:
    """Differences of a stage from the most similar earlier one of the same name and target."""
    mine = _flat(stage.inputs)
    needs = {need.name for need in stage.needs}
    nearest: dict[str, tuple[str, str]] | None = None
    for folder, inputs in known_inputs(stage.place).items():
        same_name = folder.name.removesuffix(UNFINISHED).rpartition("-")[0] == stage.name
        if not same_name or inputs.get("target") != stage.inputs.get("target"):
            continue
        theirs = _flat({name: value for name, value in inputs.items() if name not in needs})
        apart = {
            name: (theirs.get(name, "nothing"), mine.get(name, "nothing"))
            for name in [*mine, *(name for name in theirs if name not in mine)]
            if theirs.get(name) != mine.get(name)
        }
        if nearest is None or len(apart) < len(nearest):
            nearest = apart
    if nearest is None:
        yield "not done before"
        return
    for name, (before, now) in list(nearest.items())[:_SHOWN]:
        yield f"{name}: {before} -> {now}"
    if len(nearest) > _SHOWN:
        yield f"and {len(nearest) - _SHOWN} more differences"


def _flat(value: object, name: str = "") -> dict[str, str]:
    """Nested values as text by path: ``training.phases.0.steps``."""
    items: Iterator[tuple[object, object]] | None = None
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif isinstance(value, list | tuple):
        items = iter(enumerate(value))
    if items is None:
        # As JSON, so that stored values compare equal; quoted as in a job's file.
        text = json.dumps(value, ensure_ascii=False)
        return {name: text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"}
    return {
        path: text for key, inner in items for path, text in _flat(inner, f"{name}.{key}" if name else str(key)).items()
    }
