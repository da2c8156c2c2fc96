"""Time, compare, export and verify models: several inputs, several outputs, integers, open axes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwnas import workflows
from hwnas.deploy import verify
from hwnas.deploy.model_bench import added_by_profiler, time_model
from hwnas.deploy.model_bundle import open_model_bundle
from hwnas.errors import BundleError, HwnasError, ModelError, OutputError, ParityError, RuntimeUnavailable
from hwnas.machines import LocalMachine
from hwnas.models import Model, open_model
from hwnas.models.lowered import quantizer_of
from hwnas.models.model import open_graph
from hwnas.profiling.kernels import written
from hwnas.runner.program import Layer, LayerRuns
from hwnas.targets import resolve_target
from hwnas.targets.host import usable_cores
from hwnas.timing import Protocol

FP32 = "this/onnxruntime-cpu-fp32"
BOTH = [FP32, "this/openvino-cpu-fp32"]


@pytest.fixture(scope="module")
def model(text: Any) -> Model:
    module, example = text
    return open_model(module, example=example)


def test_latency_and_layers(model: Model, quick: Protocol) -> None:
    answer = workflows.bench_model(model, BOTH, protocol=quick)
    assert [one.target for one in answer.targets] == [resolve_target(name).name for name in BOTH]
    for one in answer.targets:
        assert 0 < one.measured_ms <= one.p90_ms
        assert len(one.layers) > 5
        assert one.between_ms is not None
        # By construction, unless the runtime reports fewer layers than it runs.
        assert sum(layer.ms for layer in one.layers) + one.between_ms == pytest.approx(one.measured_ms)
        assert one.between_ms > -0.1 * one.measured_ms
    matmuls = [layer for layer in answer.targets[0].layers if layer.macs]
    assert max(layer.macs or 0 for layer in matmuls) >= 8 * 16 * 16  # eight tokens, a projection of 16 x 16
    assert answer.model.inputs == ["ids: int64 [1, 8]", "mask: int64 [1, 8]"]


class SlowBeside(LocalMachine):
    """Slow while it profiles layers."""

    def layers(self, programs: Any, *given: Any, **options: Any) -> dict[str, LayerRuns]:
        return {name: LayerRuns([Layer("a", "MatMul", 75.0), Layer("b", "Relu", 25.0)], 100.0) for name in programs}


def test_layers_are_at_the_speed_of_the_whole(model: Model, quick: Protocol, tmp_path: Path) -> None:
    target = resolve_target(FP32)
    program = written(model, target.recipe, tmp_path / "model.onnx")
    found = time_model(program, target, SlowBeside(), quick)
    assert [one.share for one in found.layers] == pytest.approx([0.75, 0.25])
    assert found.layers[0].ms == pytest.approx(0.75 * found.measured_ms)


def test_recipes_that_cannot_run_it_say_so(model: Model, quick: Protocol) -> None:
    with pytest.raises(
        RuntimeUnavailable, match=r"no target can run TextClassifier: .* runs torch modules that hwnas built"
    ):
        workflows.bench_model(model, "this/torch-cpu-fp32", protocol=quick)


def test_the_cost_of_a_profiler_is_the_same_for_each_layer() -> None:
    assert added_by_profiler([1.0, 2.0], 3.5) == 0
    assert added_by_profiler([1.0, 2.0], 2.0) == pytest.approx(0.5)
    added = added_by_profiler([0.1, 10.0], 5.0)
    assert 0.01 + 10 - added == pytest.approx(5.0)  # a tenth of the small one remains
    assert added_by_profiler([], 1.0) == 0


@pytest.fixture
def bundle(model: Model, tmp_path: Path) -> Path:
    workflows.export_model(model, FP32, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_is_verified_and_runs_alone(bundle: Path) -> None:
    assert sorted(file.name for file in bundle.iterdir()) == [
        "README.md", "example-inputs.npz", "example-outputs.npz", "manifest.json", "model.onnx",
    ]  # fmt: skip
    found = verify(bundle)
    assert (found.files, found.max_abs_error, found.program_form) == (4, 0, True)
    [code] = re.findall(r"^```python\n(.*?)^```$", (bundle / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=bundle, capture_output=True, text=True, check=True)
    assert re.findall(r"output (\d) float32 (\(.*?\)) largest difference (\S+)", done.stdout) == [
        ("0", "(1, 3)", "0.0"),
        ("1", "(1, 16)", "0.0"),
    ]


def test_the_lines_of_openvino_run_alone(model: Model, tmp_path: Path) -> None:
    workflows.export_model(model, BOTH[1], tmp_path / "bundle")
    page = (tmp_path / "bundle" / "README.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path / "bundle", capture_output=True, text=True, check=True
    )
    assert all(float(found) < 1e-5 for found in re.findall(r"difference (\S+)", done.stdout))


def test_a_bundle_is_timed_again(bundle: Path, quick: Protocol) -> None:
    answer = workflows.bench(bundle, protocol=quick)
    assert answer.measured_ms > 0
    assert answer.predicted_ms is None


def test_changes_are_found(bundle: Path) -> None:
    program = bundle / "model.onnx"
    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 1
    program.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"model.onnx was changed after it was written"):
        open_model_bundle(bundle)


def test_outputs_that_differ_are_found(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LocalMachine.run_feeds

    def other(*given: Any) -> Any:
        return [{name: array + 1 for name, array in each.items()} for each in real(*given)]

    monkeypatch.setattr(LocalMachine, "run_feeds", other)
    with pytest.raises(BundleError, match="differs from the recorded one by 1"):
        verify(bundle)


def test_a_folder_of_others_is_not_replaced(model: Model, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="is not a bundle only"):
        workflows.export_model(model, FP32, tmp_path / "notes")


def test_int8_of_a_cnn(picture: Any, quick: Protocol, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((32, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "s.npz", input=images)
    model = open_model(picture, shapes={"input": (1, 3, 16, 16)})
    answer = workflows.sweep_model(
        model,
        recipes=["onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "openvino-cpu-fp32", "torch-cpu-fp32"],
        inputs=tmp_path / "s.npz",
        protocol=quick,
    )
    found = {one.timing.target.partition("/")[2]: one for one in answer.recipes}
    assert sorted(found) == ["onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "openvino-cpu-fp32"]
    assert [name.partition("/")[2] for name in answer.left_out] == ["torch-cpu-fp32"]
    errors = {name: one.parity.outputs[0].max_abs_error for name, one in found.items()}
    assert errors["onnxruntime-cpu-fp32"] < 1e-5 < errors["onnxruntime-cpu-int8"] < 0.5
    assert found["onnxruntime-cpu-int8"].parity.samples == 32
    assert answer.picked is not None


def test_labels_decide(picture: Any, quick: Protocol, tmp_path: Path) -> None:
    """The labels are the answers in fp32, so that fp32 has an accuracy of 1; their reverse has another."""
    images = np.random.default_rng(0).standard_normal((24, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "plain.npz", input=images)
    model = open_model(picture, shapes={"input": (1, 3, 16, 16)})
    from hwnas.models.lowered import reference_outputs
    from hwnas.models.samples import read_samples

    expected = reference_outputs(model, read_samples(tmp_path / "plain.npz", model.signature).feeds)
    labels = np.array([int(next(iter(each.values())).argmax()) for each in expected])
    np.savez(tmp_path / "s.npz", input=images, labels=labels)
    answer = workflows.sweep_model(
        model, recipes=["onnxruntime-cpu-int8"], inputs=tmp_path / "s.npz", max_drop=0.0, protocol=quick
    )
    [one] = answer.recipes
    assert (one.parity.metric, one.parity.reference) == ("top1", 1.0)
    assert one.parity.deployed is not None
    assert (one.refused is None) == (one.parity.deployed == 1.0)


@pytest.mark.skipif(usable_cores() < 2, reason="the second recipe takes two cores")
def test_a_sweep_calibrates_once_for_recipes_that_quantise_alike(
    picture: Any, quick: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated: list[str] = []

    def counted(model: Any, recipe: Any, samples: Any) -> Any:
        calibrated.append(recipe.name)
        return quantizer_of(model, recipe, samples)

    monkeypatch.setattr("hwnas.deploy.model_fallback.quantizer_of", counted)
    model = open_model(picture, shapes={"input": (1, 3, 16, 16)})
    recipes = ["onnxruntime-cpu-int8", "onnxruntime-cpu-int8-2t"]
    answer = workflows.sweep_model(model, recipes=recipes, max_drop=1.0, protocol=quick)
    one, two = answer.recipes
    assert calibrated == ["onnxruntime-cpu-int8"]
    assert one.float_layers == two.float_layers
    assert [output.max_abs_error for output in one.parity.outputs] == pytest.approx(
        [output.max_abs_error for output in two.parity.outputs], rel=1e-3
    )


def test_classes_in_a_column_are_those_in_a_row(write: Any, tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"])
    path = write([node], [("x", TensorProto.FLOAT, [1, 5])], [("y", TensorProto.FLOAT, [1, 5])])
    labels = np.array([0, 1, 2, 3, 4, 0])
    for number, each in enumerate((labels, labels[:, None])):
        np.savez(tmp_path / "s.npz", x=np.eye(6, 5, dtype=np.float32), labels=each)
        bundle = workflows.export_model(path, FP32, tmp_path / str(number), inputs=tmp_path / "s.npz")
        assert bundle.manifest.parity.deployed == 1.0


@pytest.mark.parametrize("value", [0.1, 1000.0])
def test_equal_values_have_no_unit_for_a_loss(write: Any, tmp_path: Path, value: float) -> None:
    """Then the outputs decide, as without labels."""
    node = helper.make_node("Softmax", ["x"], ["y"])
    path = write([node], [("x", TensorProto.FLOAT, [1, 5])], [("y", TensorProto.FLOAT, [1, 5])])
    np.savez(tmp_path / "s.npz", x=np.eye(7, 5, dtype=np.float32), labels=np.full((7, 5), value, np.float32))
    for metric in ("mse", "mae"):
        parity = workflows.export_model(
            path, FP32, tmp_path / metric, inputs=tmp_path / "s.npz", metric=metric
        ).manifest.parity
        assert parity.constant == 0
        assert parity.lost is None


def test_values_are_compared_by_their_errors(write: Any, quick: Protocol, tmp_path: Path) -> None:
    """The loss is a share of the error of the best constant output, whatever the unit of the values."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 1)).astype(np.float32)
    x = rng.normal(size=(32, 6)).astype(np.float32)
    lost = {}
    values = (x @ weight)[:, 0] + 0.1 * rng.normal(size=32)
    for unit in (1.0, 1000.0):
        scaled = write(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            [("x", TensorProto.FLOAT, [1, 6])],
            [("y", TensorProto.FLOAT, [1, 1])],
            {"w": weight * np.float32(unit)},
        )
        np.savez(tmp_path / "s.npz", x=x, labels=values * unit)
        for metric in ("mse", "mae"):
            answer = workflows.sweep_model(
                scaled,
                recipes=["onnxruntime-cpu-int8"],
                inputs=tmp_path / "s.npz",
                metric=metric,
                max_drop=1.0,
                protocol=quick,
            )
            [one] = answer.recipes
            off = (x @ weight)[:, 0] * unit - values * unit
            expected = float(np.mean(off**2) if metric == "mse" else np.mean(np.abs(off)))
            assert one.parity.metric == metric
            assert one.parity.reference == pytest.approx(expected, rel=1e-4)
            assert one.parity.lost is not None
            lost[unit, metric] = one.parity.lost
    for metric in ("mse", "mae"):
        assert abs(lost[1.0, metric] - lost[1000.0, metric]) < 0.02


