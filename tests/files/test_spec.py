from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from hwnas.errors import SpecError
from hwnas.files import Spec, read_spec, toml_text
from hwnas.targets import Device, Recipe

RECIPE = """\
schema = 1
name = "r"
description = "d"
runtime = "onnxruntime"
precision = "fp32"
opset = 20
batch = 1
threads = 1
[options]
graph_optimization = "all"
[parity]
max_abs_error = 1e-4
min_cosine = 0.9999
min_top1_agreement = 0.999
"""
QUANTIZATION = """\
[quantization]
images = 256
method = "percentile"
activations = "uint8"
"""
INT8 = RECIPE.replace('"fp32"', '"int8"') + QUANTIZATION
PARITY = "max_abs_error, min_cosine, min_top1_agreement"
TOP = "schema, name, description, runtime, precision, opset, batch, threads, cores, options, quantization, parity"


def message(tmp_path: Path, text: str | bytes, model: type[Spec] = Recipe) -> str:
    path = tmp_path / "r.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SpecError) as caught:
        read_spec(path, model)
    said = str(caught.value)
    assert str(path) in said
    return said.replace(str(path), "r.toml")


def test_reads_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    recipe = read_spec(tmp_path / "r.toml", Recipe)
    assert (recipe.schema_, recipe.opset, recipe.options) == (1, 20, {"graph_optimization": "all"})
    (tmp_path / "again.toml").write_text(toml_text(recipe))
    assert read_spec(tmp_path / "again.toml", Recipe) == recipe


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "threads = 1",
            "treads = 1\nthreads = 1",
            f"unknown key 'treads'; did you mean 'threads'? allowed at the top level: {TOP}",
        ),
        ("batch = 1\n", "", f"batch is missing; allowed at the top level: {TOP}"),
        (
            "min_cosine = 0.9999",
            "cosine = 1.0\nmin_cosine = 1.0",
            f"unknown key 'parity.cosine'; did you mean 'min_cosine'? allowed in [parity]: {PARITY}",
        ),
        ("min_cosine = 0.9999\n", "", f"parity.min_cosine is missing; allowed in [parity]: {PARITY}"),
        ("batch = 1", "batch = 0", "batch is 0; it should be greater than or equal to 1"),
        ("batch = 1", 'batch = "1"', "batch is '1'; it should be a valid integer"),
        ("threads = 1", "threads = true", "threads is True; it should be a valid integer"),
        (
            'runtime = "onnxruntime"',
            'runtime = "onxruntime"',
            "runtime is 'onxruntime'; it should be 'onnxruntime', 'openvino', 'torch', "
            "'torch-cuda', 'onnxruntime-cuda', 'onnxruntime-tensorrt', 'tensorrt', 'roofline' or 'external'; "
            "did you mean 'onnxruntime'?",
        ),
        (
            'precision = "fp32"',
            'precision = "int3"',
            "precision is 'int3'; it should be 'fp32', 'fp16', 'bf16' or 'int8'; did you mean 'int8'?",
        ),
        ("schema = 1", "schema = 2", "schema is 2; it should be 1"),
        (
            'name = "r"',
            'name = "R 2"',
            "name is 'R 2'; a name consists of a-z, 0-9, '.' and '-', and starts with a letter or a digit",
        ),
        (
            '"all"',
            "1.5",
            "options.graph_optimization is 1.5; it should be a valid string, or it should be "
            "a valid integer, or it should be a valid boolean",
        ),
        (
            "min_cosine = 0.9999",
            "min_cosine = 1.5",
            "parity.min_cosine is 1.5; it should be less than or equal to 1",
        ),
        ("min_cosine = 0.9999", "min_cosine = nan", "parity.min_cosine is nan; it should be a finite number"),
        (
            "max_abs_error = 1e-4",
            "max_abs_error = 0",
            "parity.max_abs_error is 0; it should be greater than 0",
        ),
        (
            "max_abs_error = 1e-4",
            "max_abs_error = inf",
            "parity.max_abs_error is inf; it should be a finite number",
        ),
        (
            "min_top1_agreement = 0.999",
            "min_top1_agreement = -1",
            "parity.min_top1_agreement is -1; it should be greater than 0",
        ),
        ("opset = 20", "opset = 17", "opset is 17; it should be greater than or equal to 18"),
        (
            "opset = 20\n",
            "",
            "opset is missing; the runtime 'onnxruntime' takes an ONNX graph: set it to 18 to 24",
        ),
        (
            '"onnxruntime"',
            '"torch"',
            "opset is 20, but the runtime 'torch' takes no ONNX graph; remove it",
        ),
        (
            '"fp32"',
            '"bf16"',
            "precision is 'bf16', but the runtime 'onnxruntime' computes in fp32, int8",
        ),
        (
            '"fp32"',
            '"int8"',
            "[quantization] is missing; precision is 'int8', so it says how the graph is quantised",
        ),
        (
            "[parity]",
            f"{QUANTIZATION}[parity]",
            "[quantization] is set, but precision is 'fp32'; remove it",
        ),
    ],
)
def test_a_wrong_recipe_says_key_value_and_what_is_allowed(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in RECIPE
    assert message(tmp_path, RECIPE.replace(old, new, 1)) == f"r.toml: {said}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("images = 256", "images = 0", "quantization.images is 0; it should be greater than or equal to 1"),
        ("images = 256", "images = 2.5", "quantization.images is 2.5; it should be a valid integer"),
        (
            '"percentile"',
            '"kl"',
            "quantization.method is 'kl'; it should be 'minmax', 'percentile' or 'entropy'",
        ),
        (
            '"uint8"',
            '"int4"',
            "quantization.activations is 'int4'; it should be 'uint8' or 'int8'; did you mean 'int8'?",
        ),
        (
            "images = 256\n",
            "",
            "quantization.images is missing; "
            "allowed in [quantization]: images, method, activations, weights, max_accuracy_drop",
        ),
        (
            "images",
            "seed = 1\nimages",
            "unknown key 'quantization.seed'; "
            "allowed in [quantization]: images, method, activations, weights, max_accuracy_drop",
        ),
    ],
)
def test_a_wrong_quantization_says_key_value_and_what_is_allowed(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in INT8
    (tmp_path / "int8.toml").write_text(INT8)
    assert read_spec(tmp_path / "int8.toml", Recipe).precision == "int8"
    assert message(tmp_path, INT8.replace(old, new, 1)) == f"r.toml: {said}"


def test_a_value_in_place_of_a_table(tmp_path: Path) -> None:
    text = RECIPE[: RECIPE.index("[options]")] + "parity = 3\n"
    assert message(tmp_path, text) == "r.toml: parity is 3; it should be a table"


def test_all_mistakes_are_listed(tmp_path: Path) -> None:
    said = message(tmp_path, RECIPE.replace("batch = 1", "batch = 0").replace("opset = 20", "opset = 30"))
    assert said.splitlines() == [
        "r.toml: 2 mistakes",
        "  opset is 30; it should be less than or equal to 24",
        "  batch is 0; it should be greater than or equal to 1",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema = 1\nname r\n", "line 2: not TOML: Expected '=' after a key in a key/value pair: 'name r'"),
        ("a = 1\na = 2\nb = 3\n", "line 2: not TOML: Cannot overwrite a value: 'a = 2'"),
        ("a = 1\nb =", "line 2: not TOML: Invalid value: 'b ='"),
    ],
)
def test_a_syntax_error_says_the_line(tmp_path: Path, text: str, said: str) -> None:
    assert message(tmp_path, text) == f"r.toml, {said}"


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    assert message(tmp_path, b'name = "\xff"') == "r.toml: not UTF-8 text (byte 8 is 0xff)"


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 5000])
def test_what_python_cannot_hold(tmp_path: Path, value: str) -> None:
    assert message(tmp_path, f"name = {value}").startswith("cannot read r.toml: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"cannot read {tmp_path / 'none.toml'}: No such file or directory"):
        read_spec(tmp_path / "none.toml", Recipe)
    with pytest.raises(SpecError, match=f"cannot read {tmp_path}: Is a directory"):
        read_spec(tmp_path, Recipe)


class Item(Spec):
    size: int


class Job(Spec):
    by_name: dict[str, Item] = Field(default_factory=dict)
    listed: list[Item] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[by_name.a]\nsise = 1\nsize = 1",
            "unknown key 'by_name.a.sise'; did you mean 'size'? allowed in [by_name.a]: size",
        ),
        (
            "[[listed]]\nsize = 1\n[[listed]]\nsize = 1.5",
            "listed[1].size is 1.5; it should be a valid integer",
        ),
        ("[[listed]]\n", "listed[0].size is missing; allowed in [listed[0]]: size"),
    ],
)
def test_keys_inside_arrays_and_free_tables(tmp_path: Path, text: str, said: str) -> None:
    assert message(tmp_path, text, Job) == f"r.toml: {said}"


