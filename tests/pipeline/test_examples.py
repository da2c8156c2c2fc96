"""The jobs that come with hwnas can be read."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from hwnas.data import Augmentation
from hwnas.pipeline import read_job
from hwnas.pipeline.job import Job
from hwnas.spaces import SPACES, InputKind, make_space
from hwnas.supernet import Phase, TrainConfig, read_training

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_example(path):
    job = read_job(path)
    assert job.make_space(reads=InputKind(3), classes=10).size > 0
    if job.data.path:
        assert Path(job.data.path).parent == path.parent


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "training").glob("*.toml")), ids=lambda path: path.stem)
def test_training_recipe(path):
    config, space = read_training(path), make_space(path.stem)
    sizes = [phase.open(space).size for phase in config.phases]
    assert sizes == sorted(sizes)
    assert sizes[-1] == space.size


def test_docs_list_every_key_of_a_training_recipe():
    page = (ROOT / "docs" / "training.md").read_text()
    keys = [field.alias or name for model in (TrainConfig, Phase) for name, field in model.model_fields.items()]
    keys += Augmentation.model_fields
    assert not [key for key in keys if f"`{key}`" not in page and f"[{key}]" not in page and f"[[{key}]]" not in page]


def test_docs_list_every_key_of_a_job():
    page = "".join((ROOT / "docs" / name).read_text() for name in ("jobs.md", "your-own-data.md"))

    def keys(model):
        for name, field in model.model_fields.items():
            # Of an optional table, the table.
            inner = next((each for each in get_args(field.annotation) if isinstance(each, type)), field.annotation)
            if isinstance(inner, type) and issubclass(inner, TrainConfig):  # what all trainings have has its own page
                yield from inner.model_fields.keys() - TrainConfig.model_fields.keys()
            elif isinstance(inner, type) and hasattr(inner, "model_fields"):
                yield from keys(inner)
            else:
                yield field.alias or name

    assert not [name for name in SPACES if f"`{name}`" not in page]
    missing = [key for key in keys(Job) if f"`{key}`" not in page and f"`[space.{key}]`" not in page]
    assert not missing
