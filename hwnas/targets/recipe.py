"""Recipes: how a network is exported, compiled and checked."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hwnas.affinity import cores_text
from hwnas.files.spec import Spec
from hwnas.targets.device import Name
from hwnas.targets.runtimes import Precision, RuntimeFacts, known_runtime, runtime_facts
from hwnas.targets.topology import parse_cores

Option = str | int | bool
_BF16_OPSET = 22  # the first whose Conv, HardSwish and pooling take bfloat16


class Parity(Spec):
    """How equal the outputs before and after lowering must be.

    Attributes:
        max_abs_error: largest difference of two logits that is accepted.
        min_cosine: least cosine similarity of an image's logits.
        min_top1_agreement: least share of images on which both name the same class.
    """

    max_abs_error: float = Field(gt=0)
    min_cosine: float = Field(gt=0, le=1)
    min_top1_agreement: float = Field(gt=0, le=1)


class Quantization(Spec):
    """How an int8 graph gets its scales; weights are stored as int8 with a scale a channel, symmetric.

    Attributes:
        images: images of the training split that the ranges of the activations are taken from.
        method: from what was seen to a range: all of it, 99.999% of it, or the part that keeps the most information
            (the least Kullback-Leibler divergence between what was seen and what is left of it).
        activations: what is quantised. "uint8", what a CPU prefers: whatever has a kernel in int8, activations with a
            zero-point, biases in int32. "int8", what TensorRT asks for: inputs of convolutions and linear layers,
            symmetric; biases and all else stay in float.
        weights: the range of the weights: "int8", [-127, 127]; "int7", [-64, 64], with which CPUs without VNNI compute
            what others do; "auto", the one that suits the target's device (`hwnas.targets.weights`), or this host
            where a recipe is used without a device.
        max_accuracy_drop: the most top-1 accuracy that int8 may cost, as a fraction; the layers that cost the most stay
            in float until it holds. None: whatever it costs.
    """

    images: int = Field(ge=1)
    method: Literal["minmax", "percentile", "entropy"]
    activations: Literal["uint8", "int8"]
    # Not written where it is left to the device: manifests of older bundles, which lack it, keep their hash.
    weights: Literal["auto", "int8", "int7"] = Field(default="auto", exclude_if=lambda weights: weights == "auto")
    max_accuracy_drop: float | None = Field(default=None, ge=0, lt=1)


def _listed(value: object) -> object:
    """The numbers in a text such as ``0-3``; what is no text is left to pydantic."""
    if not isinstance(value, str):
        return value
    cores = parse_cores(value)
    if cores is None:
        raise ValueError('it should list logical cores, e.g. "4-7", "0,2" or [0, 2]')
    return cores


def _distinct(cores: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(cores)) < len(cores):
        raise ValueError("it names a core twice")
    return tuple(sorted(cores))


# TOML gives lists; `strict` would refuse them for a tuple.
_CoreNumbers = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**16)], ...], Field(strict=False)]
Cores = Annotated[_CoreNumbers, BeforeValidator(_listed), AfterValidator(_distinct)]


class Recipe(Spec):
    """A recipe, as ``exporters/<name>.toml`` says it.

    Attributes:
        schema_: version of the file's form, ``schema`` in the file.
        name: the file's stem.
        description: one line for people.
        runtime: what runs the network; `hwnas.targets.runtimes.runtime_names` lists them.
        precision: data type of weights and activations.
        opset: version of the ONNX operator set; None for a runtime that takes no ONNX graph.
        batch: images a run.
        threads: threads of one run.
        cores: logical cores that it is timed on, one for each thread; None, the usual: hwnas chooses them by the
            topology (`hwnas.targets.topology.choose_cores`). Written in a file as ``[4, 5]`` or ``"4-5"``.
        options: settings of the runtime, which checks them when it is opened.
        quantization: where precision is int8, how the graph is quantised; None elsewhere.
        parity: the limits of the check after lowering.
    """

    schema_: Literal[1] = Field(alias="schema")
    name: Name
    description: str = Field(min_length=1)
    runtime: Annotated[str, AfterValidator(known_runtime)]
    precision: Precision
    opset: int | None = Field(default=None, ge=18, le=24)
    batch: int = Field(ge=1, le=65_536)
    threads: int = Field(ge=1)
    # Left out where it is None: the bytes of manifests from before this field stay what they are.
    cores: Cores | None = Field(default=None, exclude_if=lambda cores: cores is None)
    options: dict[str, Option] = Field(default_factory=dict)
    quantization: Quantization | None = None
    parity: Parity

    @model_validator(mode="after")
    def _precision_suits_the_runtime(self) -> Recipe:
        known = self.facts.precisions
        if self.precision not in known:
            raise ValueError(
                f"precision is {self.precision!r}, but the runtime {self.runtime!r} computes in {', '.join(known)}"
            )
        quantized = self.precision == "int8" and self.facts.measured
        if quantized and self.quantization is None:
            raise ValueError("[quantization] is missing; precision is 'int8', so it says how the graph is quantised")
        if not quantized and self.quantization is not None:
            why = f"precision is {self.precision!r}"
            if self.precision == "int8":
                why = f"hwnas lowers nothing for the runtime {self.runtime!r}"
            raise ValueError(f"[quantization] is given, but {why}; leave it out")
        return self

    @model_validator(mode="after")
    def _typed_runtimes_take_the_graph_as_it_is(self) -> Recipe:
        if not self.facts.typed:
            return self
        if self.quantization is not None and self.quantization.activations != "int8":
            raise ValueError(
                f"activations is {self.quantization.activations!r}, but the runtime {self.runtime!r} takes symmetric "
                "int8 only: give 'int8'"
            )
        if self.precision == "bf16" and self.opset is not None and self.opset < _BF16_OPSET:
            raise ValueError(
                f"opset is {self.opset}, whose convolutions know no bfloat16: give {_BF16_OPSET} to 24 with precision "
                "'bf16'"
            )
        return self

    @model_validator(mode="after")
    def _each_thread_has_a_core(self) -> Recipe:
        if self.cores is None:
            return self
        if not self.facts.measured:
            raise ValueError(f"cores is given, but hwnas times nothing with the runtime {self.runtime!r}; leave it out")
        if len(self.cores) != self.threads:
            raise ValueError(
                f"cores is {cores_text(self.cores)!r} and threads is {self.threads}: name one logical core for each "
                "thread, or leave cores out"
            )
        return self

    @model_validator(mode="after")
    def _opset_belongs_to_onnx(self) -> Recipe:
        takes_onnx = self.facts.form == "onnx"
        if takes_onnx and self.opset is None:
            raise ValueError(f"opset is missing; the runtime {self.runtime!r} takes an ONNX graph: give 18 to 24")
        if not takes_onnx and self.opset is not None:
            raise ValueError(
                f"opset is {self.opset}, but the runtime {self.runtime!r} takes no ONNX graph; leave it out"
            )
        return self

    @property
    def facts(self) -> RuntimeFacts:
        """What is known of its runtime."""
        return runtime_facts(self.runtime)

    def __hash__(self) -> int:
        # `options` is a dict, so pydantic's own hash of a frozen model would fail.
        return hash((self.name, self.hash))

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of all that changes the lowered graph or its latency.

        Left out are `schema` (the form of the file), `name` and `description` (words), `parity` (it judges the lowered
        graph but changes neither it nor its time), the bound on what int8 costs (tables are of ops that are wholly in
        int8) and the range of int8 weights (it changes values in the graph, neither types nor kernels, so no time), so
        that a recipe can be renamed, explained better or checked more strictly without measuring again. A field added
        later counts unless it is named here; where it is None nothing is written, so that tables made before it stay
        valid.
        """
        judged = {"schema_": True, "name": True, "description": True, "parity": True}
        content = self.model_dump(
            mode="json", exclude={**judged, "quantization": {"max_accuracy_drop", "weights"}}, exclude_none=True
        )
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
