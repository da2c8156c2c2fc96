"""The roofline model: the latency of a network if each operation reached the device's peak figures.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures", 2009.
Its results are estimates (`Estimate`) for tests and dry runs; it is never timed and has no tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydantic
import torch
from torch import nn

from hwnas.errors import RuntimeUnavailable, SpecError
from hwnas.lowering import Program
from hwnas.nn.wired import Wired
from hwnas.runtimes.base import Array, parse_options
from hwnas.runtimes.torch import TorchSession
from hwnas.targets import Device

_BYTES = 4  # fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A latency that was computed, not measured.

    Attributes:
        latency_ms: sum over the operations of the maximum of arithmetic time and memory time.
        flops: floating point operations (a multiply-add is two).
        traffic_bytes: inputs, weights and outputs of all operations, each transferred once.
    """

    latency_ms: float
    flops: int
    traffic_bytes: int


class RooflineOptions(pydantic.BaseModel, extra="forbid", frozen=True):
    """The ``[options]`` of a roofline recipe: none."""


class RooflineSession(TorchSession):
    """Runs a program in torch, and estimates its latency from a device's peak figures."""

    @staticmethod
    def version() -> str:
        """Version of the model below."""
        return "1"

    def estimate(self, device: Device) -> Estimate:
        """The latency of the program on a device.

        Raises:
            SpecError: the device's file lacks peak figures.
            RuntimeInputError: the session is closed.
        """
        self._require_open()
        hardware = device.hardware
        if hardware.peak_fp32_gflops is None or hardware.peak_memory_gb_per_s is None:
            raise SpecError(
                f"devices/{device.name}.toml has no peak_fp32_gflops and peak_memory_gb_per_s under [hardware], "
                "which an estimate needs; on that device `hwnas devices detect --measure-peaks --save` measures "
                "them (--out FILE if it has another name), or add them to its file"
            )
        # A thread gets its core's share of the arithmetic, but may use the whole memory bandwidth.
        share = min(1.0, self.recipe.threads / (hardware.cores or self.recipe.threads))
        flops_per_s = hardware.peak_fp32_gflops * 1e9 * share
        bytes_per_s = hardware.peak_memory_gb_per_s * 1e9
        operations = _operations(self._module)
        return Estimate(
            latency_ms=1e3 * sum(max(o.flops / flops_per_s, o.traffic_bytes / bytes_per_s) for o in operations),
            flops=sum(o.flops for o in operations),
            traffic_bytes=sum(o.traffic_bytes for o in operations),
        )

    def _load(self, program: Program | Path) -> tuple[int, ...]:
        parse_options(self.recipe, RooflineOptions)
        return super()._load(program)

    def _bind(self, x: Array) -> Callable[[], torch.Tensor]:
        raise RuntimeUnavailable(
            f"{self.recipe.name} computes estimates and cannot be timed, so it has no tables and no benchmarks. Choose "
            "a recipe of a measured runtime, e.g. onnxruntime-cpu-fp32"
        )

    def _run(self, x: Array) -> Array:
        with self.threads():
            y: torch.Tensor = super()._bind(x)()
        return y.numpy()


@dataclass(frozen=True, slots=True)
class _Operation:
    flops: int
    traffic_bytes: int


def _operations(module: nn.Module) -> list[_Operation]:
    """FLOPs and memory traffic of each operation of an exported program."""
    if isinstance(module, Wired):
        return [operation for part in module.parts for operation in _operations(part)]
    assert isinstance(module, torch.fx.GraphModule)
    found = []
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        shapes = [tuple(argument.meta["val"].shape) for argument in node.all_input_nodes]
        out = tuple(node.meta["val"].shape)
        moved = sum(math.prod(shape) for shape in (*shapes, out))
        # The second input of a convolution or a linear layer is its weight, (out, in / groups, ...) or (out, in).
        weighted = node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
        flops = 2 * math.prod(out) * math.prod(shapes[1][1:]) if weighted else math.prod(out)
        found.append(_Operation(flops, moved * _BYTES))
    return found
