"""A bundle that misses its budget or bound: the model is refitted, and the search repeated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.deploy.benchmark import Benchmark
from hwnas.pipeline import Job, compile_job, preview_job
from hwnas.pipeline import stages as work
from hwnas.pipeline.rounds import Outcome, best_round
from hwnas.report.text import markdown, summary

ONE = "this/onnxruntime-cpu-fp32"


@pytest.fixture
def job(job: Job) -> Job:
    """One target, which finds all but the benchmark in the finished run."""
    search = job.search.model_copy(update={"refits": 2, "confidence": 0.95})
    return job.model_copy(update={"targets": [ONE], "search": search})


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Shares over the budget that bundles seem to have, one after the other; real measurements follow."""
    shares: list[float] = []
    real = work.summarise

    def summarise(*given: object) -> Benchmark:
        found = real(*given)  # type: ignore[arg-type]
        if not shares:
            return replace(found, too_noisy=False, measured_ms=found.predicted_ms, speed=1.0)
        return replace(found, too_noisy=False, measured_ms=found.budget_ms * (1 + shares.pop(0)), speed=1.0)

    monkeypatch.setattr(work, "summarise", summarise)
    return shares


def test_a_missed_budget_is_searched_again(job: Job, again: Path, slow: list[float]) -> None:
    slow += [0.05]
    report = compile_job(job, again, again="bench")
    [answer] = report["targets"].values()
    first, second = answer["rounds"]
    assert first["missed"].startswith("the budget of")
    assert second["missed"] is None
    assert second["predicted_ms"] * 1.05 < first["measured_ms"]
    assert answer["taken"] == 1
    assert answer["rounds_ended"] is None
    assert answer["predicted_ms"] == second["predicted_ms"]
    assert answer["measured_ms"] == second["measured_ms"]
    assert [stage["name"] for stage in answer["stages"]][-3:] == ["search", "export", "bench"]
    text, page = markdown(report), (again / "report.html").read_text()
    assert "| 1 |" in text
    assert "| 2 |" in text
    assert "within the budget and the bound, deployed" in text
    assert "round 2" in summary(report, again)
    assert "Rounds of search, export and benchmark" in page

    # Nothing is executed again, and the preview knows it.
    assert all(stage.cached for stage in preview_job(job, again))
    repeated = compile_job(job, again)["targets"][answer["target"]]
    assert all(stage["cached"] for stage in repeated["stages"])
    assert repeated["rounds"] == answer["rounds"]


def test_no_network_is_within_the_budget_any_more(job: Job, again: Path, slow: list[float]) -> None:
    slow += [50.0]
    [answer] = compile_job(job, again, again="bench")["targets"].values()
    assert len(answer["rounds"]) == 1
    assert answer["over_budget"] == pytest.approx(50)
    assert answer["rounds_ended"] == "by the refitted model, no network is within the budget"


def test_as_many_refits_as_the_job_allows(job: Job, again: Path, slow: list[float]) -> None:
    slow += [0.05, 0.05, 0.05]
    search = job.search.model_copy(update={"refits": 1})
    [answer] = compile_job(job.model_copy(update={"search": search}), again, again="bench")["targets"].values()
    assert len(answer["rounds"]) == 2
    assert answer["rounds_ended"] == "at most 1 refits (`[search] refits`)"


def test_a_noisy_measurement_refits_nothing() -> None:
    assert outcome(2.0, too_noisy=True).missed is None
    assert outcome(2.0).missed == "the budget of 1 ms"
    assert outcome(0.95).missed == "the bound of 0.9 ms"
    assert outcome(0.85).missed is None


def test_the_most_accurate_network_within_the_budget_is_deployed() -> None:
    assert best_round([outcome(1.1, 0.9), outcome(0.95, 0.8), outcome(0.85, 0.7)]) == 1
    assert best_round([outcome(0.9, 0.8), outcome(0.8, 0.8)]) == 1
    assert best_round([outcome(1.2, 0.9), outcome(1.1, 0.8)]) == 1


def outcome(measured_ms: float, accuracy: float = 0.5, *, too_noisy: bool = False) -> Outcome:
    return Outcome(
        predicted_ms=0.8,
        bound_ms=0.9,
        measured_ms=measured_ms,
        budget_ms=1.0,
        validation_accuracy=accuracy,
        too_noisy=too_noisy,
    )
