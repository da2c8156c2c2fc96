"""Start the runner on standard input and output: ``python -m hwnas.runner [CACHE]``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

READY = b"hwnas runner ready\n"


def main(cache: str, load_from: str | None = None) -> None:
    """Serve until standard input ends.

    Args:
        cache: folder for programs.
        load_from: module that loads programs (`hwnas.runner.serve.Server`), where hwnas is installed; the runner's own
            if None.
    """
    from hwnas.runner.frames import Frames
    from hwnas.runner.serve import Server

    # Libraries print to standard output, too; what they print goes to standard error.
    outward = os.dup(1)
    os.dup2(2, 1)
    loader = None
    if load_from:
        import importlib

        loader = importlib.import_module(load_from)
    os.write(outward, READY)
    Server(Frames(0, outward), Path(cache).expanduser(), loader).serve()


if __name__ == "__main__":
    main(*sys.argv[1:3])
