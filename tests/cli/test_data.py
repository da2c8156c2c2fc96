"""`hwnas data check`, and images in verbs that train and reopen a supernet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.data import DataOptions, Images, Transform
from hwnas.errors import CheckpointError
from hwnas.supernet import Phase, TrainConfig, read_facts
from hwnas.workflows import train

FIX = ("--space", "mobilenetv3-tiny", "--fix", "resolution=24")


def drawn(root: Path, mode: str = "L", count: int = 12) -> Path:
    """``<class>/`` folders of two classes, with noise."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            shape = (30, 40) if mode == "L" else (30, 40, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return drawn(tmp_path / "images")


def test_good_data_are_counted(hwnas_cli, images):
    ran = hwnas_cli("data", "check", images, "--split", "50,25,25", "--seed", 3)
    assert ran.code == 0, ran.err
    assert ran.out == (
        "24 images (train 12, validation 6, test 6), 2 classes, 1 channel: 0 bad, 0 ignored, 0 in several splits\n"
    )


def test_every_bad_file_is_listed_and_ends_with_2(hwnas_cli, images):
    for i in range(3):
        (images / "cat" / f"{i}.png").write_bytes(b"")
    (images / "notes.txt").write_text("x")
    ran = hwnas_cli("data", "check", images, "--split", "50,25,25")
    assert ran.code == 2
    for i in range(3):
        assert f"bad: cat/{i}.png: empty (0 bytes)\n" in ran.out
    assert "ignored: notes.txt: its suffix .txt is not that of an image\n" in ran.out
    assert "3 bad, 1 ignored" in ran.out
    assert "leave them out with --skip-bad" in ran.err
    ran = hwnas_cli("data", "check", images, "--split", "50,25,25", "--skip-bad", "--json")
    assert ran.code == 0
    answer = json.loads(ran.out)
    assert answer["schema"] == 1
    assert [issue["file"] for issue in answer["check"]["bad"]] == [f"cat/{i}.png" for i in range(3)]
    assert answer["sizes"] == {"train": 12, "validation": 6, "test": 6}


def test_a_wrong_layout_is_a_user_error(refused, images):
    assert "has no folder train, only cat, dog" in refused("data", "check", images)
    assert "--split must be three shares" in refused("data", "check", images, "--split", "half")
    assert "does not exist" in refused("data", "check", images / "none")


