"""`hwnas supernet import` and `hwnas subnet`: what they write and say."""

from __future__ import annotations

import json
import re

import pytest
import torch

from hwnas.data import ClutteredDigits
from hwnas.spaces import make_space
from hwnas.supernet import Supernet, load_supernet, save_supernet
from hwnas.supernet.once_for_all import PUBLISHED

FAMILIES = ("mobilenetv3", "proxyless-w1.3")  # resnet50 takes 10 s
SPACE = make_space("mobilenetv3-tiny").fix(resolution=24)


@pytest.fixture
def supernet(tmp_path):
    """A folder with a supernet that was never trained: nothing here depends on how good it is."""
    data = {"name": "cluttered-digits", "path": None}
    save_supernet(Supernet(SPACE), tmp_path / "net", data=data, classes=tuple("0123456789"), training={})
    return tmp_path / "net"


@pytest.fixture
def arch_file(tmp_path):
    """A file of the form that `hwnas search` writes."""
    [arch] = SPACE.decode(SPACE.sample(1, seed=5))
    (tmp_path / "arch.json").write_text(json.dumps({"arch": dict(arch), "budget_ms": 1.0}))
    return tmp_path / "arch.json"


@pytest.mark.parametrize(
    ("name", "zipped"),
    [
        # A space of each family; the others differ in widths.
        *(pytest.param(name, True, marks=[] if name in FAMILIES else [pytest.mark.long]) for name in PUBLISHED),
        pytest.param("mobilenetv3", False, marks=pytest.mark.long),
    ],
)
def test_a_published_supernet_keeps_every_bit(name, zipped, hwnas_cli, tmp_path):
    state = Supernet(make_space(name), seed=3).state_dict()
    # The published layer before MobileNetV3's classifier is a 1x1 convolution.
    published = {PUBLISHED[name](key): t[..., None, None] if ".hidden." in key else t for key, t in state.items()}
    # Before torch 1.6 files were no zip archives.
    torch.save({"state_dict": published}, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    ran = hwnas_cli("supernet", "import", tmp_path / "file", "--format", "ofa", "--out", tmp_path / "net", "--json")
    assert ran.code == 0, ran.err
    expected = {"schema": 1, "space": name, "tensors": len(state), "supernet": str(tmp_path / "net")}
    assert json.loads(ran.out) == expected
    loaded, facts = load_supernet(tmp_path / "net")
    assert facts.training["imported"] == "ofa"
    found = loaded.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())


def test_an_imported_supernet_has_no_images_yet(hwnas_cli, refused, tmp_path):
    torch.save({"state_dict": published_tiny()}, tmp_path / "file")
    assert hwnas_cli("supernet", "import", tmp_path / "file", "--out", tmp_path / "net").code == 0
    assert "import it again with the option --data-path" in refused("subnet", "eval", "--supernet", tmp_path / "net")


def published_tiny():
    """The smallest of the published families."""
    return {
        PUBLISHED["proxyless-w1.3"](key): t for key, t in Supernet(make_space("proxyless-w1.3")).state_dict().items()
    }


def test_an_extracted_subnet_is_a_supernet_of_one_network(supernet, arch_file, hwnas_cli, refused, tmp_path):
    extract = ("subnet", "extract", arch_file, "--supernet", supernet, "--calibration-images", 250)
    ran = hwnas_cli(*extract, "--out", tmp_path / "sub", "--json")
    assert ran.code == 0, ran.err
    answer = json.loads(ran.out)
    subnet, facts = load_supernet(tmp_path / "sub")
    assert subnet.space.size == 1
    assert answer["params"] == sum(p.numel() for p in subnet.parameters())
    assert facts.training["extracted_from"] == load_supernet(supernet)[1].weights_sha256
    inherited = ("--images", 500, "--calibration-images", 250, "--json")
    whole = json.loads(hwnas_cli("subnet", "eval", "--supernet", supernet, arch_file, *inherited).out)
    alone = json.loads(hwnas_cli("subnet", "eval", "--supernet", tmp_path / "sub", arch_file, *inherited).out)
    assert [found["validation_accuracy"] for found in whole] == [found["validation_accuracy"] for found in alone]
    assert "is not among" in refused(
        "subnet", "extract", other_arch(tmp_path), "--supernet", tmp_path / "sub", "--out", "x"
    )
    for taken in (tmp_path / "sub", supernet):
        assert "already contains a supernet" in refused(*extract, "--out", taken)
    one = hwnas_cli("subnet", "eval", "--supernet", tmp_path / "sub", "--images", 500, "--calibration-images", 250)
    line, figures = one.out.splitlines()
    assert line.split(maxsplit=1)[1] == "the only network"
    assert re.search(r"% on 500 images \(95% interval .*\); '3' for every image: 12.40%; lowest recall", figures)