HARDWARE = "cores, memory_gib, l1d_kib, l2_kib, l3_kib, peak_fp32_gflops, peak_memory_gb_per_s, source"
DEVICE = """\
schema = 1
name = "d"
kind = "cpu"
description = "d"
[match]
cpu = "a.*"
[hardware]
source = "s"
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'cpu = "a.*"',
            'cpu = "a("',
            "match.cpu is 'a('; it should be a regular expression: missing ), unterminated subpattern at position 1",
        ),
        (
            'cpu = "a.*"',
            "cores = 2",
            "match.cpu is missing; a device of kind 'cpu' is recognised by it",
        ),
        (
            'cpu = "a.*"',
            'cpu = "a"\ngpu = "b"',
            "match.gpu is 'b', but kind is 'cpu'; remove it or set kind to 'gpu'",
        ),
        (
            'kind = "cpu"',
            'kind = "gpu"',
            "match.gpu is missing; a device of kind 'gpu' is recognised by it",
        ),
        ('kind = "cpu"', 'kind = "tpu"', "kind is 'tpu'; it should be 'cpu' or 'gpu'; did you mean 'gpu'?"),
        (
            'name = "d"',
            'name = "this"',
            "name is 'this'; that name is reserved for the present host; choose another one",
        ),
        ('cpu = "a.*"', 'cpu = "a"\ncores = 0', "match.cores is 0; it should be greater than or equal to 1"),
        (
            'cpu = "a.*"',
            'cpu = "a"\nflags = ["AVX 2"]',
            "match.flags[0] is 'AVX 2'; it should match pattern '^[a-z0-9_.]+$'",
        ),
        ('cpu = "a.*"', 'cpu = "a"\nflags = [2]', "match.flags[0] is 2; it should be a valid string"),
        (
            'source = "s"',
            'source = "s"\nmemory_gib = -1',
            "hardware.memory_gib is -1; it should be greater than 0",
        ),
        ('source = "s"', "", f"hardware.source is missing; allowed in [hardware]: {HARDWARE}"),
        (
            'source = "s"',
            'source = "s"\nhostname = "h"',
            f"unknown key 'hardware.hostname'; allowed in [hardware]: {HARDWARE}",
        ),
    ],
)
def test_a_wrong_device_says_key_value_and_what_is_allowed(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert message(tmp_path, DEVICE.replace(old, new, 1), Device) == f"r.toml: {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "threads = 0x" + "f" * 5000,
            "r.toml: threads is an integer of 20000 bits; TOML integers lie from -2**63 to 2**63 - 1",
        ),
        (
            "threads = [1, -9223372036854775809]",
            "r.toml: threads[1] is an integer of 64 bits; TOML integers lie from -2**63 to 2**63 - 1",
        ),
        ("threads = " + "[" * 33 + "]" * 33, "r.toml: threads[0][0] is nested deeper than 32 levels"),
        ("[options" + ".a" * 2500 + "]", "r.toml: options.a.a is nested deeper than 32 levels"),
    ],
    ids=["digits", "a negative one", "arrays", "tables"],
)
def test_values_that_cannot_be_printed(tmp_path: Path, text: str, said: str) -> None:
    assert message(tmp_path, text) == said


def test_a_byte_order_mark_is_none_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(RECIPE.encode("utf-8-sig"))
    assert read_spec(tmp_path / "r.toml", Recipe).name == "r"
