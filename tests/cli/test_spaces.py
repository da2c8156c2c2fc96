"""`hwnas spaces`, and options of spaces on every verb that takes --space."""

from __future__ import annotations

import json

import pytest

from hwnas.spaces import SPACES, make_space

NAME = "mobilenetv3-small+resolution=64,80,96+width=0.5"
OPTIONS = ("--resolution", "96,64,80", "--width", "0.5")


@pytest.fixture
def shown(hwnas_cli):
    """A function that runs `hwnas spaces` and returns what it prints."""

    def run(*words):
        ran = hwnas_cli("spaces", *words)
        assert ran.code == 0, ran.err
        return ran.out

    return run


def test_list_names_every_space_with_its_options(shown):
    lines = shown("list").splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(SPACES)
    found = json.loads(shown("list", "--json"))
    assert found["schema"] == 1
    by_name = {space["space"]: space for space in found["spaces"]}
    assert by_name["mobilenetv3-small"]["resolution"] == [48, 128]
    assert by_name["resnet50"]["options"] == ["resolution", "width", "expansions", "aspect"]


def test_show_has_the_figures_of_the_smallest_and_the_largest(shown):
    found = json.loads(shown("show", "mobilenetv3-small", *OPTIONS, "--json"))
    space = make_space(NAME)
    assert (found["space"], found["networks"], found["resolution"]) == (NAME, space.size, [64, 96])
    assert found["variables"] == space.choices
    assert (found["options"]["width"], found["options"]["kernels"]) == (0.5, [3, 5])
    for which, arch in (("smallest", space.smallest), ("largest", space.largest)):
        [code] = [space.encode([arch])]
        sizes = {"macs": int(space.macs(code)[0]), "params": int(space.params(code)[0])}
        assert found[which] == {"resolution": arch["resolution"], **sizes}
    text = shown("show", NAME)
    assert text.startswith(f"{NAME}: 4.79e+11 networks; images of 3 channels, 10 classes")
    assert "25.28 million MACs at 96 pixels, 0.5903 million parameters" in text
    assert "kernel_1_1 to kernel_4_4 (14 variables): 3,5" in text
    assert "2 classes" in shown("show", NAME, "--classes", "2")


def test_show_of_images_that_are_not_square(shown):
    name = "mobilenetv3-small+resolution=32,48+aspect=4:1"
    text = shown("show", "mobilenetv3-small", "--resolution", "32,48", "--aspect", "8:2")
    assert text == shown("show", name)
    assert text.startswith(f"{name}: ")
    assert "million MACs at 32 x 128 pixels (height x width), " in text
    assert "million MACs at 48 x 192 pixels (height x width), " in text
    found = json.loads(shown("show", name, "--json"))
    assert (found["aspect"], found["options"]["aspect"], found["resolution"]) == ("4:1", "4:1", [32, 48])


@pytest.mark.parametrize("name", ["mobilenetv3-small", "resnet50", "darts-tiny"])
def test_the_printed_file_is_the_space(shown, tmp_path, name):
    (tmp_path / "own.toml").write_text(shown("show", name, "--toml"))
    assert shown("show", "own.toml", "--json") == shown("show", name, "--json")
    changed = shown("show", "own.toml", "--width", "0.5", "--toml")
    (tmp_path / "half.toml").write_text(changed)
    assert json.loads(shown("show", "half.toml", "--json"))["space"] == f"{name}+width=0.5"


def test_mistakes(refused):
    assert "unknown space 'mobilenetv3-smal'. Did you mean 'mobilenetv3-small'?" in refused(
        "spaces", "show", "mobilenetv3-smal"
    )
    assert "use 16 or more" in refused("spaces", "show", "mobilenetv3-small", "--resolution", "8")
    assert "unknown option of the space darts: 'kernels'. Known: resolution, width" in refused(
        "spaces", "show", "darts", "--kernel-sizes", "3"
    )
    assert "use resolutions that are multiples of 9, such as resolution=45,54" in refused(
        "spaces", "show", "mobilenetv3-small", "--aspect", "16:9"
    )
    assert "aspect of a space is '0:1'; write width:height" in refused(
        "spaces", "show", "mobilenetv3-small", "--aspect", "0:1"
    )
    assert "cannot read own.toml" in refused("spaces", "show", "own.toml")


VERBS = {
    "profile": ("--target", "this/onnxruntime-cpu-fp32"),
    "validate": ("--target", "this/onnxruntime-cpu-fp32"),
    "train": ("--data", "cluttered-digits", "--out", "supernet"),
    "study": (
        "--data",
        "cluttered-digits",
        "--out",
        "study",
        "--budget",
        "50%",
        "--target",
        "this/onnxruntime-cpu-fp32",
    ),
    "search": (
        *("--strategy", "gdas", "--data", "cluttered-digits", "--out", "arch.json", "--budget", "50%"),
        *("--target", "this/onnxruntime-cpu-fp32"),
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_options(verb, refused, tmp_path):
    """Its message about a value that the space lacks names the space."""
    more = (*VERBS[verb], "--fix", "resolution=48")
    message = "resolution of {} cannot be 48; choose from 64, 80, 96"
    assert message.format(NAME) in refused(verb, "--space", "mobilenetv3-small", *OPTIONS, *more)
    name = f"{NAME}+kernels=3+expansions=3,6+aspect=2:1"
    kernels = ("--kernel-sizes", "3", "--expansions", "3,6", "--aspect", "2:1")
    assert message.format(name) in refused(verb, "--space", NAME, *kernels, *more)
    (tmp_path / "own.toml").write_text('schema = 1\nbase = "mobilenetv3-small"\nresolution = "64:96:16"\nwidth = 0.5\n')
    assert message.format(NAME) in refused(verb, "--space", "own.toml", *more)


def test_options_need_a_space(refused):
    message = refused("search", "--supernet", "s", "--width", "0.5", "--budget", "50%", "--out", "arch.json")
    assert "--space, --init and --data with their options" in message
