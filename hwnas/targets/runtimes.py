"""What hwnas knows of each runtime without loading it."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Literal

from hwnas.targets.device import DeviceKind

RuntimeName = Literal[
    "onnxruntime",
    "openvino",
    "torch",
    "torch-cuda",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "tensorrt",
    "roofline",
    "external",
]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFacts:
    """What a recipe must know of a runtime without loading it.

    Attributes:
        kind: the kind of device it computes on.
        takes_onnx: it runs an ONNX graph, so the recipe says which opset.
        precisions: that it computes in.
        measured: hwnas can time networks in it; what a runtime estimates, or what runs elsewhere, it cannot.
        typed: it computes each operation in the type that stands in the graph, so fp16 and bf16 are written there as
            casts; elsewhere they are a setting of the runtime, and the graph is that of fp32.
        packages: distributions any of which brings the runtime, the usual one first; none where it needs no package of
            its own.
    """

    kind: DeviceKind
    takes_onnx: bool
    precisions: tuple[Precision, ...]
    measured: bool = True
    typed: bool = False
    packages: tuple[str, ...] = ()


RUNTIMES: dict[RuntimeName, RuntimeFacts] = {
    "onnxruntime": RuntimeFacts(
        kind="cpu", takes_onnx=True, precisions=("fp32", "int8"), packages=("onnxruntime", "onnxruntime-gpu")
    ),
    "openvino": RuntimeFacts(
        kind="cpu",
        takes_onnx=True,
        precisions=("fp32", "bf16", "int8"),
        packages=("openvino",),
    ),
    "torch": RuntimeFacts(
        kind="cpu",
        takes_onnx=False,
        precisions=("fp32",),
        packages=("torch",),
    ),
    "torch-cuda": RuntimeFacts(
        kind="gpu",
        takes_onnx=False,
        precisions=("fp32", "fp16", "bf16"),
        packages=("torch",),
    ),
    "onnxruntime-cuda": RuntimeFacts(
        kind="gpu", takes_onnx=True, precisions=("fp32", "fp16"), typed=True, packages=("onnxruntime-gpu",)
    ),
    "onnxruntime-tensorrt": RuntimeFacts(
        kind="gpu", takes_onnx=True, precisions=("fp32", "fp16"), typed=True, packages=("onnxruntime-gpu",)
    ),
    "tensorrt": RuntimeFacts(
        kind="gpu",
        takes_onnx=True,
        precisions=("fp32", "fp16", "bf16", "int8"),
        typed=True,
        packages=("tensorrt", "tensorrt-cu13"),
    ),
    # Times by arithmetic from a device's peak figures, for tests and dry runs.
    "roofline": RuntimeFacts(
        kind="cpu",
        takes_onnx=False,
        precisions=("fp32",),
        measured=False,
    ),
    # Whatever hwnas does not drive, such as a phone's; its tables are imported.
    "external": RuntimeFacts(
        kind="cpu",
        takes_onnx=False,
        precisions=("fp32", "fp16", "bf16", "int8"),
        measured=False,
    ),
}


def installed_version(runtime: RuntimeName) -> str | None:
    """Release of a runtime that is installed here, such as 2.13.0, without importing it; None where it is not.

    What follows a ``+`` names a build, and is left out: a package and its library do not always agree on it.
    """
    for package in RUNTIMES[runtime].packages:
        try:
            return importlib.metadata.version(package).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
