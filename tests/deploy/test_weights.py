"""8-bit weights on a CPU that saturates: what is computed, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hwnas.deploy import Bundle, BundleManifest, write_bundle
from hwnas.deploy.bundle import write_example
from hwnas.deploy.parity import check_parity
from hwnas.deploy.verification import verify
from hwnas.errors import BundleError, ParityError
from hwnas.lowering.observe import outputs
from hwnas.lowering.quantize import Quantizer
from hwnas.runtimes import open_session
from hwnas.targets import Host, Recipe, adds_exactly, detect_host, load_recipe, weights

WHY = r'Its weights have 8 bits, and this CPU has no VNNI.*weights = "int7"'
IMAGE = (1, 1, 24, 24)
X = np.random.default_rng(1).uniform(0.0, 1.0, IMAGE).astype(np.float32)


def recipe(kind: str, runtime: str = "onnxruntime") -> Recipe:
    base = load_recipe(f"{runtime}-cpu-int8")
    assert base.quantization is not None
    return base.model_copy(update={"quantization": base.quantization.model_copy(update={"weights": kind})})


def graph(kind: str) -> onnx.ModelProto:
    """``(1, 1, 24, 24) -> (1, 3)`` in int8, with pairs of products that pass 16 bits where the weights have 8."""
    values = np.random.default_rng(0).uniform(0.8, 1.0, (576, 3)).astype(np.float32) * np.float32([1, -1, 1])
    fp32 = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Flatten", ["input"], ["flat"], name="flatten"),
                helper.make_node("MatMul", ["flat", "weight"], ["output"], name="linear"),
            ],
            "sums",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, IMAGE)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 3))],
            [numpy_helper.from_array(values, "weight")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    how = recipe(kind).quantization
    assert how is not None
    return Quantizer(fp32, np.concatenate([X, X * 0.5]), how).quantized()


def on(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    host = Host(architecture="x86_64", cpu_name="CPU", cores=2, flags=flags)
    monkeypatch.setattr(weights, "detect_host", lambda: host)


def made(manifest: BundleManifest, folder: Path, how: Recipe, recorded: np.ndarray) -> Bundle:
    def write(place: Path) -> Path:
        onnx.save(graph("int8"), place / "model.onnx")
        write_example(place, X, recorded)
        return place / "model.onnx"

    return write_bundle(folder, write, manifest.model_copy(update={"recipe": how}))


@pytest.mark.parametrize(("kind", "largest"), [("int8", 127), ("int7", 64)])
def test_the_range_of_the_weights_and_of_nothing_else(kind: str, largest: int) -> None:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph(kind).graph.initializer}
    assert np.abs(found["weight_quantized"].astype(int)).max() == largest
    other = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph("int8").graph.initializer}
    for name in ("flat_scale", "output_scale"):
        assert found[name] == other[name]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_7_bit_weights_compute_the_same_on_every_cpu(runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    model = graph("int7")
    with open_session(model, recipe("int7", runtime)) as session:
        got = session.run(X)
    exact = outputs(model, X)
    step = 2 * np.abs(exact).max() / 255
    assert np.abs(got - exact).max() <= 1.01 * step


def test_observed_outputs_do_not_saturate() -> None:
    values = outputs(graph("int8"), X)[0]
    expected = X.sum() * 0.9 * np.array([1, -1, 1])
    assert values == pytest.approx(expected, rel=0.02)


def test_a_bundle_from_a_cpu_with_vnni_says_why_it_differs(manifest: BundleManifest, tmp_path: Path) -> None:
    if adds_exactly(detect_host().flags):
        pytest.skip("this CPU adds int8 products exactly, so nothing saturates")
    exact = outputs(graph("int8"), X)
    for how in (recipe("int8"), recipe("auto")):  # auto: from before the range was recorded
        bundle = made(manifest, tmp_path / how.hash[:4] / str(how.quantization), how, exact)
        with pytest.raises(BundleError, match=WHY):
            verify(bundle.folder)


@pytest.mark.parametrize("kind", ["int8", "auto", "int7"])
def test_what_differs_names_saturation_only_where_it_can_occur(
    manifest: BundleManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bundle = made(manifest, tmp_path / "bundle", recipe(kind), np.float32([[1e3, 1e3, 1e3]]))
    for flags in (("avx2",), ("avx2", "avx512_vnni")):
        on(monkeypatch, *flags)
        with pytest.raises(BundleError, match="outputs on this host differ") as raised:
            verify(bundle.folder)
        assert ("no VNNI" in str(raised.value)) == (kind != "int7" and len(flags) == 1)


def test_a_bundle_that_passes_carries_the_warning(
    manifest: BundleManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = graph("int8")
    with open_session(model, recipe("int8")) as session:
        here = session.run(X)
    bundle = made(manifest, tmp_path / "bundle", recipe("int8"), here)
    on(monkeypatch, "avx2")
    assert "no VNNI" in (verify(bundle.folder).saturates or "")
    on(monkeypatch, "avx2", "avx_vnni")
    assert verify(bundle.folder).saturates is None


def test_parity_says_that_the_sums_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "avx2")
    other = nn.Sequential(nn.Flatten(), nn.Linear(576, 3))
    batches = [(torch.from_numpy(X), torch.zeros(1, dtype=torch.long))]
    for kind, expected in (("int8", True), ("int7", False)):
        with pytest.raises(ParityError) as raised:
            check_parity(other, graph(kind), recipe(kind), batches)
        assert ("no VNNI" in str(raised.value)) is expected
