"""A bundle: one folder with the compiled network and everything needed to run, check and re-time it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, FiniteFloat, JsonValue, PositiveFloat, ValidationError

from hwnas.deploy.parity import ParityReport
from hwnas.errors import BundleError, OutputError
from hwnas.spaces import Domain
from hwnas.targets import Recipe, Spec, write_whole

MANIFEST = "manifest.json"


class BundleManifest(Spec):
    """``manifest.json`` of a bundle.

    Attributes:
        schema_: version of the file's form, ``schema`` in the file.
        target: the name ``device/recipe`` that it was made for.
        recipe: the whole recipe, so that the bundle stands alone.
        domain: the space.
        arch: name of a variable -> value.
        classes: names of the classes, in the order of the outputs.
        input: name and shape of the input, and the transform from an image to it, its steps in their order.
        output: name and shape of the output, and what it means.
        predicted_ms: by the latency model.
        measured_ms: p25 when the bundle was made; None before it was timed.
        budget_ms: that the search had to keep; None if there was none.
        accuracy: top-1 accuracy in the runtime on the test images, as a fraction.
        parity: how equal its outputs are to the torch network's.
        macs, params: of the network.
        versions: of hwnas, the runtime, torch, Python and the operating system's kernel.
        files: name -> sha256.
        manifest_sha256: of this file with this entry empty.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    target: str
    recipe: Recipe
    domain: Domain
    arch: dict[str, int]
    classes: list[str]
    input: dict[str, JsonValue]
    output: dict[str, JsonValue]
    predicted_ms: PositiveFloat
    measured_ms: PositiveFloat | None
    budget_ms: PositiveFloat | None
    accuracy: FiniteFloat
    parity: ParityReport
    macs: int
    params: int
    versions: dict[str, str]
    files: dict[str, str]
    manifest_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are those that were written.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself.
        program: the compiled network's file.
    """

    folder: Path
    manifest: BundleManifest
    program: Path


def write_bundle(folder: Path, write_program: Callable[[Path], Path], manifest: BundleManifest) -> Bundle:
    """Write a bundle, whole or not at all: it is made in a folder beside and then renamed.

    Args:
        folder: where; an older bundle there is replaced, anything else is refused.
        write_program: writes the program into a folder and returns its path.
        manifest: `files` and `manifest_sha256` are filled in here.

    Raises:
        OutputError: the folder is a file, holds something else than a bundle, or cannot be written.
    """
    check_output_folder(folder)
    place = folder.resolve()
    making = place.with_name(f".{place.name}.making")
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        program = write_program(making)
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        complete = manifest.model_copy(update={"files": {program.name: digest}, "manifest_sha256": ""})
        complete = complete.model_copy(update={"manifest_sha256": _digest(complete)})
        write_whole(making / MANIFEST, _text(complete))
        _put_in_place(making, place)
    except OSError as error:
        raise OutputError(f"cannot write the bundle {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return Bundle(folder, complete, folder / program.name)


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
    """Check, before long work, that a bundle may be written here.

    Raises:
        OutputError: it is a file, or a folder that holds something else than a bundle.
    """
    if folder.is_file():
        raise OutputError(f"{folder} is a file; a bundle is a folder, choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not _holds_only_a_bundle(folder):
        raise OutputError(f"{folder} is not empty and holds no bundle, or more than one; choose another folder")


def _holds_only_a_bundle(folder: Path) -> bool:
    """Whether a folder may be replaced: others too call a file `MANIFEST`, and people leave notes beside it."""
    try:
        files = BundleManifest.model_validate_json((folder / MANIFEST).read_bytes()).files
    except (OSError, ValidationError):
        return False
    return {path.name for path in folder.iterdir()} <= {MANIFEST, *files}


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and check that nothing in it was changed.

    Raises:
        BundleError: a file is missing, malformed or changed.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode()  # `read_text` would take another line end for the same
        manifest = BundleManifest.model_validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder} is not a bundle: cannot read {MANIFEST}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BundleError(
            f"{path} is malformed: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        ) from error
    blank = manifest.model_copy(update={"manifest_sha256": ""})
    if _digest(blank) != manifest.manifest_sha256 or text != _text(manifest):
        raise BundleError(f"{path} was changed after it was written: its checksum does not hold. Export it again.")
    for name, expected in manifest.files.items():
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(f"{folder / name} cannot be read: {error.strerror}. Export the bundle again.") from error
        if found != expected:
            raise BundleError(
                f"{folder / name} was changed after it was written: its sha256 is {found[:12]}…, the manifest says "
                f"{expected[:12]}…. Export the bundle again."
            )
    [program] = manifest.files
    return Bundle(folder, manifest, folder / program)


def _text(manifest: BundleManifest) -> str:
    return json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"


def _digest(manifest: BundleManifest) -> str:
    return hashlib.sha256(_text(manifest).encode()).hexdigest()