@pytest.mark.parametrize(
    ("labels", "metric", "message"),
    [
        (None, "mae", "mae needs labels"),
        (np.zeros(2, np.float32), "top1", "top1 is a metric of classes, but the labels are float64"),
        (np.zeros((2, 3), np.int64), None, r"top1 needs one class per sample, \(2,\), not integers of the shape"),
        (np.array([0.0, np.nan]), None, "label 1 of .* is NaN or infinite"),
        (np.array(["a", "b"]), None, "labels of the type <U1"),
        (np.zeros(2, np.complex64), "mae", "labels of the type complex64"),
        (np.float32(1.0), "mae", r"the shape \[\]; they should be"),
        (np.zeros(2, np.int64), "f1", "unknown metric of a model"),
        (np.zeros((2, 3), np.float32), None, "a label has 3 values, and the first output 5"),
    ],
)
def test_a_metric_that_labels_do_not_have(
    write: Any, tmp_path: Path, labels: Any, metric: str | None, message: str
) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"])
    path = write([node], [("x", TensorProto.FLOAT, [1, 5])], [("y", TensorProto.FLOAT, [1, 5])])
    arrays = {"x": np.ones((2, 5), np.float32), **({} if labels is None else {"labels": labels})}
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(HwnasError, match=message):
        workflows.export_model(path, FP32, tmp_path / "bundle", inputs=tmp_path / "s.npz", metric=metric)


