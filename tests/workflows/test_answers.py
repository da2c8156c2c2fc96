"""Answers as JSON, and architectures as files: what is written, and which files are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwnas.errors import SpecError
from hwnas.workflows import ArchFile, NetworkAnswer, RelaxedAnswer, StudyAnswer, TrainAnswer
from hwnas.workflows.arch_files import arch_of, read_arch
from hwnas.workflows.networks import write_arch

COMPAT = Path(__file__).parents[1] / "data" / "compat"
OLD = {
    "archs/exact.json": NetworkAnswer,
    "archs/two-budgets.json": NetworkAnswer,
    "archs/recipes.json": NetworkAnswer,
    "archs/imported.json": NetworkAnswer,
    "archs/relaxed.json": RelaxedAnswer,
    "archs/relaxed-cells.json": RelaxedAnswer,
    "study/arch.json": StudyAnswer,
}


@pytest.mark.parametrize(("name", "model"), OLD.items())
def test_files_without_a_schema_are_answers_of_version_1(name, model):
    text = (COMPAT / name).read_text()
    old = json.loads(text)
    assert "schema" not in old
    assert model.model_validate_json(text).document() == {"schema": 1, **old}


@pytest.mark.parametrize("name", [*OLD, "own-arch.json"])
def test_they_are_read(name):
    values, budget_ms, _ = read_arch(COMPAT / name)
    old = json.loads((COMPAT / name).read_text())
    assert (values, budget_ms) == (old["arch"], old.get("budget_ms"))


def test_what_is_written_is_read(tmp_path):
    arch = ArchFile(space="s", arch={"a": 1}, budgets={"m": 2.0}, predicted={"m": 1.5}, strategy="exact", stopped=False)
    write_arch(tmp_path / "arch.json", arch)
    written = json.loads((tmp_path / "arch.json").read_text())
    assert written["schema"] == 1
    assert "target" not in written, "a budget of something else than a latency"
    assert arch_of(str(tmp_path / "arch.json")) == ({"a": 1}, None)
    assert arch_of({"a": 1}) == ({"a": 1}, None)


@pytest.mark.parametrize("schema", ["2", "true", '"1"', "null"])
def test_a_file_of_another_version_is_refused(schema, tmp_path):
    (tmp_path / "arch.json").write_text(f'{{"schema": {schema}, "arch": {{"a": 1}}}}')
    with pytest.raises(SpecError, match=r"its schema is .*; this version of hwnas reads 1"):
        read_arch(tmp_path / "arch.json")


def test_every_answer_says_its_version():
    fields = {"space": "s", "data": "d", "steps": 1, "supernet": "net", "metric": "top1"}
    answer = TrainAnswer.model_validate({**fields, "validation": None, "stopped": None})
    assert answer.document() == {"schema": 1, **fields, "validation": None, "stopped": None}
