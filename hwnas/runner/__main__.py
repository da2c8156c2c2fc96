"""Start the runner on standard input and output: ``python -m hwnas.runner [CACHE]``."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

ORPHANED_S = 5.0  # between checks whether the parent has ended

READY = b"hwnas runner ready\n"


def end_with_parent(seconds: float = ORPHANED_S) -> None:
    """End this process soon after its parent: a runtime that hangs does not read that the input has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(cache: str, load_from: str | None = None) -> None:
    """Serve until standard input ends.

    Args:
        cache: folder for programs.
        load_from: module that loads programs (`hwnas.runner.serve.Server`), where hwnas is installed; the runner's own
            if None.
    """
    from hwnas.runner.frames import Frames
    from hwnas.runner.serve import Server

    end_with_parent()
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
