"""The roofline model: the latency of an op if each of its operations met the device's peak figures.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures", 2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwnas.errors import MissingOp, SpecError
from hwnas.latency.sources.base import Origin
from hwnas.spaces import Op
from hwnas.targets import Target


@dataclass(frozen=True, slots=True)
class Work:
    """What one operation of a lowered network computes and moves.

    Attributes:
        flops: floating point operations (a multiply-add is two).
        traffic_bytes: inputs, weights and outputs, each moved once.
    """

    flops: int
    traffic_bytes: int


class RooflineSource:
    """Estimates from the peak figures in a device's file; no clock and no runtime is used.

    Args:
        target: the device and the recipe; of the recipe only the number of threads counts.
        works: the operations of each op, as `hwnas.lowering.work` counts them.

    Raises:
        SpecError: the device's file does not give its peak figures, or the recipe has options.
    """

    origin: Origin = "estimated"

    def __init__(self, target: Target, works: Mapping[Op, Sequence[Work]]) -> None:
        self.target, self.works = target, works
        self._flops_per_s, self._bytes_per_s = self.peaks(target)

    @staticmethod
    def peaks(target: Target) -> tuple[float, float]:
        """Floating point operations and bytes per second that a target reaches at most.

        Raises:
            SpecError: the device's file does not give its peak figures, or the recipe has options.
        """
        hardware, recipe = target.device.hardware, target.recipe
        if hardware.peak_fp32_gflops is None or hardware.peak_memory_gb_per_s is None:
            raise SpecError(
                f"devices/{target.device.name}.toml has no peak_fp32_gflops and peak_memory_gb_per_s under "
                "[hardware], which an estimate is made of; on that device `hwnas devices detect --measure-peaks "
                "--save` measures them (--out FILE where its name is another), or add them to its file"
            )
        if recipe.options:
            raise SpecError(
                f"recipe {recipe.name}: [options] of {recipe.runtime}: {', '.join(recipe.options)}. Estimates have no "
                "options; remove them"
            )
        # A thread has its core's share of the arithmetic, but may use all of the memory's bandwidth.
        share = min(1.0, recipe.threads / (hardware.cores or recipe.threads))
        return hardware.peak_fp32_gflops * 1e9 * share, hardware.peak_memory_gb_per_s * 1e9

    def latency_ms(self, op: Op) -> float:
        """Sum over an op's operations of the longer of their arithmetic and their memory traffic, in milliseconds.

        Raises:
            MissingOp: the work of the op was not counted.
        """
        if op not in self.works:
            raise MissingOp(f"no work was counted for {op}; give the source the operations of every op of the space")
        return self.estimate_ms(self.works[op])

    def estimate_ms(self, works: Sequence[Work]) -> float:
        """Latency of operations that run one after the other, in milliseconds."""
        seconds = (max(w.flops / self._flops_per_s, w.traffic_bytes / self._bytes_per_s) for w in works)
        return 1e3 * sum(seconds)
