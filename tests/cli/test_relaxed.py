"""`hwnas search` with differentiable strategies, on estimated latencies."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
from PIL import Image

from hwnas.cli import devices
from hwnas.data import ClutteredDigits
from hwnas.files import toml_text
from hwnas.spaces import make_space
from hwnas.spaces.nasbench201 import parse_nasbench201
from hwnas.supernet import Supernet, save_supernet
from hwnas.targets import catalog, describe, detect_host

ROOFLINE = "this/roofline-cpu-fp32"


@pytest.fixture
def peaks(tmp_path):
    """This host's file with peaks, as `hwnas devices detect --measure-peaks --save` writes it; these are made up."""
    device = describe(detect_host())
    known = device.hardware.model_copy(update={"peak_fp32_gflops": 100.0, "peak_memory_gb_per_s": 10.0})
    path = tmp_path / "home" / "devices" / f"{device.name}.toml"
    path.parent.mkdir(parents=True)
    path.write_text(toml_text(device.model_copy(update={"hardware": known})))
    return path


@pytest.fixture
def words(tmp_path, peaks):
    recipe = tmp_path / "search.toml"
    recipe.write_text("batch_size = 4\nwarmup = 0.0\nskip_guard = true\n")

    def command(*more, budget="50%"):
        return (
            "search", "--space", "nasbench201-tiny", "--data", "cluttered-digits", "--target", ROOFLINE,
            "--budget", budget, "--no-margin", "--out", tmp_path / "arch.json", "--training", recipe, *more,
        )  # fmt: skip

    return command


def test_search_train_and_evaluate(hwnas_cli, words, tmp_path):
    ran = hwnas_cli(*words("--strategy", "gdas", "--steps", 3, "--json"))
    assert ran.code == 0, ran
    answer = json.loads(ran.out)
    assert answer == json.loads((tmp_path / "arch.json").read_text())
    assert 0.95 * answer["budget_ms"] <= answer["predicted_ms"] <= answer["budget_ms"]
    space = make_space("nasbench201-tiny")
    assert dict(parse_nasbench201(space, answer["notation"])) == answer["arch"]
    assert answer["strategy"] == "gdas" and answer["steps"] == 3 and answer["ended"] is None
    ran = hwnas_cli(
        "train", "--space", "nasbench201-tiny", "--data", "cluttered-digits", "--arch", tmp_path / "arch.json",
        "--steps", 2, "--batch-size", 8, "--out", tmp_path / "net",
    )  # fmt: skip
    assert ran.code == 0, ran
    ran = hwnas_cli(
        "subnet", "eval", "--supernet", tmp_path / "net", "--images", 50, "--calibration-images", 20, "--json",
        tmp_path / "arch.json",
    )  # fmt: skip
    assert ran.code == 0, ran
    # Given again, it is finished already.
    again = hwnas_cli(*words("--strategy", "gdas", "--steps", 3))
    assert again.code == 0 and answer["notation"] in again.out and "1/3" not in again.err


def test_what_is_refused(refused, words, tmp_path):
    assert "use --space, or --init for those that it starts from, and --data" in refused(
        "search", "--strategy", "gdas", "--target", ROOFLINE, "--budget", "50%", "--out", tmp_path / "a.json"
    )
    assert "exact search needs --supernet" in refused(*words())
    assert "does not support" in refused(*words("--strategy", "darts", "--supernet", tmp_path))
    assert "gdas" in refused(*words("--strategy", "gads"))
    assert "penalty" in refused(*words("--strategy", "gdas", "--penalty", "cubic"))
    assert "The fastest is predicted at" in refused(*words("--strategy", "gdas", budget="0.0001ms"))
    assert "use one of: this/onnxruntime-cpu-fp32" in refused(*words("--strategy", "gdas", "--target", "this/*"))
    (tmp_path / "search.toml").write_text("batch_sise = 4\n")
    assert "batch_sise" in refused(*words("--strategy", "gdas"))
    (tmp_path / "search.toml").write_text("learning_rate = -1\n")
    assert "learning_rate" in refused(*words("--strategy", "gdas"))
    (tmp_path / "arch.json").mkdir()
    assert "is a folder" in refused(*words("--strategy", "gdas"))


