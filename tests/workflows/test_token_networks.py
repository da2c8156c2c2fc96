"""Sequences of tokens from their data to the class that the lines of a bundle print."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from hwnas import workflows
from hwnas.data import DataOptions, open_data
from hwnas.data.listops import TOKENS
from hwnas.deploy import verify
from hwnas.errors import InvalidValue
from hwnas.latency import load_model, read_table
from hwnas.lowering import form_of
from hwnas.machines import SimulatedMachine
from hwnas.nn import network
from hwnas.runtimes import open_session
from hwnas.spaces import make_space
from hwnas.supernet import load_supernet
from hwnas.targets import load_recipe, resolve_target

NAME = "sequence+length=32,48"
FIX = {
    "width": [32, 64], "depth": [1, 2], "norm": "pre", "positions": "sinusoidal", "heads_1": 2, "heads_2": 2,
    "ffn_1": "gelu", "ffn_2": "gelu", "expansion_1": 200, "expansion_2": 200,
}  # fmt: skip
LENGTH = 48
RECIPES = ["onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "openvino-cpu-fp32", "torch-cpu-fp32"]
MIXERS = ["conv", "mix", "linformer", "lsh", "block", "window", "attention"]
# An export takes three seconds: those that differ most stand for all.
QUICK = {("lsh", "onnxruntime-cpu-fp32"), ("window", "onnxruntime-cpu-int8"), ("attention", "openvino-cpu-fp32")}
CASES = [
    pytest.param(mixer, name, marks=[] if (mixer, name) in QUICK else [pytest.mark.long])
    for mixer in MIXERS
    for name in RECIPES
]


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listops") / "net"
    training = folder.with_name("training.toml")
    training.write_text(
        'schema = 1\noptimizer = "adamw"\nbatch_size = 16\nvalidate_every = 0\n'
        '[[phases]]\nname = "all"\nsteps = 12\nlearning_rate = 0.002\n'
    )
    answer = workflows.train(
        NAME, "listops", folder, data_options=DataOptions(length=LENGTH), fix=FIX, training=training, accelerator="cpu"
    )
    assert answer.space == NAME
    return folder


@pytest.mark.long
def test_from_expressions_to_the_class_that_the_readme_prints(supernet, this, tmp_path, monkeypatch):
    monkeypatch.setattr("hwnas.accuracy.ensemble._STEPS", 40)
    space = load_supernet(supernet)[0].space
    assert (space.name, space.reads, space.input_shape(space.largest)) == (NAME, (0, len(TOKENS)), (LENGTH,))

    # A table, and a search in it whose answer is within the budget.
    machine = SimulatedMachine(lambda op: 0.001 + op.macs / 1e8)
    workflows.profile(space, this, tables=tmp_path, networks=6, bound_networks=4, machine=machine)
    model = load_model(read_table(this, tmp_path / f"{this.name}.csv"), space)
    found = workflows.search(
        supernet, budget="80%", target=this.name, images=16, calibration_images=16, candidates=3, confidence=None,
        tables=tmp_path, out=tmp_path / "arch.json",
    )  # fmt: skip
    [chosen] = found.networks
    arch = space.arch(chosen.arch)
    whole = float(model.predict(space.encode([space.largest]))[0])
    assert float(model.predict(space.encode([arch]))[0]) <= 0.8 * whole

    bundle = workflows.export(tmp_path / "arch.json", supernet, this, tmp_path / "bundle", tables=tmp_path)
    manifest = bundle.manifest
    assert (manifest.input.shape, manifest.input.dtype) == ([1, arch["length"]], "int64")
    assert manifest.arch == dict(arch)
    assert verify(bundle.folder).max_abs_error is not None
    page = (bundle.folder / "README.md").read_text("utf-8")
    assert "text file" in page
    assert "pillow" not in page
    [lines] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    data = open_data("listops", options=DataOptions(length=LENGTH))
    tokens, _ = next(data.batches("test", arch["length"], limit=3))
    with open_session(bundle.program, manifest.recipe) as session:
        told = [int(session.run(x[None].numpy()).argmax()) for x in tokens]
    for x, label in zip(tokens, told, strict=True):
        (tmp_path / "expression.txt").write_text(" ".join(TOKENS[token] for token in x.tolist()[1:] if token))
        done = subprocess.run(
            [sys.executable, "-I", "-c", lines + "np.save('../x.npy', x)\n", tmp_path / "expression.txt"],
            cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, f"class {label}\n"), done.stderr
        assert np.array_equal(np.load(tmp_path / "x.npy")[0], x.numpy())


@pytest.mark.parametrize(("mixer", "name"), CASES)
def test_every_mixer_runs_in_every_runtime(mixer, name):
    recipe = load_recipe(name)
    space = make_space(NAME, vocabulary=20, classes=4)
    arch = space.arch({**space.largest, "depth": 1, "mixer_1": mixer, "norm": "post", "ffn_1": "swiglu"})
    torch.manual_seed(1)
    net = network(space, arch).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    x = torch.randint(1, 20, (8, LENGTH))
    for i in range(8):
        x[i, LENGTH - 3 * i :] = 0
    with torch.no_grad():
        expected = net(x)
    form = form_of(recipe)
    program = form.lower(net, (LENGTH,), x, dtype="int64")
    with open_session(program, recipe) as session:
        got = torch.cat([torch.from_numpy(session.run(row[None].numpy())) for row in x])
    limit = 0.1 if name.endswith("int8") else 1e-4
    assert float((got - expected).abs().max()) <= limit * max(1.0, float(expected.abs().max()))
    if recipe.quantization is None:
        with open_session(form.any_batch(program), recipe, any_batch=True) as session:
            assert np.allclose(session.run(x.numpy()), expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["onnxruntime-cpu-fp32", "onnxruntime-cpu-int8"])
@pytest.mark.parametrize("space_name", ["vit-tiny", "hybrid-tiny", "sequence+length=32"])
def test_a_network_wired_from_its_ops_is_the_one_that_is_deployed(space_name, name):
    """Operators of the assembled graph are those of the exported network, and ops alone can be timed."""
    recipe = load_recipe(name)
    space, form = make_space(space_name, classes=4), form_of(recipe)
    arch = space.decode(space.sample(1, seed=3))[0]
    nodes = space.network(arch)
    programs = form.lower_ops([node.op for node in nodes], wired=space.wiring is not None)
    for node in nodes:
        tied = form.tied(programs[node.op])
        assert tied.graph.input[0].name == "input"
    reads = None if space.wiring is None else [node.reads for node in nodes]
    whole = form.assemble([programs[node.op] for node in nodes], reads)
    if recipe.quantization is None:
        net = network(space, arch).eval()
        x = torch.zeros(1, *space.input_shape(arch), dtype=getattr(torch, space.dtype))
        lowered = form.lower(net, space.input_shape(arch), dtype=space.dtype)
        assert sorted(n.op_type for n in whole.graph.node) == sorted(n.op_type for n in lowered.graph.node)
        with open_session(whole, recipe) as session:
            assert session.run(x.numpy()).shape == (1, 4)


def test_data_of_another_kind_are_refused(supernet, tmp_path):
    with pytest.raises(InvalidValue, match="is a space of networks for tokens, not for images"):
        workflows.train(NAME, "cluttered-digits", tmp_path / "net", steps=1, accelerator="cpu")
    with pytest.raises(InvalidValue, match="is a space of networks for images, not for tokens"):
        workflows.train("vit-tiny", "listops", tmp_path / "net", steps=1, accelerator="cpu")
    with pytest.raises(InvalidValue, match=r"takes sequences of 17 tokens, .* has sequences of 258 tokens"):
        workflows.train(None, "pathfinder", tmp_path / "net", init=supernet, steps=1, accelerator="cpu")


@pytest.mark.long
def test_profile_of_the_runtime_predicts_whole_networks(tmp_path):
    """On this machine: every op of a small space is timed, and the fit holds on other networks."""
    space = make_space("vit-tiny", options={"resolution": 32}).fix(width=[32, 64], depth=[2, 3])
    target = resolve_target("this/onnxruntime-cpu-fp32")
    workflows.profile(space, target, tables=tmp_path, networks=8, bound_networks=8)
    answer = workflows.validate(space, target, tables=tmp_path, networks=10)
    assert answer.mape < 0.25
    print(json.dumps({"mape": answer.mape, "noise": answer.noise_floor}))


@pytest.mark.parametrize("to", ["fp16", "bf16"])
@pytest.mark.parametrize("mixer", ["lsh", "window", "attention"])  # ONNX has Conv in bf16 from opset 22 on
def test_narrow_types_of_a_graph_with_tokens(mixer, to):
    import onnx

    from hwnas.lowering.casts import cast

    space = make_space("sequence+length=32", vocabulary=20, classes=4)
    arch = space.arch({**space.largest, "depth": 1, "mixer_1": mixer})
    torch.manual_seed(0)
    net = network(space, arch).eval()
    x = torch.randint(1, 20, (4, 32))
    model = form_of(load_recipe("onnxruntime-cpu-fp32")).lower(net, (32,), dtype="int64")
    narrow = cast(model, to, x.numpy())
    onnx.checker.check_model(narrow, full_check=True)
    onnx.shape_inference.infer_shapes(narrow, check_type=True, strict_mode=True, data_prop=True)
    assert any(node.op_type == "Cast" for node in narrow.graph.node)
