from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import get_args

import pydantic
import pytest

from hwnas.targets import RUNTIMES, Parity, Recipe, load_recipe
from hwnas.targets.recipe import Quantization
from hwnas.targets.runtimes import Precision, RuntimeFacts, runtime_names

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


INT8 = {"precision": "int8", "quantization": Quantization(images=256, method="percentile", activations="uint8")}


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
        {"runtime": "openvino"},
        {"runtime": "openvino", "precision": "bf16"},
        INT8,
    ],
)
def test_the_hash_sees_what_changes_a_measurement(change: dict[str, object]) -> None:
    assert recipe(**change).hash != recipe().hash


def test_cores_count_only_where_they_are_given() -> None:
    """In no bytes where they are not: manifests of bundles from before there were any are compared with their bytes."""
    assert "cores" not in recipe().model_dump()
    assert "cores" not in recipe().model_dump_json()
    assert recipe(cores=None).hash == recipe().hash
    assert recipe(cores=[1]).hash != recipe().hash
    assert recipe(cores=[1]).hash != recipe(cores=[2]).hash


@pytest.mark.parametrize("cores", [[4, 5], [5, 4], (4, 5), "4-5", "5,4", " 4, 5 "])
def test_cores_as_a_list_or_as_linux_writes_them(cores: object) -> None:
    found = recipe(threads=2, cores=cores)
    assert found.cores == (4, 5)
    assert found.hash == recipe(threads=2, cores=[4, 5]).hash
    assert Recipe.model_validate_json(found.model_dump_json(by_alias=True)) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": [1, 2]}, "cores is '1-2' and threads is 1: list one logical core for each thread"),
        ({"cores": []}, "cores is '' and threads is 1"),
        ({"threads": 2, "cores": [1, 1]}, "a core is listed twice"),
        ({"cores": "last"}, 'it should list logical cores, e.g. "4-7"'),
        ({"cores": [-1]}, "greater than or equal to 0"),
        ({"cores": [True]}, "valid integer"),
        ({"cores": ["1"]}, "valid integer"),
        ({"cores": 1}, "valid tuple"),
        ({"runtime": "roofline", "opset": None, "cores": [1]}, "hwnas does not time the runtime 'roofline'"),
    ],
)
def test_cores_that_cannot_be_meant(change: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        recipe(**change)


def test_the_hash_stays_the_same_for_ever() -> None:
    # Tables on users' disks hold this value: if it changes, they are all refused.
    text = '{"batch":1,"opset":20,"options":{"a":1,"b":true},"precision":"fp32","runtime":"onnxruntime","threads":1}'
    assert recipe().hash == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # as at commit 0eeb27d, before there was a [quantization]
        ("onnxruntime-cpu-fp32", "a1fcf7dcf7675ca002ca31af171f02e366194c0f0a4618b0104ac63ab4ddc95d"),
        ("torch-cpu-fp32", "9ff02ffafbb0112c61844634509cd45de23ae4e08a7fe46212a91187be7d032c"),
    ],
)
def test_tables_from_before_quantization_stay_valid(name: str, expected: str) -> None:
    assert load_recipe(name).hash == expected


@pytest.mark.parametrize("change", [{"images": 128}, {"method": "minmax"}, {"activations": "int8"}])
def test_the_hash_sees_how_a_graph_is_quantised(change: dict[str, object]) -> None:
    base = recipe(**INT8)
    assert base.quantization is not None
    changed = base.quantization.model_copy(update=change)
    assert recipe(**INT8 | {"quantization": changed}).hash != base.hash


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_takes_the_precisions_it_computes_in(runtime: str, precision: Precision) -> None:
    facts = RUNTIMES[runtime]
    changes: dict[str, object] = {"runtime": runtime, "precision": precision}
    if facts.form != "onnx":
        changes["opset"] = None
    if precision == "int8" and facts.measured:
        activations = "int8" if facts.typed else "uint8"
        changes["quantization"] = Quantization(images=256, method="percentile", activations=activations)
    if precision == "bf16" and facts.typed:
        changes["opset"] = 22
    if precision in facts.precisions:
        assert recipe(**changes).precision == precision
        return
    offered = ", ".join(facts.precisions)
    with pytest.raises(
        pydantic.ValidationError,
        match=f"precision is '{precision}', but the runtime '{runtime}' computes in {offered}",
    ):
        recipe(**changes)


def test_the_hash_ignores_a_bound_on_accuracy() -> None:
    base = recipe(**INT8)
    assert base.quantization is not None
    bounded = base.quantization.model_copy(update={"max_accuracy_drop": 0.01})
    assert recipe(**INT8 | {"quantization": bounded}).hash == base.hash
    with pytest.raises(pydantic.ValidationError, match="max_accuracy_drop"):
        Quantization(images=1, method="minmax", activations="int8", max_accuracy_drop=-0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (INT8, "supports only symmetric int8: set it to 'int8'"),
        ({"precision": "bf16"}, "opset is 20, whose convolutions do not support bfloat16: set it to 22 to 24"),
    ],
)
def test_a_typed_runtime_says_what_its_graph_must_be(
    change: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = RuntimeFacts(kind="cpu", form="onnx", precisions=("fp16", "bf16", "int8"), typed=True)
    monkeypatch.setitem(RUNTIMES, "onnxruntime", facts)
    with pytest.raises(pydantic.ValidationError, match=message):
        recipe(**change)
    assert recipe(precision="bf16", opset=22).precision == "bf16"


def test_how_another_program_quantises_is_not_asked_for() -> None:
    changes = {"runtime": "external", "opset": None, "precision": "int8"}
    assert recipe(**changes).quantization is None
    with pytest.raises(pydantic.ValidationError, match=r"\[quantization\] is set, but hwnas does not lower networks"):
        recipe(**changes, quantization=INT8["quantization"])


def test_a_recipe_can_be_a_key() -> None:
    assert {recipe(): 1}[recipe()] == 1


def test_every_runtime_a_recipe_may_name_is_described() -> None:
    assert set(RUNTIMES) == set(runtime_names())
    for name in runtime_names():
        opset = 20 if RUNTIMES[name].form == "onnx" else None
        assert recipe(runtime=name, opset=opset).facts is RUNTIMES[name]


def test_the_page_of_recipes_lists_every_runtime_with_its_precisions() -> None:
    page = (Path(__file__).resolve().parents[2] / "exporters" / "README.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ((?:fp32|fp16|bf16|int8)[^|]*) \|", page, re.MULTILINE)
    assert {name: tuple(known.split(", ")) for name, known in rows} == {
        name: RUNTIMES[name].precisions for name in RUNTIMES
    }
