"""The whole way: what a run answers, what a second one reuses, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from hwnas.deploy import open_bundle
from hwnas.errors import InfeasibleBudget, InvalidValue, OutputError, UnknownName
from hwnas.pipeline import compile_job, quickstart_job
from hwnas.pipeline.report import markdown, summary

STAGES = ["profile", "validate", "train", "accuracy", "search", "export", "bench"]


@pytest.fixture
def profiled_only(finished, tmp_path):
    """The output folder of the finished run as it was before the training."""
    out = shutil.copytree(finished[1], tmp_path / "profiled")
    for folder in (out / "stages").iterdir():
        if not folder.name.startswith(("profile-", "validate-")):
            shutil.rmtree(folder)
    return out


def cached(answer):
    return {stage["name"]: stage["cached"] for stage in answer["stages"]}


def test_answer_has_what_a_machine_reads(finished):
    _, out, answer = finished
    assert set(answer) >= {
        "target",
        "space",
        "space_size",
        "budget_ms",
        "arch",
        "predicted_ms",
        "measured_ms",
        "relative_error",
        "accuracy",
        "parity",
        "largest",
        "best_random",
        "validation",
        "stages",
        "bundle",
    }
    assert set(answer["accuracy"]) == {"supernet", "deployed"}
    assert {"max_abs_error", "top1_agreement"} <= set(answer["parity"])
    assert set(answer["largest"]) == set(answer["best_random"]) == {"measured_ms", "accuracy"}
    assert {"networks", "mape", "noise_floor", "within_5pct", "within_10pct", "kendall_tau"} <= set(
        answer["validation"]
    )
    assert [set(stage) for stage in answer["stages"]] == [{"name", "seconds", "cached"}] * len(STAGES)
    assert [stage["name"] for stage in answer["stages"]] == STAGES
    assert not any(cached(answer).values())
    assert json.loads((out / "report.json").read_text()) == answer


def test_figures_belong_together(finished):
    job, _, answer = finished
    assert answer["relative_error"] == pytest.approx(answer["measured_ms"] / answer["predicted_ms"] - 1)
    assert answer["predicted_ms"] <= answer["budget_ms"]
    assert answer["parity"]["images"] == 10_000
    assert answer["parity"]["max_abs_error"] <= 1e-4
    assert answer["parity"]["top1_agreement"] >= 0.999
    assert abs(answer["accuracy"]["deployed"] - answer["accuracy"]["supernet"]) <= 0.001
    space = job.make_space(in_channels=1, classes=10)
    assert answer["space_size"] == space.size
    assert dict(space.arch(answer["arch"])) == answer["arch"]
    assert answer["validation"]["networks"] == 6


def test_bundle_stands_alone(finished):
    _, out, answer = finished
    bundle = open_bundle(out / "bundle")
    assert bundle.manifest.arch == answer["arch"]
    assert bundle.manifest.measured_ms == answer["measured_ms"]
    assert bundle.manifest.classes == [str(i) for i in range(10)]
    assert bundle.manifest.input["shape"] == [1, 1, answer["arch"]["resolution"], answer["arch"]["resolution"]]


def test_report_and_summary_name_the_figures(finished):
    _, out, answer = finished
    page = (out / "report.md").read_text()
    assert page == markdown(answer)
    for text in (page, summary(answer)):
        assert f"{answer['measured_ms']:.4f}" in text
        assert f"{answer['accuracy']['deployed']:.2%}" in text
        assert answer["target"] in text


def test_second_run_reuses_everything_and_another_budget_only_what_comes_before_the_search(finished, tmp_path):
    job, out, answer = finished
    again = shutil.copytree(out, tmp_path / "out")
    second = compile_job(job, again)
    assert all(cached(second).values())
    assert {**second, "stages": 0, "bundle": 0} == {**answer, "stages": 0, "bundle": 0}
    other = compile_job(job.model_copy(update={"budget": "95%"}), again)
    assert [name for name, reused in cached(other).items() if not reused] == ["search", "export", "bench"]
    assert other["budget_ms"] > answer["budget_ms"]
    assert "reused: profile, validate, train, accuracy" in summary(other)


def test_a_budget_that_no_random_network_keeps(finished, tmp_path, monkeypatch):
    job, out, answer = finished
    again = shutil.copytree(out, tmp_path / "out")
    monkeypatch.setattr("hwnas.pipeline.stages.draw_within", lambda problem, _: problem.space.sample(0, seed=0))
    other = compile_job(job.model_copy(update={"budget": "90%"}), again)
    assert other["best_random"] is None
    assert other["random_networks"] == 0
    assert other["measured_ms"] > 0
    assert other["largest"]["accuracy"] == answer["largest"]["accuracy"]
    assert "| best of 0 random ones within the budget | none drawn |" in (again / "report.md").read_text()
    assert "best random  none drawn" in summary(other)


def test_same_files_give_the_same_arch(finished, profiled_only):
    """Everything after the measurement is a function of the seed."""
    job, _, answer = finished
    redone = compile_job(job, profiled_only)
    assert redone["arch"] == answer["arch"]
    assert redone["accuracy"] == answer["accuracy"]


def test_a_changed_bundle_in_the_output_is_made_whole(finished, tmp_path):
    job, out, _ = finished
    again = shutil.copytree(out, tmp_path / "out")
    model = again / "bundle" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    compile_job(job, again)
    open_bundle(again / "bundle")


@pytest.mark.parametrize(
    ("budget", "error", "words"),
    [
        ("0.000001ms", InfeasibleBudget, "fastest"),
        ("0", InvalidValue, "positive"),
        ("-1ms", InvalidValue, "positive"),
        ("fast", InvalidValue, "'fast'"),
    ],
)
def test_impossible_budget_loses_nothing(finished, tmp_path, budget, error, words):
    job, out, answer = finished
    again = shutil.copytree(out, tmp_path / "out")
    with pytest.raises(error, match=words):
        compile_job(job.model_copy(update={"budget": budget}), again)
    assert all(cached(compile_job(job, again)).values())
    assert open_bundle(again / "bundle").manifest.arch == answer["arch"]


def test_unknown_strategy_is_found_before_anything_long(job, tmp_path):
    search = job.search.model_copy(update={"strategy": "exakt"})
    with pytest.raises(UnknownName, match="Did you mean 'exact'"):
        compile_job(job.model_copy(update={"search": search}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_confidence_that_takes_more_networks_is_found_before_anything_long(job, tmp_path):
    search = job.search.model_copy(update={"confidence": 0.99})
    with pytest.raises(InvalidValue, match=r"0.99, which takes 99 bound networks; latency.bound_networks is 19"):
        compile_job(job.model_copy(update={"search": search}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_networks_than_the_space_has_are_found_before_anything_long(job, tmp_path):
    latency = job.latency.model_copy(update={"validation_networks": 9000})
    with pytest.raises(InvalidValue, match=r"asks for 9027 different networks \(8 to calibrate, 19 .*has \d+ under"):
        compile_job(job.model_copy(update={"latency": latency}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file_or_somebody_elses_bundle_folder(job, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        compile_job(job, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "out" / "bundle").mkdir(parents=True)
    (tmp_path / "out" / "bundle" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no bundle"):
        compile_job(job, tmp_path / "out")
    assert (tmp_path / "out" / "bundle" / "thesis.txt").read_text() == "mine"


def test_two_processes_do_not_share_a_folder(job, tmp_path):
    from hwnas.pipeline.cache import Stages

    with Stages(tmp_path / "out"), pytest.raises(OutputError, match="another hwnas"):
        compile_job(job, tmp_path / "out")


def test_quickstart_is_the_job_the_readme_tells_of():
    job = quickstart_job()
    assert (job.space.name, job.data.name) == ("mobilenetv3-tiny", "cluttered-digits")
    assert (job.target, job.budget) == ("this/onnxruntime-cpu-fp32", "50%")


def run_until(hwnas_command, job_file, out, line):
    """Start `hwnas compile` and kill it with SIGKILL when its progress says a line; returns False if it never did."""
    command = [*hwnas_command, "compile", str(job_file), "--out", str(out), "--json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for said in process.stderr:
            if said.startswith(line):
                time.sleep(0.05)
                os.kill(process.pid, signal.SIGKILL)
                return True
    return False


def finished_stages(out):
    return {path.parent.name: path.stat().st_mtime_ns for path in (out / "stages").glob("*[!l]/result.json")}


@pytest.mark.long
def test_killed_in_each_stage(hwnas_command, job_file, tmp_path):
    """After a kill in any stage the same command goes on: nothing finished is done again, nothing torn is read."""
    out = tmp_path / "out"
    before = {}
    for line in (
        "lowering",
        "timing ops",
        "timing networks:",
        "timing networks, second",
        "training",
        "evaluating subnets",
        "evaluating candidates",
        "checking parity",
        "timing the bundle",
    ):
        assert run_until(hwnas_command, job_file, out, line), line
        after = finished_stages(out)
        assert before.items() <= after.items(), line
        before = after
    command = [*hwnas_command, "compile", str(job_file), "--out", str(out), "--json"]
    whole = subprocess.run(command, check=True, capture_output=True, text=True)
    answer = json.loads(whole.stdout)
    assert before.items() <= finished_stages(out).items()
    assert len(finished_stages(out)) == len(STAGES)
    assert not list((out / "stages").glob("*.partial"))
    open_bundle(out / "bundle")
    # The same measurements without any kill lead to the same network.
    for folder in (out / "stages").iterdir():
        if not folder.name.startswith(("profile-", "validate-")):
            shutil.rmtree(folder)
    again = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert again["arch"] == answer["arch"]
    assert again["accuracy"] == answer["accuracy"]


def test_ctrl_c_says_how_to_go_on(hwnas_command, job_file, profiled_only, tmp_path):
    command = [*hwnas_command, "compile", str(job_file), "--out", str(profiled_only)]
    # What is started in the background of a shell ignores the signal, and so would the command.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stderr is not None
        for said in process.stderr:
            if said.startswith("training"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "the same command goes on" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize("name", ["result.json", "bundle/model.onnx"])
def test_a_finished_stage_that_was_changed_is_done_again(finished, tmp_path, name):
    job, out, answer = finished
    again = shutil.copytree(out, tmp_path / "out")
    [path] = (again / "stages").glob(f"export-*/{name}")
    path.write_bytes(path.read_bytes()[:-2])
    redone = compile_job(job, again)
    assert [stage for stage, reused in cached(redone).items() if not reused] == ["export"]
    assert redone["arch"] == answer["arch"]
    open_bundle(again / "bundle")


def test_an_impossible_budget_is_known_before_training(job, profiled_only):
    with pytest.raises(InfeasibleBudget):
        compile_job(job.model_copy(update={"budget": "0.000001ms"}), profiled_only)
    assert not list((profiled_only / "stages").glob("train-*"))