def test_options_are_stored_and_moved_data_are_found(hwnas_cli, refused, images, tmp_path):
    (tmp_path / "data.toml").write_text('[transform]\nresize = "both"\nmean = "measured"\nstd = "measured"\n')
    (images / "dog" / "bad.png").write_bytes(b"")
    ran = hwnas_cli(
        "train", *FIX, "--data", "images", "--data-path", images, "--split", "50,25,25", "--data-options",
        tmp_path / "data.toml", "--skip-bad", "--steps", 1, "--batch-size", 4, "--out", "net",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    facts = read_facts(tmp_path / "net")
    assert facts.domain.in_channels == 1
    options = facts.data["options"]
    assert options["channels"] == 1 and options["split"] == [50, 25, 25] and options["skip"] == ["dog/bad.png"]
    assert isinstance(options["transform"]["mean"][0], float)

    evaluate = ("subnet", "eval", "--supernet", "net", "--calibration-images", 8, "--json")
    before = json.loads(hwnas_cli(*evaluate).out)
    images.rename(tmp_path / "elsewhere")
    assert "does not exist; add --data-path with their present folder" in refused(*evaluate)
    again = hwnas_cli(*evaluate, "--data-path", tmp_path / "elsewhere")
    assert json.loads(again.out) == before
    assert len(list((tmp_path / "net").glob("evaluated-*.jsonl"))) == 1

    space = facts.domain.make()
    (tmp_path / "arch.json").write_text(json.dumps({"arch": dict(space.smallest)}))
    moved = ("--data-path", tmp_path / "elsewhere")
    extract = ("subnet", "extract", "arch.json", "--supernet", "net", "--calibration-images", 8, "--out", "one")
    assert hwnas_cli(*extract, *moved).code == 0
    assert read_facts(tmp_path / "one").data["path"] == str(tmp_path / "elsewhere")  # found from here on
    (tmp_path / "elsewhere").rename(tmp_path / "third")
    ran = hwnas_cli(
        "subnet", "finetune", "--subnet", "one", "--epochs", 1, "--out", "tuned", "--data-path", tmp_path / "third"
    )
    assert ran.code == 0, ran.err
    assert read_facts(tmp_path / "tuned").data["options"] == options


def whole_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What older versions did: one fingerprint of all splits."""
    monkeypatch.setattr(Images, "split_fingerprint", lambda self, split: self.fingerprint())


def test_checkpoints_survive_a_changed_test_image_but_no_changed_training_image(tmp_path):
    root = drawn(tmp_path / "images", "RGB")
    how = DataOptions(split=(50, 25, 25), transform=Transform(resize="both"))
    config = TrainConfig(phases=[Phase(name="all", steps=3, learning_rate=0.1)], batch_size=4, checkpoint_every=1)

    def go(**more):
        train(
            "mobilenetv3-tiny", "images", tmp_path / "net", data_path=root, data_options=how, training=config,
            fix={"resolution": 24}, accelerator="cpu", **more,
        )  # fmt: skip

    def stop(what, done, total, **more):
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(progress=stop)
    assert (tmp_path / "net" / "checkpoint.safetensors").exists()
    name = Images(root, options=how).files("train")[0][0]
    kept = (root / name).read_bytes()
    (root / name).write_bytes(kept + b"more")
    with pytest.raises(CheckpointError, match="another data"):
        go()
    (root / name).write_bytes(kept)
    name = Images(root, options=how).files("test")[0][0]
    Image.new("RGB", (9, 9)).save(root / name)
    steps = []
    go(progress=lambda what, done, total, **more: steps.append(done))
    assert min(step for step in steps if step) > 1, "it went on"


def test_checkpoints_of_older_versions_are_used_and_journals_are_kept(hwnas_cli, monkeypatch, tmp_path):
    root = drawn(tmp_path / "images", "RGB")
    config = TrainConfig(phases=[Phase(name="all", steps=3, learning_rate=0.1)], batch_size=4, checkpoint_every=1)
    words = ("mobilenetv3-tiny", "images", tmp_path / "net")
    how = {"data_path": root, "data_options": DataOptions(split=(50, 25, 25)), "training": config, "accelerator": "cpu"}
    how["fix"] = {"resolution": 24}

    def stop(what, done, total, **more):
        if done >= 2:
            raise KeyboardInterrupt

    evaluate = ("subnet", "eval", "--supernet", "net", "--calibration-images", 8, "--json")
    with monkeypatch.context() as patched:
        whole_only(patched)
        with pytest.raises(KeyboardInterrupt):
            train(*words, progress=stop, **how)
    steps = []
    train(*words, progress=lambda what, done, total, **more: steps.append(done), **how)
    assert min(step for step in steps if step) > 1, "it went on"
    with monkeypatch.context() as patched:
        whole_only(patched)
        assert hwnas_cli(*evaluate).code == 0
    [journal] = (tmp_path / "net").glob("evaluated-*.jsonl")
    content = journal.read_bytes()
    assert hwnas_cli(*evaluate).code == 0  # on other images: samples of older versions were not stratified
    assert len(list((tmp_path / "net").glob("evaluated-*.jsonl"))) == 2
    assert journal.read_bytes() == content


def test_evaluations_survive_a_changed_test_image(hwnas_cli, tmp_path):
    root = drawn(tmp_path / "images", "RGB")
    ran = hwnas_cli(
        "train", *FIX, "--data", "images", "--data-path", root, "--split", "50,25,25", "--steps", 1, "--batch-size", 4,
        "--out", "net",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    evaluate = ("subnet", "eval", "--supernet", "net", "--calibration-images", 8, "--json")
    before = json.loads(hwnas_cli(*evaluate).out)
    Image.new("RGB", (9, 9)).save(root / Images(root, options=DataOptions(split=(50, 25, 25))).files("test")[0][0])
    assert json.loads(hwnas_cli(*evaluate).out) == before
    assert len(list((tmp_path / "net").glob("evaluated-*.jsonl"))) == 1
