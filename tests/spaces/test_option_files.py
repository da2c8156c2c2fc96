"""Spaces in TOML and Python files, and stored files that reproduce spaces with options exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import InvalidValue, PluginError, SpecError, UnknownName
from hwnas.spaces import Domain, Space, make_space, space_name


def content(space: Space) -> list[object]:
    """All that distinguishes a space, but its name."""
    return [
        (space.classes, space.in_channels, space.bn_eps, space.shares_weights),
        [(v.name, v.values, v.matters) for v in space.variables],
        [(s.name, s.group, s.variables, s.needed_by) for s in space.slots],
        [op.key for op in space.distinct_ops],
    ]


# -- files -------------------------------------------------------------------------------------------------------

FILE = """
schema = 1
base = "mobilenetv3-small"
resolution = "64:96:16"
width = 0.5
kernels = [3, 5]

[[stages]]
width = 24
depths = [1, 2]
stride = 2
act = "relu"

[[stages]]
width = 48
depths = 2
stride = 2
act = "hswish"
se = true
"""
OF_FILE = "mobilenetv3-small+resolution=64,80,96+width=0.5+stages=24x1.2-s2-relu,48x2-s2-hswish-se"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "solar.toml"
    path.write_text(FILE)
    return path


def test_a_space_in_a_file_is_named_by_its_content(file: Path) -> None:
    space = make_space(str(file))
    assert space.name == OF_FILE
    file.unlink()
    assert content(make_space(space.name)) == content(space)


def test_options_beside_a_file_take_precedence(file: Path) -> None:
    assert space_name(f"{file}+width=1", {"resolution": 64}) == OF_FILE.replace("64,80,96+width=0.5", "64")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "width = 0.5",
            "widths = 0.5",
            r"solar.toml: unknown key 'widths'; did you mean 'width'\? allowed at the top level",
        ),
        (
            "width = 24",
            "width = 20",
            r"solar.toml: stages\[0\].width is 20; a width must be a multiple of 8: use 16 or 24",
        ),
        ('act = "relu"', 'act = "rely"', r"stages\[0\].act is 'rely'; it should be 'relu', 'relu6' or 'hswish'"),
        ("depths = 2\n", "depths = 9\n", r"stages\[1\].depths is 9; a stage has 1 to 8 blocks"),
        ("stride = 2\nact", "act", r"stages\[0\].stride is missing; allowed in \[stages"),
        (
            '"64:96:16"',
            '"64:100:16"',
            "resolution is '64:100:16'; steps of 16 from 64 do not reach 100; use 64:96:16 or",
        ),
        ('"64:96:16"', "[64, 64]", "64 occurs twice"),
        ("[3, 5]", "[3, 4]", r"kernels is \[3, 4\]; kernels must be odd"),
        ("schema = 1", "schema = 2", "schema is 2; it should be 1"),
    ],
)
def test_mistakes_in_a_file(file: Path, before: str, after: str, message: str) -> None:
    file.write_text(FILE.replace(before, after, 1))
    with pytest.raises(SpecError, match=message):
        make_space(str(file))


def test_a_file_does_not_fit_its_base(file: Path) -> None:
    file.write_text('schema = 1\nbase = "mobilenetv3"\nresolution = 24\n')
    with pytest.raises(
        InvalidValue, match=r"solar.toml: resolution 24 is too small: .* divide .* by 32; use 32 or more"
    ):
        make_space(str(file))
    file.write_text('schema = 1\nbase = "other.toml"\n')
    with pytest.raises(InvalidValue, match=r"base is 'other\.toml', a file; it should be the name of a space"):
        make_space(str(file))
    with pytest.raises(SpecError, match=r"cannot read .*missing\.toml"):
        make_space(str(file.with_name("missing.toml")))


def test_recorded_names_open_no_file(file: Path, tmp_path: Path) -> None:
    domain = {"space": str(file), "in_channels": 3, "classes": 2}
    with pytest.raises(UnknownName, match="unknown space"):
        Domain.model_validate(domain).make()
    own = tmp_path / "own.py"
    own.write_text("raise SystemExit('this must not run')\n")
    with pytest.raises(PluginError, match="you did not name its file yourself"):
        Domain.model_validate(domain | {"space": f"{own}:SPACE+width=0.5"}).make()


def test_a_family_in_a_python_file_has_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from dataclasses import replace\nfrom hwnas.spaces import SPACES\n"
        "NARROW = replace(SPACES['mobilenetv3-tiny'], name='narrow', stem=8)\n"
        "class Plain:\n    in_channels = 1\n    classes = 2\n    def space(self, **how):\n"
        "        return SPACES['mobilenetv3-tiny'].space(**how)\nPLAIN = Plain()\n"
    )
    monkeypatch.chdir(tmp_path)
    space = make_space("own.py:NARROW", options={"resolution": 40})
    assert space.name == f"{own}:NARROW+resolution=40"
    assert Domain.of(space).make().distinct_ops == space.distinct_ops
    with pytest.raises(UnknownName, match=r"unknown option of the space own.py:PLAIN: 'width'. Known: none"):
        make_space("own.py:PLAIN+width=0.5")


# -- stored files ------------------------------------------------------------------------------------------------

TINY = "mobilenetv3-tiny+resolution=40,48+width=0.5+kernels=3+expansions=2,3+stages=16x1.2-s2-relu,24x1-s2-hswish-se"


@pytest.fixture(scope="module")
def tiny() -> Space:
    return make_space(TINY, in_channels=3, classes=2).fix(resolution=40, expansion_1_1=2)


def test_a_supernets_folder_makes_its_space_again(tiny: Space, tmp_path: Path) -> None:
    import torch

    from hwnas.supernet import Supernet, load_supernet, save_supernet

    supernet = Supernet(tiny, seed=1).eval()
    save_supernet(supernet, tmp_path, data={"name": None}, classes=("a", "b"), training={})
    again, facts = load_supernet(tmp_path)
    assert facts.domain.space == TINY
    assert (again.space.name, content(again.space)) == (TINY, content(tiny))
    x = torch.ones(1, *tiny.input_shape(tiny.largest))
    with torch.no_grad():
        assert torch.equal(again(x, tiny.largest), supernet(x, tiny.largest))


def test_a_tables_manifest_makes_its_space_again(tiny: Space, elsewhere, tmp_path: Path) -> None:
    from hwnas import workflows
    from hwnas.latency import load_model, read_table
    from hwnas.latency.table import profile_command
    from hwnas.machines import SimulatedMachine

    machine = SimulatedMachine(lambda op: 0.01 + op.macs / 1e8)
    workflows.profile(tiny, elsewhere, tables=tmp_path, networks=4, bound_networks=0, machine=machine)
    table = read_table(elsewhere, tmp_path / f"{elsewhere.name}.csv")
    [fit] = table.manifest.fits
    assert (fit.domain.make().name, content(fit.domain.make())) == (TINY, content(tiny))
    model = load_model(table, fit.domain.make())
    codes = tiny.sample(5, seed=0)
    assert np.array_equal(model.predict(codes), load_model(table, tiny).predict(codes))
    assert f"--space {TINY} " in profile_command(tiny, elsewhere)


def test_an_arch_file_makes_its_space_again(tiny: Space, tmp_path: Path) -> None:
    from hwnas.workflows import ArchFile
    from hwnas.workflows.arch_files import read_arch

    arch = tiny.largest
    path = tmp_path / "arch.json"
    found = ArchFile(space=tiny.name, arch=dict(arch), budgets={}, predicted={}, strategy="exact")
    path.write_text(json.dumps(found.document()))
    again = make_space(json.loads(path.read_text())["space"], in_channels=3, classes=2)
    values, *_ = read_arch(path)
    assert again.arch(values) == arch
    assert [op.key for _, op in again.ops(arch)] == [op.key for _, op in tiny.ops(arch)]


def test_a_study_makes_its_space_again(tmp_path: Path) -> None:
    from hwnas import workflows
    from hwnas.supernet import load_supernet

    def study(name: str, trials: int):
        return workflows.study(
            name,
            "cluttered-digits",
            tmp_path,
            fix={"resolution": 40},
            budget=["macs=100000000"],
            trials=trials,
            steps=1,
            epochs=1,
            images=20,
            confidence=None,
            accelerator="cpu",
        )

    assert study(TINY, 1).space == TINY
    network, facts = load_supernet(tmp_path)
    arch = json.loads((tmp_path / "arch.json").read_text())
    assert {network.space.name, facts.domain.space, arch["space"]} == {TINY}
    again = make_space(arch["space"], in_channels=1)
    assert again.arch(arch["arch"])["resolution"] == 40
    with pytest.raises(InvalidValue, match=r"space is mobilenetv3-tiny\+.*width=0\.5.* there, .*width=0\.75"):
        study(TINY.replace("0.5", "0.75"), 2)
