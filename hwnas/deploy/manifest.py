"""``manifest.json``: the description of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from hwnas.files import Spec
from hwnas.files.untrusted import file_name_mistake
from hwnas.spaces import Domain
from hwnas.targets import Recipe
from hwnas.tasks.figures import ClassificationFigures, Difference

MANIFEST, README = "manifest.json", "README.md"
SCRIPT = "classify.py"  # where the README says to save its lines
INPUT: Literal["example-input.npy"] = "example-input.npy"
OUTPUT: Literal["example-output.npy"] = "example-output.npy"
SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")
MAX_FILES = 16
MAX_FILE_BYTES = 2**32
_AXIS = 2**16
# Largest accepted difference of outputs from the recorded ones, as a share of the largest output: other CPUs sum in
# another order, and have other instructions for low precision.
_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2, "int8": 1e-1}


def _file_name(name: str) -> str:
    if mistake := file_name_mistake(name):
        raise ValueError(f"{name[:80]!r}: {mistake}")
    return name


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, AfterValidator(_file_name)]
Axis = Annotated[int, Field(ge=1, le=_AXIS)]


class FileFacts(Spec):
    """Size and SHA-256 of a file."""

    size_bytes: int = Field(ge=1, le=MAX_FILE_BYTES)
    sha256: Sha256


class ParityReport(Spec):
    """Agreement of the outputs with those of the torch network.

    Attributes:
        images: number of compared images.
        max_abs_error: largest difference of two logits.
        min_cosine: smallest cosine similarity of an image's logits.
        top1_agreement: share of images with equal top-1 classes; for several labels per image, share of the labels that
            are equal.
        metric: what the two accuracies are of, usually top1.
        torch_accuracy: of the torch network on these images, as a fraction.
        deployed_accuracy: of the program in its runtime, as a fraction.
        difference: of the two accuracies, and whether these images can distinguish them.
        figures: of the program in its runtime: interval, baseline, each class, confusions.
    """

    images: PositiveInt
    max_abs_error: float
    min_cosine: float
    top1_agreement: float
    metric: str = Field(default="top1", exclude_if=lambda metric: metric == "top1")
    torch_accuracy: float
    deployed_accuracy: float
    difference: Difference | None = Field(default=None, exclude_if=lambda difference: difference is None)
    figures: ClassificationFigures | None = Field(default=None, exclude_if=lambda figures: figures is None)


class DeviceFacts(Spec):
    """The device of a bundle: its name, its kind, and the hash of its match conditions."""

    name: str
    kind: str
    fingerprint: Sha256


class Input(Spec):
    """The input of the program.

    Attributes:
        name: of the input.
        shape: ``(batch, channels, height, width)``; of a program that includes the normalisation
            ``(batch, height, width, channels)``; of tokens ``(batch, length)``.
        dtype: float32; uint8 if the program includes the normalisation; int64 for tokens.
        transform: preprocessing steps from an image or a text to the input, in order.
    """

    name: str
    shape: Annotated[list[Axis], Field(min_length=2, max_length=4)]
    dtype: Literal["float32", "uint8", "int64"] = Field(default="float32", exclude_if=lambda dtype: dtype == "float32")
    transform: dict[str, JsonValue]


class Output(Spec):
    """Name, shape ``(batch, classes)`` and meaning of the output."""

    name: str
    shape: Annotated[list[Axis], Field(min_length=2, max_length=2)]
    meaning: str


class Example(Spec):
    """One recorded image and the program's output for it; see `INPUT` and `OUTPUT`.

    Attributes:
        input, output: the files, one input of the manifest's shape and type, and float32 ``(1, classes)``.
        max_abs_error: largest accepted difference of an output from the recorded one.
    """

    input: Literal["example-input.npy"] = INPUT
    output: Literal["example-output.npy"] = OUTPUT
    max_abs_error: PositiveFloat


def tolerance(precision: str, largest: float) -> float:
    """Largest accepted difference of outputs in this precision, from the largest recorded output."""
    return _TOLERANCE[precision] * max(largest, 1.0)


class BundleManifest(Spec):
    """``manifest.json`` of a bundle.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        program: the file that the runtime loads.
        target: name of its target, ``device/recipe``.
        device: device of the target.
        recipe: the whole recipe, so that the bundle is self-contained.
        domain: the space.
        arch: name of a variable -> value.
        weights_sha256: of the network's tensors before lowering, see `hwnas.deploy.exporter.weights_sha256`.
        data: name of the training dataset.
        data_folder: name of its folder; None for a dataset without one, and in older bundles.
        data_fingerprint: hash of its images' names, classes and sizes, or of what else determines it; None in older
            bundles.
        classes: names of the classes, in the order of the outputs.
        task: "classification": an image has one class; "multi-label": each class is present in it or not, independently
            of the others.
        include: steps of an image's way that are in the program: its normalisation, and softmax or sigmoid.
        dynamic_batch: whether a run takes any number of images; shapes and latencies are then of the recipe's batch.
        input: name, shape and type of the input, and the preprocessing steps of an image, in order.
        output: name, shape and meaning of the output.
        example: a recorded run.
        predicted_ms: by the latency model; None if the target had no table of the space.
        measured_ms: p25 when the bundle was created; None before it was timed.
        measured_cores: logical cores of the measurement, e.g. ``4-5``; None if unknown.
        measured_p95_ms, measured_p99_ms: of the same measurement; None with fewer than 200 and 1,000 runs.
        measured_images_per_s: throughput of one stream at the recipe's batch; None before it was timed.
        budget_ms: latency budget of the search; None if there was none.
        accuracy: the metric of `parity`, usually top-1 accuracy, in the runtime on the test images, as a fraction.
        parity: agreement of its outputs with those of the torch network.
        fallback: layers that stayed in floating point because int8 cost too much accuracy.
        macs, params: of the network.
        references: file of a reference program -> its latency in the profile, in milliseconds: timed beside the
            bundle, they show the machine's speed. Empty without a table, and in older bundles.
        versions: of hwnas, the runtime, torch, Python and the operating system's kernel.
        files: name -> size and hash, of every file but this one.
        manifest_sha256: of this file with this entry empty.
    """

    schema_: Literal[2] = Field(alias="schema", default=2)
    program: FileName = ""
    target: str
    device: DeviceFacts
    recipe: Recipe
    domain: Domain
    arch: dict[str, int | str]
    weights_sha256: Sha256
    data: str
    data_folder: str | None = Field(default=None, exclude_if=lambda folder: folder is None)
    data_fingerprint: str | None = Field(default=None, exclude_if=lambda fingerprint: fingerprint is None)
    classes: list[str]
    task: str = Field(default="classification", exclude_if=lambda task: task == "classification")
    include: list[Literal["normalize", "softmax", "sigmoid"]] = Field(default=[], exclude_if=lambda steps: not steps)
    dynamic_batch: bool = Field(default=False, exclude_if=lambda dynamic: not dynamic)
    input: Input
    output: Output
    example: Example
    predicted_ms: PositiveFloat | None
    measured_ms: PositiveFloat | None
    # Omitted if None, so that older manifests keep their bytes.
    measured_cores: str | None = Field(default=None, pattern=r"^[0-9,-]+$", exclude_if=lambda cores: cores is None)
    measured_p95_ms: PositiveFloat | None = Field(default=None, exclude_if=lambda ms: ms is None)
    measured_p99_ms: PositiveFloat | None = Field(default=None, exclude_if=lambda ms: ms is None)
    measured_images_per_s: PositiveFloat | None = Field(default=None, exclude_if=lambda rate: rate is None)
    budget_ms: PositiveFloat | None
    accuracy: float
    parity: ParityReport
    fallback: list[str] = Field(default=[])
    macs: NonNegativeInt
    params: PositiveInt
    references: dict[FileName, PositiveFloat] = Field(default={}, exclude_if=lambda references: not references)
    versions: dict[str, str]
    files: dict[FileName, FileFacts]
    manifest_sha256: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> BundleManifest:
        if len(self.files) > MAX_FILES:
            raise ValueError(f"files: {len(self.files)} entries; at most {MAX_FILES} are accepted")
        if len({name.casefold() for name in (*self.files, MANIFEST)}) <= len(self.files):
            raise ValueError(f"files: two names are equal on some systems, or one is called {MANIFEST}")
        missing = [name for name in (self.program, README, INPUT, OUTPUT, *self.references) if name not in self.files]
        if self.files and missing:
            raise ValueError(f"files: {missing[0]!r} is not among them")
        if [self.recipe.batch, len(self.classes)] != self.output.shape or self.recipe.batch != self.input.shape[0]:
            raise ValueError(
                f"input and output have the shapes {self.input.shape} and {self.output.shape}; the recipe's batch is "
                f"{self.recipe.batch}, and there are {len(self.classes)} classes"
            )
        return self


def schema_text() -> str:
    """The JSON schema of a manifest, as shipped in `SCHEMA_FILE`."""
    schema = BundleManifest.model_json_schema(by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
