"""`hwnas bench`: its verdict and its exit code, of measurements that are made up."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import typer

from hwnas.cli.compile import _require_steady, fail_over
from hwnas.deploy.benchmark import Benchmark
from hwnas.deploy.verdict import remedy, verdict
from hwnas.errors import TooNoisy
from hwnas.workflows.budgets import runs_of


@pytest.fixture
def bench(monkeypatch, hwnas_cli, recipe):
    """A function that runs `hwnas bench` on a bundle of that budget whose measurement is given."""

    def run(measured_ms, budget_ms, *words, speed=None):
        found = Benchmark(
            target="board/onnxruntime-cpu-fp32",
            measured_ms=measured_ms,
            p50_ms=measured_ms,
            p90_ms=measured_ms,
            p95_ms=measured_ms,
            p99_ms=None,
            runs=250,
            images_per_s=4e3 / measured_ms,
            batch=4,
            predicted_ms=1.0,
            speed=speed,
            expected_ms=1 / (speed or 1),
            relative_error=measured_ms * (speed or 1) - 1,
            budget_ms=budget_ms,
            spread=0.5,
            too_noisy=False,
            cores="1",
            cores_note="",
        )
        manifest = SimpleNamespace(budget_ms=budget_ms, recipe=recipe, target=found.target)
        monkeypatch.setattr(
            "hwnas.deploy.open_bundle", lambda folder: SimpleNamespace(manifest=manifest, saturates=None)
        )
        monkeypatch.setattr("hwnas.deploy.bench", lambda *_, **__: found)
        return hwnas_cli("bench", "my-bundle", *words)

    return run


def test_budgets_of_quantiles_and_of_the_throughput(bench):
    ran = bench(1.0, None, "--budget", "p95=1.1ms", "--budget", "images_per_s=5000", "--json")
    answer = json.loads(ran.out)
    assert (ran.code, answer["budget_ms"], answer["over_budget"]) == (0, None, None)
    assert answer["budgets"] == {"p95": 1.1, "images_per_s": 5000}
    assert answer["over_budgets"] == {"p95": pytest.approx(1 / 1.1 - 1), "images_per_s": pytest.approx(0.2)}
    within = ("--budget", "p95=1.1", "--budget", "images_per_s=3000", "--fail-over-budget")
    ran = bench(1.0, None, *within)
    assert ran.code == 0
    assert "p95 within its budget of 1.1 ms, 9% below it" in ran.out
    assert "images_per_s within its budget of 3000, 33% above it" in ran.out
    ran = bench(1.0, None, *within, "--budget", "p90=0.5ms", "--budget", "2ms")
    assert ran.code == 1
    assert "within the budget of 2 ms, 50% below it" in ran.out
    assert "p90 MISSES ITS BUDGET of 0.5 ms by 100%" in ran.out


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("p96=1ms", "unknown figure of a budget 'p96'"),
        ("p95=fast", "a budget must be"),
        ("p95=50%", "must be a latency in milliseconds"),
        ("images_per_s=5ms", "must be a number of images per second"),
        ("p95=-1ms", "a budget must be"),
    ],
)
def test_wrong_budgets(bench, budget, said):
    ran = bench(1.0, None, "--budget", budget)
    assert ran.code == 2
    assert said in ran.err


def test_two_budgets_of_one_figure(bench):
    for text, what in (("p95=1ms", "p95"), ("1ms", "the latency")):
        ran = bench(1.0, None, "--budget", text, "--budget", text)
        assert (ran.code, f"there are two budgets of {what}; give one" in ran.err) == (2, True)


def test_a_budget_of_a_high_quantile_needs_its_runs():
    assert (runs_of({"p99": 1.0, "p50": 1.0}), runs_of({"p95": 1.0}), runs_of({"p90": 1.0})) == (1000, 200, 0)


def test_without_the_option_it_says_so_and_ends_well(bench):
    ran = bench(1.9, 1.0)
    assert (ran.code, "OVER THE BUDGET of 1 ms by 90%" in ran.out) == (0, True)
    ran = bench(0.88, 1.0)
    assert (ran.code, "within the budget of 1 ms, 12% below it" in ran.out) == (0, True)
    assert "budget" not in bench(0.88, None).out


def test_quantiles_with_too_few_runs_say_how_many_they_need(bench):
    ran = bench(0.8, None)
    assert "p95 0.8000 ms, 5,000 images/s (one stream, 4 images a run); p99 needs 1,000 runs" in ran.out
    assert "there were 250: hwnas bench my-bundle --runs 1000" in ran.out
    assert "p99 0" not in ran.out
    answer = json.loads(bench(0.8, None, "--json").out)
    assert (answer["p95_ms"], answer["p99_ms"], answer["runs"], answer["images_per_s"]) == (0.8, None, 250, 5000.0)


def test_fail_over(bench):
    assert bench(1.9, 1.0, "--fail-over-budget").code == 1
    assert bench(1.0, 1.0, "--fail-over-budget").code == 0
    assert bench(0.9, 1.0, "--fail-over-budget", "--budget", "0.8ms").code == 1
    ran = bench(1.9, None, "--fail-over-budget", "--budget", "2", "--json")
    assert (ran.code, json.loads(ran.out)["over_budget"]) == (0, pytest.approx(-0.05))


def test_what_cannot_be_judged(bench):
    ran = bench(1.9, None, "--fail-over-budget")
    assert ran.code == 2
    assert "my-bundle has no budget; set one: hwnas bench my-bundle --budget 0.8ms" in ran.err
    for words in (("--budget", "50%"), ("--budget", "3MB")):
        ran = bench(1.9, 1.0, *words)
        assert (ran.code, "milliseconds, such as 0.8ms" in ran.err) == (2, True), ran


def test_too_noisy_a_machine_ends_with_its_own_exit_code(bench, hwnas_cli, monkeypatch):
    bench(0.5, 1.0)

    def noisy(*_, **__):
        raise TooNoisy("the machine is too noisy")

    monkeypatch.setattr("hwnas.deploy.bench", noisy)
    ran = hwnas_cli("bench", "my-bundle")
    assert (ran.code, ran.err.strip().endswith("error: the machine is too noisy"), ran.out) == (1, True, "")


def test_the_machines_speed_stands_beside_the_prediction(bench):
    ran = bench(1.25, None, speed=0.8)
    assert "1.2500 ms" in ran.out
    assert "predicted 1.0000 ms, or 1.2500 at the machine's speed now, which is 80.0% of that in the profile" in ran.out
    assert "(+0.0%)" in ran.out
    assert "no reference programs" in bench(1.25, None).out
    answer = json.loads(bench(1.25, None, "--json", speed=0.8).out)
    assert (answer["speed"], answer["expected_ms"], answer["relative_error"]) == (0.8, 1.25, 0.0)
    # Budgets are of the profile's speed: a slow day does not exceed them.
    ran = bench(1.25, 1.1, "--fail-over-budget", speed=0.8)
    assert (ran.code, "1.0000 ms at the profile's speed: within the budget of 1.1 ms, 9% below" in ran.out) == (0, True)


def test_a_target_with_another_recipe(bench):
    ran = bench(1.0, None, "--target", "this/openvino-cpu-fp32")
    assert ran.code == 2
    assert "the bundle's recipe is made-up, and the target is this/openvino-cpu-fp32: use this/made-up" in ran.err


def test_a_figure_just_above_the_budget_never_reads_as_on_it():
    assert verdict(1.002, 1.0) == "OVER THE BUDGET of 1 ms by 0.2%"


def test_compile_judges_each_target():

    def answer(over, too_noisy=False, **others):
        return {"over_budget": over, "over_budgets": others, "noise": {"too_noisy": too_noisy, "spread": 0.07}}

    fail_over({"a": answer(-0.1), "b": answer(0.0, p95=-0.2)})
    for missed in (answer(0.9), answer(-0.9, p95=0.01), answer(-0.9, p95=-0.1, images_per_s=0.2)):
        with pytest.raises(typer.Exit) as ended:
            fail_over({"a": answer(-0.1), "b": missed})
        assert ended.value.exit_code == 1
    _require_steady({"a": answer(-0.1), "b": answer(0.9)})
    with pytest.raises(
        TooNoisy, match=r"too noisy for the benchmark of b \(spread 7\.0%\): stage bench is not finished"
    ):
        _require_steady({"a": answer(-0.1), "b": answer(0.9, too_noisy=True)})


def test_what_helps_where_a_further_budget_is_missed():
    assert remedy(1.0, {"p95": -0.1, "images_per_s": 0.0}) is None
    # p95 is 1.5 ms of 1.2: at the same ratio to p25, 0.8 ms.
    assert "which is 1 ms; if its ratio to the other figures stays, a network of the budget 0.8ms meets them" in remedy(
        1.0, {"p95": 0.25}
    )
    # 400 images/s of 500, and p99 3 ms of 2.5: the smaller one, rounded down.
    assert "the budget 1.66ms meets" in remedy(2.0, {"images_per_s": 0.166, "p99": 0.2, "p95": -0.5})
