"""`hwnas search` with a differentiable strategy: the space's weights and probabilities are trained together."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hwnas.cli import options
from hwnas.errors import InvalidValue
from hwnas.files import only_one, read_spec, write_whole
from hwnas.shown_progress import INTERRUPTED, shown_progress, stopped_by_ctrl_c
from hwnas.spaces import notation_of
from hwnas.workflows import inputs

if TYPE_CHECKING:
    from hwnas.search.differentiable import Relaxed
    from hwnas.search.problem import Constraints


def search_relaxed(
    strategy: str,
    space: str | None,
    data: str | None,
    budgets: list[str],
    out: Path,
    *,
    target: str | None,
    data_path: Path | None,
    fix: list[str] | None,
    training: Path | None,
    changes: Mapping[str, object],
    accelerator: str,
    confidence: float | None,
    tables: Path | None,
    resume: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Search, and write the network that the probabilities make; the checkpoint is kept in a folder beside it.

    Raises:
        InvalidValue: the space or the data is not given.
    """
    from hwnas.data import open_data
    from hwnas.search.differentiable import DifferentiableConfig, search_differentiable
    from hwnas.workflows import answers as said
    from hwnas.workflows.constraints import asked

    if space is None or data is None:
        raise InvalidValue(f"{strategy} trains weights of its own: give --space and --data (not --supernet)")
    if target is not None and target.endswith("/*"):
        raise InvalidValue(
            f"{strategy} searches for one recipe, not for --target {target}; name it: {target[:-1]}RECIPE"
        )
    said.check_places(out, None, family=False)
    pictures = open_data(data, path=data_path)
    chosen = inputs.fixed_space(space, fix, pictures.in_channels, len(pictures.classes))
    config = read_spec(training, DifferentiableConfig) if training else DifferentiableConfig()
    config = DifferentiableConfig.model_validate(
        {**config.model_dump(), **{k: v for k, v in changes.items() if v is not None}}
    )
    [wanted] = asked(chosen, budgets, target, tables=tables, family=False, confidence=confidence).constraints.values()
    folder = out.with_name(out.name + ".search")
    device = options.launched(accelerator, 1, "32-true", alone=True).device
    with only_one(folder / ".lock", str(folder)), shown_progress() as progress, stopped_by_ctrl_c() as stop:
        found = search_differentiable(
            wanted,
            pictures,
            strategy,
            config,
            folder=folder,
            seed=seed,
            device=str(device),
            resume=resume,
            progress=progress,
            stop=stop,
        )
        interrupted = stop()
    answer = _answer(wanted, strategy, found)
    write_whole(out, json.dumps(answer, indent=2) + "\n")
    if as_json:
        options.print_json(answer)
    else:
        train = ["--space", space, "--data", data, *(["--data-path", str(data_path)] if data_path else [])]
        typer.echo("\n".join(_lines(answer, found, out, shlex.join([*train, "--arch", str(out)]))))
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _answer(wanted: Constraints, strategy: str, found: Relaxed) -> dict[str, Any]:
    repaired = found.repaired
    answer: dict[str, Any] = {
        "space": wanted.space.name,
        "budgets": dict(wanted.budgets),
        "predicted": dict(repaired.costs),
        "arch": dict(repaired.arch),
        "strategy": strategy,
        "steps": found.steps,
        "ended": found.ended,
        "expected": found.expected,
        "argmax": {"arch": dict(repaired.argmax), "predicted": dict(repaired.argmax_costs)},
        "near": repaired.near,
        "log_probability": repaired.probability,
        "probabilities": found.probabilities,
    }
    if notation := notation_of(repaired.arch):
        answer["notation"] = notation
    if len(wanted.budgets) == 1:  # what `hwnas export` and `hwnas bench` compare with
        [name] = wanted.budgets
        answer |= {"target": name, "budget_ms": wanted.budgets[name], "predicted_ms": repaired.costs[name]}
    return answer


def _lines(answer: dict[str, Any], found: Relaxed, out: Path, train: str) -> list[str]:
    repaired = found.repaired
    lines = [found.ended + ": the network is made of the probabilities at that point"] if found.ended else []
    for name, budget in answer["budgets"].items():
        lines.append(
            f"{answer['predicted'][name]:.4g} of {budget:.4g} ms predicted on {name}; expected under the probabilities "
            f"{answer['expected'][name]:.4g} ms, their most probable network {repaired.argmax_costs[name]:.4g} ms"
        )
    alone = len(answer["budgets"]) == 1
    if alone and not repaired.near:
        lines.append("No network lies in the window below the target, which was widened until one did")
    if repaired.arch != repaired.argmax:
        lines.append(
            f"Repaired: of the networks {'in the window' if alone else 'within the budgets'} the one of the highest "
            "probability, found exactly"
        )
    if "notation" in answer:
        lines.append(answer["notation"])
    lines.append(f"Arch: {out}")
    lines.append(f"Train it with: hwnas train {train} --out FOLDER")
    return lines
