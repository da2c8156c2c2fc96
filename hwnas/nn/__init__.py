"""Convert ops to torch modules, and share module weights across sizes."""

from hwnas.nn.blocks import build, channels_last, laid_out, network, plain
from hwnas.nn.elastic import Elastic, ready

__all__ = ["Elastic", "build", "channels_last", "laid_out", "network", "plain", "ready"]
