"""Bundles whose program takes any number of images: what `verify` and `bench` find of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.deploy import Bundle, BundleManifest, bench, open_bundle, verify, write_bundle
from hwnas.deploy.bundle import write_example
from hwnas.errors import BundleError
from hwnas.lowering.batch import with_any_batch
from hwnas.runtimes import open_session
from hwnas.targets import Recipe, this_device

IMAGE = (1, 1, 24, 24)


def graph(*, mixed: bool = False) -> onnx.ModelProto:
    """``(1, 1, 24, 24) -> (1, 3)``; `mixed` subtracts the mean over the images of a run."""
    weight = np.random.default_rng(0).standard_normal((576, 3)).astype(np.float32)
    stored = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([0]), "axes")]
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["raw"]),
        helper.make_node("ReduceMean", ["raw", "axes"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "mean"], ["square"]),
        helper.make_node("Add", ["raw", "square" if mixed else "raw"], ["output"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", IMAGE), ("output", (1, 3)))
    ]
    if not mixed:
        nodes, stored = [nodes[0], nodes[1], nodes[4]], stored[:1]
    return helper.make_model(
        helper.make_graph(nodes, "small", ends[:1], ends[1:], stored),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


Make = Callable[..., Bundle]


@pytest.fixture
def make(manifest: BundleManifest, recipe: Recipe, tmp_path: Path) -> Make:
    """Makes a bundle of a graph."""

    def made(model: onnx.ModelProto, *, dynamic: bool = True, batch: int = 1) -> Bundle:
        own = recipe.model_copy(update={"batch": batch})

        def write(folder: Path) -> Path:
            onnx.save(model, folder / "model.onnx")
            x = np.random.default_rng(1).standard_normal(IMAGE).astype(np.float32)
            with open_session(model, own, any_batch="batch" in str(model.graph.input)) as session:
                write_example(folder, x, session.run(x))
            return folder / "model.onnx"

        told = manifest.model_copy(
            update={
                "recipe": own,
                "dynamic_batch": dynamic,
                "input": manifest.input.model_copy(update={"shape": [batch, *IMAGE[1:]]}),
                "output": manifest.output.model_copy(update={"shape": [batch, 3]}),
            }
        )
        return write_bundle(tmp_path / "bundle", write, told)

    return made


@pytest.mark.parametrize("batch", [1, 4])
def test_it_is_opened_verified_and_timed(batch: int, make: Make) -> None:
    made = make(with_any_batch(graph()), batch=batch)
    found = verify(made.folder)
    assert found.dynamic_batch
    assert found.max_abs_error is not None
    assert found.max_abs_error <= found.accepted_error
    opened = open_bundle(made.folder)
    assert json.loads((made.folder / "manifest.json").read_text())["dynamic_batch"] is True
    assert bench(opened, this_device()).batch == batch


def test_a_fixed_batch_is_not_in_the_manifest(make: Make) -> None:
    made = make(graph(), dynamic=False)
    assert "dynamic_batch" not in json.loads((made.folder / "manifest.json").read_text())
    assert not verify(made.folder).dynamic_batch


def test_images_that_change_each_others_outputs_are_found(make: Make) -> None:
    made = make(with_any_batch(graph(mixed=True)))
    with pytest.raises(BundleError, match="outputs of several images in a run differ from those of the images one by"):
        verify(made.folder)


def test_a_program_with_a_fixed_batch_is_not_what_the_manifest_says(make: Make) -> None:
    with pytest.raises(BundleError, match="takes a fixed number of images in a run: export it again"):
        verify(make(graph()).folder)
