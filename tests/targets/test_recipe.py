from __future__ import annotations

import hashlib
from typing import get_args

import pytest

from hwnas.targets import RUNTIMES, Parity, Recipe
from hwnas.targets.recipe import RuntimeName

BASE: dict[str, object] = {
    "schema": 1,
    "name": "r",
    "description": "d",
    "runtime": "onnxruntime",
    "precision": "fp32",
    "opset": 20,
    "batch": 1,
    "threads": 1,
    "options": {"a": 1, "b": True},
    "parity": Parity(max_abs_error=1e-4, min_cosine=0.9999, min_top1_agreement=0.999),
}


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(BASE | changes)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"description": "other"},
        {"parity": Parity(max_abs_error=1e-5, min_cosine=1.0, min_top1_agreement=1.0)},
        {"options": {"b": True, "a": 1}},
    ],
)
def test_the_hash_ignores_words_limits_and_order(change: dict[str, object]) -> None:
    assert recipe(**change).hash == recipe().hash


@pytest.mark.parametrize(
    "change",
    [
        {"runtime": "torch", "opset": None},
        {"opset": 21},
        {"batch": 2},
        {"threads": 2},
        {"options": {"a": 2, "b": True}},
        {"options": {"a": 1, "b": 1}},
        {"options": {}},
    ],
)
def test_the_hash_sees_what_changes_a_measurement(change: dict[str, object]) -> None:
    assert recipe(**change).hash != recipe().hash


def test_the_hash_stays_the_same_for_ever() -> None:
    # Tables on users' disks hold this value: if it changes, they are all refused.
    text = '{"batch":1,"opset":20,"options":{"a":1,"b":true},"precision":"fp32","runtime":"onnxruntime","threads":1}'
    assert recipe().hash == hashlib.sha256(text.encode()).hexdigest()


def test_a_recipe_can_be_a_key() -> None:
    assert {recipe(): 1}[recipe()] == 1


def test_every_runtime_a_recipe_may_name_is_described() -> None:
    assert set(RUNTIMES) == set(get_args(RuntimeName))
