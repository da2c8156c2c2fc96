"""The whole way: what a run answers for each of its targets, what a second one reuses, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import hwnas
from hwnas.cli.compile import fail_over
from hwnas.data import ClutteredDigits
from hwnas.data.digits import SIZES
from hwnas.deploy import open_bundle
from hwnas.errors import (
    CheckpointError,
    HwnasError,
    InfeasibleBudget,
    InvalidValue,
    OutputError,
    SpecError,
    TableError,
    UnknownName,
)
from hwnas.latency import load_model, read_table
from hwnas.pipeline import compile_job, preview_job, quickstart_job, read_job
from hwnas.pipeline.job import BenchConfig, ExportConfig
from hwnas.pipeline.plan import plan_job
from hwnas.report.text import markdown, summary
from hwnas.runtimes import open_session
from hwnas.spaces import InputKind
from hwnas.supernet import Phase, TrainConfig, read_facts
from hwnas.targets import resolve_target

STAGES = ["profile", "validate", "train", "accuracy", "search", "export", "bench"]
STAGE_RUN = {"name", "key", "seconds", "cached", "took_s"}
TARGETS = ["this/onnxruntime-cpu-fp32", "this/openvino-cpu-fp32"]


def names():
    return [resolve_target(text).name for text in TARGETS]


def cached(answer):
    return {stage["name"]: stage["cached"] for stage in answer["stages"]}


def done(report):
    """Target -> the stages that were done in this run."""
    return {
        name: [stage for stage, reused in cached(answer).items() if not reused]
        for name, answer in report["targets"].items()
    }


def models(out):
    """Target -> sha256 of what is deployed."""
    return {
        name: hashlib.sha256(open_bundle(out / "bundles" / name).program.read_bytes()).hexdigest() for name in names()
    }


@pytest.fixture
def one_target(job):
    """The job for its first target, which finds all it needs in the finished run."""
    return job.model_copy(update={"targets": TARGETS[:1]})


def test_python_the_command_line_and_a_stage_find_the_same_network(finished, hwnas_cli, tmp_path):
    job, out, _ = finished
    plan = plan_job(job, out)[0]
    stage, tables = plan.search.result(), tmp_path / "tables"
    for suffix in (".csv", ".toml"):
        kept = tables / f"{plan.name}{suffix}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(plan.profile.folder / f"table{suffix}", kept)
    same = {
        "subnets": job.accuracy.subnets,
        "images": job.accuracy.images,
        "calibration_images": job.accuracy.calibration_images,
        "candidates": job.search.candidates,
        "confidence": job.search.confidence,
        "seed": job.seed,
    }
    supernet = str(plan.train.folder)
    called = hwnas.search(supernet, target=plan.name, budget=job.budget, tables=tables, **same).best
    shutil.rmtree(tmp_path / "home" / "evaluations")  # nothing is taken over from the call
    options = [word for name, value in same.items() for word in (f"--{name.replace('_', '-')}", value)]
    ran = hwnas_cli(
        "search", "--supernet", supernet, "--target", plan.name, "--budget", job.budget, "--tables", tables, *options,
        "--out", tmp_path / "arch.json", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == json.loads((tmp_path / "arch.json").read_text()) == called.document()
    for name in ("arch", "budget_ms", "predicted_ms", "validation_accuracy"):
        assert getattr(called, name) == stage[name]
    # The stage has evaluated random networks as well.
    assert called.proof.split("best of")[:-1] == stage["proof"].split("best of")[:-1]
    assert called.accuracy_model.model_dump(exclude={"subnets"}) == stage["accuracy_model"]
    assert called.predicted_accuracy == stage["candidates"][0]["predicted_accuracy"]


def test_report_has_what_a_machine_reads(finished):
    _, out, report = finished
    assert json.loads((out / "report.json").read_text()) == report
    assert report["schema"] == 1
    assert list(report["targets"]) == names()
    for name, answer in report["targets"].items():
        assert answer["target"] == name
        assert (out / "latency_tables" / f"{name}.csv").is_file()
        assert set(answer) >= {
            "space",
            "space_size",
            "budget",
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
        assert set(answer["largest"]) == set(answer["best_random"]) == {"measured_ms", "accuracy", "difference"}
        assert {"networks", "mape", "noise_floor", "within_5pct", "within_10pct", "kendall_tau"} <= set(
            answer["validation"]
        )
        assert [set(stage) for stage in answer["stages"]] == [STAGE_RUN] * len(STAGES)
        assert [stage["name"] for stage in answer["stages"]] == STAGES


def test_targets_share_the_training_and_nothing_else(finished):
    _, out, report = finished
    first, second = report["targets"].values()
    assert not any(cached(first).values())
    assert [name for name, reused in cached(second).items() if reused] == ["train", "accuracy"]
    keys = [{stage["name"]: stage["key"] for stage in answer["stages"]} for answer in (first, second)]
    assert [name for name in STAGES if keys[0][name] == keys[1][name]] == ["train", "accuracy"]
    assert len(list((out / "stages").iterdir())) == 2 * len(STAGES) - 2


def test_figures_belong_together(finished):
    job, out, report = finished
    space = job.make_space(reads=InputKind(1), classes=10)
    for name, answer in report["targets"].items():
        [key] = [stage["key"] for stage in answer["stages"] if stage["name"] == "profile"]
        table = read_table(resolve_target(name), out / "stages" / f"profile-{key}" / "table.csv")
        model, codes = load_model(table, space), space.encode([space.arch(answer["arch"])])
        assert answer["predicted_ms"] == pytest.approx(model.predict(codes)[0])
        # With a confidence of 50%, the bound may lie below what is predicted.
        assert model.predict_upper(codes, job.search.confidence)[0] <= answer["budget_ms"] * (1 + 1e-9)
        assert answer["budget_ms"] == pytest.approx(2 * model.predict(space.encode([space.largest]))[0])  # 200%
        expected_ms = answer["predicted_ms"] / answer["speed"]
        assert answer["relative_error"] == pytest.approx(answer["measured_ms"] / expected_ms - 1)
        assert answer["parity"]["images"] == SIZES["test"]
        assert answer["parity"]["max_abs_error"] <= 1e-4
        assert answer["parity"]["top1_agreement"] >= 0.999
        assert abs(answer["accuracy"]["deployed"] - answer["accuracy"]["supernet"]) <= 0.001
        assert answer["space_size"] == space.size
        assert dict(space.arch(answer["arch"])) == answer["arch"]
        assert answer["validation"]["networks"] == 6


def test_each_target_has_a_bundle_that_stands_alone(finished):
    _, out, report = finished
    for name, answer in report["targets"].items():
        assert answer["bundle"] == f"bundles/{name}"
        bundle = open_bundle(out / answer["bundle"])
        assert bundle.manifest.target == name
        assert bundle.manifest.arch == answer["arch"]
        assert bundle.manifest.measured_ms == answer["measured_ms"]
        assert bundle.manifest.measured_cores  # which they are depends on the machine
        assert bundle.manifest.classes == [str(i) for i in range(10)]
        assert bundle.manifest.input.shape == [1, 1, answer["arch"]["resolution"], answer["arch"]["resolution"]]


def test_report_and_summary_name_the_figures(finished):
    _, out, report = finished
    page = (out / "report.md").read_text()
    assert page == markdown(report)
    for text in (page, summary(report, out)):
        for answer in report["targets"].values():
            assert f"{answer['measured_ms']:.4f}" in text
            assert f"{answer['accuracy']['deployed']:.2%}" in text
            assert answer["target"] in text
            assert answer["bundle"] in text


def test_a_moved_folder_is_reused_as_it_is_and_another_budget_only_up_to_the_search(finished, again, tmp_path):
    job, out, report = finished
    for path in again.rglob("*"):
        assert not path.is_file() or str(out.parent).encode() not in path.read_bytes(), path
    elsewhere = again.rename(tmp_path / "elsewhere")
    second = compile_job(job, elsewhere)
    assert done(second) == {name: [] for name in names()}
    for name, answer in second["targets"].items():
        assert {**answer, "stages": 0} == {**report["targets"][name], "stages": 0}
    assert models(elsewhere) == models(out)
    first, other = names()
    raised = compile_job(job.model_copy(update={"budget": {TARGETS[0]: "210%", TARGETS[1]: "200%"}}), elsewhere)
    assert done(raised) == {first: ["search", "export", "bench"], other: []}
    assert raised["targets"][first]["budget_ms"] > report["targets"][first]["budget_ms"]
    took = [stage["took_s"] for stage in report["targets"][first]["stages"][:4]]
    reused = ", ".join(f"{name} ({seconds:.1f} s then)" for name, seconds in zip(STAGES, took, strict=False))
    assert f"reused: {reused}\n" in summary(raised, elsewhere)


def test_a_stage_is_done_again_with_all_that_builds_on_it(finished, again, one_target):
    _, _, report = finished
    first, _ = names()
    redone = compile_job(one_target, again, again="search")
    assert done(redone) == {first: ["search", "export", "bench"]}
    assert redone["targets"][first]["arch"] == report["targets"][first]["arch"]
    assert not [stage for stage in preview_job(one_target, again) if not stage.cached]


def test_further_budgets_are_checked_on_the_measurement(again, one_target):
    first, _ = names()

    def compiled(**budgets):
        return compile_job(one_target.model_copy(update={"bench": BenchConfig(**budgets)}), again)

    report = compiled(p95="90000ms", images_per_s=1e6)
    assert done(report) == {first: ["bench"]}
    [answer] = report["targets"].values()
    assert answer["budgets"] == {"p95": 90_000.0, "images_per_s": 1e6}
    assert answer["over_budgets"]["p95"] < 0 < answer["over_budgets"]["images_per_s"] < 1
    manifest = open_bundle(again / answer["bundle"]).manifest
    assert manifest.measured_p95_ms is not None  # there were 200 runs
    assert manifest.measured_p95_ms == pytest.approx((1 + answer["over_budgets"]["p95"]) * 90_000)
    for text in ((again / "report.md").read_text(), summary(report, again), (again / "report.html").read_text()):
        assert "p95 within its budget of 9e+04 ms, 100% below it" in text
        assert "images_per_s MISSES ITS BUDGET of 1e+06 by" in text
        assert "he search limits p25, which is" in text
    with pytest.raises(typer.Exit):
        fail_over(report["targets"])
    # Other values of the same budgets need no other measurement; p99 needs more runs.
    other = compiled(p95="80000ms")
    assert done(other) == {first: []}
    assert "MISSES" not in markdown(other)
    assert "What helps" not in (again / "report.html").read_text()
    fail_over(other["targets"])
    [bench] = [stage for stage in preview_job(one_target, again) if stage.name == "bench"]
    assert bench.cached
    p99 = one_target.model_copy(update={"bench": BenchConfig(p99="90000ms")})
    [bench] = [stage for stage in preview_job(p99, again) if stage.name == "bench"]
    assert bench.why[0].endswith(" -> 1000")


def test_a_job_exports_a_program_for_any_number_of_images(finished, again, one_target):
    first, _ = names()
    report = compile_job(one_target.model_copy(update={"export": ExportConfig(dynamic_batch=True)}), again)
    assert done(report) == {first: ["export", "bench"]}
    [answer] = report["targets"].values()
    bundle = open_bundle(again / answer["bundle"])
    assert bundle.manifest.dynamic_batch
    assert bundle.manifest.arch == finished[2]["targets"][first]["arch"]
    with open_session(bundle.program, bundle.manifest.recipe, any_batch=True) as session:
        x = np.zeros((3, *bundle.manifest.input.shape[1:]), np.float32)
        assert session.run(x).shape == (3, 10)


def test_a_budget_that_no_random_network_keeps(finished, again, one_target, monkeypatch):
    report = finished[2]["targets"][names()[0]]
    monkeypatch.setattr("hwnas.pipeline.stages.draw_within", lambda problem, _: problem.space.sample(0, seed=0))
    other = compile_job(one_target.model_copy(update={"budget": "190%"}), again)
    [answer] = other["targets"].values()
    assert answer["best_random"] is None
    assert answer["random_networks"] == 0
    assert answer["measured_ms"] > 0
    assert answer["largest"]["accuracy"] == report["largest"]["accuracy"]
    assert "| best of 0 random ones within the budget | none drawn |" in (again / "report.md").read_text()
    assert "best random  none drawn" in summary(other, again)


def test_a_changed_bundle_in_the_output_is_made_whole(finished, again):
    job, out, _ = finished
    model = again / "bundles" / names()[1] / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    compile_job(job, again)
    assert models(again) == models(out)


def test_a_finished_stage_that_was_changed_is_done_again(finished, again, one_target):
    first, _ = names()
    key = finished[2]["targets"][first]["stages"][STAGES.index("export")]["key"]
    path = again / "stages" / f"export-{key}" / "bundle" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-2])
    redone = compile_job(one_target, again)
    assert done(redone) == {first: ["export", "bench"]}
    assert models(again) == models(finished[1])


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "error", "words"),
    [
        ("0.000001ms", InfeasibleBudget, "fastest"),
        ("0", InvalidValue, "positive"),
        ("-1ms", InvalidValue, "positive"),
        ("fast", InvalidValue, "'fast'"),
        ({TARGETS[0]: "80%", TARGETS[1]: "0.000001ms"}, InfeasibleBudget, "fastest"),
        ({TARGETS[0]: "80%", TARGETS[1]: "slow"}, InvalidValue, "'slow'"),
        ({TARGETS[0]: "80%"}, InvalidValue, r"\[budget\] has no entry for this/openvino-cpu-fp32"),
        (dict.fromkeys([*TARGETS, "this/openvino-cpu-bf16"], "80%"), UnknownName, "this/openvino-cpu-bf16"),
    ],
)
def test_impossible_budget_loses_nothing(finished, again, budget, error, words):
    job, out, _ = finished
    for attempt in (compile_job, preview_job):
        with pytest.raises(error, match=words):
            attempt(job.model_copy(update={"budget": budget}), again)
    assert all(stage.cached for stage in preview_job(job, again))
    assert models(again) == models(out)


def test_an_impossible_budget_is_known_before_training(job, profiled_only):
    with pytest.raises(InfeasibleBudget):
        compile_job(job.model_copy(update={"budget": {TARGETS[0]: "80%", TARGETS[1]: "0.000001ms"}}), profiled_only)
    assert not list((profiled_only / "stages").glob("train-*"))


def board(home):
    """A device that this host is not."""
    (home / "devices").mkdir(parents=True)
    (home / "devices" / "board.toml").write_text(
        'schema = 1\nname = "board"\nkind = "cpu"\ndescription = "d"\n'
        '[match]\ncpu = "^No Such CPU$"\n[hardware]\nsource = "s"\n'
    )


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"search": {"strategy": "exakt"}}, UnknownName, "Did you mean 'exact'"),
        ({"search": {"predictor": "graf"}}, UnknownName, "Did you mean 'graph'"),
        ({"search": {"predictor": "paths"}}, InvalidValue, "paths encodes cells, and mobilenetv3-tiny has none"),
        ({"search": {"acquisition": "pi"}}, UnknownName, "unknown acquisition 'pi'.* Known: mean, ei, ucb"),
        (
            {"search": {"confidence": 0.99}},
            InvalidValue,
            "0.99, which requires 99 bound networks; latency.bound_networks is 19",
        ),
        (
            {"latency": {"validation_networks": 9000}},
            InvalidValue,
            r"needs 9027 different networks \(8 to calibrate, 19 .*has \d+ under",
        ),
        ({"budget": "300M"}, InvalidValue, "a job's budget must be a latency, 0.8ms, or 50% .*; not '300M'"),
        ({"budget": "p95=1ms"}, InvalidValue, r"not .p95=1ms.\. Budgets of other figures are keys of \[bench\]"),
        (
            {"training": {"phases": [Phase(name="wide", steps=4, learning_rate=0.1, largest_of={"width": 1})]}},
            InvalidValue,
            "phase 'wide' restricts width, but the variables of mobilenetv3-tiny are of the kinds resolution, depth",
        ),
        ({"accuracy": {"metric": "f2"}}, UnknownName, "unknown metric 'f2'"),
        ({"accuracy": {"metric": "f1", "positive": "eleven"}}, UnknownName, "unknown class 'eleven'"),
        ({"targets": [TARGETS[0]] * 2}, InvalidValue, "targets contains .*/onnxruntime-cpu-fp32 twice"),
        ({"targets": [TARGETS[0], "board/onnxruntime-cpu-fp32"]}, TableError, "this host is not the device board"),
        ({"targets": [TARGETS[0], "this/roofline-cpu-fp32"]}, HwnasError, "cannot be timed"),
        ({"targets": [TARGETS[0], "this/onnx"]}, UnknownName, "unknown recipe 'onnx'"),
    ],
)
def test_a_mistake_is_found_before_anything_long(job, tmp_path, monkeypatch, changes, error, words):
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))
    board(tmp_path / "home")
    for name, change in changes.items():
        value = getattr(job, name).model_copy(update=change) if isinstance(change, dict) else change
        job = job.model_copy(update={name: value})
    for attempt in (compile_job, preview_job):
        with pytest.raises(error, match=words):
            attempt(job, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_target_under_two_names_is_named_once(job, tmp_path):
    twice = job.model_copy(update={"targets": [TARGETS[0], names()[0]]})
    with pytest.raises(InvalidValue, match=f"contains {names()[0]} twice"):
        compile_job(twice, tmp_path / "out")


def test_an_unknown_stage_lists_the_stages(job, tmp_path):
    for attempt in (compile_job, preview_job):
        known = "check, profile, validate, elastic, train, accuracy, search, finetune, export, bench"
        with pytest.raises(UnknownName, match=f"'serach'. Did you mean 'search'. Known: {known}"):
            attempt(job, tmp_path / "out", again="serach")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("targets = []", "targets is \\[\\]"),
        ('target = "this/onnxruntime-cpu-fp32"', "did you mean 'targets'"),
        ('targets = "this/onnxruntime-cpu-fp32"', "valid list"),
    ],
)
def test_targets_are_a_list(job_file, line, words):
    text = job_file.read_text().splitlines()
    job_file.write_text("\n".join(line if old.startswith("targets") else old for old in text))
    with pytest.raises(SpecError, match=words):
        read_job(job_file)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('p95 = "50%"', "the budget of a bundle must be a latency in milliseconds"),
        ('p99 = "fast"', "a budget must be"),
        ("p95 = 1.2", "p95 is 1.2"),
        ("images_per_s = 0", "images_per_s is 0"),
        ('p96 = "1ms"', "p96"),
    ],
)
def test_further_budgets_that_are_none(job_file, line, words):
    job_file.write_text(f"{job_file.read_text()}\n[bench]\n{line}\n")
    with pytest.raises(SpecError, match=words):
        read_job(job_file)


@pytest.mark.parametrize("line", ["subnets = 1000001", "candidates = 10001"])
def test_more_than_memory_holds_is_refused_before_anything_long(job_file, line):
    name = line.partition(" ")[0]
    text = job_file.read_text().splitlines()
    job_file.write_text("\n".join(line if old.startswith(name) else old for old in text))
    with pytest.raises(SpecError, match=rf"\.{name} is \d+; it should be less than or equal to 1"):
        read_job(job_file)


def test_a_path_in_a_job_counts_from_its_file_and_stays_right_elsewhere(job_file, monkeypatch):
    job_file.write_text(job_file.read_text().replace('"cluttered-digits"', '"images"\npath = "photographs"'))
    monkeypatch.chdir(job_file.parent)
    assert read_job(Path(job_file.name)).data.path == str(job_file.parent / "photographs")


def test_output_that_is_a_file_or_somebody_elses_bundle_folder(job, tmp_path):
    (tmp_path / "file").write_text("mine")
    for attempt in (compile_job, preview_job):
        with pytest.raises(OutputError, match="is a file"):
            attempt(job, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    thesis = tmp_path / "out" / "bundles" / names()[1] / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("mine")
    for attempt in (compile_job, preview_job):
        with pytest.raises(OutputError, match="is not a bundle only"):
            attempt(job, tmp_path / "out")
    assert thesis.read_text() == "mine"


def test_a_file_above_the_bundles_is_told_before_anything_long(job, tmp_path):
    (tmp_path / "bundles").write_text("mine")
    for attempt in (compile_job, preview_job):
        with pytest.raises(OutputError, match=r"bundles is a file, and the bundle .* needs a folder there"):
            attempt(job, tmp_path)
    assert not (tmp_path / "stages").exists()


def test_quickstart_is_the_job_the_readme_tells_of():
    job = quickstart_job()
    assert (job.space.name, job.data.name) == ("mobilenetv3-tiny", "cluttered-digits")
    assert (job.targets, job.budget) == (TARGETS[:1], "50%")


@pytest.fixture
def train_inputs(job_file, tmp_path):
    """A function that gives what the train stage depends on, of a job with further keys in `[training]`."""
    text = job_file.read_text()

    def inputs(*lines):
        job_file.write_text(text.replace("[training]", "\n".join(["[training]", *lines])))
        return plan_job(read_job(job_file), tmp_path / "out")[0].train.inputs

    return inputs


def test_a_training_depends_on_what_it_runs_on(train_inputs, finished, tmp_path):
    """Where that is what it always was, the stages of older jobs stay valid."""
    before = train_inputs()
    assert not before.keys() & {"accelerator", "precision", "devices", "teacher"}
    newer = {
        "adapter",
        "class_weights",
        "focal_gamma",
        "loss",
        "sampler",
        "validate_every",
        "validation_images",
        "patience",
        "optimizer",
    }
    assert before["training"].keys() == set(TrainConfig.model_fields) - newer
    assert train_inputs('accelerator = "cpu"', 'precision = "32-true"', "devices = 1") == before
    assert train_inputs('precision = "bf16-mixed"', "devices = 2") == {
        **before,
        "precision": "bf16-mixed",
        "devices": 2,
    }
    # A relative folder counts from the job's file.
    trained = plan_job(finished[0], finished[1])[0].train.folder
    shutil.copytree(trained, tmp_path / "teacher")
    assert train_inputs('teacher = "teacher"') == {**before, "teacher": read_facts(trained).weights_sha256}


def test_with_patience_a_training_depends_on_its_validation_images(train_inputs):
    """They decide when it ends, and which weights are kept."""
    data = ClutteredDigits()
    assert "validated on" not in train_inputs()
    assert train_inputs("patience = 3")["validated on"] == data.split_fingerprint("validation")


def test_what_a_training_cannot_run_on_is_refused_at_once(train_inputs, monkeypatch):
    with pytest.raises(SpecError, match="accelerator is 'tpu'"):
        train_inputs('accelerator = "tpu"')
    with pytest.raises(CheckpointError, match="nobody holds no supernet"):
        train_inputs('teacher = "nobody"')
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidValue, match="torchrun started several processes of this command"):
        train_inputs("devices = 2")


@pytest.mark.long
def test_a_job_trains_on_two_processes_with_a_teacher(job_file, finished, profiled_only, hwnas_command, tmp_path):
    """The second process takes part in the training, and in nothing else."""
    shutil.copytree(plan_job(finished[0], finished[1])[0].train.folder, tmp_path / "teacher")
    more = '[training]\naccelerator = "cpu"\ndevices = 2\nteacher = "teacher"'
    text = job_file.read_text().replace("[training]", more).replace(f', "{TARGETS[1]}"', "")
    job_file.write_text(text)
    script = tmp_path / "run.py"  # a program of its own file: the training starts it again
    script.write_text(hwnas_command[2])
    done = subprocess.run(
        [sys.executable, script, "compile", job_file, "--out", profiled_only, "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [answer] = json.loads(done.stdout)["targets"].values()
    assert cached(answer) == {name: name in ("profile", "validate") for name in STAGES}
    assert done.stderr.count("training all: 0/") <= 1
    [trained] = (profiled_only / "stages").glob("train-*")
    facts = read_facts(trained).training
    assert (facts["processes"], facts["teacher"]) == (2, read_facts(tmp_path / "teacher").weights_sha256)
