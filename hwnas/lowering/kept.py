"""Exported graphs of ops, kept in files: an op is exported once, however often it is profiled and validated."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

import onnx

from hwnas.errors import OutputError
from hwnas.files.atomic import write_whole
from hwnas.lowering.serialized import serialized
from hwnas.spaces import Op
from hwnas.targets import home

log = logging.getLogger(__name__)

# Of all spaces together; graphs hold their weights, and are shared by all image sizes.
_MOST_BYTES = 2**30
_PACKAGES = ("torch", "onnx", "onnxscript", "onnx-ir")
_CODE = ("graphs", "lowering", "nn", "spaces")
_DIGITS = 32

Export = Callable[[list[Op]], list[onnx.ModelProto]]


def exported(ops: Sequence[Op], settings: object, export: Export) -> dict[Op, onnx.ModelProto]:
    """The graph of each op: from its file where there is a whole one, else exported, and kept.

    Files are in ``$HWNAS_HOME/lowered``, named by a hash of all that the graph depends on (the op, the settings, the
    versions of the exporter, hwnas's own code) and by one of their content: a file that was damaged is exported anew.
    Where the files grow beyond 1 GiB, those go that were not read for longest.

    Args:
        ops: different ones.
        settings: what else the graphs depend on; anything JSON can hold.
        export: the graphs of some ops with random weights.
    """
    try:
        folder = home() / "lowered"
    except OutputError:  # no home: nothing can be kept
        return dict(zip(ops, export(list(ops)), strict=True))
    keys = {op: _key(op, settings) for op in ops}
    files: dict[str, list[Path]] = {}
    for path in folder.glob("*.onnx"):  # listed once: a profile has hundreds of ops, and the folder as many files
        files.setdefault(path.name.partition("-")[0], []).append(path)
    found = {op: graph for op, key in keys.items() if (graph := _read(files.get(key, ()), key)) is not None}
    missing = [op for op in ops if op not in found]
    if not missing:
        return found
    new = dict(zip(missing, export(missing), strict=True))
    try:
        for op, graph in new.items():
            data = serialized(graph)
            write_whole(folder / f"{keys[op]}-{_digest(data)}.onnx", data)
        _drop_oldest(folder)
    except OutputError as error:
        log.warning("lowered ops are not kept, and will be lowered again: %s", error)
    return found | new


def _key(op: Op, settings: object) -> str:
    """Hash of all that a graph depends on."""
    return _digest(json.dumps([op.key, settings, _exporter()], sort_keys=True).encode())


@cache
def _exporter() -> list[str]:
    """Versions of what exports, and a hash of hwnas's own code, which changes in a checkout without a version."""
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for file in sorted(file for name in _CODE for file in (package / name).rglob("*.py")):
        code.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return [*(f"{name} {version(name)}" for name in _PACKAGES), code.hexdigest()]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _read(files: Sequence[Path], key: str) -> onnx.ModelProto | None:
    """The graph of a file whose content is the one that was written."""
    for path in files:
        try:
            data = path.read_bytes()
            if path.stem == f"{key}-{_digest(data)}":
                os.utime(path)
                return onnx.load_from_string(data)
            path.unlink(missing_ok=True)
        except OSError:  # another process dropped it, or it cannot be read: it is exported anew
            continue
    return None


def _drop_oldest(folder: Path) -> None:
    files = []
    for path in folder.glob("*.onnx"):
        try:
            facts = path.stat()
        except OSError:  # another process dropped it
            continue
        files.append((facts.st_mtime_ns, facts.st_size, path))
    left = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if left <= _MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        left -= size
