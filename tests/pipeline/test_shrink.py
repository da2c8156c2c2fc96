"""A trained network of the user is made to fit a budget: from the trace to the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hwnas.deploy import open_bundle, verify
from hwnas.errors import ModelError, SpecError
from hwnas.pipeline import Job, compile_job, preview_job, read_job
from hwnas.pipeline.plan import plan_job
from hwnas.report.text import markdown
from hwnas.supernet import load_supernet

FILE = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )
    return nn.Sequential(*layers), torch.zeros(1, 1, 28, 28)
"""
JOB = """
schema = 1
targets = ["this/onnxruntime-cpu-fp32"]
budget = "300%"

[model]
network = "net.py:make"
weights = "trained.pt"
importance = "taylor"

[data]
name = "cluttered-digits"

[latency]
calibration_networks = 6
bound_networks = 3
validation_networks = 3

[training]
batch_size = 16
phases = [{ name = "all", steps = 6, learning_rate = 0.05 }]

[accuracy]
subnets = 16
images = 100
calibration_images = 100

[search]
candidates = 2
random_networks = 3
confidence = 0.5
refits = 0

[finetune]
epochs = 0.01
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(FILE)
    made: dict[str, Any] = {}
    exec(FILE, made)
    torch.save(made["make"]()[0].state_dict(), tmp_path / "trained.pt")
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def names(report: dict[str, Any], *, cached: bool) -> list[str]:
    [answer] = report["targets"].values()
    return [stage["name"] for stage in answer["stages"] if stage["cached"] == cached]


def test_from_a_network_to_a_bundle(folder: Path) -> None:
    job = read_job(folder / "job.toml")
    report = compile_job(job, folder / "out")
    everything = ["profile", "validate", "elastic", "accuracy", "search", "finetune", "export", "bench"]
    assert names(report, cached=False) == everything
    [answer] = report["targets"].values()
    bundle = open_bundle(folder / "out" / answer["bundle"])
    assert bundle.manifest.domain.space.startswith("net-make@")
    assert verify(bundle.folder).not_run is None
    [plan] = plan_job(job, folder / "out")
    assert plan.elastic is plan.train
    supernet, facts = load_supernet(plan.train.folder)
    assert facts.training == {"traced": "net-make", "importance": "taylor"}
    assert supernet.space.name == answer["space"]
    tuned, tuned_facts = load_supernet(plan.rounds[0].finetune.folder)  # type: ignore[union-attr]
    assert tuned.space.size == 1
    assert tuned_facts.training["teacher"] == facts.weights_sha256
    assert "Fine-tuned for 0.01 epochs" in markdown(report) or "inherited weights are deployed" in markdown(report)
    page = (folder / "out" / "report.html").read_text()
    assert "net.py:make" in page
    assert "trained.pt" in page
    # All is reused; another weight makes all but the profile again.
    assert names(compile_job(job, folder / "out"), cached=True) == everything
    state = torch.load(folder / "trained.pt")
    torch.save({name: tensor * 0.5 for name, tensor in state.items()}, folder / "trained.pt")
    again = {stage.name: stage.cached for stage in preview_job(job, folder / "out")}
    assert [name for name, cached in again.items() if cached] == ["profile", "validate"]


def test_all_subnets_are_trained_first(folder: Path) -> None:
    (folder / "job.toml").write_text(JOB.replace('importance = "taylor"', 'importance = "none"\ntrain = true'))
    job = read_job(folder / "job.toml")
    job = job.model_copy(update={"finetune": type(job.finetune)()})
    report = compile_job(job, folder / "out")
    assert names(report, cached=False) == [
        "profile", "validate", "elastic", "train", "accuracy", "search", "export", "bench",
    ]  # fmt: skip
    [plan] = plan_job(job, folder / "out")
    assert plan.elastic is not None
    start, trained = load_supernet(plan.elastic.folder), load_supernet(plan.train.folder)
    assert trained[1].training["teacher"] == start[1].weights_sha256
    assert any(not torch.equal(a, b) for a, b in zip(start[0].parameters(), trained[0].parameters(), strict=True))


def test_one_of_both_is_given(folder: Path) -> None:
    for text in (
        JOB.replace("[data]", '[space]\nname = "mobilenetv3-tiny"\n[data]'),
        JOB.replace("[model]", "[bench]"),
    ):
        (folder / "job.toml").write_text(text)
        with pytest.raises(SpecError):
            read_job(folder / "job.toml")
    (folder / "job.toml").write_text(JOB.replace("net.py:make", "model.onnx"))
    with pytest.raises(ModelError, match=r"is not a network that can be traced"):
        preview_job(read_job(folder / "job.toml"), folder / "out")


def test_paths_count_from_the_job(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path.parent)
    model = read_job(folder / "job.toml").model
    assert model is not None
    assert model.network == f"{folder / 'net.py'}:make"
    assert model.weights == str(folder / "trained.pt")


def test_shrink_is_such_a_job(folder: Path, hwnas_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Job] = []
    monkeypatch.setattr("hwnas.cli.shrink.run_job", lambda job, *_: seen.append(job))
    monkeypatch.chdir(folder)
    words = (
        "shrink", folder / "net.py:make", "--weights", folder / "trained.pt", "--data", "cluttered-digits",
        "--target", "this/onnxruntime-cpu-fp32", "--budget", "60%", "--out", folder / "out", "--widths", "50%",
        "--keep", "3", "--epochs", "2", "--metric", "balanced",
    )  # fmt: skip
    assert hwnas_cli(*words).code == 0
    [job] = seen
    assert job.model is not None
    assert (job.model.network, job.model.widths, job.model.keep, job.model.train) == (
        f"{folder / 'net.py'}:make", [0.5], ["3"], False,
    )  # fmt: skip
    assert (job.budget, job.finetune.epochs, job.accuracy.metric) == ("60%", 2.0, "balanced")
    ran = hwnas_cli(*words, "--importance", "l2")
    assert (ran.code, "the options of hwnas shrink: " in ran.err, "l2" in ran.err) == (2, True, True)


def test_a_preview_of_shrink(folder: Path, hwnas_cli: Callable[..., Any]) -> None:
    ran = hwnas_cli(
        "shrink", folder / "net.py:make", "--data", "cluttered-digits", "--target", "this/onnxruntime-cpu-fp32",
        "--budget", "60%", "--out", folder / "out", "--widths", "25%,37.5%,50%,62.5%,75%,87.5%", "--multiple", "2",
        "--dry-run", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert [stage["name"] for stage in json.loads(ran.out)["stages"]][:3] == ["profile", "validate", "elastic"]
