"""Bundles that somebody tampered with: all are refused with a message, and none hangs, crashes or reaches outside.

Most are sealed again, as an attacker would do it: then no checksum tells, and the limits themselves are tested.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hwnas.deploy import Bundle, BundleManifest, bench, open_bundle, verify, write_bundle
from hwnas.deploy.bundle import write_example
from hwnas.errors import BundleError, HwnasError, InvalidValue
from hwnas.lowering import form_of
from hwnas.lowering.torch_archive import cleaned
from hwnas.targets import Recipe, Target

Change = Callable[[Path], object]
IMAGE = (1, 1, 24, 24)


def reseal(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Compute all checksums of a bundle anew, after a change of its manifest."""
    path = folder / "manifest.json"
    said = json.loads(path.read_bytes())
    for name in said["files"]:
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            said["files"][name] = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    change(said)
    said["manifest_sha256"] = ""
    said["manifest_sha256"] = hashlib.sha256(text(said).encode()).hexdigest()
    path.write_bytes(text(said).encode())


def text(said: object) -> str:
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A check that does not end within seconds ends here."""

    def stop(*_: object) -> None:
        raise AssertionError("this takes too long")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def state(folder: Path) -> dict[str, bytes | str]:
    """All that lies below a folder, links not followed."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = _beginning(path) if path.is_file() else "folder or other"
    return found


def _beginning(path: Path) -> bytes:
    """Size and first megabyte."""
    with path.open("rb") as file:
        return b"%d %s" % (path.stat().st_size, file.read(2**20))


def flip(name: str, place: float = 0.5) -> Change:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[int(place * len(content))] ^= 4
        (folder / name).write_bytes(content)

    return change


def said(change: Callable[[dict[str, Any]], object]) -> Change:
    """A change of the manifest, sealed again."""
    return lambda folder: reseal(folder, change)


def raw(change: Callable[[bytes], bytes]) -> Change:
    return lambda folder: (folder / "manifest.json").write_bytes(change((folder / "manifest.json").read_bytes()))


def named(name: str) -> Change:
    """The program under another name in the manifest, and where one can, on the disk."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop("model.onnx")
        manifest["program"] = name

    return said(change)


def linked(name: str, to: str) -> Change:
    def change(folder: Path) -> None:
        target = folder.parent / "outside" / to
        shutil.copy(folder / name, target)
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def in_place_of(name: str, make: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def model(change: Callable[[onnx.ModelProto], object]) -> Change:
    """A change of the graph, sealed again."""

    def apply(folder: Path) -> None:
        found = onnx.load(folder / "model.onnx")
        change(found)
        (folder / "model.onnx").write_bytes(found.SerializeToString())
        reseal(folder)

    return apply


def content(name: str, new: Callable[[bytes], bytes]) -> Change:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(new((folder / name).read_bytes()))
        reseal(folder)

    return apply


def swapped(folder: Path) -> None:
    a, b = folder / "example-input.npy", folder / "example-output.npy"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def external(found: onnx.ModelProto) -> None:
    [weight] = found.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../outside/canary")


def external_in_attribute(found: onnx.ModelProto) -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    found.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))


def endless(found: onnx.ModelProto) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["on"])], "body", [], [])
    found.graph.node.insert(0, helper.make_node("Loop", ["", "true"], ["x"], body=body))


def endless_sizes(found: onnx.ModelProto) -> None:
    found.graph.node.insert(0, helper.make_node("Einsum", ["input"], ["x"], equation="....->"))


def endless_work(found: onnx.ModelProto) -> None:
    """Forty products of matrices of 64 MB, which take no space in the file."""
    found.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 4096, 4096]), "shape"))
    found.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    nodes = [helper.make_node("Expand", ["one", "shape"], ["x0"])]
    nodes += [helper.make_node("MatMul", [f"x{i}", "x0"], [f"x{i + 1}"]) for i in range(40)]
    for node in reversed(nodes):
        found.graph.node.insert(0, node)


def nested(found: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(30):
        inner = helper.make_graph([helper.make_node("If", ["c"], ["x"], then_branch=inner)], "g", [], [])
    found.graph.node.insert(0, helper.make_node("If", ["c"], ["x"], then_branch=inner))


def huge_value(found: onnx.ModelProto) -> None:
    found.graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "size"))
    found.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    found.graph.node.insert(0, helper.make_node("Expand", ["one", "size"], ["huge"]))


def declared_twice(found: onnx.ModelProto) -> None:
    """A value that no operator reads, whose huge size is followed by a small one."""
    for size in (2**40, 1):
        found.graph.value_info.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, [size]))


def unknown_size(found: onnx.ModelProto) -> None:
    """A shape that is made of the image's pixels."""
    for name, values in {"minus one": [-1], "zero": [0]}.items():
        found.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    nodes = [
        helper.make_node("Reshape", ["input", "minus one"], ["pixels"]),
        helper.make_node("Gather", ["pixels", "zero"], ["pixel"]),
        helper.make_node("Cast", ["pixel"], ["size"], to=TensorProto.INT64),
        helper.make_node("Expand", ["pixel", "size"], ["some"]),
    ]
    for node in reversed(nodes):
        found.graph.node.insert(0, node)


