"""A bundle of a graph of three nodes, really run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.deploy import Bundle, BundleManifest, write_bundle
from hwnas.deploy.bundle import write_example
from hwnas.deploy.manifest import DeviceFacts, Example, Input, Output, ParityReport
from hwnas.runtimes import open_session
from hwnas.spaces import Domain, Space
from hwnas.targets import Recipe

IMAGE = (1, 1, 24, 24)
Writer = Callable[..., Callable[[Path], Path]]


def graph(*, scale: float = 1.0) -> onnx.ModelProto:
    """``(1, 1, 24, 24) -> (1, 3)``."""
    weight = np.random.default_rng(0).standard_normal((576, 3)).astype(np.float32) * np.float32(scale)
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["raw"]),
        helper.make_node("Relu", ["raw"], ["output"]),
    ]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, IMAGE)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 3))],
            [numpy_helper.from_array(weight, "weight")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def written(model: onnx.ModelProto, recipe: Recipe) -> Callable[[Path], Path]:
    """What `write_bundle` asks for: writes a graph, and a run of it."""

    def write(folder: Path) -> Path:
        path = folder / "model.onnx"
        onnx.save(model, path)
        x = np.random.default_rng(1).standard_normal(IMAGE).astype(np.float32)
        with open_session(path, recipe) as session:
            write_example(folder, x, session.run(x))
        return path

    return write


@pytest.fixture
def manifest(space: Space, recipe: Recipe) -> BundleManifest:
    return BundleManifest(
        target="board/made-up",
        device=DeviceFacts(name="board", kind="cpu", fingerprint="0" * 64),
        recipe=recipe,
        domain=Domain.of(space),
        arch=dict(space.largest),
        weights_sha256="1" * 64,
        data="made-up",
        classes=["null", "Änne", "zwei"],
        input=Input(name="input", shape=list(IMAGE), transform={"mean": [0.1], "crop": None}),
        output=Output(name="output", shape=[1, 3], meaning="logits, one per class"),
        example=Example(max_abs_error=1e-3),
        predicted_ms=0.1 + 0.2,
        measured_ms=None,
        budget_ms=1.5,
        accuracy=0.875,
        parity=ParityReport(
            images=10, max_abs_error=1e-6, min_cosine=1.0, top1_agreement=1.0, torch_accuracy=0.9, deployed_accuracy=0.9
        ),
        macs=1000,
        params=100,
        versions={"hwnas": "0"},
        files={},
    )


@pytest.fixture
def writer(recipe: Recipe) -> Writer:
    """Makes what `write_bundle` asks for, of a graph whose weights are scaled."""
    return lambda scale=1.0: written(graph(scale=scale), recipe)


@pytest.fixture
def bundle(manifest: BundleManifest, writer: Writer, tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", writer(), manifest)
