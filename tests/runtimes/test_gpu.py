"""GPU runtimes: what they say where they cannot run, what can be checked without a GPU, and what needs one."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from hwnas.errors import BundleError, RuntimeUnavailable, SpecError
from hwnas.latency.model import load_model
from hwnas.lowering import form_of
from hwnas.profiling import profile
from hwnas.profiling.validation import validate
from hwnas.runtimes import cuda as cuda_module
from hwnas.runtimes import open_session, session_class
from hwnas.runtimes.base import parse_options
from hwnas.runtimes.cuda import CudaOptions, CudaSession
from hwnas.runtimes.engine import EngineNote, note_path, read_engine, write_engine
from hwnas.runtimes.onnxruntime_gpu import OnnxRuntimeCudaOptions, OnnxRuntimeTensorRtOptions
from hwnas.runtimes.tensorrt import TensorRtOptions, TensorRtSession
from hwnas.runtimes.torch_cuda import TorchCudaOptions, prepared
from hwnas.spaces import Space, make_space
from hwnas.targets import load_recipe, recipes, resolve_target

GPU_RECIPES = [name for name in sorted(recipes()) if load_recipe(name).facts.kind == "gpu"]
OPTIONS: dict[str, type[CudaOptions]] = {
    "torch-cuda": TorchCudaOptions,
    "onnxruntime-cuda": OnnxRuntimeCudaOptions,
    "onnxruntime-tensorrt": OnnxRuntimeTensorRtOptions,
    "tensorrt": TensorRtOptions,
}
HERE = {"gpu": "NVIDIA H200", "compute_capability": "9.0", "tensorrt": "10.16.1.11"}


def missing_for(name: str) -> str:
    """Why a recipe cannot run here; empty where it can."""
    try:
        session_class(load_recipe(name))
    except RuntimeUnavailable as error:
        return str(error)
    return ""


NO_GPU = missing_for("torch-cuda-fp16")
NO_TENSORRT = missing_for("tensorrt-fp16")


# -- refusals ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
@pytest.mark.parametrize("name", GPU_RECIPES)
def test_without_a_gpu_all_that_is_missing_is_said_before_any_work(name: str) -> None:
    recipe = load_recipe(name)
    with pytest.raises(RuntimeUnavailable, match=f"^{name} cannot run here: ") as caught:
        open_session(Path("never read"), recipe)
    said = str(caught.value)
    if torch.version.cuda is None:
        assert f"torch {torch.__version__} is built without CUDA: pip install" in said
    if recipe.runtime == "tensorrt" and importlib.util.find_spec("tensorrt") is None:
        assert "tensorrt is not installed: pip install 'hwnas[tensorrt]'" in said
    if recipe.runtime.startswith("onnxruntime"):
        provider = "CUDAExecutionProvider" if "cuda" in recipe.runtime else "TensorrtExecutionProvider"
        assert f"has no {provider}, only" in said
        assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in said


def test_no_driver_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cuda_module.shutil, "which", lambda _: None)
    assert CudaSession.missing() == [
        "there is no NVIDIA driver (nvidia-smi is not found): install the driver of your GPU"
    ]
    monkeypatch.setattr(cuda_module.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    [said] = CudaSession.missing()
    assert "finds no GPU that it can use" in said
    assert "CUDA 13.0 or later" in said
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert CudaSession.missing() == []


def test_a_provider_that_cannot_load_its_libraries_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # ONNX Runtime would compute on the CPU.
    monkeypatch.setattr(CudaSession, "missing", classmethod(lambda *_: []))
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])

    class OnCpu:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort, "InferenceSession", OnCpu)
    with pytest.raises(
        RuntimeUnavailable, match=r"cannot load the libraries of its CUDAExecutionProvider \(CUDA, cuDNN"
    ):
        session_class(load_recipe("onnxruntime-cuda-fp16"))


@pytest.mark.parametrize(
    ("version", "fine"), [("8.6.1", False), ("10.3.0", True), ("11.4.0.106", True), ("12.0", False)]
)
def test_versions_of_tensorrt(version: str, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaSession, "missing", classmethod(lambda *_: []))
    monkeypatch.setattr(TensorRtSession, "version", staticmethod(lambda: version))
    assert bool(TensorRtSession.missing()) != fine


# -- options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GPU_RECIPES)
def test_the_options_of_the_recipes(name: str) -> None:
    recipe = load_recipe(name)
    assert parse_options(recipe, OPTIONS[recipe.runtime]).cuda_graph
    assert set(recipe.options) <= set(OPTIONS[recipe.runtime].model_fields)


@pytest.mark.parametrize(
    ("name", "option", "value", "said"),
    [
        ("tensorrt-fp16", "optimization_level", 6, "optimization_level: .* not 6"),
        ("tensorrt-fp16", "workspace_mib", 0, "workspace_mib: .* not 0"),
        (
            "tensorrt-int8",
            "fp16",
            True,
            r"fp16: .*Known options: cuda_graph, optimization_level, ",
        ),
        ("torch-cuda-fp16", "cuda_graph", "often", "cuda_graph: .* not 'often'"),
        ("onnxruntime-cuda-fp16", "graph_optimization", "most", "graph_optimization: .* not 'most'"),
    ],
)
def test_wrong_options(name: str, option: str, value: object, said: str) -> None:
    recipe = load_recipe(name)
    wrong = recipe.model_copy(update={"options": {option: value}})
    with pytest.raises(SpecError, match=said):
        parse_options(wrong, OPTIONS[recipe.runtime])


def test_int8_of_tensorrt_is_symmetric() -> None:
    how = load_recipe("tensorrt-int8").quantization
    assert how
    assert how.activations == "int8"


# -- engines as files ----------------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    write_engine(path, b"a plan", EngineNote.of(b"a plan", **HERE))
    return path


def test_an_engine_is_read_where_it_was_built(engine: Path) -> None:
    assert read_engine(engine, **HERE) == b"a plan"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"gpu": "NVIDIA L4", "compute_capability": "8.9"},
            "the GPU NVIDIA H200, but this host has NVIDIA L4; for ",
        ),
        ({"compute_capability": "9.1"}, r"built for compute capability 9\.0, but this host has 9\.1"),
        (
            {"tensorrt": "11.4.0.106"},
            r"built for TensorRT 10\.16\.1\.11, but this host has 11\.4\.0\.106\.",
        ),
    ],
)
def test_an_engine_of_another_gpu_or_version_is_refused(engine: Path, other: dict[str, str], said: str) -> None:
    engine.unlink()  # nothing of it is looked at
    with pytest.raises(BundleError, match=said):
        read_engine(engine, **{**HERE, **other})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "does not describe an engine"),
        (b'{"schema": 1}', "gpu: Field required"),
        (b'{"schema": 2, "gpu": "a", "compute_capability": "9.0", "tensorrt": "10", "sha256": ""}', "schema"),
        (b"[" * 70_000, "70000 bytes; a note may have at most 65536"),
        (b"[" * 60_000, "does not describe an engine"),
    ],
)
def test_a_note_that_says_nothing(engine: Path, text: bytes, said: str) -> None:
    note_path(engine).write_bytes(text)
    with pytest.raises(BundleError, match=said):
        read_engine(engine, **HERE)


def test_an_engine_that_was_changed_or_has_no_note(engine: Path) -> None:
    engine.write_bytes(b"A plan")
    with pytest.raises(BundleError, match=r"was changed after it was written: its sha256 is"):
        read_engine(engine, **HERE)
    note_path(engine).unlink()
    with pytest.raises(BundleError, match=r"cannot load model\.engine\.json"):
        read_engine(engine, **HERE)


# -- the calls that are made exist ---------------------------------------------------------------------


def calls_of(tree: ast.AST, *names: str) -> dict[str, ast.Call]:
    found = {n.func.id: n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return {name: found[name] for name in names}


def test_the_calls_of_polygraphy_exist() -> None:
    polygraphy = pytest.importorskip("polygraphy.backend.trt", reason="pip install polygraphy")
    tree = ast.parse(Path(inspect.getfile(TensorRtSession)).read_text())
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "polygraphy.backend.trt"
        for alias in node.names
    ]
    assert sorted(imported) == [
        "create_config",
        "engine_bytes_from_network",
        "engine_from_bytes",
        "network_from_onnx_bytes",
    ]
    # A function of Polygraphy takes what its loader's constructor takes, after what its call takes.
    given_to_call = {"create_config": ("builder", "network")}
    for name, call in calls_of(tree, *imported).items():
        loader = getattr(polygraphy, "".join(part.title() for part in name.split("_")))
        assert callable(getattr(polygraphy, name))
        parameters = dict(inspect.signature(loader.__init__).parameters)
        for base in loader.__mro__:
            if "kwargs" in parameters and "__init__" in vars(base):
                parameters |= dict(inspect.signature(base.__init__).parameters)
        before = given_to_call.get(name, ())
        assert tuple(inspect.signature(loader.call_impl).parameters)[1:] == before
        assert len(call.args) <= len(before) + len(parameters) - 1
        assert {word.arg for word in call.keywords} <= set(parameters)
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.ERROR):
        pass


# Attributes of TensorRT's own objects that the session uses: of the module, and of what it hands out.
TENSORRT_NAMES = (
    *(
        "__version__",
        "float32",
        "float16",
        "bfloat16",
        "IProfiler",
        "MemoryPoolType",
        "WORKSPACE",
        "TensorIOMode",
        "INPUT",
    ),
    *("get_timing_cache", "serialize", "num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_shape"),
    *("get_tensor_dtype", "create_execution_context", "set_tensor_address", "execute_async_v3", "profiler"),
    "report_layer_time",
)


def test_the_names_of_tensorrt_exist_in_its_bindings() -> None:
    """Without TensorRT's libraries the bindings cannot be imported, but their names stand in the file."""
    spec = importlib.util.find_spec("tensorrt_bindings")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("no TensorRT bindings: pip install tensorrt_cu12_bindings (they are for Linux and Windows only)")
    folder = Path(spec.submodule_search_locations[0])
    [library] = [
        path for path in folder.iterdir() if path.name.startswith("tensorrt.") and path.suffix in (".so", ".pyd")
    ]
    content = library.read_bytes() + (folder / "__init__.py").read_bytes()
    source = Path(inspect.getfile(TensorRtSession)).read_text()
    for name in TENSORRT_NAMES:
        assert name in source
        assert name.encode() in content, name
    used = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trt"
    }
    assert used <= set(TENSORRT_NAMES)


