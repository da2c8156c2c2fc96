"""TensorRT engines as files, each with a note that records the GPU and versions that it was built for.

An engine runs only on the kind of GPU and with the version of TensorRT that it was built for. TensorRT detects a
mismatch only after deserialising it; the note is read before.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from hwnas.errors import BundleError
from hwnas.files import Spec, write_whole

SUFFIX = ".engine"
_LONGEST_NOTE = 64 * 1024


class EngineNote(Spec):
    """``<name>.engine.json``.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        gpu: name of the GPU in CUDA.
        compute_capability: of the GPU, e.g. "9.0".
        tensorrt: version of TensorRT.
        sha256: of the engine.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    gpu: str
    compute_capability: str
    tensorrt: str
    sha256: str

    @classmethod
    def of(cls, plan: bytes, *, gpu: str, compute_capability: str, tensorrt: str) -> EngineNote:
        """The note of an engine."""
        digest = hashlib.sha256(plan).hexdigest()
        return cls(gpu=gpu, compute_capability=compute_capability, tensorrt=tensorrt, sha256=digest)


def note_path(path: Path) -> Path:
    """Path of the note of an engine's file."""
    return path.with_name(f"{path.name}.json")


def write_engine(path: Path, plan: bytes, note: EngineNote) -> None:
    """Write an engine and its note, each atomically.

    Raises:
        OutputError: a file cannot be written.
    """
    write_whole(path, plan)
    write_whole(note_path(path), note.model_dump_json(by_alias=True, indent=2).encode() + b"\n")


def read_engine(path: Path, *, gpu: str, compute_capability: str, tensorrt: str) -> bytes:
    """The engine of a file, if it was built for this host.

    Args:
        path: of the engine.
        gpu: name of this host's GPU.
        compute_capability: of this host's GPU.
        tensorrt: installed version.

    Raises:
        BundleError: it was built for another GPU or another version, or a file is missing or changed.
    """
    try:
        text = _read(note_path(path), _LONGEST_NOTE)
        note = EngineNote.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BundleError(
            f"{note_path(path)} does not describe an engine: "
            f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        ) from error
    here = {"gpu": gpu, "compute_capability": compute_capability, "tensorrt": tensorrt}
    words = {"gpu": "the GPU", "compute_capability": "compute capability", "tensorrt": "TensorRT"}
    others = [
        f"{words[name]} {getattr(note, name)}, but this host has {value}"
        for name, value in here.items()
        if getattr(note, name) != value
    ]
    if others:
        raise BundleError(
            f"{path.name} was built for {'; for '.join(others)}. An engine runs only where it was built for: build it "
            "again from model.onnx"
        )
    plan = _read(path)
    digest = hashlib.sha256(plan).hexdigest()
    if digest != note.sha256:
        raise BundleError(
            f"{path} was changed after it was written: its sha256 is {digest[:12]}…, its note has {note.sha256[:12]}…"
        )
    return plan


def _read(path: Path, limit: int | None = None) -> bytes:
    try:
        if limit is not None and path.stat().st_size > limit:
            raise BundleError(f"{path} has {path.stat().st_size} bytes; a note may have at most {limit}")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot load {path.name}: cannot read {path}: {error.strerror}") from error
