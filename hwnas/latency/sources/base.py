"""What every source of latencies can do."""

from __future__ import annotations

from typing import Literal, Protocol

from hwnas.spaces import Op
from hwnas.targets import Target

Origin = Literal["measured", "imported", "estimated", "transferred"]


class LatencySource(Protocol):
    """Latencies of ops on one target, and their provenance.

    A sum of them over the slots of a space is a latency model (`hwnas.latency.plain_model`).
    """

    @property
    def target(self) -> Target:
        """The device and the recipe that the latencies belong to."""

    @property
    def origin(self) -> Origin:
        """Measured by hwnas, imported (others measured it), estimated, or transferred from other targets."""

    def latency_ms(self, op: Op) -> float:
        """Latency of an op in milliseconds.

        Raises:
            MissingOp: the source does not contain the op.
        """