def test_no_builder_flag_says_a_precision() -> None:
    """TensorRT 11 has none of them."""
    tree = ast.parse(Path(inspect.getfile(TensorRtSession)).read_text())
    words = {
        word.arg: word.value
        for call in calls_of(tree, "create_config", "network_from_onnx_bytes").values()
        for word in call.keywords
    }
    assert not words.keys() & {"fp16", "bf16", "int8", "fp8", "tf32", "calibrator", "precision_constraints"}
    assert ast.literal_eval(words["strongly_typed"]) is True


# -- torch, as far as a CPU shows it --------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 0.1), (torch.bfloat16, 0.5)])
def test_a_module_is_cast_and_laid_out(
    network_of: Callable[[bool], nn.Module],
    pictures: Callable[[int, int], Tensor],
    dtype: torch.dtype,
    tolerance: float,
    channels_last: bool,
) -> None:
    recipe = load_recipe("torch-cuda-fp16")
    program = form_of(recipe).lower(network_of(False), (3, 24, 24))
    assert isinstance(program, nn.Module)
    module, given = prepared(program, dtype, torch.device("cpu"), channels_last=channels_last)
    assert given.shape == (1, 3, 24, 24)
    assert given.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}
    assert {parameter.dtype for parameter in program.parameters()} == {torch.float32}
    for image in pictures(8, 1):
        with torch.inference_mode():
            y = module(given.copy_(image[None]))
            assert y.dtype == dtype
            assert (y.float() - program(image[None])).abs().max() < tolerance