def test_a_supernet_to_start_from(hwnas_cli, refused, peaks, tmp_path):
    """At one of its resolutions: `--fix` cuts none of its weights, and the arch is one of the supernet's."""
    digits, net, out = ClutteredDigits(), tmp_path / "net", tmp_path / "arch.json"
    supernet = Supernet(make_space("mobilenetv3-tiny"), seed=1)
    for folder, classes in ((net, digits.classes), (tmp_path / "letters", tuple("abcdefghij"))):
        save_supernet(supernet, folder, data={"name": digits.name}, classes=classes, training={})
    start = (
        "search", "--strategy", "gdas", "--init", net, "--target", ROOFLINE, "--budget", "50%", "--no-margin",
        "--steps", 1, "--accelerator", "cpu", "--out", out,
    )  # fmt: skip
    digits_at_24 = ("--data", "cluttered-digits", "--fix", "resolution=24")
    ran = hwnas_cli(*start, *digits_at_24)
    assert ran.code == 0, ran
    assert json.loads(out.read_text())["arch"]["resolution"] == 24
    [told] = [line for line in ran.out.splitlines() if line.startswith("Extract it with: ")]
    extracted = hwnas_cli(*shlex.split(told)[4:-1], tmp_path / "subnet")
    assert extracted.code == 0, (told, extracted)
    assert "kernel_1_1 would cut the weights of" in refused(*start, *digits_at_24, "--fix", "kernel_1_1=3")
    message = refused(*start, "--init", tmp_path / "letters", *digits_at_24)
    assert "letters tells a, b, c" in message and "hwnas supernet adapt" in message
    for verb in (start, ("train", "--init", net, "--out", tmp_path / "other")):
        assert "belong to --space" in refused(*verb, "--data", "cluttered-digits", "--width", "0.5")


@pytest.mark.long
def test_other_seeds_do_not_go_on_with_a_search(hwnas_cli, refused, words):
    assert hwnas_cli(*words("--strategy", "proxyless", "--steps", 1)).code == 0
    assert "seed" in refused(*words("--strategy", "proxyless", "--steps", 1, "--seed", 2))
    assert hwnas_cli(*words("--strategy", "proxyless", "--steps", 1, "--seed", 2, "--no-resume")).code == 0


def test_the_training_that_is_suggested_names_the_images(hwnas_cli, words, tmp_path):
    images = tmp_path / "my images"
    for split in ("train", "val"):
        for name in ("a", "b"):
            (images / split / name).mkdir(parents=True)
            for i in range(4):
                Image.new("L", (32, 32), 60 * i).save(images / split / name / f"{i}.png")
    ran = hwnas_cli(*words("--strategy", "gdas", "--steps", 1, "--data", "images", "--data-path", images))
    assert ran.code == 0, ran
    [told] = [line for line in ran.out.splitlines() if line.startswith("Train it with: ")]
    trained = hwnas_cli(*shlex.split(told)[4:-1], tmp_path / "net", "--steps", 1, "--batch-size", 4)
    assert trained.code == 0, (told, trained)


def test_a_host_without_peaks_is_told_how_to_measure_them(hwnas_cli, refused, words, monkeypatch):
    """As every machine is at first, but for the shipped device."""
    from hwnas.timing import peaks as measuring

    host = replace(detect_host(), cpu_name="Test CPU 9", family=None, model=None)
    for module in (catalog, devices):
        monkeypatch.setattr(module, "detect_host", lambda: host)
    message = refused(*words("--strategy", "gdas", "--steps", 1))
    assert "has no peak_fp32_gflops and peak_memory_gb_per_s" in message
    assert "`hwnas devices detect --measure-peaks --save`" in message
    monkeypatch.setattr(measuring, "_LEAST_S", 0.0)
    monkeypatch.setattr(measuring, "_WIDTHS", (128,))
    assert hwnas_cli("devices", "detect", "--save").code == 0
    ran = hwnas_cli("devices", "detect", "--measure-peaks", "--save")
    assert ran.code == 0, ran
    assert "measuring peaks: 2/2" in ran.err
    ran = hwnas_cli(*words("--strategy", "gdas", "--steps", 1))
    assert ran.code == 0, ran
