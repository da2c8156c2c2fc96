"""The answers of a job, one per target, as text and as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.accuracy.figures import AccuracyModelFigures
from hwnas.deploy.verdict import budget_words, judged_ms, remedy, verdict
from hwnas.files import write_whole
from hwnas.report.figures import FinetuneFigures
from hwnas.tasks.figures import ClassificationFigures, Difference, same_answer

Answer = dict[str, Any]


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write ``report.json`` and ``report.md``, the last step of a run.

    Raises:
        OutputError: one of them cannot be written.
    """
    write_whole(out / "report.json", json.dumps(report, indent=2) + "\n")
    write_whole(out / "report.md", markdown(report))


def markdown(report: dict[str, Any]) -> str:
    """The answers in Markdown, with a section for each target."""
    return "\n".join(map(_part, report["targets"].values()))


def summary(report: dict[str, Any], out: Path) -> str:
    """The answers as a few lines each for a terminal; `out` is the folder of their bundles."""
    return "\n".join(_lines(answer, out / answer["bundle"]) for answer in report["targets"].values())


def _part(answer: Answer) -> str:
    validation, random, largest = answer["validation"], answer["best_random"], answer["largest"]
    lines = [
        f"# {answer['space']} on {answer['target']}",
        "",
        f"Out of {answer['space_size']:.3g} networks, the most accurate one found within {answer['budget']} "
        f"({answer['budget_ms']:.4g} ms).",
        "",
        f"**Measured: {_verdict(answer)}.**",
        *(["", *(f"- {words}" for words in further)] if (further := _further(answer)) else []),
        "",
        *_rounds(answer),
        f"| network | measured (ms) | test {_metric(answer)} | found, compared with it |",
        "|---|---:|---:|---|",
        f"| **found** | **{answer['measured_ms']:.4f}** | **{answer['accuracy']['deployed']:.2%}** | |",
        f"| best of {answer['random_networks']} random ones within the budget | "
        + (
            f"{random['measured_ms']:.4f} | {random['accuracy']:.2%} | {_difference(random)} |"
            if random
            else "none drawn | | |"
        ),
        f"| largest of the space | {largest['measured_ms']:.4f} | {largest['accuracy']:.2%} | {_difference(largest)} |",
        "",
        *(words for found in _finetuned(answer) for words in (found, "")),
        *(["## Accuracy on the test images", "", *_accuracy(answer), ""] if answer.get("figures") else []),
        "## Prediction and measurement",
        "",
        f"- predicted {answer['predicted_ms']:.4f} ms{_at_speed(answer)}, measured {answer['measured_ms']:.4f} ms "
        f"({answer['relative_error']:+.1%}), budget {answer['budget_ms']:.4f} ms",
        f"- latency model on {validation['networks']} fresh networks: MAPE {validation['mape']:.2%}, noise floor "
        f"{validation['noise_floor']:.2%}, {validation['within_5pct']:.0%} within 5%, "
        f"{validation['within_10pct']:.0%} within 10%, Kendall τ {validation['kendall_tau']:.3f}; "
        f"the table's plain sum: MAPE {validation['baselines']['plain sum']['mape']:.1%}",
        *(
            [
                f"- the machine was too noisy for these figures to be trusted (spread {answer['noise']['spread']:.1%}):"
                " stage bench is not finished, and the same `hwnas compile` does it again"
            ]
            if answer["noise"]["too_noisy"]
            else []
        ),
        "",
        "## Parity",
        "",
        f"On {answer['parity']['images']} test images: largest difference of a logit "
        f"{answer['parity']['max_abs_error']:.2e}, {_same(answer)} on {answer['parity']['top1_agreement']:.2%}; "
        f"{_metric(answer)} {answer['accuracy']['supernet']:.2%} in torch, {answer['accuracy']['deployed']:.2%} "
        "deployed.",
        "",
        "## The network",
        "",
        f"{answer['macs'] / 1e6:.2f} million MACs, {answer['params'] / 1e3:.1f} thousand parameters; "
        f"the bundle is in `{answer['bundle']}/`.",
        "",
        "| variable | value |",
        "|---|---:|",
        *(f"| {name} | {value} |" for name, value in answer["network"].items()),
        "",
        "## Stages",
        "",
        "| stage | seconds | |",
        "|---|---:|---|",
        *(f"| {s['name']} | {_seconds(s)} | {'reused' if s['cached'] else ''} |" for s in answer["stages"]),
        "",
    ]
    return "\n".join(lines)


