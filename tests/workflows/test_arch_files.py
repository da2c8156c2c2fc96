"""An arch is read from every file of hwnas that has one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.errors import InvalidValue, SpecError
from hwnas.spaces import make_space
from hwnas.workflows.arch_files import ArchInFile, _differs, arch_of, chosen_arch, read_arch

COMPAT = Path(__file__).parents[1] / "data" / "compat"
A, B = "board/onnxruntime-cpu-fp32", "board/onnxruntime-cpu-int8"


@pytest.fixture
def report(tmp_path):
    """A function that writes a report with these targets, each with its own arch and budget."""

    def write(*targets):
        path = tmp_path / "report.json"
        answers = {name: {"arch": {"resolution": 24 + i}, "budget_ms": 1.5 + i} for i, name in enumerate(targets)}
        path.write_text(json.dumps({"schema": 1, "targets": answers}))
        return path

    return write


def test_the_manifest_of_a_bundle():
    path = COMPAT / "bundle" / "manifest.json"
    document = json.loads(path.read_text())
    assert read_arch(path)[:2] == (document["arch"], document["budget_ms"])


def test_the_report_of_a_compilation():
    path = COMPAT / "job" / "report.json"
    [(name, answer)] = json.loads(path.read_text())["targets"].items()
    for place in (path, f"{path}:{name}"):
        assert arch_of(place) == (answer["arch"], answer["budget_ms"])


def test_a_report_with_several_targets(report):
    path = report(A, B)
    assert arch_of(f"{path}:{B}") == ({"resolution": 25}, 2.5)
    assert arch_of(path, A) == ({"resolution": 24}, 1.5)
    assert arch_of(f"{path}:{B}", A) == ({"resolution": 25}, 2.5)
    for target in (None, "board/torch-cpu-fp32"):
        with pytest.raises(SpecError, match=f"it has 2 targets; name one: .*report.json:{A} or .*report.json:{B}"):
            arch_of(path, target)
    with pytest.raises(SpecError, match="it has no target 'other/recipe'; name one: "):
        arch_of(f"{path}:other/recipe")


def test_a_report_with_one_target_needs_no_name(report):
    assert arch_of(report(A), B) == ({"resolution": 24}, 1.5)
    with pytest.raises(SpecError, match=f"it has no target '{B}'"):
        arch_of(f"{report(A)}:{B}")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"schema": 1, "targets": {}}, "it has no targets"),
        ({"schema": 1, "targets": {A: [1]}}, "it has no key"),
        ({"schema": 2, "targets": {A: {"arch": {}}}}, "its schema is 2; this version of hwnas reads 1"),
        ({"schema": 3, "manifest_sha256": "", "arch": {}}, "its schema is 3; this version of hwnas reads 2"),
    ],
)
def test_files_without_an_arch(document, message, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document))
    with pytest.raises(SpecError, match=message):
        read_arch(path)


def test_a_target_of_a_file_without_targets(tmp_path):
    path = tmp_path / "arch.json"
    path.write_text('{"arch": {"resolution": 24}}')
    with pytest.raises(SpecError, match=f"it has no targets, so '{A}' cannot be one of them; leave :{A} out"):
        arch_of(f"{path}:{A}")


def test_an_arch_of_another_space_is_refused(tmp_path: Path) -> None:
    """The same values would be another network, without a word."""
    space = make_space("mobilenetv3-tiny")
    path = tmp_path / "arch.json"
    for name in (space.name, None):
        path.write_text(json.dumps({"arch": dict(space.smallest), **({"space": name} if name else {})}))
        assert chosen_arch(space, path) == (space.smallest, None)
    path.write_text(json.dumps({"arch": dict(space.smallest), "space": "mobilenetv3-tiny+width=0.5"}))
    with pytest.raises(
        InvalidValue, match=r"of the space mobilenetv3-tiny\+width=0.5, but the supernet is of mobilenetv3"
    ):
        chosen_arch(space, path)
    # What a space leaves to choose does not change what the values mean.
    smaller = make_space("mobilenetv3-tiny+resolution=24")
    path.write_text(json.dumps({"arch": dict(smaller.largest), "domain": {"space": smaller.name}}))
    wider = make_space("mobilenetv3-tiny+resolution=24,32")
    assert chosen_arch(wider, path)[0] == wider.arch(dict(smaller.largest))
    # A file of a space may be in another folder; a traced network of another hash has other widths.
    for theirs, ours, differs in (
        ("/a/my.py:FAMILY", "/b/my.py:FAMILY", False),
        ("/me@lab/a.py:X", "/me@lab/b.py:Y", True),
        ("net@0123456789ab", "net@ba9876543210", True),
    ):
        found = ArchInFile(dict(space.smallest), None, theirs)
        assert _differs(found, replace(space, name=ours)) is differs


def test_the_folder_of_a_bundle_is_not_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(SpecError, match=r"is a folder; the architecture of the bundle in it is in .*manifest\.json"):
        read_arch(tmp_path)
