"""From ops to torch modules, and modules whose weights are shared across sizes."""

from hwnas.nn.blocks import build, channels_last, network, plain
from hwnas.nn.elastic import Elastic, ready

__all__ = ["Elastic", "build", "channels_last", "network", "plain", "ready"]