ROUND_COLUMNS = ("round", "predicted (ms)", "upper bound (ms)", "measured (ms)", "validation", "")


def round_rows(rounds: Sequence[Mapping[str, Any]], taken: int) -> list[tuple[str, ...]]:
    """The rounds of search, export and benchmark as rows of `ROUND_COLUMNS`; empty if the first one sufficed.

    Args:
        rounds: as in ``report.json``; measured at the machine's speed in the profile.
        taken: number of the round whose network is deployed.
    """
    if not any(one["missed"] for one in rounds):
        return []
    return [
        (
            f"{number + 1}",
            f"{one['predicted_ms']:.4f}",
            f"{one['bound_ms']:.4f}",
            f"{one['measured_ms']:.4f}",
            f"{one['validation_accuracy']:.2%}",
            ", ".join(
                [f"above {one['missed']}" if one["missed"] else "within the budget and the bound"]
                + ["deployed"] * (number == taken)
            ),
        )
        for number, one in enumerate(rounds)
    ]


def rounds_words(ended: str | None) -> str:
    """What a table of rounds shows, in a sentence or two."""
    words = (
        "A measurement above the budget or the upper bound of its prediction refits the latency model, and the search "
        "is repeated with it."
    )
    return f"{words} No further round: {ended}." if ended else words


def _rounds(answer: Answer) -> list[str]:
    rows = round_rows(answer.get("rounds", []), answer.get("taken", 0))
    if not rows:
        return []
    lines = [f"| {' | '.join(cells)} |" for cells in (ROUND_COLUMNS, ("---:",) * 5 + ("---",), *rows)]
    return [rounds_words(answer["rounds_ended"]), "", *lines, ""]


def _metric(answer: Answer) -> str:
    metric = (answer.get("figures") or {}).get("metric", "top1")
    return "accuracy" if metric == "top1" else str(metric)


def _same(answer: Answer) -> str:
    """What the agreement of parity counts, in words."""
    found = answer.get("figures")
    return same_answer(ClassificationFigures.model_validate(found) if found else None)


def _difference(baseline: Mapping[str, Any]) -> str:
    """The accuracy of the network found minus that of a baseline, in words; empty in a report of an older version."""
    found = baseline.get("difference")
    return Difference.model_validate(found).words if found else ""


def _accuracy(answer: Answer) -> list[str]:
    """Figures of the deployed network on the test images, and of the accuracy model, as items of a list."""
    figures = ClassificationFigures.model_validate(answer["figures"])
    items = [f"- deployed: {figures.words}"]
    if answer.get("deployment"):
        items.append(f"- deployed compared with torch: {Difference.model_validate(answer['deployment']).words}")
    model = AccuracyModelFigures.model_validate(answer["accuracy_model"])
    return [*items, f"- accuracy model {model.words}"]


def _finetuned(answer: Answer) -> list[str]:
    """What fine-tuning has changed, as one sentence; empty without it."""
    found = answer.get("finetuned")
    return [FinetuneFigures.model_validate(found).words] if found else []


def _at_speed(answer: Mapping[str, Any]) -> str:
    """The prediction at the machine's speed during the benchmark, in words; empty if that speed is not known."""
    speed = answer.get("speed")
    return f", {answer['predicted_ms'] / speed:.4f} at the machine's speed then ({speed:.1%})" if speed else ""