def other_arch(folder):
    """An arch that the extracted subnet does not hold."""
    (folder / "other.json").write_text(json.dumps({"arch": dict(SPACE.largest)}))
    return folder / "other.json"


def test_what_was_evaluated_is_kept(supernet, hwnas_cli):
    words = ("subnet", "eval", "--supernet", supernet, "--random", 3, "--images", 250, "--calibration-images", 250)
    first = hwnas_cli(*words)
    assert first.code == 0, first.err
    assert "evaluating subnets: 3/3" in first.err
    assert [line[:8].isspace() for line in first.out.splitlines()] == 3 * [False, True]  # networks and their figures
    again = hwnas_cli(*words)
    assert again.out == first.out
    assert "evaluating subnets: 0/3" not in again.err
    # Another way to evaluate does not put this one's record aside.
    other = ("subnet", "eval", "--supernet", supernet, "--images", 300, "--calibration-images", 250)
    assert hwnas_cli(*other).code == 0
    assert "evaluating subnets: 0/3" not in hwnas_cli(*words).err
    corners = hwnas_cli("subnet", "eval", "--supernet", supernet, "--images", 250, "--calibration-images", 250)
    assert [line.split()[1] for line in corners.out.splitlines()[::2]] == ["smallest", "largest"]


def test_fine_tuning_goes_on_from_the_extracted_weights(supernet, arch_file, hwnas_cli, refused, tmp_path):
    (tmp_path / "recipe.toml").write_text("batch_size = 8\n[[phases]]\nname = 'f'\nsteps = 2\nlearning_rate = 1e-6\n")
    extract = ("subnet", "extract", arch_file, "--supernet", supernet, "--calibration-images", 250)
    assert hwnas_cli(*extract, "--out", tmp_path / "sub").code == 0
    finetune = ("subnet", "finetune", "--subnet", tmp_path / "sub", "--training", tmp_path / "recipe.toml")
    ran = hwnas_cli(*finetune, "--accelerator", "cpu", "--out", tmp_path / "tuned")
    assert ran.code == 0, ran.err
    assert "already contains a supernet" in refused(*finetune, "--accelerator", "cpu", "--out", tmp_path / "sub")
    (_, given), (_, facts) = (load_supernet(tmp_path / name) for name in ("sub", "tuned"))
    assert facts.training["started_from"] == {"weights_sha256": given.weights_sha256, "training": given.training}
    before, after = (dict(load_supernet(tmp_path / name)[0].named_parameters()) for name in ("sub", "tuned"))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_epochs_are_passes_over_the_training_images(supernet, arch_file, hwnas_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(ClutteredDigits, "size", lambda self, split: 20)
    (tmp_path / "recipe.toml").write_text("batch_size = 8\n[[phases]]\nname = 'f'\nsteps = 9\nlearning_rate = 1e-6\n")
    extract = ("subnet", "extract", arch_file, "--supernet", supernet, "--calibration-images", 250)
    assert hwnas_cli(*extract, "--out", tmp_path / "sub").code == 0
    finetune = (
        "subnet",
        "finetune",
        "--subnet",
        tmp_path / "sub",
        "--training",
        tmp_path / "recipe.toml",
        "--epochs",
        1,
    )
    ran = hwnas_cli(*finetune, "--accelerator", "cpu", "--out", tmp_path / "tuned", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["steps"] == 3
