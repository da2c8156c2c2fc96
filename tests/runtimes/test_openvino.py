from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwnas.errors import RuntimeUnavailable
from hwnas.lowering import Program, form_of
from hwnas.nn import build
from hwnas.runtimes import open_session
from hwnas.runtimes.base import Array
from hwnas.spaces import parse_op
from hwnas.targets import Recipe, load_recipe

ov = pytest.importorskip("openvino")


def outputs(program: Program, recipe: str, images: Array) -> Array:
    with open_session(program, load_recipe(recipe)) as session:
        return np.concatenate([session.run(image[None]) for image in images])


@pytest.mark.parametrize("threads", ["", "-2t"])
@pytest.mark.parametrize("act", ["hswish", "relu"])
def test_two_int8_linear_layers_give_the_numbers_of_onnx_runtime(act: str, threads: str) -> None:
    # On one thread OpenVINO 2026.4 fuses them into a kernel with wrong results, unless it is told not to.
    op = parse_op(f"classifier 192x2x2>10 act={act} hidden=256")
    torch.manual_seed(0)
    module = build(op).eval()
    program = form_of(load_recipe("onnxruntime-cpu-int8")).lower(module, op.input, torch.randn(64, *op.input))
    x = np.random.default_rng(0).standard_normal((8, *op.input), np.float32)
    expected = outputs(program, "onnxruntime-cpu-int8", x)
    got = outputs(program, f"openvino-cpu-int8{threads}", x)
    assert np.abs(expected).max() > 0.1
    # A few steps of int8 apart at most; the wrong kernel is off by more than the outputs' whole range.
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("threads", ["", "-2t"])
def test_an_int8_network_gives_the_numbers_of_onnx_runtime(
    network_of: Callable[[bool], nn.Module], pictures: Callable[[int, int], Tensor], threads: str
) -> None:
    program = form_of(load_recipe("onnxruntime-cpu-int8")).lower(network_of(False), (3, 24, 24), pictures(64, 1))
    x = pictures(28, 2).numpy()
    expected = torch.from_numpy(outputs(program, "onnxruntime-cpu-int8", x))
    got = torch.from_numpy(outputs(program, f"openvino-cpu-int8{threads}", x))
    assert torch.cosine_similarity(got, expected).min() > 0.98
    assert torch.equal(got.argmax(1), expected.argmax(1))


def test_both_runtimes_get_the_same_int8_graph(
    network_of: Callable[[bool], nn.Module], pictures: Callable[[int, int], Tensor], tmp_path: Path
) -> None:
    written = []
    for runtime in ("onnxruntime", "openvino"):
        form = form_of(load_recipe(f"{runtime}-cpu-int8"))
        program = form.lower(network_of(True), (3, 24, 24), pictures(16, 1))
        written.append(form.write(program, tmp_path / runtime).read_bytes())
    assert written[0] == written[1]


def test_bf16_is_refused_where_the_cpu_has_none(
    network_of: Callable[[bool], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ov.Core.get_property

    def without_bf16(self: Any, device: str, name: str) -> Any:
        if name == "OPTIMIZATION_CAPABILITIES":
            return ["FP32", "INT8", "BIN"]
        return real(self, device, name)

    monkeypatch.setattr(ov.Core, "get_property", without_bf16)
    recipe = load_recipe("openvino-cpu-bf16")
    program = form_of(recipe).lower(network_of(True), (3, 24, 24))
    with pytest.raises(
        RuntimeUnavailable, match=r"openvino-cpu-bf16 .* computes in bf16, .* reports FP32, INT8, BIN\. "
    ):
        open_session(program, recipe)
    with pytest.raises(RuntimeUnavailable, match="use an fp32 recipe"):
        open_session(Path("never read"), recipe)  # nothing is lowered before that
    open_session(program, load_recipe("openvino-cpu-fp32")).close()


def test_a_bound_call_keeps_its_own_images(
    network_of: Callable[[bool], nn.Module], pictures: Callable[[int, int], Tensor]
) -> None:
    # The arrays of a request were once those of the last call that was bound or run.
    recipe = load_recipe("openvino-cpu-fp32")
    program = form_of(recipe).lower(network_of(True), (3, 24, 24))
    with open_session(program, recipe) as session:
        first, second = (image[None] for image in pictures(2, 1).numpy())
        one = session.bind(first)
        two = session.bind(second)
        expected = session.run(first), session.run(second)
        for call, wanted in ((one, expected[0]), (two, expected[1]), (one, expected[0])):
            result: Any = call()
            assert np.array_equal(result[0], wanted)


@pytest.mark.parametrize(
    ("capabilities", "refused"),
    [(["FP32", "INT8", "BIN"], {"bf16"}), (["FP32", "INT8", "BF16", "BIN"], set()), (["FP32", "FP16"], {"bf16"})],
)
def test_the_runtime_says_which_recipes_run_here(
    capabilities: list[str], refused: set[str], monkeypatch: pytest.MonkeyPatch, runs_here: Callable[[str], Recipe]
) -> None:
    """Tests and sweeps ask it; CPUs with and without bf16 are simulated."""
    monkeypatch.setattr(ov.Core, "get_property", lambda *_: capabilities)
    found = set()
    for name in ("openvino-cpu-fp32", "openvino-cpu-bf16", "openvino-cpu-int8"):
        try:
            assert runs_here(name).name == name
        except pytest.skip.Exception as reason:
            assert f"{name} cannot run here: " in str(reason)
            found.add(load_recipe(name).precision)
    assert found == refused
