"""`--dry-run` says what a run then does, and why; nothing is written."""

from __future__ import annotations

import json
import shutil

import pytest

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
    budget = {"this/onnxruntime-cpu-fp32": "80%", "this/openvino-cpu-fp32": "90%"}
    name = "openvino-cpu-fp32"
    assert preview({"budget": budget}) == {
        ("search", name): ['budget: "80%" -> "90%"'],
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
    assert found["accuracy", "all"] == ["asked for by --from"]
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
    assert found["train", "all"] == ["goes on from where it was stopped"]
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
    ran = hwnas_cli("compile", job_file, "--out", again, "--dry-run", "--budget", "90%")
    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert [words[:2] for words in lines[4:7]] == [["train", "reuse"], ["accuracy", "reuse"], ["search", "run"]]
    assert 'budget: "80%" -> "90%"' in ran.out
    assert "keeps 6 stages of other settings (" in ran.out
    ran = hwnas_cli("compile", job_file, "--out", again, "--dry-run", "--from", "bench", "--json")
    assert [stage["name"] for stage in json.loads(ran.out)["stages"] if not stage["cached"]] == ["bench"] * 2
    ran = hwnas_cli("compile", job_file, "--out", again, "--from", "benhc")
    assert ran.code == 2
    assert "Known: profile, validate, train, accuracy, search, export, bench" in ran.err


def test_bundles_that_the_job_does_not_name_are_told(again, job_file, hwnas_cli):
    bundles = again / "bundles"
    [device] = bundles.iterdir()
    other = shutil.copytree(device / "openvino-cpu-fp32", bundles / "board" / "openvino-cpu-fp32")
    (bundles / "notes" / "ours").mkdir(parents=True)
    (bundles / "notes" / "ours" / "todo.txt").write_text("which of them ships?")
    ran = hwnas_cli("compile", job_file, "--out", again, "--dry-run")
    told = [line for line in ran.out.splitlines() if line.startswith(str(bundles))]
    assert told == [f"{other} is of an earlier run: board/openvino-cpu-fp32 is no target of this job"]


def test_a_folder_in_use_is_said(job_file, again, hwnas_cli):
    with Stages(out=again):
        ran = hwnas_cli("compile", job_file, "--out", again)
        assert hwnas_cli("compile", job_file, "--out", again, "--dry-run").code == 0
    assert ran.code == 2
    assert f"another hwnas is working on {again}" in ran.err
