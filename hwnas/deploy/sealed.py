"""Sealed folders: files beside a manifest that has the size and the hash of each, and its own checksum.

Bundles are such folders. Checksums detect accidents; they do not prove authorship.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol, Self, TypeVar, cast

from pydantic import BaseModel, ValidationError

from hwnas.deploy.manifest import MANIFEST, MAX_FILE_BYTES, MAX_FILES, README, SCRIPT, FileFacts
from hwnas.errors import BundleError, OutputError
from hwnas.files import reason_of, write_whole
from hwnas.files.untrusted import open_regular, parse_json

_MANIFEST_BYTES = 4 * 2**20


class Manifest(Protocol):
    """What a manifest needs; it is a pydantic model."""

    program: str
    files: dict[str, FileFacts]
    manifest_sha256: str

    def model_copy(self, *, update: Mapping[str, object] | None = None) -> Self:
        """A copy with other values."""


M = TypeVar("M", bound=Manifest)


def write_sealed(
    folder: Path, write_program: Callable[[Path], Path], manifest: M, readme: Callable[[M], str]
) -> tuple[M, Path]:
    """Write a folder atomically: it is created under a temporary name and then renamed.

    Args:
        folder: the folder; an older bundle there is replaced, anything else is an error.
        write_program: writes the program and further files into a folder, and returns the program's path.
        manifest: its `program`, `files` and `manifest_sha256` are filled in.
        readme: the text of the folder's page.

    Returns:
        the complete manifest, and the program's file.

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
        files = {path.name: facts_of(path, MAX_FILE_BYTES) for path in sorted(making.iterdir())}
        complete = named.model_copy(update={"files": files})
        complete = complete.model_copy(update={"manifest_sha256": _digest(complete)})
        write_whole(making / MANIFEST, _text(complete))
        _put_in_place(making, place)
    except OSError as error:
        raise OutputError(f"cannot write the bundle {folder}: {reason_of(error)}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return complete, folder / program.name


def read_sealed(folder: Path, schemas: Mapping[int, type[BaseModel]]) -> BaseModel:
    """The manifest of a folder whose files are unchanged.

    Every file is checked against a size limit before it is read, and every name before it is used.

    Args:
        folder: the folder.
        schemas: version of the manifest's format -> its class.

    Raises:
        BundleError: a file is missing, malformed, changed or not listed; or the folder was written by another version
            of hwnas.
    """
    model = _read_manifest(folder, schemas)
    manifest = cast("Manifest", model)
    _check_listing(folder, manifest)
    for name, facts in manifest.files.items():
        found = facts_of(folder / name, facts.size_bytes)
        if found != facts:
            raise BundleError(
                f"{folder / name} was changed after it was written: it has {found.size_bytes} bytes and the sha256 "
                f"{found.sha256[:12]}…, the manifest says {facts.size_bytes} and {facts.sha256[:12]}…. Export the "
                "bundle again."
            )
    return model


def schema_of(folder: Path) -> int | None:
    """The version of the format of a folder's manifest; None if there is no readable one."""
    try:
        with open_regular(folder / MANIFEST, BundleError, limit_bytes=_MANIFEST_BYTES) as file:
            document = parse_json(file.read(), MANIFEST, BundleError)
    except BundleError:
        return None
    schema = document.get("schema") if isinstance(document, dict) else None
    return schema if type(schema) is int else None


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
    if not isinstance(document, dict) or not {"schema", "recipe", "manifest_sha256"} <= set(document):
        return False
    if "arch" not in document and "model" not in document:
        return False
    return {path.name for path in folder.iterdir()} <= {MANIFEST, *document.get("files", ())}


def _read_manifest(folder: Path, schemas: Mapping[int, type[BaseModel]]) -> BaseModel:
    path = folder / MANIFEST
    try:
        with open_regular(path, BundleError, limit_bytes=_MANIFEST_BYTES) as file:
            data = file.read(_MANIFEST_BYTES + 1)
    except BundleError as error:
        raise BundleError(f"{folder} is not a bundle: {error}") from error
    document = parse_json(data, path, BundleError)
    schema = document.get("schema") if isinstance(document, dict) else None
    known = sorted(schemas)
    if type(schema) is int and schema not in schemas:
        raise BundleError(_other_schema(path, schema, document, known))
    try:
        manifest = schemas[schema if type(schema) is int else known[0]].model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BundleError(
            f"{path} is malformed: {'.'.join(map(str, first['loc']))[:200] or 'the file'}: {first['msg'][:400]}"
        ) from error
    blank = manifest.model_copy(update={"manifest_sha256": ""})
    if _digest(blank) != cast("Manifest", manifest).manifest_sha256 or data != _text(manifest).encode():
        raise BundleError(f"{path} was changed after it was written: its checksum does not match. Export it again.")
    if not cast("Manifest", manifest).files:
        raise BundleError(f"{path} is malformed: files: the list is empty")
    return manifest


def _other_schema(path: Path, schema: int, document: object, known: Sequence[int]) -> str:
    reads = " and ".join(map(str, known))
    if schema < known[0]:
        return f"{path} has schema {schema}, of an older hwnas; this one reads {reads}. Export the bundle again."
    versions = document.get("versions") if isinstance(document, dict) else None
    by = versions.get("hwnas") if isinstance(versions, dict) else None
    author = f" (hwnas {by[:40]})" if isinstance(by, str) else ""
    return (
        f"{path} has schema {schema}, of a newer hwnas{author}; this one reads {reads}. Open it with that version: "
        "pip install --upgrade hwnas"
    )


def _check_listing(folder: Path, manifest: Manifest) -> None:
    """Check that the folder has no files beyond the manifest: runtimes look for libraries and weights there.

    The lines of the README are saved there, as it says; no runtime looks for a file of that name.
    """
    with os.scandir(folder) as entries:
        found = {entry.name for entry in islice(entries, 2 * MAX_FILES)}
    for name in sorted(found - {MANIFEST, SCRIPT, *manifest.files}):
        raise BundleError(f"{folder} contains {name!r}, which is not in its manifest: remove it, or export again")


def facts_of(path: Path, limit_bytes: int) -> FileFacts:
    """Size and hash of a regular file, which is not read beyond the limit."""
    with open_regular(path, BundleError, limit_bytes=limit_bytes) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise BundleError(f"{path} is empty. Export the bundle again.")
        return FileFacts(size_bytes=size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


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


def _text(manifest: object) -> str:
    document = cast("BaseModel", manifest).model_dump(mode="json", by_alias=True)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _digest(manifest: object) -> str:
    return hashlib.sha256(_text(manifest).encode()).hexdigest()
