"""Answers of searches as lines for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.cli.output import metric_words

if TYPE_CHECKING:
    from hwnas.workflows import NetworkAnswer, RelaxedAnswer


_SLACK = 0.03  # share of a budget: what is left below it is not reported


def lines_of(answer: NetworkAnswer, file: Path, supernet: Path | None, tables: Path | None = None) -> Iterator[str]:
    """Lines about an evaluated network; without a supernet there is no export command.

    Args:
        answer: the network.
        file: its arch file.
        supernet: the folder with its weights.
        tables: folder of latency tables, if it is not the catalog's.
    """
    from hwnas.tasks.figures import metric_suffix

    budgets = ", ".join(
        f"{answer.predicted[name]:.4g} of {budget:.4g} {'ms ' if '/' in name else ''}on {name}"
        for name, budget in answer.budgets.items()
    )
    sources = ", ".join(sorted(set(answer.latency_sources.values())))
    yield f"{answer.validation_accuracy:.2%}{metric_suffix(answer.metric)} on validation, predicted {budgets}" + (
        f" (latencies of ops: {sources})" if sources else ""
    )
    if answer.figures:
        yield f"Validation: {answer.figures.words}"
    if answer.accuracy_model:
        yield f"Accuracy model {answer.accuracy_model.words}"
    yield answer.proof
    for name, enough in answer.sufficient.items():
        if enough < (1 - _SLACK) * answer.budgets[name]:
            unit = " ms" if "/" in name else ""
            yield f"A budget of {enough:.4g}{unit} on {name} is sufficient for this network"
    for recipe in answer.recipes:
        yield (
            f"  {recipe.target}: {recipe.deployed_accuracy:.2%} deployed ({recipe.change:+.2%} by the recipe),"
            f" predicted {recipe.predicted_ms:.4g} ms"
        )
    for name, why in answer.recipes_left_out.items():
        yield f"  left out: {name}: {why}"
    for name, parts in answer.explained.items():
        yield f"Milliseconds on {name}:"
        for slot, ms in sorted(parts.slots_ms.items(), key=lambda item: -item[1]):
            yield f"  {slot:20} {ms:.4g}"
        for step in parts.next:
            changes = ", ".join(
                f"{v} {'-' if a is None else a}→{'-' if b is None else b}" for v, (a, b) in step.changes.items()
            )
            yield f"  a budget of {step.budget:.4g} ms buys {step.gain:+.2%}: {changes}"
        if not parts.next:
            yield "  no larger budget buys a higher predicted accuracy"
    yield f"Arch: {file}"
    if supernet and answer.target is not None:
        words = ["hwnas", "export", str(file), "--supernet", str(supernet), "--target", answer.target]
        words += [*(["--tables", str(tables)] if tables else []), *metric_words(answer.figures)]
        yield f"Export it with: {shlex.join(words)} --out bundle"


def relaxed_lines(answer: RelaxedAnswer, file: Path, start: Sequence[str], data: Sequence[str]) -> Iterator[str]:
    """Lines about the network of a differentiable search.

    Args:
        answer: of the search.
        file: of the network.
        start: option and value of what it started from, a space or a supernet.
        data: options of `hwnas train` for the data.
    """
    if answer.ended:
        yield answer.ended + ": the network is derived from the probabilities at that point"
    for name, budget in answer.budgets.items():
        yield (
            f"{answer.predicted[name]:.4g} of {budget:.4g} ms predicted on {name}; expected under the probabilities "
            f"{answer.expected[name]:.4g} ms, their most probable network {answer.argmax.predicted[name]:.4g} ms"
        )
    alone = len(answer.budgets) == 1
    if alone and not answer.near:
        yield "No network is in the window below the target, so the window was widened"
    if answer.arch != answer.argmax.arch:
        yield (
            f"Repaired: the most probable of the networks {'in the window' if alone else 'within the budgets'}, found "
            "exactly"
        )
    if answer.notation:
        yield answer.notation
    yield f"Arch: {file}"
    option, value = start
    if option == "--init":
        yield f"Extract it with: hwnas subnet extract {shlex.join([str(file), '--supernet', value])} --out subnet"
        yield "Fine-tune it with: hwnas subnet finetune --subnet subnet --out tuned"
    else:
        yield f"Train it with: hwnas train {shlex.join([*start, *data, '--arch', str(file)])} --out trained"
