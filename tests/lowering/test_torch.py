from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from hwnas.errors import BundleError
from hwnas.lowering import form_of
from hwnas.lowering.torch import TorchForm, input_shape, without_checks
from hwnas.lowering.torch_archive import load_archive
from hwnas.nn import network
from hwnas.nn.wired import Wired
from hwnas.spaces import Arch, make_space, parse_op
from hwnas.spaces.kinds import KINDS
from hwnas.spaces.wiring import FROM_IMAGE
from hwnas.targets import Recipe, load_recipe
from hwnas.testing.spaces import random_inputs

SPACE = make_space("mobilenetv3-tiny")
ROOT = Path(__file__).resolve().parents[2]


def recipe(**changes: object) -> Recipe:
    return load_recipe("torch-cpu-fp32").model_copy(update=changes)


@pytest.fixture(scope="module")
def made() -> nn.Module:
    torch.manual_seed(0)
    module = network(SPACE, SPACE.smallest).train()
    with torch.no_grad():
        for _ in range(3):  # BN's running statistics become those of no fresh one
            module(torch.randn(4, 1, 24, 24))
    return module.eval()


@pytest.fixture(scope="module")
def program(made: nn.Module) -> nn.Module:
    found = form_of(recipe()).lower(made, (1, 24, 24))
    assert isinstance(found, nn.Module)
    return found


def test_the_form_follows_the_runtime() -> None:
    assert isinstance(form_of(recipe()), TorchForm)
    assert form_of(recipe()).filename == "model.pt2"
    assert form_of(load_recipe("onnxruntime-cpu-fp32")).filename == "model.onnx"


