"""A bundle: one folder with the compiled network and everything needed to run, check and re-time it."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import ValidationError

from hwnas.deploy.manifest import INPUT, MANIFEST, MAX_FILE_BYTES, MAX_FILES, OUTPUT, README, BundleManifest, FileFacts
from hwnas.deploy.readme import readme
from hwnas.errors import BundleError, OutputError
from hwnas.files import reason_of, write_whole
from hwnas.files.untrusted import open_regular, parse_json
from hwnas.runtimes.base import Array
from hwnas.runtimes.engine import SUFFIX as ENGINE
from hwnas.targets import saturates_here, with_weights
from hwnas.targets.weights import EXACT_FLAGS

_SCHEMA = 2
_MANIFEST_BYTES = 4 * 2**20


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
    check_output_folder(folder)
    place = folder.resolve()
    making = place.with_name(f".{place.name}.making")
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        program = write_program(making)
        named = manifest.model_copy(update={"program": program.name, "files": {}, "manifest_sha256": ""})
        write_whole(making / README, readme(named))
        files = {path.name: _facts(path, MAX_FILE_BYTES) for path in sorted(making.iterdir())}
        complete = named.model_copy(update={"files": files})
        complete = complete.model_copy(update={"manifest_sha256": _digest(complete)})
        write_whole(making / MANIFEST, _text(complete))
        _put_in_place(making, place)
    except OSError as error:
        raise OutputError(f"cannot write the bundle {folder}: {reason_of(error)}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return Bundle(folder, complete, folder / program.name)


def write_example(folder: Path, x: Array, y: Array) -> None:
    """Record a run next to a program: one input, float32 or uint8, and its output ``(1, classes)``, float32."""
    for name, array in ((INPUT, x), (OUTPUT, y)):
        code = _CODES["uint8" if array.dtype == np.uint8 else "float32"]
        write_whole(folder / name, _header(array.shape, code) + np.ascontiguousarray(array, code).tobytes())


def _put_in_place(making: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.replace(old)
    try:
        making.replace(place)
    except BaseException:
        if old.exists():
            old.replace(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_output_folder(folder: Path) -> None:
    """Check, before long work, that a bundle may be written to a folder.

    Raises:
        OutputError: it is a file or below one, or a folder that contains something other than a bundle.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, but a bundle is a folder; choose another name")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise OutputError(f"{above} is a file, and the bundle {folder} needs a folder there; choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not _holds_only_a_bundle(folder):
        raise OutputError(f"{folder} is not empty, and is not a bundle only; choose another folder")


def _holds_only_a_bundle(folder: Path) -> bool:
    """Whether a folder may be replaced: other tools also use the file name `MANIFEST`, and users may add notes.

    Bundles of other schemas are bundles, too.
    """
    try:
        with open_regular(folder / MANIFEST, BundleError, limit_bytes=_MANIFEST_BYTES) as file:
            document = parse_json(file.read(), MANIFEST, BundleError)
    except BundleError:
        return False
    if not isinstance(document, dict) or not {"schema", "recipe", "arch", "manifest_sha256"} <= set(document):
        return False
    return {path.name for path in folder.iterdir()} <= {MANIFEST, *document.get("files", ())}


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and check that it is unchanged and that its program is safe to load.

    Every file is checked against a size limit before it is read, and every name before it is used.

    Raises:
        BundleError: a file is missing, malformed, changed or not allowed in a bundle; or the bundle was written by
            another version of hwnas.
    """
    manifest = _read_manifest(folder)
    _check_listing(folder, manifest)
    for name, facts in manifest.files.items():
        found = _facts(folder / name, facts.size_bytes)
        if found != facts:
            raise BundleError(
                f"{folder / name} was changed after it was written: it has {found.size_bytes} bytes and the sha256 "
                f"{found.sha256[:12]}…, the manifest says {facts.size_bytes} and {facts.sha256[:12]}…. Export the "
                "bundle again."
            )
    bundle = Bundle(folder, manifest, folder / manifest.program)
    bundle.example()
    for path in (bundle.program, *bundle.references):
        if check := _CHECKS.get(path.suffix):
            check(path.read_bytes(), str(path), manifest.recipe.batch)
    return bundle


def _read_manifest(folder: Path) -> BundleManifest:
    path = folder / MANIFEST
    try:
        with open_regular(path, BundleError, limit_bytes=_MANIFEST_BYTES) as file:
            data = file.read(_MANIFEST_BYTES + 1)
    except BundleError as error:
        raise BundleError(f"{folder} is not a bundle: {error}") from error
    document = parse_json(data, path, BundleError)
    schema = document.get("schema") if isinstance(document, dict) else None
    if type(schema) is int and schema != _SCHEMA:
        raise BundleError(_other_schema(path, schema, document))
    try:
        manifest = BundleManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BundleError(
            f"{path} is malformed: {'.'.join(map(str, first['loc']))[:200] or 'the file'}: {first['msg'][:400]}"
        ) from error
    blank = manifest.model_copy(update={"manifest_sha256": ""})
    if _digest(blank) != manifest.manifest_sha256 or data != _text(manifest).encode():
        raise BundleError(f"{path} was changed after it was written: its checksum does not match. Export it again.")
    if not manifest.files:
        raise BundleError(f"{path} is malformed: files: the list is empty")
    return manifest


def _other_schema(path: Path, schema: int, document: object) -> str:
    if schema < _SCHEMA:
        return f"{path} has schema {schema}, of an older hwnas; this one reads {_SCHEMA}. Export the bundle again."
    versions = document.get("versions") if isinstance(document, dict) else None
    by = versions.get("hwnas") if isinstance(versions, dict) else None
    author = f" (hwnas {by[:40]})" if isinstance(by, str) else ""
    return (
        f"{path} has schema {schema}, of a newer hwnas{author}; this one reads {_SCHEMA}. Open it with that version: "
        "pip install --upgrade hwnas"
    )


def _check_listing(folder: Path, manifest: BundleManifest) -> None:
    """Check that the folder has no files beyond the manifest: runtimes look for libraries and weights there."""
    with os.scandir(folder) as entries:
        found = {entry.name for entry in islice(entries, 2 * MAX_FILES)}
    for name in sorted(found - {MANIFEST, *manifest.files}):
        raise BundleError(f"{folder} contains {name!r}, which is not in its manifest: remove it, or export again")


def _facts(path: Path, limit_bytes: int) -> FileFacts:
    """Size and hash of a regular file, which is not read beyond the limit."""
    with open_regular(path, BundleError, limit_bytes=limit_bytes) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise BundleError(f"{path} is empty. Export the bundle again.")
        return FileFacts(size_bytes=size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


_CODES = {"float32": "<f4", "uint8": "|u1"}  # types of arrays as numpy's files name them


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


def _text(manifest: BundleManifest) -> str:
    return json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"


def _digest(manifest: BundleManifest) -> str:
    return hashlib.sha256(_text(manifest).encode()).hexdigest()