def _verdict(answer: Answer) -> str:
    return verdict(_judged_ms(answer), answer["budget_ms"], too_noisy=answer["noise"]["too_noisy"])


def _judged_ms(answer: Answer) -> float:
    return judged_ms(answer["measured_ms"], answer.get("speed"))


def _further(answer: Answer) -> list[str]:
    """The verdict on each further budget, and what helps if one is missed; empty without such budgets."""
    over = answer.get("over_budgets", {})
    noisy = answer["noise"]["too_noisy"]
    words = [
        budget_words(name, value, over[name], too_noisy=noisy) for name, value in answer.get("budgets", {}).items()
    ]
    return words + ([helps] if (helps := remedy(_judged_ms(answer), over)) else [])


def _seconds(stage: Mapping[str, Any]) -> str:
    """The time of a stage, in this run or an earlier one; empty if an older hwnas executed it."""
    seconds = stage["took_s"] if stage["cached"] else stage["seconds"]
    return "" if seconds is None else f"{seconds:.1f}"


def _lines(answer: Answer, bundle: Path) -> str:
    validation, random, largest = answer["validation"], answer["best_random"], answer["largest"]
    reused = [
        stage["name"] + (f" ({_seconds(stage)} s then)" if _seconds(stage) else "")
        for stage in answer["stages"]
        if stage["cached"]
    ]
    fresh = [f"{stage['name']} {stage['seconds']:.1f} s" for stage in answer["stages"] if not stage["cached"]]
    return "\n".join(
        [
            f"{answer['space']} on {answer['target']}: {answer['space_size']:.3g} networks, "
            f"budget {answer['budget']} = {answer['budget_ms']:.4f} ms",
            f"  found        {answer['measured_ms']:.4f} ms measured, {answer['predicted_ms']:.4f} predicted"
            f"{_at_speed(answer)} ({answer['relative_error']:+.1%}); {answer['accuracy']['deployed']:.2%} on test "
            "images",
            f"  verdict      {_verdict(answer)}",
            *(f"               {words}" for words in _further(answer)),
            *(
                f"  round {row[0]}      {row[3]} ms measured, {row[1]} predicted: {row[5]}"
                for row in round_rows(answer.get("rounds", []), answer.get("taken", 0))
            ),
            *(f"  fine-tuning  {words}" for words in _finetuned(answer)),
            *([f"  accuracy   {item[1:]}" for item in _accuracy(answer)] if answer.get("figures") else []),
            "  best random  "
            + (
                f"{random['measured_ms']:.4f} ms measured; {random['accuracy']:.2%} "
                f"(the most accurate of {answer['random_networks']} within the budget)"
                + (f"; found is {_difference(random)}" if _difference(random) else "")
                if random
                else "none drawn within the budget"
            ),
            f"  largest      {largest['measured_ms']:.4f} ms measured; {largest['accuracy']:.2%}"
            + (f"; found is {_difference(largest)}" if _difference(largest) else ""),
            f"  parity       largest difference of a logit {answer['parity']['max_abs_error']:.1e}, {_same(answer)} on "
            f"{answer['parity']['top1_agreement']:.2%} of {answer['parity']['images']} images",
            f"  predictions  MAPE {validation['mape']:.2%} on {validation['networks']} fresh networks, "
            f"noise floor {validation['noise_floor']:.2%}, Kendall τ {validation['kendall_tau']:.3f}",
            f"  stages       done: {', '.join(fresh) or 'none'}; reused: {', '.join(reused) or 'none'}",
            f"  bundle       {bundle} (time it again: hwnas bench {shlex.quote(str(bundle))})",
            *(
                [
                    f"  warning: the machine was too noisy (spread {answer['noise']['spread']:.1%}): stage bench "
                    "is not finished; close other programs, and the same hwnas compile times it again"
                ]
                if answer["noise"]["too_noisy"]
                else []
            ),
        ]
    )
