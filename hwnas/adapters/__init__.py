"""Fine-tuning of few parameters that merge into the weights: the network keeps its shapes, and its latency."""

from hwnas.adapters.adapted import Adapted, AdapterChoice
from hwnas.adapters.base import Adapter
from hwnas.adapters.kinds import ADAPTERS, HEAD, AdapterKind

__all__ = ["ADAPTERS", "HEAD", "Adapted", "Adapter", "AdapterChoice", "AdapterKind"]