# -- with a GPU ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few() -> Space:
    return make_space("mobilenetv3-tiny").fix(resolution=24, depth_2=1, depth_3=1)


@pytest.mark.gpu
@pytest.mark.skipif(bool(NO_GPU), reason=NO_GPU)
def test_a_gpu_is_profiled_and_validated(few: Space, tmp_path: Path) -> None:
    target = resolve_target("this/torch-cuda-fp16")
    table = profile(few, target, journals=tmp_path, networks=8, bound_networks=4)
    assert table.manifest.host["gpus"]
    assert table.manifest.versions["driver"]
    assert {op.key for op in few.distinct_ops} <= set(table.rows)
    report = validate(load_model(table, few), target, networks=8, seed=3)
    assert (report.measured_ms > 0).all()
    assert (report.predicted_ms > 0).all()
    assert report.summary.mape < 0.5


@pytest.mark.gpu
@pytest.mark.skipif(bool(NO_GPU), reason=NO_GPU)
def test_a_gpu_takes_longer_for_more(pictures: Callable[[int, int], Tensor]) -> None:
    recipe = load_recipe("torch-cuda-fp16")
    x = pictures(1, 0).numpy()
    times = []
    for layers in (2, 16):
        program = form_of(recipe).lower(
            nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(layers)]), (3, 24, 24)
        )
        with open_session(program, recipe) as session:
            call = session.bind(x)
            times.append(float(np.median([session.time_ms(call) for _ in range(20)])))
    assert times[1] > 2 * times[0]


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.skipif(bool(NO_TENSORRT), reason=NO_TENSORRT)
def test_an_engine_is_built_written_and_read(
    network_of: Callable[[bool], nn.Module], pictures: Callable[[int, int], Tensor], tmp_path: Path
) -> None:
    recipe = load_recipe("tensorrt-fp16")
    program = form_of(recipe).lower(network_of(False), (3, 24, 24), pictures(16, 1))
    x = pictures(1, 2).numpy()
    with open_session(program, recipe) as session:
        assert isinstance(session, TensorRtSession)
        expected = session.run(x)
        session.write_compiled(tmp_path)
        path = tmp_path / "model.engine"
        assert sum(session.layer_times_ms(x).values()) > 0
        assert session.facts()["engine_sha256"] == EngineNote.model_validate_json(note_path(path).read_bytes()).sha256
    with open_session(path, recipe) as session:
        assert np.array_equal(session.run(x), expected)
    note = note_path(path).read_text()
    note_path(path).write_text(note.replace(session.version(), "9.9.9"))
    with pytest.raises(BundleError, match=r"built for TensorRT 9\.9\.9, but this host has"):
        open_session(path, recipe)
