"""Methods of transfer, one file each. Leave-one-device-out chooses among them (`hwnas.latency.transfer.choice`)."""

from hwnas.latency.transfer.methods.base import Method
from hwnas.latency.transfer.methods.low_rank import LOW_RANK
from hwnas.latency.transfer.methods.mixture import MIXTURE
from hwnas.latency.transfer.methods.process import GAUSSIAN_PROCESS
from hwnas.latency.transfer.methods.ridge import RIDGE

METHODS = {method.name: method for method in (GAUSSIAN_PROCESS, LOW_RANK, MIXTURE, RIDGE)}

__all__ = ["METHODS", "Method"]
