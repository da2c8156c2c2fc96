"""Several labels per image, the whole way: train, evaluate, search, export, verify, and the lines of the README."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from several import CLASSES, shapes

from hwnas import workflows
from hwnas.data import DataOptions
from hwnas.deploy import open_bundle
from hwnas.spaces import make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, read_facts, save_supernet

FP32 = "this/onnxruntime-cpu-fp32"
# 4 networks of 24 pixels
FIXED = {"resolution": 24, "depth_1": 1, "depth_2": 1, "depth_3": 1, "kernel_1_1": 3, "expansion_1_1": 2}
FIXED |= {"kernel_2_1": 3, "expansion_2_1": (2, 4), "kernel_3_1": 3, "expansion_3_1": (2, 4)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The images, a supernet that was trained on them, its answer, and an arch."""
    root = tmp_path_factory.mktemp("several")
    config = TrainConfig(
        phases=[Phase(name="all", steps=100, learning_rate=0.2)],
        batch_size=32,
        class_weights="balanced",
        validate_every=50,
    )
    answer = workflows.train(
        "mobilenetv3-tiny",
        "images",
        root / "net",
        data_path=shapes(root / "shapes"),
        data_options=DataOptions(labels="labels.csv", multi_label=True),
        fix=FIXED,
        training=config,
    )
    (root / "trained.json").write_text(json.dumps(answer.document()))
    arch = read_facts(root / "net").domain.make().largest
    (root / "arch.json").write_text(json.dumps({"arch": dict(arch)}))
    return root


@pytest.fixture
def run(hwnas_cli, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return hwnas_cli


def lines_of(page: str) -> str:
    return page.split("```python\n")[1].split("```", maxsplit=1)[0]


def test_a_training_learns_the_labels(run, folder):
    trained = json.loads((folder / "trained.json").read_text())
    assert trained["metric"] == "mAP"
    assert trained["validation"]["validation"] > 0.75  # a constant answer has 0.43
    facts = read_facts(folder / "net")
    assert (facts.task, facts.classes) == ("multi-label", list(CLASSES))
    assert facts.data["options"] == {"channels": 1, "labels": "labels.csv", "multi_label": True}
    assert facts.training["validations"]["metric"] == "mAP"
    ran = run("subnet", "eval", "--supernet", "net", "--metric", "f1", "--positive", "spot", "--json")
    assert ran.code == 0, ran.err
    for answer in json.loads(ran.out):
        assert answer["metric"] == "f1 of spot"
        figures = answer["figures"]
        assert (figures["task"], figures["accuracy"], figures["confusion"]) == ("multi-label", None, None)
        assert [one["name"] for one in figures["classes"]] == list(CLASSES)


def test_a_search_maximises_the_mean_average_precision(run, folder):
    ran = run("search", "--supernet", "net", "--budget", "params=1000000", "--out", "found.json", "--candidates", 2)
    assert ran.code == 0, ran.err
    assert " mAP on validation, " in ran.out
    assert "all classes for every image: " in ran.out
    found = json.loads((folder / "found.json").read_text())
    assert (found["metric"], found["figures"]["task"]) == ("mAP", "multi-label")
    assert found["validation_accuracy"] > 0.75


@pytest.mark.long
def test_bundles_print_the_labels_of_an_image(run, folder):
    for name, include in (("plain", ()), ("whole", ("--include", "normalize", "--include", "sigmoid"))):
        ran = run("export", "arch.json", "--supernet", "net", "--target", FP32, *include, "--out", name)
        assert ran.code == 0, ran.err
        assert " mAP on 60 test images" in ran.out
        assert run("verify", name).code == 0
    plain, whole = open_bundle(folder / "plain"), open_bundle(folder / "whole")
    said = []
    for bundle in (plain, whole):
        parity, page = bundle.manifest.parity, (bundle.folder / "README.md").read_text("utf-8")
        assert (bundle.manifest.task, bundle.manifest.accuracy) == ("multi-label", parity.deployed_accuracy)
        assert parity.deployed_accuracy == pytest.approx(parity.torch_accuracy, abs=0.02)
        assert parity.top1_agreement > 0.99
        assert parity.figures.task == "multi-label"
        assert "mAP on the test images" in page
        assert "all classes for every image gives" in page
        assert "prints the labels (the classes with a probability of at least 50%) of an image file" in page
        done = subprocess.run(
            [sys.executable, "-I", "-c", lines_of(page), folder / "shapes" / "4.png"],
            cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    logits, probabilities = (np.load(bundle.folder / "example-output.npy") for bundle in (plain, whole))
    assert probabilities == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-3)
    assert whole.manifest.output.meaning == "probabilities, one per class"
    assert whole.manifest.parity.figures.classes == plain.manifest.parity.figures.classes
    assert said[0] == said[1]
    assert said[0].startswith("labels ")


def test_a_network_is_fine_tuned(run, folder):
    assert run("subnet", "extract", "arch.json", "--supernet", "net", "--out", "alone").code == 0
    ran = run("subnet", "finetune", "--subnet", "alone", "--epochs", 1, "--out", "tuned", "--json")
    assert ran.code == 0, ran.err
    assert read_facts(folder / "tuned").task == read_facts(folder / "alone").task == "multi-label"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", "--budget", "params=1000000", "--metric", "top1", "--out", "x.json"), "use one of mAP, f1, auc"),
        (("export", "arch.json", "--target", FP32, "--include", "softmax", "--out", "x"), "include sigmoid instead"),
        (("subnet", "eval", "--metric", "recall@precision=0.9"), "choose it with positive, of column, row, spot"),
    ],
)
def test_what_needs_one_class_per_image_is_refused(run, words, message):
    ran = run(*words, "--supernet", "net")
    assert ran.code == 2, ran.out
    assert message in ran.err
    assert ran.err.count("error: ") == 1


def test_a_teacher_of_another_task_is_refused(run, folder):
    space = make_space("mobilenetv3-tiny", in_channels=1, classes=3)
    data = {"name": "images", "path": str(folder / "shapes")}
    save_supernet(Supernet(space, seed=0), folder / "one", data=data, classes=CLASSES, training={})
    words = ("--data", "images", "--data-path", "shapes", "--labels", "labels.csv", "--multi-label")
    ran = run("train", "--space", "mobilenetv3-tiny", *words, "--teacher", "one", "--steps", 2, "--out", "taught")
    assert ran.code == 2, ran.out
    assert "the teacher one was trained for classification, but images is for multi-label" in ran.err


def test_multi_label_without_a_file_of_labels(run):
    ran = run("data", "check", "shapes", "--multi-label")
    assert ran.code == 2
    assert "--multi-label True: several labels per image need labels, a CSV file that lists them" in ran.err


def test_a_check_counts_every_label(run):
    ran = run("data", "check", "shapes", "--labels", "labels.csv", "--multi-label")
    assert ran.code == 0, ran.err
    assert "3 classes" in ran.out
    assert "note: " not in ran.out
