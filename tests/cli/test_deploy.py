"""`hwnas deploy sweep`: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from hwnas.deploy.sweep import Swept
from hwnas.supernet import save_supernet
from hwnas.targets import this_device

FP32, INT8 = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8"


@pytest.fixture(scope="module")
def net(supernet, evaluator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "net"
    data = {"name": "cluttered-digits", "path": None}
    save_supernet(supernet, folder, data=data, classes=evaluator.data.classes, training={})
    return folder


@pytest.fixture
def words(net, space, tmp_path):
    (tmp_path / "my arch.json").write_text(json.dumps({"arch": dict(space.largest)}))
    return (
        "deploy", "sweep", "my arch.json", "--supernet", net, "--tables", tmp_path, "--images", 100, "--recipe", FP32,
    )  # fmt: skip


def test_as_json_and_as_a_table(hwnas_cli, words, space, tmp_path):
    ran = hwnas_cli(*words, "--recipe", INT8, "--recipe", "roofline-cpu-fp32", "--max-drop", 100, "--json")
    assert ran.code == 0, ran.err
    answer = json.loads(ran.out)
    assert answer["arch"] == dict(space.largest)
    assert answer["max_drop"] == 1
    assert answer["picked"] == answer["recipes"][0]["target"]
    assert {one["target"].partition("/")[2] for one in answer["recipes"]} == {FP32, INT8}
    assert list(answer["left_out"]) == [f"{answer['device']}/roofline-cpu-fp32"]
    assert all(one["parity"]["images"] == 100 and one["predicted_ms"] is None for one in answer["recipes"])
    ran = hwnas_cli(*words, "--max-drop", 100)
    assert ran.code == 0, ran.err
    [row] = [line for line in ran.out.splitlines() if line.startswith(FP32)]
    assert "no table" in row
    [size] = [one["size_bytes"] for one in answer["recipes"] if one["target"].endswith(FP32)]
    assert f"{size:,}" in row
    assert f"picked: {FP32}, the fastest that loses at most 100 points" in ran.out
    assert "Export it with: hwnas export 'my arch.json' --supernet " in ran.out
    assert f" --tables {tmp_path} --out bundle" in ran.out


def test_a_metric_instead_of_top_1_accuracy(hwnas_cli, words, net, tmp_path):
    ran = hwnas_cli(*words, "--max-drop", 100, "--metric", "f1", "--positive", 3)
    assert ran.code == 0, ran.err
    assert "f1 of 3 in torch on 100 validation images" in ran.out
    assert " --metric f1 --positive 3 --out bundle" in ran.out
    export = ("export", "my arch.json", "--supernet", net, "--target", f"this/{FP32}", "--out", tmp_path / "bundle")
    ran = hwnas_cli(*export, "--metric", "f1", "--positive", 3)
    assert ran.code == 0, ran.err
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["parity"]["metric"] == manifest["parity"]["figures"]["metric"] == "f1 of 3"
    assert manifest["accuracy"] == manifest["parity"]["figures"]["value"]
    assert f"{manifest['accuracy']:.2%} f1 of 3 on " in ran.out
    assert "f1 of 3 on the test images" in (tmp_path / "bundle" / "README.md").read_text()


@pytest.mark.parametrize("why", ["stage", "not writable"])
def test_nothing_is_written_into_a_stage_or_a_folder_that_is_not_writable(
    hwnas_cli, words, net, tmp_path, monkeypatch, why
):
    kept = shutil.copytree(net, tmp_path / "kept")
    if why == "stage":
        (kept / "inputs.json").write_text("{}")
    else:  # as the system says it of a folder that is mounted so; to root every other one is writable
        writable = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (kept, os.W_OK) and writable(path, mode))
    before = sorted(kept.rglob("*"))
    ran = hwnas_cli(*words, "--supernet", kept, "--max-drop", 100, "--json")
    assert ran.code == 0, ran.err
    assert sorted(kept.rglob("*")) == before
    assert list((tmp_path / "home" / "evaluations").glob("evaluated-*.jsonl"))


def test_none_that_keeps_the_bound(hwnas_cli, words, monkeypatch):
    monkeypatch.setattr(Swept, "lost", 0.02)
    ran = hwnas_cli(*words)
    assert ran.code == 1
    assert f"picked: none; every recipe loses more than 0.5 points, {FP32} the least, 2.00" in ran.out


def test_a_table_that_cannot_be_read_is_said_to_be(hwnas_cli, words, tmp_path):
    """No table is a figure less; a broken one is a mistake, and passing it over in silence would hide it."""
    table = tmp_path / f"{this_device().name}" / f"{FP32}.csv"
    table.parent.mkdir()
    table.write_text("not a table")
    ran = hwnas_cli(*words, "--max-drop", 100)
    assert ran.code == 0, ran.err
    assert f"warning: no prediction for {this_device().name}/{FP32}: {table} has the columns" in ran.err


def test_a_folder_of_tables_that_is_none(hwnas_cli, words, tmp_path):
    ran = hwnas_cli(*words, "--tables", tmp_path / "my arch.json")
    assert ran.code == 2
    assert f"{tmp_path / 'my arch.json'} is not a folder of latency tables" in ran.err
    assert "lowering" not in ran.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--recipe", "onnxruntime"), "unknown recipe 'onnxruntime'"),
        (("--device", "nobody"), "unknown device 'nobody'"),
        (("--max-drop", "101"), "max-drop"),
        (("--images", "0"), "images"),
        (("--metric", "f2"), "unknown metric 'f2'"),
        (("--metric", "f1", "--positive", "ten"), "unknown class 'ten'"),
    ],
)
def test_bad_input(hwnas_cli, words, more, message):
    ran = hwnas_cli(*words, *more)
    assert ran.code == 2
    assert message in ran.err


def test_steps_that_are_part_of_the_program(hwnas_cli, words, net, refused, tmp_path):
    export = ("export", "my arch.json", "--supernet", net, "--target", f"this/{FP32}")
    ran = hwnas_cli(*export, "--include", "softmax", "--include", "normalize", "--out", tmp_path / "bundle", "--json")
    assert ran.code == 0, ran.err
    made = json.loads(ran.out)
    assert made["include"] == ["normalize", "softmax"]
    assert (made["input"]["dtype"], made["input"]["shape"]) == ("uint8", [1, 24, 24, 1])
    assert made["output"]["meaning"] == "probabilities, one per class"
    assert made["accuracy"] == made["parity"]["torch_accuracy"]
    assert made["parity"]["max_abs_error"] < 1e-4
    assert hwnas_cli("verify", tmp_path / "bundle").code == 0
    assert json.loads(hwnas_cli("bench", tmp_path / "bundle", "--json").out)["measured_ms"] > 0
    said = refused(*export, "--include", "resize", "--out", tmp_path / "other")
    assert "'resize' cannot be included in a program; the steps are normalize, softmax, sigmoid" in said


@pytest.mark.parametrize(
    "recipe",
    [FP32, *(pytest.param(name, marks=pytest.mark.long) for name in (INT8, "openvino-cpu-fp32", "torch-cpu-fp32"))],
)
def test_a_program_that_takes_any_number_of_images(hwnas_cli, words, net, tmp_path, recipe):
    export = ("export", "my arch.json", "--supernet", net, "--target", f"this/{recipe}", "--dynamic-batch", "--json")
    plain = json.loads(hwnas_cli(*export, "--out", tmp_path / "bundle").out)
    assert plain["dynamic_batch"] is True
    assert (plain["input"]["shape"], plain["output"]["shape"]) == ([1, 1, 24, 24], [1, 10])
    ran = hwnas_cli("verify", tmp_path / "bundle")
    assert (ran.code, "outputs  as recorded, and those of several images in a run: largest" in ran.out) == (0, True)
    assert json.loads(hwnas_cli("bench", tmp_path / "bundle", "--json").out)["measured_ms"] > 0
    if recipe == FP32:
        return
    steps = ("--include", "normalize", "--include", "softmax")
    whole = json.loads(hwnas_cli(*export, *steps, "--out", tmp_path / "whole").out)
    assert (whole["input"]["dtype"], whole["include"]) == ("uint8", ["normalize", "softmax"])
    assert hwnas_cli("verify", tmp_path / "whole").code == 0


def test_a_recipe_with_a_fixed_batch_refuses_any_other(words, net, refused, tmp_path, monkeypatch):
    monkeypatch.setattr("hwnas.runtimes.onnxruntime.OnnxRuntimeSession.takes_any_batch", False)
    export = ("export", "my arch.json", "--supernet", net, "--target", f"this/{FP32}", "--dynamic-batch")
    said = refused(*export, "--out", tmp_path / "bundle")
    assert f"{FP32} cannot have a dynamic batch: programs of onnxruntime take a fixed number of images in a run" in said
    assert "choose a recipe of onnxruntime, openvino or torch on the CPU" in said
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("no_shipped_tables")
def test_a_bundle_without_a_table_says_that_it_has_no_prediction(hwnas_cli, words, net, tmp_path, caplog):
    out = tmp_path / "bundle"
    ran = hwnas_cli("export", "my arch.json", "--supernet", net, "--target", f"this/{FP32}", "--out", out)
    assert ran.code == 0, ran.err
    assert "no prediction: " in ran.out
    assert f"there is no latency table for {this_device().name}/{FP32}" in caplog.text
    assert json.loads((out / "manifest.json").read_text())["predicted_ms"] is None
    assert "was neither predicted nor measured; `hwnas bench` measures it" in (out / "README.md").read_text()
    assert hwnas_cli("verify", out).code == 0
    ran = hwnas_cli("bench", out)
    assert (ran.code, "no prediction, because the bundle was exported without a latency table" in ran.out) == (0, True)
    timed = json.loads(hwnas_cli("bench", out, "--json").out)
    assert (timed["predicted_ms"], timed["relative_error"], timed["measured_ms"] > 0) == (None, None, True)
