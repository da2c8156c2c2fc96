"""File cache of exported graphs of ops: an op is exported once for all profiles and validations."""

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

# Limit for all spaces together; graphs include weights, and serve all image sizes.
_MOST_BYTES = 2**30
_PACKAGES = ("torch", "onnx", "onnxscript", "onnx-ir")
_CODE = ("graphs", "lowering", "nn", "spaces")
_DIGITS = 32

Export = Callable[[list[Op]], list[onnx.ModelProto]]


def exported(ops: Sequence[Op], settings: object, export: Export) -> dict[Op, onnx.ModelProto]:
    """The graph of each op: read from the cache if its file is intact, else exported and cached.

    Files are in ``$HWNAS_HOME/lowered``, named by a hash of everything that the graph depends on (the op, the settings,
    the versions of the exporter, hwnas's code) and by a hash of their content: a damaged file is exported again. Beyond
    1 GiB, the least recently read files are deleted.

    Args:
        ops: distinct ops.
        settings: further inputs of the export; any JSON value.
        export: the graphs of some ops with random weights.
    """
    try:
        folder = home() / "lowered"
    except OutputError:  # no home folder: nothing can be cached
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
        log.warning("lowered ops cannot be cached and will be lowered again: %s", error)
    return found | new


def _key(op: Op, settings: object) -> str:
    """Hash of everything that a graph depends on."""
    return _digest(json.dumps([op.key, settings, _exporter()], sort_keys=True).encode())


@cache
def _exporter() -> list[str]:
    """Versions of the exporter, and a hash of hwnas's code, which changes in a checkout without a new version."""
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for file in sorted(file for name in _CODE for file in (package / name).rglob("*.py")):
        code.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return [*(f"{name} {version(name)}" for name in _PACKAGES), code.hexdigest()]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _read(files: Sequence[Path], key: str) -> onnx.ModelProto | None:
    """The graph of a file, if its content is unchanged."""
    for path in files:
        try:
            data = path.read_bytes()
            if path.stem == f"{key}-{_digest(data)}":
                os.utime(path)
                return onnx.load_from_string(data)
            path.unlink(missing_ok=True)
        except OSError:  # deleted by another process, or unreadable: export it again
            continue
    return None


def _drop_oldest(folder: Path) -> None:
    files = []
    for path in folder.glob("*.onnx"):
        try:
            facts = path.stat()
        except OSError:  # deleted by another process
            continue
        files.append((facts.st_mtime_ns, facts.st_size, path))
    left = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if left <= _MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        left -= size
