"""Programs of ops, and of whole networks assembled from them."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hwnas.lowering import Form, Program
from hwnas.progress import Progress, silent
from hwnas.spaces import Codes, Op, Space

_EXPORTING = threading.Lock()


def lower_ops(space: Space, ops: Sequence[Op], form: Form, progress: Progress = silent) -> Mapping[Op, Program]:
    """Ops of a space as programs of a form, for `assembled`.

    One thread at a time: torch's export is not safe in several.
    """
    progress("lowering", 0, len(ops), unit="ops")
    with _EXPORTING:
        programs = form.lower_ops(ops, wired=space.wiring is not None)
    progress("lowering", len(ops), len(ops), unit="ops")
    return programs


def assembled(
    space: Space, form: Form, codes: Codes, programs: Mapping[Op, Program], folder: Path
) -> dict[str, Program | Path]:
    """Whole networks: codes ``(n, variables)`` -> n programs, named by their row.

    The ops' graphs are wired together, which gives the same graph as the export of the whole network. Programs with
    their own weights are written to the folder: 40 networks of mobilenetv3 would take 1 GiB of memory, as graphs and as
    the bytes that ONNX Runtime keeps.

    Raises:
        OutputError: a file cannot be written.
    """
    archs = space.decode(codes)
    found: dict[str, Program | Path] = {}
    for i, nodes in enumerate(map(space.network, archs)):
        if space.wiring is None:
            whole = form.assemble([programs[node.op] for node in nodes])
            found[str(i)] = form.spooled(whole, folder / str(i))
            continue
        before: Counter[Op] = Counter()
        parts = []
        for node in nodes:
            parts.append(form.another(programs[node.op], before[node.op]))
            before[node.op] += 1
        found[str(i)] = form.spooled(form.assemble(parts, [node.reads for node in nodes]), folder / str(i))
    return found


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for the programs of a measurement: emptied at the start (after a kill), and removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
