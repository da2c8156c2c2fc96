"""`hwnas train`: what it writes, goes on from, and refuses."""

from __future__ import annotations

import json

import pytest
import torch

from hwnas.cli.renamed import renamed
from hwnas.files import only_one
from hwnas.spaces import make_space
from hwnas.supernet import Supernet, load_supernet, save_supernet
from hwnas.training.checkpoint import CHECKPOINT

RECIPE = "batch_size = 8\n[[phases]]\nname = 'all'\nsteps = 2\nlearning_rate = 0.01\n"


@pytest.fixture
def words(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    words = [
        "train",
        "--space",
        "mobilenetv3-tiny",
        "--data",
        "cluttered-digits",
        "--training",
        tmp_path / "recipe.toml",
    ]
    return [*words, "--accelerator", "cpu", "--out", tmp_path / "net"]


def test_resuming_is_for_the_same_training(words, hwnas_cli, refused, tmp_path):
    assert hwnas_cli(*words, "--json").code == 0
    once = load_supernet(tmp_path / "net")[1]
    assert 'precision (there "32-true", now "bf16-mixed")' in refused(*words, "--precision", "bf16-mixed")
    assert "was written with other settings: another phases" in refused(*words, "--steps", 3)
    assert "holds no supernet" in refused(*words, "--steps", 3, "--no-resume", "--teacher", tmp_path / "none")
    assert (tmp_path / "net" / CHECKPOINT).exists()
    ran = hwnas_cli(*words, "--steps", 3, "--no-resume", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["steps"] == 3
    facts = load_supernet(tmp_path / "net")[1]
    assert facts.weights_sha256 != once.weights_sha256
    assert (facts.training["precision"], facts.training["processes"]) == ("32-true", 1)


def test_mixed_precision_trains_weights_of_single_precision(words, hwnas_cli, tmp_path):
    assert hwnas_cli(*words).code == 0
    single, _ = load_supernet(tmp_path / "net")
    ran = hwnas_cli(*words[:-1], tmp_path / "mixed", "--precision", "bf16-mixed")
    assert ran.code == 0, ran.err
    mixed, facts = load_supernet(tmp_path / "mixed")
    assert facts.training["precision"] == "bf16-mixed"
    differences = [(a - b).abs().max() for a, b in zip(single.parameters(), mixed.parameters(), strict=True)]
    assert all(p.dtype == torch.float32 for p in mixed.parameters())
    assert 0 < max(differences) < 0.05


def teacher(folder, *, classes="0123456789", **fix):
    space = make_space("mobilenetv3-tiny", classes=len(classes)).fix(**fix)
    data = {"name": "cluttered-digits", "path": None}
    save_supernet(Supernet(space, seed=5), folder, data=data, classes=tuple(classes), training={})
    return folder


def test_a_teacher_is_another_supernets_largest_network(words, hwnas_cli, tmp_path):
    assert hwnas_cli(*words).code == 0
    folder = teacher(tmp_path / "teacher")
    ran = hwnas_cli(*words[:-1], tmp_path / "taught", "--teacher", folder)
    assert ran.code == 0, ran.err
    (alone, _), (taught, facts) = (load_supernet(tmp_path / name) for name in ("net", "taught"))
    assert facts.training["teacher"] == load_supernet(folder)[1].weights_sha256
    pairs = zip(alone.parameters(), taught.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)
    again = hwnas_cli(*words[:-1], tmp_path / "taught", "--teacher", folder)
    assert again.code == 0, again.err


def test_a_teacher_of_other_data_is_refused(words, refused, tmp_path):
    other = teacher(tmp_path / "letters", classes="abcdefghij")
    assert (
        "takes images of 1 channel and has the classes a, b, c, d, e, f, g, h, i, j; cluttered-digits has images of 1 "
        "channel and 0, 1" in refused(*words, "--teacher", other)
    )
    small = teacher(tmp_path / "small", resolution=24)
    assert "was trained with the resolution 24; this training loads its data with 32" in refused(
        *words, "--teacher", small
    )


def test_one_training_at_a_time_works_in_a_folder(words, refused, tmp_path):
    with only_one(tmp_path / "net" / ".lock", "it"):
        assert "another hwnas process is working on" in refused(*words)


def test_a_folder_with_another_supernet_is_left_alone(words, refused, tmp_path):
    folder = teacher(tmp_path / "net")
    before = (folder / "supernet.safetensors").read_bytes()
    assert "already contains a supernet" in refused(*words)
    assert (folder / "supernet.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("batch_size = 100_000_000", "batch_size is 100000000; it should be"),
        ("clip_norm = inf", "clip_norm is inf; it should be a finite number"),
        ("weight_decay = 1e300", "weight_decay is 1e+300; it should be"),
        ("[augmentation]\nmixup = 1e308", "augmentation.mixup is 1e+308; it should be"),
        ("clip_norm = -1", "clip_norm is -1; it should be"),
    ],
)
def test_numbers_that_no_training_survives(wrong, named, words, refused, tmp_path):
    (tmp_path / "recipe.toml").write_text(f"{wrong}\n[[phases]]\nname = 'all'\nsteps = 2\nlearning_rate = 0.01\n")
    assert named in refused(*words)


@pytest.mark.parametrize("words", [["--recipe", "none.toml"], ["--recipe=none.toml"]])
def test_the_option_has_its_earlier_name_too(refused, tmp_path, words):
    assert "none.toml" in refused(
        "train", *words, "--space", "mobilenetv3-tiny", "--data", "cluttered-digits", "--out", tmp_path / "net"
    )


def test_a_recipe_of_deployment_keeps_its_name():
    assert renamed(["deploy", "sweep", "--recipe", "x"]) == ["deploy", "sweep", "--recipe", "x"]
    assert renamed(["subnet", "finetune", "--recipe", "--recipe=x"]) == [
        "subnet",
        "finetune",
        "--training",
        "--training=x",
    ]
