"""Once-for-all's published networks, reproduced. The facts lie beside the repository and are not part of it."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from hwnas.errors import CheckpointError, InvalidValue
from hwnas.spaces import Arch, make_space
from hwnas.supernet import Supernet, extract, load_once_for_all, read_once_for_all
from hwnas.supernet.once_for_all import PUBLISHED, resembled

FACTS = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "once-for-all"
SPACE = make_space("mobilenetv3")
CASES = range(6)
V3 = "mbv3-w1.0"
FILES = {"mobilenetv3": V3, "mobilenetv3-w1.2": "mbv3-w1.2"} | {n: n for n in ("proxyless-w1.3", "resnet50")}
State = dict[str, Tensor]

published = pytest.mark.skipif(not FACTS.is_dir(), reason=f"needs once-for-all's facts in {FACTS}")


@cache
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FACTS / "golden-mbv3-w1.0.json").read_text())
    return content


@cache
def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_weights", FACTS / "draw_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def weights(published: str) -> State:
    state: State = drawing().state_dict(FACTS / f"{published}-parameters.json")
    return state


def arch_of(case: dict[str, Any]) -> Arch:
    values = {"resolution": case["r"]}
    for i, (kernel, expansion) in enumerate(zip(case["ks"], case["e"], strict=True)):
        s, b = divmod(i, 4)
        values |= {
            f"depth_{s + 1}": case["d"][s],
            f"kernel_{s + 1}_{b + 1}": kernel,
            f"expansion_{s + 1}_{b + 1}": expansion,
        }
    return SPACE.arch(values)


@pytest.fixture(scope="module")
def single() -> Supernet:
    supernet = Supernet(SPACE).eval()
    load_once_for_all(supernet, weights(V3))
    return supernet


@pytest.fixture(scope="module")
def double() -> Supernet:
    supernet = Supernet(SPACE).eval().double()
    load_once_for_all(supernet, weights(V3))
    return supernet


@published
def test_the_facts_are_those_the_values_were_made_with() -> None:
    assert len(golden()["cases"]) == len(CASES)
    for name, values in golden()["spot"].items():
        assert weights(V3)[name].flatten()[:4].tolist() == pytest.approx(values, abs=1e-7)
    for resolution, values in golden()["spot_input"].items():
        assert drawing().image(int(resolution)).flatten()[:4].tolist() == pytest.approx(values, abs=1e-7)


@published
@pytest.mark.parametrize("number", CASES)
def test_published_logits_in_double_precision(double: Supernet, number: int) -> None:
    case = golden()["cases"][number]
    arch, x = arch_of(case), drawing().image(case["r"]).double()
    expected = torch.tensor(case["logits8_f64"], dtype=torch.float64)
    with torch.no_grad():
        whole, taken_out = double(x, arch), extract(double, arch)(x)
    for logits in (whole, taken_out):
        torch.testing.assert_close(logits[:, :8], expected, rtol=0, atol=1e-8)
        assert logits.argmax(dim=1).tolist() == case["argmax"]


@published
@pytest.mark.parametrize("number", CASES)
def test_published_logits_in_single_precision(single: Supernet, number: int) -> None:
    case = golden()["cases"][number]
    arch, x = arch_of(case), drawing().image(case["r"])
    with torch.no_grad():
        whole, taken_out = single(x, arch), extract(single, arch)(x)
    for logits in (whole, taken_out):
        torch.testing.assert_close(logits[:, :8], torch.tensor(case["logits8_f32"]), rtol=0, atol=5e-4)


@published
def test_published_sizes_of_networks() -> None:
    archs = [arch_of(case) for case in golden()["cases"]]
    assert SPACE.params(SPACE.encode(archs)).tolist() == [case["subnet_params"] for case in golden()["cases"]]


@published
@pytest.mark.parametrize("name", FILES)
def test_every_number_of_a_published_file_is_read(name: str) -> None:
    supernet, theirs = Supernet(make_space(name)), weights(FILES[name])
    load_once_for_all(supernet, theirs)
    ours = supernet.state_dict()
    assert PUBLISHED.keys() == FILES.keys()
    assert {PUBLISHED[name](key) for key in ours} == theirs.keys()
    for key, tensor in ours.items():
        assert torch.equal(tensor, theirs[PUBLISHED[name](key)].reshape(tensor.shape)), key


@published
@pytest.mark.parametrize("name", FILES)
def test_the_space_of_a_file_is_told(name: str) -> None:
    assert resembled(weights(FILES[name])) == name


@published
def test_the_counts_of_batches_may_be_missing(double: Supernet) -> None:
    supernet = Supernet(SPACE)
    load_once_for_all(supernet, {n: t for n, t in weights(V3).items() if not n.endswith("num_batches_tracked")})
    one, other = supernet.state_dict(), double.state_dict()
    assert all(torch.equal(one[name].double(), other[name].double()) for name in one)


def without(state: State, name: str) -> State:
    return {key: tensor for key, tensor in state.items() if key != name}


STEM, MATRIX = "first_conv.conv.weight", "blocks.20.mobile_inverted_conv.depth_conv.conv.5to3_matrix"


@published
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, STEM), f"missing: {STEM}$"),
        (lambda s: without(without(s, STEM), MATRIX), f"missing: {MATRIX}, {STEM}$"),
        (lambda s: s | {"blocks.21.x": torch.zeros(1)}, r"unexpected: blocks\.21\.x$"),
        (lambda s: s | {STEM: torch.zeros(16, 3, 5, 5)}, r"shape: .* \(16, 3, 5, 5\) instead of \(16, 3, 3, 3\)$"),
        (lambda s: s | {MATRIX: torch.zeros(9)}, rf"shape: {MATRIX} \(9,\) instead of \(9, 9\)$"),
        (
            # The same count of numbers in another form is another layer.
            lambda s: s | {"feature_mix_layer.conv.weight": torch.zeros(1280, 960)},
            r"feature_mix_layer\.conv\.weight \(1280, 960\) instead of \(1280, 960, 1, 1\)$",
        ),
        (
            lambda s: without(s, STEM) | {"module." + STEM: s[STEM]},
            rf"missing: {STEM}; unexpected: module\.{STEM}$",
        ),
        (lambda _: {}, r"look like none of mobilenetv3, .*missing: blocks\.0\..* and \d+ more$"),
        (lambda _: weights("mbv3-w1.2"), r"\(they look like mobilenetv3-w1\.2\); of another shape: .* and \d+ more$"),
        (lambda _: weights("resnet50"), r"\(they look like resnet50\); missing: .*; unexpected: "),
    ],
    ids=["one", "two", "unexpected", "kernel", "matrix", "linear", "renamed", "nothing", "other width", "other family"],
)
def test_other_parameters_are_listed_and_nothing_is_loaded(
    single: Supernet, change: Callable[[State], State], message: str
) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights(V3).items()}
    with pytest.raises(CheckpointError, match=message):
        load_once_for_all(single, change(zeros))
    assert all(tensor.any() for name, tensor in single.state_dict().items() if tensor.dim())


def test_a_supernet_of_another_space_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"mobilenetv3, .*resnet50, not of mobilenetv3-tiny"):
        load_once_for_all(Supernet(make_space("mobilenetv3-tiny")), {})


# -- the file --------------------------------------------------------------------------------------------------------


@published
def test_a_published_file_is_read(tmp_path: Path, double: Supernet) -> None:
    path = tmp_path / "ofa_mbv3_d234_e346_k357_w1.0"
    torch.save({"state_dict": weights(V3)}, path)
    supernet = Supernet(SPACE).double().eval()
    load_once_for_all(supernet, read_once_for_all(path))
    one, other = supernet.state_dict(), double.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*nothing.*No such file"):
        read_once_for_all(tmp_path / "nothing")


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_file_that_is_cut_off(tmp_path: Path, keep: int) -> None:
    torch.save({"state_dict": {"a": torch.zeros(100)}}, tmp_path / "whole")
    (tmp_path / "part").write_bytes((tmp_path / "whole").read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cannot read .*part as a once-for-all checkpoint"):
        read_once_for_all(tmp_path / "part")


def test_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"cannot read .*text"):
        read_once_for_all(tmp_path / "text")


@pytest.mark.parametrize(
    "content",
    [{}, {1: torch.zeros(1)}, [1], {"state_dict": [1]}, {"state_dict": {"a": 1}}, {"a": 1}, torch.zeros(1)],
)
def test_a_file_of_something_else(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other")
    with pytest.raises(CheckpointError, match="it has no tensors by name, nor a 'state_dict' of them"):
        read_once_for_all(tmp_path / "other")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hook": Path("x")}, tmp_path / "code")
    with pytest.raises(CheckpointError, match=r"cannot read .*code"):
        read_once_for_all(tmp_path / "code")


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
def test_files_of_other_forms(tmp_path: Path, wrap: Callable[[State], object]) -> None:
    """A bare mapping, and what several GPUs in parallel save."""
    torch.save(wrap({f"module.{name}": tensor for name, tensor in tiny().items()}), tmp_path / "file")
    assert read_once_for_all(tmp_path / "file").keys() == tiny().keys()


def tiny() -> State:
    return {"first_conv.conv.weight": torch.zeros(2), "first_conv.bn.bn.num_batches_tracked": torch.tensor(1)}


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.tensor([0.0, float("nan")]), "values that are NaN or infinite"),
        (torch.zeros(2, dtype=torch.int8), "no tensor of weights: torch.strided, torch.int8"),
        (torch.zeros(2, dtype=torch.complex64), "no tensor of weights"),
        (torch.zeros(2).to_sparse(), "no tensor of weights"),
        (torch.zeros(2, device="meta"), "no tensor of weights"),
    ],
)
def test_tensors_that_are_no_weights(tmp_path: Path, tensor: Tensor, message: str) -> None:
    torch.save({"state_dict": tiny() | {"first_conv.conv.weight": tensor}}, tmp_path / "file")
    with pytest.raises(CheckpointError, match=f"first_conv.conv.weight of .*{message}"):
        read_once_for_all(tmp_path / "file")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_changed_bytes_is_read_or_refused(tmp_path: Path, zipped: bool) -> None:
    """Whatever torch makes of it, no other error comes out."""
    torch.save({"state_dict": tiny()}, tmp_path / "whole", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole").read_bytes()
    rng, refused = random.Random(0), 0
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(3):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / "file").write_bytes(content)
        try:
            read_once_for_all(tmp_path / "file")
        except CheckpointError:
            refused += 1
    assert refused > 50