def test_a_dynamic_batch(write: Any, quick: Protocol, tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"])
    path = write([node], [("x", TensorProto.FLOAT, ["batch", 5])], [("y", TensorProto.FLOAT, ["batch", 5])])
    workflows.export_model(path, FP32, tmp_path / "bundle", shapes=["batch=3"])
    assert verify(tmp_path / "bundle").max_abs_error == 0
    inputs, outputs = open_model_bundle(tmp_path / "bundle").example()
    assert (inputs["x"].shape, outputs["y"].shape) == ((3, 5), (3, 5))
    assert workflows.bench_model(path, FP32, protocol=quick).model.notes == [
        "The first axis of x, batch, is taken as 1."
    ]


def test_outputs_that_are_not_finite(write: Any, tmp_path: Path) -> None:
    node = helper.make_node("Log", ["x"], ["y"])
    path = write([node], [("x", TensorProto.FLOAT, [4])], [("y", TensorProto.FLOAT, [4])])
    with pytest.raises(ModelError, match=r"the output y of model has NaN or infinite values on input 0: pass"):
        workflows.export_model(path, FP32, tmp_path / "bundle")
    np.savez(tmp_path / "s.npz", x=np.ones(4, np.float32))
    workflows.export_model(path, FP32, tmp_path / "bundle", inputs=tmp_path / "s.npz")


def test_parity_refuses(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LocalMachine.run_feeds

    def other(*given: Any) -> Any:
        return [{name: array + 0.1 for name, array in each.items()} for each in real(*given)]

    monkeypatch.setattr(LocalMachine, "run_feeds", other)
    with pytest.raises(ParityError, match=r"TextClassifier under onnxruntime-cpu-fp32: .*max_abs_error 0.1 >"):
        workflows.export_model(model, FP32, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_with_other_operators_is_rejected(bundle: Path) -> None:
    """A malicious file with valid checksums: its operator would load another file."""
    from hwnas.models.untrusted import check_model

    program = onnx.load(bundle / "model.onnx")
    program.graph.node.append(helper.make_node("PyOp", [], ["z"], domain="com.microsoft"))
    with pytest.raises(BundleError, match=r"the operator 'PyOp' of com\.microsoft is not allowed"):
        check_model(program.SerializeToString(), "model.onnx")


def test_from_the_command_line(relu: Path, hwnas_cli: Callable[..., Any], tmp_path: Path) -> None:
    shape = ("--shape", "x=1x3x8x8")
    shown = hwnas_cli("bench", relu, *shape)
    assert shown.code == 0, shown.err
    assert "x: float32 [1, 3, 8, 8] -> y: float32 [1, 3, 8, 8]. On 8 random inputs." in shown.out
    assert "between layers" in shown.out
    assert json.loads(hwnas_cli("bench", relu, *shape, "--json").out)["targets"][0]["measured_ms"] > 0
    made = hwnas_cli("export", relu, *shape, "--target", FP32, "--out", tmp_path / "bundle")
    assert made.code == 0, made.err
    assert hwnas_cli("verify", tmp_path / "bundle").code == 0
    assert hwnas_cli("bench", tmp_path / "bundle").code == 0
    swept = hwnas_cli("deploy", "sweep", relu, *shape, "--recipe", "onnxruntime-cpu-fp32")
    assert "picked: " in swept.out
    assert f"hwnas export {relu} --target" in swept.out
    open_axes = hwnas_cli("bench", relu)
    assert (open_axes.code, "give each a size" in open_axes.err) == (2, True)
    no_supernet = hwnas_cli("export", "arch.json", "--target", FP32, "--out", tmp_path / "other")
    assert (no_supernet.code, "--supernet is missing" in no_supernet.err) == (2, True)
    with_supernet = hwnas_cli("export", relu, *shape, "--target", FP32, "--out", tmp_path / "x", "--supernet", "net")
    assert (with_supernet.code, "--supernet: these are for an arch" in with_supernet.err) == (2, True)
    not_for_archs = hwnas_cli("deploy", "sweep", "arch.json", *shape)
    assert (not_for_archs.code, "arch.json is not a model" in not_for_archs.err) == (2, True)


LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


@pytest.mark.long
@pytest.mark.parametrize("name", ["inception_v1", "shufflenet", "densenet121"])
def test_classic_networks(name: str, quick: Protocol, tmp_path: Path) -> None:
    """Opset 9, weights made by ConstantOfShape, LRN, grouped convolutions, concatenations."""
    path = LIGHT / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip(f"this version of onnx does not carry {path.name}")
    swept = workflows.sweep_model(path, recipes=["onnxruntime-cpu-fp32", "openvino-cpu-fp32"], protocol=quick)
    assert [one.refused for one in swept.recipes] == [None, None]
    assert swept.picked is not None
    workflows.export_model(path, swept.picked, tmp_path / "bundle")
    assert verify(tmp_path / "bundle").not_run is None


def test_the_direction_of_a_faint_output_is_not_compared() -> None:
    """A detector's map is nearly 0 on some images: its rounding errors have any direction."""
    from hwnas.deploy.model_parity import compare_outputs, exceeded
    from hwnas.models.samples import Samples
    from hwnas.targets import load_recipe

    rng = np.random.default_rng(0)
    samples, recipe = Samples(feeds=[{}] * 2, labels=None, random=True, source="two"), load_recipe(FP32[5:])
    strong, faint = rng.random((1, 1, 40, 40), np.float32), rng.random((1, 1, 40, 40), np.float32) * np.float32(1e-4)
    rounded = faint + rng.normal(0, 2e-6, faint.shape).astype(np.float32)
    expected = [{"y": strong}, {"y": faint}]
    found = compare_outputs(expected, [{"y": strong}, {"y": rounded}], samples)
    assert exceeded(found, recipe) is None
    alone = compare_outputs(expected[1:], [{"y": rounded}], samples)
    assert alone.outputs[0].min_cosine is not None
    assert alone.outputs[0].min_cosine < 0.9999
    turned = compare_outputs(expected, [{"y": strong[..., ::-1]}, {"y": faint}], samples)
    assert "min_cosine" in str(exceeded(turned, recipe))


@pytest.mark.parametrize("name", ["this/openvino-cpu-int8", "this/onnxruntime-cpu-int8"])
def test_weights_that_are_computed_are_quantised_as_weights(name: str) -> None:
    from hwnas.models.lowered import lowered
    from hwnas.models.samples import random_samples

    def constant(output: str, values: Any) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [output], value=onnx.numpy_helper.from_array(np.asarray(values)))

    rng = np.random.default_rng(0)
    nodes = [
        constant("w", rng.standard_normal((4, 3, 3, 3), np.float32)),
        constant("flat", rng.standard_normal(4, np.float32)),
        constant("shape", np.array([1, 4, 1, 1], np.int64)),
        constant("gain", np.array([[[[2.0]]]], np.float32)),
        helper.make_node("Mul", ["w", "gain"], ["standardised"], name="standardise"),
        helper.make_node("Reshape", ["flat", "shape"], ["bias"], name="reshape"),
        helper.make_node("Conv", ["x", "standardised"], ["a"], name="conv"),
        helper.make_node("Add", ["a", "bias"], ["y"], name="sum"),
    ]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])]
    graph = helper.make_graph(nodes, "g", values, made)
    model = open_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=3), "g")
    found = lowered(model, resolve_target(name).recipe, random_samples(model.signature, count=1)).graph
    assert not {"Constant", "Reshape", "Mul"} & {node.op_type for node in found.node}
    stored = {tensor.name: tensor for tensor in found.initializer}
    assert stored["standardised_quantized"].data_type == TensorProto.INT8
    assert list(stored["standardised_scale"].dims) == [4]  # one for each channel


