"""The network found is fine-tuned before its export; the better weights are deployed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwnas.deploy import open_bundle
from hwnas.errors import UnknownName
from hwnas.pipeline import Job, compile_job, preview_job
from hwnas.pipeline.job import FinetuneConfig
from hwnas.pipeline.plan import plan_job
from hwnas.pipeline.rounds import Finetuned
from hwnas.report.figures import read_figures
from hwnas.report.text import markdown, summary
from hwnas.supernet import TrainConfig, load_supernet


@pytest.fixture
def one_target(job: Job) -> Job:
    """A job that reuses all but the fine-tuning and what follows, and fine-tunes for some seconds."""
    tuned = FinetuneConfig(epochs=0.1, learning_rate=0.05)
    return job.model_copy(update={"targets": job.targets[:1], "finetune": tuned})


def test_the_better_weights_are_deployed(one_target: Job, again: Path) -> None:
    report = compile_job(one_target, again)
    [answer] = report["targets"].values()
    done = [stage["name"] for stage in answer["stages"] if not stage["cached"]]
    assert done == ["finetune", "export", "bench"]
    found, [plan] = answer["finetuned"], plan_job(one_target, again)
    # 24 updates for all subnets leave much to learn.
    assert found["kept"]
    assert found["validation"]["finetuned"] > found["validation"]["inherited"]
    assert answer["rounds"][0]["validation_accuracy"] == found["validation"]["finetuned"]
    assert found["validation"]["inherited"] == plan.search.result()["validation_accuracy"]
    assert answer["accuracy"]["deployed"] > found["inherited"]["accuracy"]
    own, images = answer["accuracy"]["supernet"], answer["parity"]["images"]
    assert found["inherited"]["difference"]["value"] == pytest.approx(
        own - found["inherited"]["accuracy"], abs=1 / images
    )
    stage = plan.rounds[0].finetune
    assert stage is not None
    network, facts = load_supernet(stage.folder)
    assert network.space.arch(answer["arch"]) == network.space.largest
    assert "teacher" in facts.training
    assert open_bundle(again / answer["bundle"]).manifest.arch == answer["arch"]
    words = "Fine-tuned for 0.1 epochs: "
    assert words in markdown(report)
    assert words in summary(report, again)
    assert words in re.sub(r"\s+", " ", (again / "report.html").read_text())
    [figures] = read_figures(again).targets
    assert figures.finetuned is not None
    assert figures.finetuned.validation.finetuned == found["validation"]["finetuned"]
    assert all(stage["cached"] for stage in compile_job(one_target, again)["targets"][plan.name]["stages"])


def test_a_fine_tuning_that_lowers_the_accuracy_is_not_deployed(one_target: Job, again: Path) -> None:
    """A rate that destroys the weights."""
    bad = FinetuneConfig(epochs=0.01, learning_rate=30.0, distil=False)
    report = compile_job(one_target.model_copy(update={"finetune": bad}), again)
    [answer] = report["targets"].values()
    found = answer["finetuned"]
    assert not found["kept"]
    assert found["inherited"] is None
    assert found["validation"]["finetuned"] < found["validation"]["inherited"]
    assert answer["rounds"][0]["validation_accuracy"] == found["validation"]["inherited"]
    assert "the inherited weights are deployed" in markdown(report)


def test_a_job_without_fine_tuning_has_no_such_stage(job: Job, again: Path) -> None:
    for run in (compile_job, preview_job):
        with pytest.raises(UnknownName, match=r"stage of this job 'finetune'.*search, export, bench"):
            run(job, again, again="finetune")


def test_the_training_of_a_fine_tuning_lasts_for_its_epochs() -> None:
    config = FinetuneConfig(epochs=3, learning_rate=0.2).training(TrainConfig(batch_size=64, clip_norm=2.0), 1000)
    assert config.steps == 47  # 3000 / 64, rounded up
    assert [phase.name for phase in config.phases] == ["finetune"]
    assert config.clip_norm == 2.0


def test_equal_accuracies_keep_the_fine_tuned_weights() -> None:
    assert Finetuned(steps=1, inherited=0.5, finetuned=0.5).kept
    assert not Finetuned(steps=1, inherited=0.5, finetuned=0.4).kept
