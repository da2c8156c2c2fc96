"""A bundle: one folder with the compiled network and everything needed to run, check and re-time it."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from hwnas.deploy.manifest import INPUT, OUTPUT, README, BundleManifest
from hwnas.deploy.model_manifest import SCHEMA as OF_MODELS
from hwnas.deploy.readme import readme
from hwnas.deploy.sealed import read_sealed, schema_of, write_sealed
from hwnas.errors import BundleError, OutputError
from hwnas.files import reason_of, write_whole
from hwnas.files.untrusted import open_regular
from hwnas.runtimes.base import Array
from hwnas.runtimes.engine import SUFFIX as ENGINE
from hwnas.targets import saturates_here, with_weights
from hwnas.targets.weights import EXACT_FLAGS

_SCHEMA = 2


def _check_onnx(data: bytes, name: str, batch: int) -> None:
    from hwnas.lowering.onnx_limits import check_onnx  # imports onnx

    check_onnx(data, name, batch)


def _check_torch(data: bytes, name: str, batch: int) -> None:
    from hwnas.lowering.torch_archive import cleaned  # imports torch

    cleaned(data, name)


# Checks of a program before a runtime loads it; other forms, such as engines, are only checked for changes.
_CHECKS: dict[str, Callable[[bytes, str, int], object]] = {".onnx": _check_onnx, ".pt2": _check_torch}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle with unchanged files.

    Attributes:
        folder: of the bundle.
        manifest: its manifest.
        program: the compiled network's file.
    """

    folder: Path
    manifest: BundleManifest
    program: Path

    @property
    def compiled(self) -> Path:
        """The file that its runtime opens: the engine built from the program, if there is one, else the program."""
        engine = self.program.with_suffix(ENGINE)
        return engine if engine.name in self.manifest.files else self.program

    @property
    def references(self) -> dict[Path, float]:
        """File of each reference program -> its latency in the profile, in milliseconds."""
        return {self.folder / name: profiled_ms for name, profiled_ms in self.manifest.references.items()}

    @property
    def form_is_known(self) -> bool:
        """Whether hwnas checks the content of the opened file, not only its hash."""
        return self.compiled.suffix in _CHECKS

    @property
    def saturates(self) -> str | None:
        """Why its int8 sums saturate on this host; None if they do not.

        A bundle whose recipe has no range of weights comes from an older version, in which they have 8 bits.
        """
        return saturates_here(with_weights(self.manifest.recipe, EXACT_FLAGS))

    def example(self) -> tuple[Array, Array]:
        """The recorded input, of the manifest's shape and type with a batch of 1, and output ``(1, classes)``.

        Raises:
            BundleError: a file is not the array that the manifest describes.
        """
        manifest = self.manifest
        x = _read_array(self.folder / INPUT, (1, *manifest.input.shape[1:]), manifest.input.dtype)
        return x, _read_array(self.folder / OUTPUT, (1, *manifest.output.shape[1:]))

    def copy_program(self, folder: Path) -> Path:
        """Copy the program and the example into another folder for `write_bundle`; return the program.

        Raises:
            OutputError: a file cannot be written.
        """
        for name in self.manifest.files:
            if name != README:
                try:
                    shutil.copyfile(self.folder / name, folder / name)
                except OSError as error:
                    raise OutputError(f"cannot write {folder / name}: {reason_of(error)}") from error
        return folder / self.program.name


def write_bundle(folder: Path, write_program: Callable[[Path], Path], manifest: BundleManifest) -> Bundle:
    """Write a bundle atomically: it is created in a temporary folder and then renamed.

    Args:
        folder: of the bundle; an older bundle there is replaced, anything else is an error.
        write_program: writes the program, the example (`write_example`) and further files into a folder, and returns
            the program's path.
        manifest: its `program`, `files` and `manifest_sha256` are filled in.

    Raises:
        OutputError: the folder is a file, contains something other than a bundle, or cannot be written.
    """
    complete, program = write_sealed(folder, write_program, manifest, readme)
    return Bundle(folder, complete, program)


def write_example(folder: Path, x: Array, y: Array) -> None:
    """Record a run next to a program: one input, float32, uint8 or int64, and its output ``(1, classes)``, float32."""
    for name, array in ((INPUT, x), (OUTPUT, y)):
        code = _CODES[str(array.dtype)]
        write_whole(folder / name, _header(array.shape, code) + np.ascontiguousarray(array, code).tobytes())


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and check that it is unchanged and that its program is safe to load.

    Every file is checked against a size limit before it is read, and every name before it is used.

    Raises:
        BundleError: a file is missing, malformed, changed or not allowed in a bundle; or the bundle was written by
            another version of hwnas.
    """
    if schema_of(folder) == OF_MODELS:
        raise BundleError(f"{folder} is the bundle of a model that hwnas did not build; this needs one of a space")
    manifest = cast("BundleManifest", read_sealed(folder, {_SCHEMA: BundleManifest}))
    bundle = Bundle(folder, manifest, folder / manifest.program)
    bundle.example()
    for path in (bundle.program, *bundle.references):
        if check := _CHECKS.get(path.suffix):
            check(path.read_bytes(), str(path), manifest.recipe.batch)
    return bundle


_CODES = {"float32": "<f4", "uint8": "|u1", "int64": "<i8"}  # types of arrays as numpy's files name them


def _header(shape: tuple[int, ...], code: str) -> bytes:
    buffer = io.BytesIO()
    facts = {"descr": code, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, facts)
    return buffer.getvalue()


def _read_array(path: Path, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    """An array of a known shape and type; its header is compared with the only valid one, not parsed."""
    code = np.dtype(_CODES[dtype])
    header, size = _header(shape, _CODES[dtype]), code.itemsize * math.prod(shape)
    with open_regular(path, BundleError, limit_bytes=len(header) + size) as file:
        data = file.read()
    if len(data) != len(header) + size or not data.startswith(header):
        raise BundleError(f"{path} is malformed: it should contain {dtype} values of the shape {shape}")
    array = np.frombuffer(data, code, offset=len(header)).reshape(shape)
    if not np.isfinite(array).all():
        raise BundleError(f"{path} is malformed: it contains NaN or infinite values")
    return cast("Array", array.astype(dtype))