def test_a_lowered_network_computes_the_same(made: nn.Module, program: nn.Module) -> None:
    x = torch.randn(1, 1, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(program(x), made(x), rtol=1e-4, atol=1e-6)
    assert input_shape(program) == (1, 1, 24, 24)


def test_batch_normalisation_is_folded(program: nn.Module) -> None:
    assert isinstance(program, torch.fx.GraphModule)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("conv2d" in target for target in targets)
    assert not [target for target in targets if "batch_norm" in target]
    assert not any(p.requires_grad for p in program.parameters())


def test_the_batch_is_that_of_the_recipe(made: nn.Module) -> None:
    found = form_of(recipe(batch=3)).lower(made, (1, 24, 24))
    assert isinstance(found, nn.Module)
    assert input_shape(found) == (3, 1, 24, 24)
    assert found(torch.zeros(3, 1, 24, 24)).shape == (3, 10)


def calls(*modules: nn.Module) -> list[str]:
    graphs = [m.graph for m in modules if isinstance(m, torch.fx.GraphModule)]
    return [str(n.target) for graph in graphs for n in graph.nodes if n.op == "call_function"]


def test_assembled_ops_are_the_network(program: nn.Module) -> None:
    form = form_of(recipe())
    ops = [op for _, op in SPACE.ops(SPACE.smallest)]
    programs = form.lower_ops(ops)
    assert list(programs) == list(dict.fromkeys(ops))
    whole = form.assemble([programs[op] for op in ops])
    assert isinstance(whole, Wired)
    assert input_shape(whole) == (1, 1, 24, 24)
    x = y = torch.randn(1, 1, 24, 24)
    for op in ops:
        part = programs[op]
        assert isinstance(part, nn.Module)
        assert input_shape(part) == (1, *op.input)
        y = part(y)
        assert y.shape == (1, *op.output)
    assert torch.equal(whole(x), y)
    # What is profiled is what is deployed.
    assert calls(*whole.parts) == calls(program)


@pytest.mark.parametrize("name", ["nasbench201-tiny", "darts-tiny"])
def test_assembled_cells_are_the_network(name: str) -> None:
    form = form_of(recipe())
    space = make_space(name)
    [arch] = space.decode(space.sample(1, seed=1))
    nodes = space.network(arch)
    programs = form.lower_ops([node.op for node in nodes])
    parts = [form.another(programs[node.op], i) for i, node in enumerate(nodes)]
    whole = form.assemble(parts, [node.reads for node in nodes])
    assert isinstance(whole, Wired)
    x = torch.randn(1, *space.input_shape(arch))
    values = {FROM_IMAGE: x}
    for i, node in enumerate(nodes):
        part = programs[node.op]
        assert isinstance(part, nn.Module)
        values[i] = part(*(values[read] for read in node.reads))
        assert values[i].shape == (1, *node.op.output)
    assert torch.equal(whole(x), values[len(nodes) - 1])
    deployed = form.lower(network(space, arch).eval(), space.input_shape(arch))
    assert isinstance(deployed, nn.Module)
    assert sorted(calls(*whole.parts)) == sorted(calls(deployed))


def test_an_op_of_several_inputs_is_timed_alone_with_one() -> None:
    form = form_of(recipe())
    op = parse_op("concat 2x4x4>6x4x4 terms=3")
    tied = form.tied(form.lower_ops([op])[op])
    assert isinstance(tied, nn.Module)
    assert input_shape(tied) == (1, 2, 4, 4)
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(tied(x), torch.cat([x, x, x], dim=1))


def networks_of_every_kind() -> list[tuple[str, Arch]]:
    """Small networks, with their space, that hold an op of every kind."""
    missing = set(KINDS) - {"none", "segment"}  # segments: tests/tracing
    found = []
    for name in (
        "nasbench201-tiny",
        "darts-tiny",
        "mobilenetv3-tiny",
        "fbnet+resolution=32",
        "resnet50",
        "vit-tiny",
        "hybrid-tiny",
        "sequence",
    ):
        space = make_space(name)
        for arch in [*space.decode(space.sample(20, seed=0)), space.smallest]:
            kinds = {node.op.kind for node in space.network(arch)}
            if missing & kinds:
                missing -= kinds
                found.append((name, arch))
    assert not missing
    return found


@pytest.mark.parametrize(("name", "arch"), networks_of_every_kind(), ids=lambda value: str(value)[:16])
def test_every_kind_of_op_can_be_written(name: str, arch: Arch, tmp_path: Path) -> None:
    space, form = make_space(name), form_of(recipe())
    made = network(space, arch).eval()
    program = form.lower(made, space.input_shape(arch), dtype=space.dtype)
    loaded = without_checks(load_archive(form.write(program, tmp_path)))
    x = random_inputs(space, arch, 1)
    torch.testing.assert_close(loaded(x), made(x), rtol=1e-3, atol=1e-4)


def test_a_written_program_comes_back(program: nn.Module, tmp_path: Path) -> None:
    path = form_of(recipe()).write(program, tmp_path / "new")
    assert path == tmp_path / "new" / "model.pt2"
    loaded = without_checks(load_archive(path))
    assert input_shape(loaded) == (1, 1, 24, 24)
    x = torch.randn(1, 1, 24, 24)
    assert torch.equal(loaded(x), program(x))
    # A second write of what was loaded is no other program.
    again = form_of(recipe()).write(loaded, tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()
    assert torch.equal(without_checks(torch.export.load(again).module(check_guards=False))(x), program(x))


def test_a_program_that_computes_without_end_is_not_loaded(
    program: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = form_of(recipe()).write(program, tmp_path)
    macs = int(SPACE.macs(SPACE.encode([SPACE.smallest]))[0])
    monkeypatch.setattr("hwnas.lowering.operators.MAX_WORK", macs)
    load_archive(path)
    monkeypatch.setattr("hwnas.lowering.operators.MAX_WORK", macs - 1)
    with pytest.raises(BundleError, match="multiply-accumulates; at most"):
        load_archive(path)


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_the_windows_of_a_pool_are_work(pool: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = form_of(recipe())
    path = form.write(form.lower(pool((5, 3), stride=1, padding=(2, 1)), (2, 16, 16)), tmp_path)
    monkeypatch.setattr("hwnas.lowering.operators.MAX_WORK", 2 * 16 * 16 * 5 * 3)
    load_archive(path)
    monkeypatch.setattr("hwnas.lowering.operators.MAX_WORK", 2 * 16 * 16 * 5 * 3 - 1)
    with pytest.raises(BundleError, match="multiply-accumulates; at most"):
        load_archive(path)


def test_nothing_of_this_machine_is_in_a_file(program: nn.Module, tmp_path: Path) -> None:
    path = form_of(recipe()).write(program, tmp_path)
    with zipfile.ZipFile(path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"conv2d" in content
    for trace in (str(ROOT), sys.prefix, str(Path.home()), str(Path.cwd()), "site-packages", '.py\\"', 'File \\"'):
        assert trace.encode() not in content
