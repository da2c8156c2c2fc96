"""`hwnas` for checks: measurements end early and are taken however noisy the machine is; no figure is checked.

With a shebang of the right Python before it, the file takes the place of the command.
"""

import importlib

from hwnas.cli.main import main
from hwnas.timing.protocol import usual

for protocol in (usual().ops, usual().networks):
    for name, value in {"max_disagreement": 1e3, "max_seconds": 0.0}.items():
        object.__setattr__(protocol, name, value)
importlib.import_module("hwnas.accuracy.ensemble")._STEPS = 40  # the accuracy model is fitted for a moment
main()