def test_what_is_not_stored_before_quantising() -> None:
    """Random numbers, branches, and what is much larger than what it is computed from."""
    from hwnas.models.lowered import _with_stored_constants

    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["same"])], "b", [], [helper.make_tensor_value_info("same", 1, [1])]
    )
    nodes = [
        helper.make_node("RandomNormal", [], ["noise"], "noise", shape=[4]),
        helper.make_node("If", ["yes"], ["either"], "if", then_branch=branch, else_branch=branch),
        helper.make_node("Expand", ["w", "many"], ["large"], "large"),
        helper.make_node("Expand", ["w", "few"], ["small"], "small"),
        helper.make_node("Sum", ["x", "noise", "either", "small"], ["s"], "sum"),
        helper.make_node("ReduceMax", ["large"], ["most"], "most", keepdims=0),
        helper.make_node("Add", ["s", "most"], ["y"], "add"),
    ]
    stored = {"w": np.ones(1, np.float32), "yes": np.array(True), "many": np.array([1 << 20]), "few": np.array([4])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    found = _with_stored_constants(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    ).graph
    assert [node.name for node in found.node] == ["noise", "if", "large", "sum", "most", "add"]
    assert {tensor.name for tensor in found.initializer} == {"w", "yes", "many", "small"}


def test_small_outputs_are_judged_by_their_size() -> None:
    """An error of a tenth is large for probabilities of a thousandth."""
    from hwnas.deploy.model_parity import compare_outputs, exceeded
    from hwnas.models.samples import Samples
    from hwnas.targets import load_recipe

    samples = Samples(feeds=[{}], labels=None, random=True, source="one")
    flat, peak = np.full((1, 1000, 1, 1), 1e-3, np.float32), np.zeros((1, 1000, 1, 1), np.float32)
    peak[0, 7] = 0.125
    recipe = load_recipe("openvino-cpu-bf16")
    assert exceeded(compare_outputs([{"y": flat}], [{"y": flat}], samples), recipe) is None
    why = exceeded(compare_outputs([{"y": flat}], [{"y": peak}], samples), recipe)
    assert why is not None
    assert "min_cosine" in why
