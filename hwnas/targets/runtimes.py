"""The runtimes: one record each, readable without loading the runtime's library."""

from __future__ import annotations

import difflib
import importlib.metadata
from dataclasses import dataclass
from typing import Literal

from hwnas.errors import PluginError, UnknownName
from hwnas.plugins import Registry
from hwnas.targets.device import DeviceKind

Precision = Literal["fp32", "fp16", "bf16", "int8"]
FormName = Literal["onnx", "torch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFacts:
    """Facts about a runtime that are available without loading it.

    Attributes:
        kind: the kind of device it computes on.
        form: the format that networks are lowered to: "onnx", an ONNX graph, whose opset the recipe sets; "torch", the
            output of `torch.export`.
        precisions: the supported precisions.
        measured: whether hwnas can time networks in it; False for estimates and for runtimes outside hwnas.
        estimates: function that computes latencies for it, ``package.module:name``: a space and a target ->
            `hwnas.latency.sources.LatencySource`; None if latencies come from tables.
        typed: whether it computes each op in the type written in the graph, so that fp16 and bf16 require casts;
            otherwise they are a setting of the runtime, and the graph is in fp32.
        session: its `hwnas.runtimes.Session`, ``package.module:class``; None if hwnas does not drive it.
        packages: distributions that provide the runtime, the usual one first; empty if it needs no package.
        install: arguments of ``pip install``, as shown in messages and a bundle's README.
        script: the Python in a bundle's README, ``package:path`` of a file below the package's folder, see
            `hwnas.deploy.readme.lines`; required if `session` is set.
        feeds_script: likewise for models with any inputs, of a runtime with a `runner`.
        runner: class that drives it without hwnas, ``hwnas.runner.module:class`` (`hwnas.runner.program`): its programs
            can be timed on other machines. None if they can only be timed where hwnas is installed.
        recipes: a folder of recipes that come with it, ``package:folder``; None if they are in `exporters/`.
    """

    kind: DeviceKind
    form: FormName
    precisions: tuple[Precision, ...]
    measured: bool = True
    estimates: str | None = None
    typed: bool = False
    session: str | None = None
    packages: tuple[str, ...] = ()
    install: str = ""
    script: str | None = None
    feeds_script: str | None = None
    runner: str | None = None
    recipes: str | None = None

    def __post_init__(self) -> None:
        if (self.session is None) != (self.script is None):
            raise ValueError("script is required with a session, and must be empty without one")


RUNTIMES: dict[str, RuntimeFacts] = {
    "onnxruntime": RuntimeFacts(
        kind="cpu",
        form="onnx",
        precisions=("fp32", "int8"),
        session="hwnas.runtimes.onnxruntime:OnnxRuntimeSession",
        packages=("onnxruntime", "onnxruntime-gpu"),
        install="onnxruntime",
        script="hwnas.runtimes:scripts/onnxruntime.py",
        feeds_script="hwnas.runtimes:scripts/onnxruntime_feeds.py",
        runner="hwnas.runner.onnxruntime:OnnxRuntimeProgram",
    ),
    "openvino": RuntimeFacts(
        kind="cpu",
        form="onnx",
        precisions=("fp32", "bf16", "int8"),
        session="hwnas.runtimes.openvino:OpenVinoSession",
        packages=("openvino",),
        install="openvino",
        script="hwnas.runtimes:scripts/openvino.py",
        feeds_script="hwnas.runtimes:scripts/openvino_feeds.py",
        runner="hwnas.runner.openvino:OpenVinoProgram",
    ),
    "torch": RuntimeFacts(
        kind="cpu",
        form="torch",
        precisions=("fp32",),
        session="hwnas.runtimes.torch:TorchSession",
        packages=("torch",),
        install="torch",
        script="hwnas.runtimes:scripts/torch.py",
    ),
    "torch-cuda": RuntimeFacts(
        kind="gpu",
        form="torch",
        precisions=("fp32", "fp16", "bf16"),
        session="hwnas.runtimes.torch_cuda:TorchCudaSession",
        packages=("torch",),
        install="torch",
        script="hwnas.runtimes:scripts/torch_cuda.py",
    ),
    "onnxruntime-cuda": RuntimeFacts(
        kind="gpu",
        form="onnx",
        precisions=("fp32", "fp16"),
        typed=True,
        session="hwnas.runtimes.onnxruntime_gpu:OnnxRuntimeCudaSession",
        packages=("onnxruntime-gpu",),
        install="onnxruntime-gpu",
        script="hwnas.runtimes:scripts/onnxruntime_cuda.py",
    ),
    "onnxruntime-tensorrt": RuntimeFacts(
        kind="gpu",
        form="onnx",
        precisions=("fp32", "fp16"),
        typed=True,
        session="hwnas.runtimes.onnxruntime_gpu:OnnxRuntimeTensorRtSession",
        packages=("onnxruntime-gpu",),
        install="onnxruntime-gpu tensorrt",
        script="hwnas.runtimes:scripts/onnxruntime_tensorrt.py",
    ),
    "tensorrt": RuntimeFacts(
        kind="gpu",
        form="onnx",
        precisions=("fp32", "fp16", "bf16", "int8"),
        typed=True,
        session="hwnas.runtimes.tensorrt:TensorRtSession",
        packages=("tensorrt", "tensorrt-cu13"),
        install="tensorrt polygraphy",
        script="hwnas.runtimes:scripts/tensorrt.py",
    ),
    # Latency computed from a device's peak figures, for tests and dry runs; its bundles run in torch.
    "roofline": RuntimeFacts(
        kind="cpu",
        form="torch",
        precisions=("fp32",),
        measured=False,
        estimates="hwnas.profiling.estimate:roofline_source",
        session="hwnas.runtimes.torch:TorchSession",
        packages=("torch",),
        install="torch",
        script="hwnas.runtimes:scripts/torch.py",
    ),
    # Runtimes that hwnas does not drive, such as a phone's; their tables are imported.
    "external": RuntimeFacts(
        kind="cpu",
        form="torch",
        precisions=("fp32", "fp16", "bf16", "int8"),
        measured=False,
    ),
}
_KNOWN = Registry(
    "runtime",
    "hwnas.runtimes",
    RUNTIMES,
    fits=lambda found: isinstance(found, RuntimeFacts),
    needs="a hwnas.targets.runtimes.RuntimeFacts",
)


def runtime_names() -> list[str]:
    """Names of the runtimes that a recipe may name: those of hwnas, then those of plugins."""
    return _KNOWN.names()


def runtime_facts(name: str) -> RuntimeFacts:
    """The record of a runtime.

    Raises:
        UnknownName: there is none of that name.
        PluginError: it belongs to a plugin and cannot be loaded.
    """
    return _KNOWN[name]


def is_only_here(name: str) -> bool:
    """Whether this process registered the runtime itself, in `RUNTIMES`, so that another process does not have it."""
    return _KNOWN.only_here(name)


def plugin_runtimes() -> list[RuntimeFacts]:
    """The records of plugins; those that cannot be loaded are skipped with a warning."""
    return [facts for _, facts in _KNOWN.plugins()]


def known_runtime(name: str) -> str:
    """The name, if a runtime has it; validates a recipe's `runtime`.

    Raises:
        ValueError: there is none of that name, or it cannot be loaded.
    """
    try:
        runtime_facts(name)
    except PluginError as error:
        raise ValueError(str(error)) from error
    except UnknownName as error:
        *others, last = map(repr, error.choices)
        near = difflib.get_close_matches(name, error.choices, n=1, cutoff=0.8)  # a typing error, not another runtime
        plugin = f"if {name!r} came from a plugin, install the package that registers it under hwnas.runtimes"
        hint = f"did you mean {near[0]!r}?" if near else plugin
        raise ValueError(f"it should be {', '.join(others)} or {last}; {hint}") from error
    return name


def installed_version(runtime: str) -> str | None:
    """The installed release of a runtime, such as 2.13.0, without importing it; None if it is not installed.

    The build after a ``+`` is dropped: a package and its library do not always agree on it.
    """
    for package in runtime_facts(runtime).packages:
        try:
            return importlib.metadata.version(package).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