def many_nodes(found: onnx.ModelProto) -> None:
    found.graph.node.extend(helper.make_node("Relu", ["raw"], [f"x{i}"]) for i in range(50_001))


def ten_to_the(depth: int) -> bytes:
    return b"[" * 10**depth + b"]" * 10**depth


def deep(manifest: dict[str, Any]) -> None:
    value: Any = 1
    for _ in range(40):
        value = [value]
    manifest["input"]["transform"]["mean"] = value


MUTATIONS: dict[str, tuple[Change, str]] = {
    # Changes that checksums tell.
    **{
        f"a byte of {name}": (flip(name), "was changed after it was written|is malformed")
        for name in ("README.md", "example-input.npy", "example-output.npy", "model.onnx", "manifest.json")
    },
    "files swapped": (swapped, "bytes; at most|was changed"),
    "a file cut short": (lambda f: os.truncate(f / "model.onnx", 100), "was changed"),
    "a file grown": (lambda f: os.truncate(f / "model.onnx", 10**9), "at most"),
    # Names.
    "a parent folder": (named("../outside/canary"), "plain name"),
    "an absolute path": (named("/etc/passwd"), "plain name"),
    "a backslash": (named("..\\outside\\canary"), "plain name"),
    "a drive": (named("C:model.onnx"), "plain name"),
    "a device": (named("NUL.onnx"), "Windows has a device"),
    "a NUL in a name": (named("model.onnx\0.txt"), "plain name"),
    "a dot like a dot": (named("model․onnx"), "plain name"),
    "a fullwidth name": (named("ｍodel.onnx"), "plain name"),
    "a name in a folder": (named("x/model.onnx"), "plain name"),
    "a hidden name": (named(".model.onnx"), "plain name"),
    "a trailing dot": (named("model.onnx."), "plain name"),
    "an empty name": (named(""), "plain name"),
    "a long name": (named("m" * 10**5), "at most 64"),
    "a name and its other case": (
        said(lambda m: m["files"].update({"MODEL.onnx": m["files"]["model.onnx"]})),
        "two names are equal",
    ),
    "the manifest among its files": (
        said(lambda m: m["files"].update({"Manifest.json": m["files"]["model.onnx"]})),
        "called manifest.json",
    ),
    "a program that is not listed": (said(lambda m: m.update(program="other.onnx")), "'other.onnx' is not among them"),
    "the README as the program": (said(lambda m: m.update(program="README.md")), "cannot load README.md"),
    # What lies in the folder.
    "a link to a file": (linked("model.onnx", "model.onnx"), "is a symbolic link"),
    "a manifest that is a link": (linked("manifest.json", "manifest.json"), "is a symbolic link"),
    "a link to a folder": (in_place_of("README.md", lambda p: p.symlink_to(p.parents[1])), "is a symbolic link"),
    "a link to itself": (in_place_of("README.md", lambda p: p.symlink_to(p)), "is a symbolic link"),
    "a link to /dev/zero": (in_place_of("model.onnx", lambda p: p.symlink_to("/dev/zero")), "is a symbolic link"),
    "a FIFO": (in_place_of("model.onnx", os.mkfifo), "is a FIFO"),
    "a manifest that is a FIFO": (in_place_of("manifest.json", os.mkfifo), "is a FIFO"),
    "a folder": (in_place_of("model.onnx", Path.mkdir), "is a folder"),
    "an empty file": (content("README.md", lambda _: b""), "greater than or equal to 1"),
    "a file more": (
        lambda f: (f / "libonnx.so").write_bytes(b"x"),
        "contains 'libonnx.so', which is not in its manifest",
    ),
    "a thousand files more": (lambda f: [(f / f"f{i}").touch() for i in range(1000)], "which is not in its manifest"),
    "a folder more": (lambda f: (f / "lib").mkdir(), "contains 'lib'"),
    # The manifest as JSON.
    "a huge manifest": (raw(lambda data: data + b" " * 5_000_000), "at most 4194304 are accepted"),
    "a sparse huge manifest": (lambda f: os.truncate(f / "manifest.json", 10**12), "at most 4194304 are accepted"),
    "deep nesting": (said(deep), "nested deeper than 32 levels"),
    "very deep nesting": (raw(lambda _: ten_to_the(6)), "nested too deeply|nested deeper"),
    "deep objects": (raw(lambda _: b'{"a":' * 10**5 + b"1" + b"}" * 10**5), "nested too deeply|nested deeper"),
    "a name twice": (
        raw(lambda data: data.replace(b'"target":', b'"target": "other/other", "target":', 1)),
        "'target' occurs twice",
    ),
    "a file twice": (
        raw(lambda data: data.replace(b'"files": {', b'"files": {"model.onnx": {},', 1)),
        "'model.onnx' occurs twice",
    ),
    "NaN": (raw(lambda data: data.replace(b"0.875", b"NaN")), "NaN is not a JSON number"),
    "Infinity": (raw(lambda data: data.replace(b"0.875", b"Infinity")), "Infinity is not a JSON number"),
    "an infinite number": (raw(lambda data: data.replace(b"0.875", b"1e999")), "accuracy: .*finite"),
    "a number of many digits": (raw(lambda data: data.replace(b"0.875", b"9" * 10_000)), "is malformed"),
    "half a surrogate": (raw(lambda data: data.replace(b"zwei", b"\\ud800")), "is malformed"),
    "no UTF-8": (raw(lambda data: data.replace(b"zwei", b"\xff\xfe")), "is malformed"),
    "a byte order mark": (raw(lambda data: b"\xef\xbb\xbf" + data), "is malformed"),
    "a list": (raw(lambda _: b"[]"), "is malformed"),
    "null": (raw(lambda _: b"null"), "is malformed"),
    "an empty manifest": (raw(lambda _: b""), "is malformed"),
    # What the manifest says.
    "a newer schema": (
        said(lambda m: m.update(schema=4, versions={"hwnas": "9.1"})),
        r"schema 4, of a newer hwnas \(hwnas 9.1\); this one reads 2.*pip install --upgrade",
    ),
    "an older schema": (said(lambda m: m.update(schema=1)), "schema 1, of an older hwnas.*Export the bundle again"),
    "a schema of another type": (said(lambda m: m.update(schema="2")), "schema: "),
    "a true schema": (said(lambda m: m.update(schema=True)), "schema: "),
    "another type": (said(lambda m: m.update(classes={"a": 1})), "classes: .*array"),
    "an unknown entry": (said(lambda m: m.update(run="rm")), "run: Extra inputs"),
    "a lacking entry": (said(lambda m: m.pop("arch")), "arch: Field required"),
    "no files": (said(lambda m: m.update(files={})), "files: the list is empty"),
    "many files": (
        said(lambda m: m["files"].update({f"f{i}": m["files"]["model.onnx"] for i in range(100)})),
        "at most 16 are accepted",
    ),
    "a huge size": (said(lambda m: m["files"]["model.onnx"].update(size_bytes=10**15)), "less than or equal"),
    "a huge input": (said(lambda m: m["input"].update(shape=[1, 1, 10**9, 10**9])), "input.shape.2: "),
    "a large input": (said(lambda m: m["input"].update(shape=[1, 1, 65536, 65536])), "float32 values of the shape"),
    "another input": (said(lambda m: m["input"].update(shape=[1, 1, 12, 48])), "float32 values of the shape"),
    "a class less": (said(lambda m: m["classes"].pop()), "there are 2 classes"),
    "a huge batch": (said(lambda m: m["recipe"].update(batch=60_000)), "the recipe's batch is 60000"),
    "a budget below zero": (said(lambda m: m.update(budget_ms=-1)), "budget_ms: "),
    "another runtime": (said(lambda m: m["recipe"].update(runtime="os.system")), "recipe.runtime: "),
    # The example.
    "a pickled array": (
        content("example-input.npy", lambda _: _npy(np.array([{}], object))),
        "float32 values of the shape|at most",
    ),
    "an array of another shape": (content("example-input.npy", lambda d: d.replace(b"24, 24", b"99, 24")), "float32"),
    "an array without end": (content("example-output.npy", lambda d: d[:-1]), "float32 values of the shape"),
    "an array of NaN": (content("example-output.npy", lambda d: d[:-4] + b"\xff\xff\xff\x7f"), "NaN or infinite"),
    "other outputs": (content("example-output.npy", lambda d: d[:-4] + b"\0\0\xff\x42"), "outputs on this host differ"),
    # The program.
    "no ONNX": (content("model.onnx", lambda _: b"MZ\x90\0" * 100), "not an ONNX file|is rejected"),
    "a truncated ONNX": (content("model.onnx", lambda d: d[: len(d) // 2]), "not an ONNX file, or is truncated"),
    "deep protobuf": (content("model.onnx", lambda _: _deep_message()), "not an ONNX file|is rejected"),
    "external data": (model(external), r"is in another file, '../outside/canary'"),
    "external data in an attribute": (model(external_in_attribute), "is in another file, '/etc/passwd'"),
    "a loop without end": (model(endless), "'Loop' contains a graph"),
    "work without end": (model(endless_work), r"a run takes 2\.7e\+12 multiply-accumulates"),
    "an equation without end": (model(endless_sizes), "the operator 'Einsum' of 'ONNX' is not allowed"),
    "nested graphs": (model(nested), "'If' contains a graph"),
    "a function": (model(lambda m: m.functions.add(name="f", domain="d")), "it has functions"),
    "an operator that reads files": (
        model(lambda m: m.graph.node.append(helper.make_node("EPContext", [], ["x"], domain="com.microsoft"))),
        "'EPContext' of 'com.microsoft' is not allowed",
    ),
    "an operator of its own": (model(lambda m: setattr(m.graph.node[0], "domain", "evil")), "of 'evil' is not allowed"),
    "a value of terabytes": (model(huge_value), "more than any network needs"),
    "a value declared twice": (model(declared_twice), "more than any network needs"),
    "a value of unknown size": (model(unknown_size), "is not static"),
    "a weight of terabytes": (
        model(lambda m: m.graph.initializer.add(name="w", data_type=1, dims=[2**40, 2**20])),
        "'w' has the size",
    ),
    "a weight below zero": (
        model(lambda m: m.graph.initializer.add(name="w", data_type=1, dims=[-1])),
        "'w' has the size",
    ),
    "a weight twice": (
        model(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "two weights have the name",
    ),
    "too many nodes": (model(many_nodes), "at most 50000 of each"),
    "no node": (model(lambda m: m.graph.ClearField("node")), "it has no node"),
    "a cycle": (model(lambda m: m.graph.node[0].input.__setitem__(0, "output")), "is rejected"),
    "an operator that is not there": (model(lambda m: setattr(m.graph.node[2], "op_type", "Evil")), "is rejected"),
    "another graph": (
        model(
            lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((576, 3), np.float32), "weight"))
        ),
        "outputs on this host differ",
    ),
}


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _deep_message() -> bytes:
    """A graph in an attribute of a node of a graph ... some thousand levels down, as protobuf's bytes."""
    data = b""
    for _ in range(3000):
        for tag in (0x32, 0x2A, 0x0A):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            data = bytes([tag]) + _varint(len(data)) + data
    return b"\x3a" + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_bundle_is_refused(name: str, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "canary").write_bytes(b"canary" * 1000)
    verify(bundle.folder)
    unchanged = state(bundle.folder)
    change, words = MUTATIONS[name]
    change(bundle.folder)
    assert state(bundle.folder) != unchanged
    mutated = state(tmp_path)
    with pytest.raises(HwnasError, match=words) as refused:
        verify(bundle.folder)
    assert len(str(refused.value)) < 1500
    assert state(tmp_path) == mutated


def out_of_bounds(found: onnx.ModelProto) -> None:
    """Reads an image that is not there; its sizes are all in order."""
    for node in found.graph.node:
        node.input[:] = ["far" if name == "input" else name for name in node.input]
    found.graph.initializer.append(numpy_helper.from_array(np.array([2**40], np.int64), "index"))
    found.graph.node.insert(0, helper.make_node("Gather", ["input", "index"], ["far"]))


def test_a_program_that_fails_while_it_runs_is_refused_and_not_timed(bundle: Bundle, this: Target) -> None:
    model(out_of_bounds)(bundle.folder)
    opened = open_bundle(bundle.folder)
    for attempt in (lambda: verify(bundle.folder), lambda: bench(opened, this.device)):
        with pytest.raises(BundleError, match=r"cannot run .*out of data bounds"):
            attempt()


def test_a_program_with_other_outputs_is_not_timed(bundle: Bundle, this: Target) -> None:
    reseal(bundle.folder, lambda manifest: manifest["example"].update(max_abs_error=1e-30))
    content("example-output.npy", lambda data: data[:-4] + b"\0\0\x80\x3f")(bundle.folder)
    with pytest.raises(BundleError, match="outputs on this host differ from the recorded ones"):
        bench(open_bundle(bundle.folder), this.device)


def test_more_threads_than_cores_are_verified_on_the_cores_there_are(bundle: Bundle, this: Target) -> None:
    """4096 threads on two cores wait for each other for minutes."""
    reseal(bundle.folder, lambda manifest: manifest["recipe"].update(threads=4096))
    assert verify(bundle.folder).max_abs_error == 0
    with pytest.raises(InvalidValue, match="the recipe uses 4096 threads"):
        bench(open_bundle(bundle.folder), this.device)


def test_a_bundle_that_is_sealed_again_unchanged_passes(bundle: Bundle) -> None:
    """What `reseal` does is no reason to refuse: each mutation is refused for what it says."""
    before = (bundle.folder / "manifest.json").read_bytes()
    reseal(bundle.folder)
    assert (bundle.folder / "manifest.json").read_bytes() == before


# -- torch ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch_recipe(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"runtime": "torch", "opset": None})


@pytest.fixture
def torch_bundle(manifest: BundleManifest, torch_recipe: Recipe, tmp_path: Path) -> Bundle:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    form = form_of(torch_recipe)
    program = form.lower(network.eval(), IMAGE[1:])

    def write(folder: Path) -> Path:
        x = torch.ones(IMAGE)
        write_example(folder, x.numpy(), network(x).detach().numpy())
        return form.write(program, folder)

    return write_bundle(tmp_path / "bundle", write, manifest.model_copy(update={"recipe": torch_recipe}))


class Boom:
    """Writes a file when it is unpickled."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.where, "unpickled"))


def rezip(folder: Path, change: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_STORED) -> None:
    path = folder / "model.pt2"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    reseal(folder)


def pickled(part: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        boom = pickle.dumps(Boom(folder.parent / "boom"))
        rezip(folder, lambda parts: parts.update({f"archive/{part}": boom}))

    return change


def edited(part: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def apply(parts: dict[str, bytes]) -> None:
        value = json.loads(parts[f"archive/{part}"])
        change(value)
        parts[f"archive/{part}"] = json.dumps(value).encode()

    return lambda folder: rezip(folder, apply)


def pickled_weight(folder: Path) -> None:
    boom = pickle.dumps(Boom(folder.parent / "boom"))

    def apply(parts: dict[str, bytes]) -> None:
        config = json.loads(parts[f"archive/{WEIGHTS}"])
        next(iter(config["config"].values()))["use_pickle"] = True
        parts[f"archive/{WEIGHTS}"] = json.dumps(config).encode()
        parts["archive/data/weights/weight_0"] = boom

    rezip(folder, apply)


def first_size(value: dict[str, Any]) -> dict[str, Any]:
    size: dict[str, Any] = next(iter(value["graph_module"]["graph"]["tensor_values"].values()))["sizes"][0]
    return size


def zero_strides(value: dict[str, Any]) -> None:
    for facts in value["config"].values():
        facts["tensor_meta"]["sizes"] = [{"as_int": 2**30} for _ in facts["tensor_meta"]["sizes"]]
        facts["tensor_meta"]["strides"] = [{"as_int": 0} for _ in facts["tensor_meta"]["strides"]]


def doubled(value: dict[str, Any]) -> None:
    """The output of the ReLU laid end to end with itself forty times over: 2^40 times the memory."""
    graph = value["graph_module"]["graph"]
    at = next(i for i, node in enumerate(graph["nodes"]) if "relu" in node["target"])
    last = graph["nodes"][at]["outputs"][0]["as_tensor"]["name"]
    facts = graph["tensor_values"][last]
    for i in range(40):
        tensors = {"name": "tensors", "arg": {"as_tensors": [{"name": last}, {"name": last}]}, "kind": 1}
        last = f"twice{i}"
        graph["tensor_values"][last] = facts
        graph["nodes"].insert(
            at + 1 + i,
            {
                "target": "torch.ops.aten.cat.default",
                "inputs": [tensors],
                "outputs": [{"as_tensor": {"name": last}}],
                "metadata": {},
                "is_hop_single_tensor_return": None,
                "name": last,
            },
        )


WEIGHTS, MODEL = "data/weights/model_weights_config.json", "models/model.json"
TORCH_MUTATIONS: dict[str, tuple[Change, str]] = {
    "sample inputs": (pickled("data/sample_inputs/model.pt"), "sample inputs, which are a pickle"),
    "a legacy file of weights": (pickled("data/weights/model.pt"), "is not allowed"),
    "a constant": (pickled("data/constants/opaque_obj_0"), "is not allowed"),
    "a constant that is named": (
        edited("data/constants/model_constants_config.json", lambda c: c["config"].update(x={"path_name": "x"})),
        "constants, which may be pickles",
    ),
    "a weight that is a pickle": (pickled_weight, "is a pickle"),
    "the old format": (lambda f: rezip(f, lambda parts: parts.update(version=b"1.1")), "is not allowed"),
    "compiled code": (pickled("data/aotinductor/model/x.so"), "is not allowed"),
    "a zip bomb": (
        lambda f: rezip(f, lambda p: p.update({"archive/data/weights/weight_9": bytes(10**8)}), zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "many entries": (
        lambda f: rezip(f, lambda p: p.update({f"archive/data/weights/weight_{i}": b"" for i in range(20_001)})),
        "at most 20000",
    ),
    "a path out of the archive": (pickled("../../outside"), "is not allowed"),
    "an expression": (
        edited(MODEL, lambda m: first_size(m).update(as_expr={"expr_str": "__import__('os')"})),
        "has the kind 'as_expr'",
    ),
    "a guard": (edited(MODEL, lambda m: m["guards_code"].append("print(1)")), "sizes that are expressions, or objects"),
    "another function": (
        edited(MODEL, lambda m: m["graph_module"]["graph"]["nodes"][0].update(target="torch.hub.load")),
        "'torch.hub.load' is not one of",
    ),
    "code in a name": (
        edited(MODEL, lambda m: m["graph_module"]["graph"]["nodes"][0].update(name="x; import os")),
        "which is not a name",
    ),
    "a type to import": (
        edited(
            MODEL,
            lambda m: m["graph_module"]["module_call_graph"][0]["signature"].update(in_spec='[1, {"type": "os"}]'),
        ),
        "must be one tensor each",
    ),
    "a weight of exabytes": (edited(WEIGHTS, zero_strides), "stored bytes"),
    "memory without end": (edited(MODEL, doubled), "elements; at most"),
    "no zip": (content("model.pt2", lambda _: b"PK\x03\x04" * 50), "is not a torch program"),
    "a truncated zip": (content("model.pt2", lambda d: d[: len(d) // 2]), "is not a torch program"),
    "a lacking part": (lambda f: rezip(f, lambda p: p.pop(f"archive/{MODEL}")), "is not a torch program"),
    "deep nesting": (
        lambda f: rezip(f, lambda p: p.update({f"archive/{MODEL}": ten_to_the(5)})),
        "nested too deeply|nested deeper",
    ),
}


@pytest.mark.parametrize("name", TORCH_MUTATIONS)
def test_a_mutated_program_of_torch_is_refused(name: str, torch_bundle: Bundle, tmp_path: Path) -> None:
    change, words = TORCH_MUTATIONS[name]
    change(torch_bundle.folder)
    before = state(tmp_path)
    with pytest.raises(BundleError, match=words):
        verify(torch_bundle.folder)
    assert state(tmp_path) == before  # nothing was unpickled


def test_a_program_of_torch_that_is_zipped_anew_passes(torch_bundle: Bundle) -> None:
    rezip(torch_bundle.folder, lambda parts: None)
    assert verify(torch_bundle.folder).max_abs_error == 0


def test_torchs_own_archive_would_be_unpickled(torch_bundle: Bundle, tmp_path: Path) -> None:
    """Why archives are written anew: torch unpickles sample inputs whatever they are."""
    pickled("data/sample_inputs/model.pt")(torch_bundle.folder)
    with pytest.raises(RuntimeError, match="deserializing"):
        torch.export.load(torch_bundle.program)
    assert (tmp_path / "boom").read_text() == "unpickled"


@pytest.fixture
def symbolic_bundle(manifest: BundleManifest, torch_recipe: Recipe, tmp_path: Path) -> Bundle:
    """A program of torch with a symbolic batch axis."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    form = form_of(torch_recipe)
    program = form.any_batch(form.lower(network.eval(), IMAGE[1:]))

    def write(folder: Path) -> Path:
        x = torch.ones(IMAGE)
        write_example(folder, x.numpy(), network(x).detach().numpy())
        return form.write(program, folder)

    told = manifest.model_copy(update={"recipe": torch_recipe, "dynamic_batch": True})
    return write_bundle(tmp_path / "bundle", write, told)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('boom')",
        "Symbol('s0', positive=True, integer=True) + 1",
        "Symbol('s0', positive=True, integer=True)\n",
        "Symbol('s0', positive=True, integer=True, **__import__('os').mkdir('boom'))",
        "Symbol('batch', positive=True, integer=True)",
    ],
)
def test_a_symbol_of_another_text_is_refused(text: str, symbolic_bundle: Bundle) -> None:
    edited(MODEL, lambda m: first_size(m)["as_expr"].update(expr_str=text))(symbolic_bundle.folder)
    with pytest.raises(BundleError, match="has the kind 'as_expr'"):
        verify(symbolic_bundle.folder)
    assert not Path("boom").exists()


def test_a_symbol_of_another_axis_is_refused(symbolic_bundle: Bundle) -> None:
    def change(model: dict[str, Any]) -> None:
        sizes = next(iter(model["graph_module"]["graph"]["tensor_values"].values()))["sizes"]
        sizes[2] = dict(sizes[0])

    edited(MODEL, change)(symbolic_bundle.folder)
    with pytest.raises(BundleError, match="has the kind 'as_expr'"):
        verify(symbolic_bundle.folder)


def test_what_a_file_says_about_its_symbol_is_never_passed_on(symbolic_bundle: Bundle) -> None:
    def change(model: dict[str, Any]) -> None:
        model["guards_code"].append("print(1)")
        model["range_constraints"]["s9"] = {"min_val": "print(2)", "max_val": 3}

    edited(MODEL, change)(symbolic_bundle.folder)
    data = symbolic_bundle.program.read_bytes()
    assert b"print(1)" in data
    clean = cleaned(data, "model.pt2")
    assert b"print(" not in clean
    assert b"s9" not in clean
    assert verify(symbolic_bundle.folder).max_abs_error == 0
