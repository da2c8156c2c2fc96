"""`--dry-run` says what a run then does, and why; nothing is written."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from hwnas.deploy.verdict import verdict
from hwnas.pipeline import preview_job
from hwnas.pipeline.cache import Stage, Stages


def listing(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def preview(finished, again):
    """A function that says why stages of the finished job would be done after some changes to it."""
    job = finished[0]

    def preview(changes=None, **options):
        before = listing(again)
        found = preview_job(job.model_copy(update=changes or {}), again, **options)
        assert listing(again) == before
        assert len(found) == 12  # two of the seven are shared
        return {
            (stage.name, (stage.target or "all").rpartition("/")[2]): list(stage.why)
            for stage in found
            if not stage.cached
        }

    return preview


def test_nothing_changed(preview):
    assert preview() == {}


def test_another_budget_for_one_target(preview):
    budget = {"this/onnxruntime-cpu-fp32": "200%", "this/openvino-cpu-fp32": "190%"}
    name = "openvino-cpu-fp32"
    assert preview({"budget": budget}) == {
        ("search", name): ['budget: "200%" -> "190%"'],
        ("export", name): ["after search"],
        ("bench", name): ["after export"],
    }


def test_another_training(finished, preview):
    job = finished[0]
    training = job.training.model_copy(update={"batch_size": 8})
    found = preview({"training": training})
    assert found.pop(("train", "all")) == ["training.batch_size: 16 -> 8"]
    assert found.pop(("accuracy", "all")) == ["after train"]
    assert set(found) == {
        (stage, f"{runtime}-cpu-fp32")
        for stage in ("search", "export", "bench")
        for runtime in ("onnxruntime", "openvino")
    }
    assert found["search", "openvino-cpu-fp32"] == ["after accuracy"]


def test_from_a_stage_on(preview):
    found = preview(again="accuracy")
    assert found["accuracy", "all"] == ["requested by --from"]
    assert found["search", "onnxruntime-cpu-fp32"] == ["after accuracy"]
    assert ("train", "all") not in found
    assert len(found) == 7


def test_a_target_that_is_new_here(finished, again):
    job = finished[0]
    targets = ["this/openvino-cpu-fp32", "this/torch-cpu-fp32"]
    found = {
        (stage.name, stage.target and stage.target.rpartition("/")[2]): stage.why
        for stage in preview_job(job.model_copy(update={"targets": targets}), again)
    }
    assert found["profile", "torch-cpu-fp32"] == ("not done before",)
    assert found["validate", "torch-cpu-fp32"] == ("after profile", "not done before")
    assert found["train", None] == ()
    assert found["search", "openvino-cpu-fp32"] == ()


def test_what_was_changed_and_what_was_stopped(preview, again):
    for path in (again / "stages").glob("export-*/result.json"):
        path.write_text("{}")
    for path in (again / "stages").glob("train-*"):
        path.rename(path.with_name(f"{path.name}.partial"))
    found = preview()
    assert found["train", "all"] == ["resumes"]
    assert found["export", "openvino-cpu-fp32"] == ["after search and train", "its files were changed"]


def test_many_differences_are_counted(tmp_path, job):
    out = tmp_path / "out"
    before = preview_job(job, out)
    assert {stage.why[-1] for stage in before} == {"not done before"}
    inputs = {"domain": {}, "data": "0" * 99, "training": {}, "seed": 5, "versions": {}}
    with Stages(out=out) as stages:
        stages.run(Stage(name="train", inputs=inputs, needs=(), place=out / "stages", work=lambda _: {}))
    [train] = [stage for stage in preview_job(job, out) if stage.name == "train"]
    assert len(train.why) == 4
    assert train.why[0].startswith("domain.space: nothing -> ")
    assert train.why[-1].endswith("more differences")


def test_the_command_prints_it(finished, again, job_file, hwnas_cli):
    ran = hwnas_cli("compile", job_file, "--out", again, "--dry-run", "--budget", "190%")
    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert [words[:2] for words in lines[4:7]] == [["train", "reuse"], ["accuracy", "reuse"], ["search", "run"]]
    assert 'budget: "200%" -> "190%"' in ran.out
    assert "keeps 6 stages of other settings (" in ran.out
    ran = hwnas_cli("compile", job_file, "--out", again, "--dry-run", "--from", "bench", "--json")
    assert [stage["name"] for stage in json.loads(ran.out)["stages"] if not stage["cached"]] == ["bench"] * 2
    ran = hwnas_cli("compile", job_file, "--out", again, "--from", "benhc")
    assert ran.code == 2
    assert "Known: check, profile, validate, elastic, train, accuracy, search, finetune, export, bench" in ran.err


def test_a_look_at_the_training_does_not_cost_it(finished, again, job_file, hwnas_cli, tmp_path):
    [trained] = (again / "stages").glob("train-*")
    before = listing(again)
    looked = hwnas_cli("subnet", "eval", "--supernet", trained, "--images", 50, "--calibration-images", 50)
    assert looked.code == 0, looked.err
    assert listing(again) == before
    assert list((tmp_path / "home" / "evaluations").glob("evaluated-*.jsonl"))
    refused = hwnas_cli("train", "--space", "mobilenetv3-tiny", "--data", "cluttered-digits", "--out", trained)
    assert (refused.code, listing(again)) == (2, before)
    assert "is a stage of a run" in refused.err
    (trained / ".sweep.lock").touch()  # as an older hwnas left it
    assert all(stage.cached for stage in preview_job(finished[0], again))


def test_how_long_a_stage_may_take(finished, again, job_file, hwnas_cli, tmp_path):
    [trained] = (again / "stages").glob("train-*")
    (trained / "seconds.json").write_text('{"seconds": 250}')
    for folder in (again / "stages").glob("bench-*"):
        (folder / "seconds.json").unlink()  # of an older hwnas
    job_file.write_text(job_file.read_text().replace("batch_size = 16", "batch_size = 8"))
    ran = hwnas_cli("compile", job_file, "--out", again, "--dry-run")
    assert "training.batch_size: 16 -> 8; about 4 min, like the last train here" in ran.out
    assert "together about " in ran.out
    assert " and, never run in this folder, bench" in ran.out
    ran = hwnas_cli("compile", job_file, "--out", again, "--dry-run", "--json")
    stages = {stage["name"]: stage for stage in json.loads(ran.out)["stages"]}
    assert (stages["train"]["expected_s"], stages["train"]["seconds"]) == (250, None)
    assert (stages["profile"]["expected_s"], stages["profile"]["seconds"] > 0) == (None, True)
    assert stages["bench"]["expected_s"] is None
    ran = hwnas_cli("compile", job_file, "--out", tmp_path / "new", "--dry-run")
    assert "no time estimate: no such stage has run in this folder before" in ran.out


def test_a_bench_that_was_too_noisy_is_not_finished(finished, again, job_file, hwnas_cli):
    for folder in (again / "stages").glob("bench-*"):
        result = json.loads((folder / "result.json").read_text())
        result["bundle"]["too_noisy"] = True
        (folder / "result.json").write_text(json.dumps(result))
        listed = json.loads((folder / "files.json").read_text())
        listed["result.json"] = hashlib.sha256((folder / "result.json").read_bytes()).hexdigest()
        (folder / "files.json").write_text(json.dumps(listed))
    why = {stage.name: stage.why for stage in preview_job(finished[0], again) if not stage.cached}
    assert list(why) == ["bench"]
    assert why["bench"][0].startswith("the machine was too noisy for its figures (spread ")
    ran = hwnas_cli("compile", job_file, "--out", again, "--json")
    assert ran.code == 0, ran.err
    answers = json.loads(ran.out)["targets"]
    for answer in answers.values():
        assert [stage["name"] for stage in answer["stages"] if not stage["cached"]] == ["bench"]
        assert all(stage["took_s"] > 0 for stage in answer["stages"])
        assert answer["over_budget"] == answer["measured_ms"] * answer["speed"] / answer["budget_ms"] - 1
    page = (again / "report.md").read_text()
    for answer in answers.values():
        noisy = answer["noise"]["too_noisy"]
        assert verdict(answer["measured_ms"] * answer["speed"], answer["budget_ms"], too_noisy=noisy) in page
    assert "| train | 0.0 | reused |" not in page


def test_bundles_that_the_job_does_not_name_are_told(again, job_file, hwnas_cli):
    bundles = again / "bundles"
    [device] = bundles.iterdir()
    other = shutil.copytree(device / "openvino-cpu-fp32", bundles / "board" / "openvino-cpu-fp32")
    (bundles / "notes" / "ours").mkdir(parents=True)
    (bundles / "notes" / "ours" / "todo.txt").write_text("which of them ships?")
    ran = hwnas_cli("compile", job_file, "--out", again, "--dry-run")
    told = [line for line in ran.out.splitlines() if line.startswith(str(bundles))]
    assert told == [f"{other} is from an earlier run: board/openvino-cpu-fp32 is not a target of this job"]


def test_a_folder_in_use_is_said(job_file, again, hwnas_cli):
    with Stages(out=again):
        ran = hwnas_cli("compile", job_file, "--out", again)
        assert hwnas_cli("compile", job_file, "--out", again, "--dry-run").code == 0
    assert ran.code == 2
    assert f"another hwnas process is working on {again}" in ran.err
