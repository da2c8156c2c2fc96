"""`hwnas` for checks: measurements end early and are taken however noisy the machine is; no figure is checked.

With a shebang of the right Python before it, the file takes the place of the command.
"""

import importlib
from dataclasses import replace

from hwnas.cli.main import main
from hwnas.timing import protocol

each = (protocol.OPS, protocol.NETWORKS, protocol.FEW, protocol.KERNELS)
ops, networks, few, kernels = (replace(one, max_disagreement=1e3, max_seconds=0.0) for one in each)
protocol.USUAL = protocol.Protocols(ops=ops, networks=networks, few=few, kernels=kernels)
importlib.import_module("hwnas.accuracy.ensemble")._STEPS = 40  # the accuracy model is fitted for a moment
main()
