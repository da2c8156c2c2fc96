"""``manifest.json`` of a bundle of a user's model: schema 3."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from hwnas.deploy.manifest import MANIFEST, MAX_FILES, README, DeviceFacts, FileFacts, FileName, Sha256
from hwnas.files import Spec
from hwnas.runner.signature import DTYPES
from hwnas.targets import Recipe

SCHEMA = 3
INPUTS, OUTPUTS = "example-inputs.npz", "example-outputs.npz"
_AXES = 16
_AXIS = 2**31


class OutputParity(Spec):
    """An output compared with that of the graph in fp32.

    Attributes:
        name: of the output.
        largest: largest magnitude of the fp32 output.
        max_abs_error: largest difference of two elements.
        min_cosine: smallest cosine similarity over the samples whose output is not faint beside that of others; None
            for integers, and for a single element.
        same: share of equal elements of integers; of floats with several elements on the last axis, share of rows whose
            largest element is at the same place; None for other floats.
    """

    name: str
    largest: float
    max_abs_error: float
    min_cosine: float | None
    same: float | None


class ModelParity(Spec):
    """A program compared with the graph in fp32.

    Attributes:
        samples: number of inputs.
        random: whether they are random numbers.
        outputs: each output.
        metric: what `reference` and `deployed` are (`hwnas.models.metrics`): ``top1`` of classes, ``mse`` or ``mae`` of
            values; None without labels.
        reference, deployed: of the graph in fp32, and of the program.
        constant: the error of the best constant output, 0 where all labels are equal; None for a share.
    """

    samples: PositiveInt
    random: bool
    outputs: list[OutputParity]
    metric: str | None = None
    reference: float | None = None
    deployed: float | None = None
    constant: float | None = Field(default=None, exclude_if=lambda constant: constant is None)

    @property
    def lost(self) -> float | None:
        """What the program loses against fp32 in the metric, as a fraction.

        Of an error it is the growth relative to that of the best constant output; with ``mse`` what R² loses. None
        without labels, and where all are equal.
        """
        if self.reference is None or self.deployed is None or self.constant == 0:
            return None
        if self.metric == "top1":
            return self.reference - self.deployed
        return (self.deployed - self.reference) / (self.constant or 1.0)


class Port(Spec):
    """An input or an output: its name, axes (null for one that depends on a run), and numpy's name of its type."""

    name: str = Field(min_length=1, max_length=1000)
    shape: list[Annotated[int, Field(ge=1, lt=_AXIS)] | None] = Field(max_length=_AXES)
    dtype: str

    @model_validator(mode="after")
    def _known(self) -> Port:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: {self.dtype[:40]!r}; it should be {', '.join(DTYPES)}")
        return self


class ModelManifest(Spec):
    """``manifest.json`` of a bundle of a user's model.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        program: the file that the runtime loads.
        target: name of its target, ``device/recipe``.
        device: device of the target.
        recipe: the whole recipe, so that the bundle is self-contained.
        model: name of the model.
        model_sha256: of the user's graph.
        inputs, outputs: of the program, in its order.
        max_abs_error: output -> largest accepted difference from the recorded one.
        parity: outputs compared with those of the user's graph in fp32.
        fallback: layers that stayed in floating point because int8 cost too much.
        predicted_ms: by a table of kernels; None without one.
        measured_ms: p25 when the bundle was created; None before it was timed.
        measured_cores: logical cores of the measurement; None if unknown.
        notes: what was changed in the user's model or assumed, as sentences.
        versions: of hwnas, the runtime, Python and the operating system's kernel.
        files: name -> size and hash, of every file but this one.
        manifest_sha256: of this file with this entry empty.
    """

    schema_: Literal[3] = Field(alias="schema", default=3)
    program: FileName = ""
    target: str
    device: DeviceFacts
    recipe: Recipe
    model: str
    model_sha256: Sha256
    inputs: list[Port] = Field(min_length=1)
    outputs: list[Port] = Field(min_length=1)
    max_abs_error: dict[str, PositiveFloat]
    parity: ModelParity
    fallback: list[str] = Field(default=[])
    predicted_ms: PositiveFloat | None = None
    measured_ms: PositiveFloat | None = None
    measured_cores: str | None = Field(default=None, pattern=r"^[0-9,-]+$")
    notes: list[str] = Field(default=[])
    versions: dict[str, str]
    files: dict[FileName, FileFacts]
    manifest_sha256: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelManifest:
        if len(self.files) > MAX_FILES:
            raise ValueError(f"files: {len(self.files)} entries; at most {MAX_FILES} are accepted")
        missing = [name for name in (self.program, README, INPUTS, OUTPUTS) if name not in self.files]
        if self.files and (missing or MANIFEST in self.files):
            raise ValueError(f"files: {missing[0]!r} is not among them" if missing else f"files: {MANIFEST} is listed")
        if self.max_abs_error.keys() != {port.name for port in self.outputs}:
            raise ValueError("max_abs_error: it should have one entry per output")
        return self
