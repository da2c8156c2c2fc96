"""What the slow tests share: a space of a few networks, a supernet of it, its profile, and tables made up by hand."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from forks import Forks
from onnx import TensorProto, helper, numpy_helper

from hwnas.accuracy import Evaluator
from hwnas.data import ClutteredDigits, digits
from hwnas.files.atomic import write_whole
from hwnas.latency import LatencyTable, Row
from hwnas.latency.manifest import Manifest
from hwnas.profiling import profile
from hwnas.spaces import Op, Space, make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, train
from hwnas.targets import Device, Hardware, Match, Recipe, Target, catalog, resolve_target
from hwnas.timing.protocol import FEW, NETWORKS, OPS, Protocols

# A training in a process of its own keeps its threads, whatever else runs on the machine: resumed ones are compared
# bit for bit. (That is OpenMP's default, but hwnas's is to follow other work.)
os.environ.setdefault("OMP_DYNAMIC", "false")

# Tests accept any noise, since other work may run on the machine, and judge no figure: short visits, and the least
# number of sessions. The timings of a job for two targets take 71 s with the usual visits.
ON_ANY_MACHINE = {"max_disagreement": 1e3, "max_seconds": 0.0, "visit_ms": 1.0, "session_passes": 3}
# Test images of the cluttered digits: an export of a job evaluates four networks on them, 13 s on the 10,000 of users.
TEST_IMAGES = 400
OF_TESTS = Protocols(
    ops=replace(OPS, **ON_ANY_MACHINE),
    networks=replace(NETWORKS, **ON_ANY_MACHINE),
    few=replace(FEW, **ON_ANY_MACHINE, min_sessions=2),
)
RECIPE = Recipe.model_validate(
    {
        "schema": 1,
        "name": "made-up",
        "description": "ONNX Runtime on one thread",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "opset": 20,
        "batch": 1,
        "threads": 1,
        "parity": {"max_abs_error": 1e-4, "min_cosine": 0.9999, "min_top1_agreement": 0.999},
    }
)


# Folders whose files take longest, these first: at the end of a run, no worker waits for the other.
LONG = ("pipeline", "training", "cli", "deploy", "search", "supernet", "lowering", "runtimes", "accuracy", "profiling")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """For ``--dist loadfile``: files in the order above, and all tests that share a run of a pipeline in one worker.

    The test that keeps a core busy is there, too: beside it, the measurements of that run are noise.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class LongestFirst(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if "/machines/" in nodeid:  # only one runner at a time may time on a remote machine, which is this one
                return "machines"
            together = "/pipeline/" in nodeid or "/test_contention." in nodeid
            return "pipeline" if together else str(super()._split_scope(nodeid))

    config.option.loadscopereorder = False
    return LongestFirst(config, log)


@pytest.fixture(autouse=True, scope="session")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of exported ops that all homes of a run share: exporting those of a small space takes 6 seconds."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "lowered"
    folder.mkdir(exist_ok=True)
    return folder


def make_home(folder: Path, lowered: Path) -> Path:
    """A folder for ``$HWNAS_HOME``, empty but for the exported ops."""
    folder.mkdir(exist_ok=True)
    (folder / "lowered").symlink_to(lowered)
    return folder


@pytest.fixture(autouse=True, scope="session")
def home_of_the_tests(tmp_path_factory: pytest.TempPathFactory, lowered: Path) -> Iterator[None]:
    """What hwnas keeps between runs stays out of the user's data folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_HOME", str(make_home(tmp_path_factory.mktemp("home"), lowered)))
        yield


@pytest.fixture
def no_shipped_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose tables do not come with hwnas; tests run on one with such tables, too."""
    found, own = catalog._files, Path(catalog.__file__).resolve().parents[2]

    def files(folder: str, pattern: str) -> dict[str, Path]:
        every = found(folder, pattern).items()
        return {name: path for name, path in every if folder != "latency_tables" or not path.is_relative_to(own)}

    monkeypatch.setattr(catalog, "_files", files)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Two threads on a busy machine wait for each other: small tensors are then a hundred times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def little_to_collect() -> None:
    """Each session of a measurement collects garbage first: among all that tests have loaded, that takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def rarely_collected() -> None:
    """Python's search for garbage among the many objects of a graph takes a quarter of the time of its export."""
    gc.set_threshold(20_000, 20, 100)


def digest_of(network: torch.nn.Module, *settings: object) -> str | None:
    """Hash of all that a network's graph depends on; None for one of a test's own modules."""
    found = hashlib.sha256(repr(settings).encode())
    for name, module in network.named_modules():
        if not type(module).__module__.startswith(("torch.", "hwnas.")):
            return None
        plain = {k: v for k, v in vars(module).items() if isinstance(v, int | float | str | tuple | None)}
        found.update(repr((name, type(module), plain, getattr(module, "code", ""))).encode())
    for name, tensor in network.state_dict().items():
        found.update(repr((name, tensor.dtype, tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


@pytest.fixture(autouse=True, scope="session")
def exported_once(lowered: Path) -> Iterator[None]:
    """Networks of the same weights are exported once, by either worker: an export takes 3 seconds.

    Of each export itself, 0.4 seconds are for the sources of onnxscript's functions, which are the same each time.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from hwnas.lowering.onnx import OnnxForm

    really = OnnxForm._exported

    def exported(form: OnnxForm, network: torch.nn.Module, given: torch.Tensor) -> onnx.ModelProto:
        key = digest_of(network, tuple(given.shape), str(given.dtype), form.recipe.batch, form.recipe.opset)
        if key is None:
            return really(form, network, given)
        path = lowered.with_name("networks") / f"{key}.onnx"
        if not path.exists():
            model = really(form, network, given)
            write_whole(path, model.SerializeToString())
            return model
        return onnx.load(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        patch.setattr(OnnxForm, "_exported", exported)
        yield


@pytest.fixture(autouse=True, scope="session")
def any_machine() -> Iterator[None]:
    """The protocols of measurements that are given none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwnas.timing.protocol.USUAL", OF_TESTS)
        yield


@pytest.fixture(autouse=True, scope="session")
def few_test_images() -> Iterator[None]:
    """Jobs and exports on the cluttered digits and on generated sequences evaluate fewer of them."""
    from hwnas.data.sequences import GeneratedTokens

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(digits.SIZES, "test", TEST_IMAGES)
        patch.setitem(GeneratedTokens.sizes, "test", 100)
        yield


@pytest.fixture
def all_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the dataset itself, and of files that older versions wrote."""
    monkeypatch.setitem(digits.SIZES, "test", 10_000)


@pytest.fixture
def noise_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test of noise itself: figures are refused as they are outside of tests."""
    monkeypatch.setattr("hwnas.timing.protocol.USUAL", Protocols())


@pytest.fixture(scope="session")
def hwnas_command() -> list[str]:
    """The first words of a command that runs `hwnas` in a process of its own, on any machine as above."""
    program = (
        "from dataclasses import replace\n"
        "from hwnas.timing import protocol\n"
        "each = (protocol.OPS, protocol.NETWORKS, protocol.FEW)\n"
        f"ops, networks, few = (replace(one, **{ON_ANY_MACHINE}) for one in each)\n"
        "protocol.USUAL = protocol.Protocols(ops=ops, networks=networks, few=few)\n"
        "from hwnas.data import digits\n"
        f"digits.SIZES['test'] = {TEST_IMAGES}\n"
        "from hwnas.cli.main import main\n"
        "main()\n"
    )
    return [sys.executable, "-c", program]


@pytest.fixture(scope="session")
def forks(hwnas_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Starts runs of `hwnas`, as `hwnas_command` does, without the time of its imports."""
    started = Forks(tmp_path_factory.mktemp("forks"), hwnas_command[-1])
    yield started
    started.close()


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def hwnas_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, lowered: Path
) -> Callable[..., Ran]:
    """A function that runs `hwnas` with some words in this process; returns its exit code and what it printed."""
    from hwnas.cli.main import main

    monkeypatch.setenv("HWNAS_HOME", str(make_home(tmp_path / "home", lowered)))
    monkeypatch.chdir(tmp_path)  # whatever a verb writes by default stays out of the checkout

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["hwnas", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, out, err)

    return run


@pytest.fixture(scope="session")
def runs_here() -> Callable[[str], Recipe]:
    """A function that gives the recipe of a name, or skips the test where its runtime says that it cannot run here.

    The runtime is asked, not a list of names or of flags: for a library, a GPU, or instructions such as those of bf16.
    """
    from hwnas.errors import RuntimeUnavailable
    from hwnas.runtimes import session_class
    from hwnas.targets import load_recipe

    def recipe(name: str) -> Recipe:
        found = load_recipe(name)
        try:
            session_class(found)
        except RuntimeUnavailable as error:
            pytest.skip(str(error))
        return found

    return recipe


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return RECIPE


@pytest.fixture(scope="session")
def elsewhere() -> Target:
    """A target whose device is not this host."""
    device = Device(
        schema=1,
        name="board",
        kind="cpu",
        description="d",
        match=Match(cpu="^No Such CPU$"),
        hardware=Hardware(source="s"),
    )
    return Target(device, RECIPE)


@pytest.fixture(scope="session")
def this() -> Target:
    return resolve_target("this/onnxruntime-cpu-fp32")


@pytest.fixture(scope="session")
def space() -> Space:
    """18 networks of 12 ops: enough to calibrate, validate, train and search in seconds."""
    return make_space("mobilenetv3-tiny").fix(
        resolution=24,
        depth_1=(1, 2),
        depth_2=1,
        depth_3=1,
        kernel_1_1=3,
        expansion_1_1=2,
        kernel_1_2=3,
        expansion_1_2=(2, 4),
        kernel_2_1=(3, 5),
        expansion_2_1=2,
        kernel_3_1=3,
        expansion_3_1=(2, 3, 4),
    )


def made_up_ms(op: Op) -> float:
    """A latency that depends on the op alone, in the digits that a table keeps."""
    return float(f"{0.002 + op.macs / 2e8 + op.params / 5e7:.6g}")


def made_up_table(space: Space, target: Target, **manifest: object) -> LatencyTable:
    """A table of a space that nobody measured."""
    from hwnas.timing.host import runtime_versions

    rows = {}
    for op in space.distinct_ops:
        p25 = made_up_ms(op)
        rows[op.key] = Row(
            latency_ms_p25=p25,
            latency_ms_p50=float(f"{p25 * 1.02:.6g}"),
            latency_ms_p90=float(f"{p25 * 1.3:.6g}"),
            samples=80,
        )
    facts: dict[str, object] = {
        "device": target.device.name,
        "recipe": target.recipe.name,
        "device_fingerprint": target.device.fingerprint,
        "recipe_hash": target.recipe.hash,
        "csv_sha256": "",
        "date": "2026-01-31",
        "host": {"cpu": "made up", "cores": 2, "flags": ["avx2"]},
        "versions": runtime_versions(target),
        "measurement": {"passes": 8, "disagreement": 0.01},
    }
    return LatencyTable(target=target, rows=rows, manifest=Manifest.model_validate(facts | manifest))


@pytest.fixture(scope="session")
def make_table() -> Callable[..., LatencyTable]:
    return made_up_table


@pytest.fixture(scope="session")
def profiled(space: Space, this: Target, tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    """The small space, really measured on this host."""
    return profile(space, this, journals=tmp_path_factory.mktemp("journals"), networks=8, bound_networks=4)


@pytest.fixture(scope="session")
def data() -> ClutteredDigits:
    return ClutteredDigits()


@pytest.fixture(scope="session")
def supernet(space: Space, data: ClutteredDigits, tmp_path_factory: pytest.TempPathFactory) -> Supernet:
    """A supernet of the small space after a few steps: it knows little, but its weights are nobody's default."""
    net = Supernet(space, seed=1)
    config = TrainConfig(phases=[Phase(name="all", steps=6, learning_rate=0.2)], batch_size=32)
    train(net, data, config, seed=1, folder=tmp_path_factory.mktemp("training"))
    return net


@pytest.fixture(scope="session")
def evaluator(supernet: Supernet, data: ClutteredDigits) -> Evaluator:
    return Evaluator(supernet, data, images=500, calibration_images=500, seed=1)


def scaled(factor: float) -> onnx.ModelProto:
    """A graph of two nodes that costs no torch and no export: ``(1, 64) -> (1, 64)``."""
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float32) * np.float32(factor), "weight")
    shape = [1, 64]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["x"]), helper.make_node("Relu", ["x"], ["output"])],
        "scaled",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five small programs as files; one name has a blank, as the keys of ops have."""
    folder = tmp_path_factory.mktemp("programs")
    paths = {}
    for i, name in enumerate(("a", "b", "conv 1x2x2>1x2x2", "d", "e")):
        paths[name] = folder / f"{i}.onnx"
        onnx.save(scaled(i + 1), paths[name])
    return paths
