"""`hwnas deploy sweep`: what it prints, and how it ends."""

from __future__ import annotations

import json

import pytest

from hwnas.deploy.sweep import Swept
from hwnas.supernet import save_supernet

FP32, INT8 = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8"


@pytest.fixture(scope="module")
def net(supernet, evaluator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "net"
    data = {"name": "cluttered-digits", "path": None}
    save_supernet(supernet, folder, data=data, classes=evaluator.data.classes, training={})
    return folder


@pytest.fixture
def words(net, space, tmp_path):
    (tmp_path / "arch.json").write_text(json.dumps({"arch": dict(space.largest)}))
    return (
        "deploy", "sweep", "arch.json", "--supernet", net, "--tables", tmp_path, "--images", 100, "--recipe", FP32,
    )  # fmt: skip


def test_as_json_and_as_a_table(hwnas_cli, words, space):
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


def test_none_that_keeps_the_bound(hwnas_cli, words, monkeypatch):
    monkeypatch.setattr(Swept, "lost", 0.02)
    ran = hwnas_cli(*words)
    assert ran.code == 1
    assert f"picked: none; every recipe loses more than 0.5 points, {FP32} the least, 2.00" in ran.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--recipe", "onnxruntime"), "unknown recipe 'onnxruntime'"),
        (("--device", "nobody"), "unknown device 'nobody'"),
        (("--max-drop", "101"), "max-drop"),
        (("--images", "0"), "images"),
    ],
)
def test_bad_input(hwnas_cli, words, more, message):
    ran = hwnas_cli(*words, *more)
    assert ran.code == 2
    assert message in ran.err
