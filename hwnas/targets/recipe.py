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
_BF16_OPSET = 22  # the first opset with bfloat16 in Conv, HardSwish and pooling


class Parity(Spec):
    """Limits on differences between the outputs before and after lowering.

    Attributes:
        max_abs_error: largest accepted difference of two logits.
        min_cosine: smallest accepted cosine similarity of an image's logits.
        min_top1_agreement: smallest accepted share of images with equal top-1 classes.
    """

    max_abs_error: float = Field(gt=0)
    min_cosine: float = Field(gt=0, le=1)
    min_top1_agreement: float = Field(gt=0, le=1)


class Quantization(Spec):
    """How an int8 graph gets its scales; weights are int8, symmetric, with a scale per channel.

    Attributes:
        images: number of training images from which the ranges of the activations are calibrated.
        method: how observed values become a range: their minimum and maximum, their 99.999th percentile, or the range
            with the smallest Kullback-Leibler divergence between the observed and the quantised values.
        activations: what is quantised. "uint8", for CPUs: every op with an int8 kernel, activations with a zero-point,
            biases in int32. "int8", as TensorRT requires: inputs of convolutions and linear layers, symmetric; biases
            and everything else stay in float.
        weights: the range of the weights: "int8", [-127, 127]; "int7", [-64, 64], which avoids saturation on CPUs
            without VNNI; "auto", the range that suits the target's device (`hwnas.targets.weights`), or this host if a
            recipe is used without a device.
        max_accuracy_drop: largest accepted loss of top-1 accuracy, as a fraction; the layers that cost the most stay
            in float until the loss is within it. None: no limit.
    """

    images: int = Field(ge=1)
    method: Literal["minmax", "percentile", "entropy"]
    activations: Literal["uint8", "int8"]
    # Not written if "auto": manifests of older bundles, which lack it, keep their hash.
    weights: Literal["auto", "int8", "int7"] = Field(default="auto", exclude_if=lambda weights: weights == "auto")
    max_accuracy_drop: float | None = Field(default=None, ge=0, lt=1)


def _listed(value: object) -> object:
    """The numbers in a text such as ``0-3``; other types are left to pydantic."""
    if not isinstance(value, str):
        return value
    cores = parse_cores(value)
    if cores is None:
        raise ValueError('it should list logical cores, e.g. "4-7", "0,2" or [0, 2]')
    return cores


def _distinct(cores: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(cores)) < len(cores):
        raise ValueError("a core is listed twice")
    return tuple(sorted(cores))


# TOML has lists, which `strict` rejects for a tuple.
_CoreNumbers = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**16)], ...], Field(strict=False)]
Cores = Annotated[_CoreNumbers, BeforeValidator(_listed), AfterValidator(_distinct)]


class Recipe(Spec):
    """A recipe, as described in ``exporters/<name>.toml``.

    Attributes:
        schema_: version of the file's form, ``schema`` in the file.
        name: the file's stem.
        description: one line for people.
        runtime: the runtime that runs the network; `hwnas.targets.runtimes.runtime_names` lists them.
        precision: data type of weights and activations.
        opset: version of the ONNX operator set; None for a runtime that takes no ONNX graph.
        batch: images per run.
        threads: threads per run.
        cores: logical cores for timing, one per thread; by default (None) hwnas chooses them by the topology
            (`hwnas.targets.topology.choose_cores`). Written in a file as ``[4, 5]`` or ``"4-5"``.
        options: settings of the runtime; it checks them when a program is opened.
        quantization: how the graph is quantised if precision is int8; otherwise None.
        parity: limits of the check after lowering.
    """

    schema_: Literal[1] = Field(alias="schema")
    name: Name
    description: str = Field(min_length=1)
    runtime: Annotated[str, AfterValidator(known_runtime)]
    precision: Precision
    opset: int | None = Field(default=None, ge=18, le=24)
    batch: int = Field(ge=1, le=65_536)
    threads: int = Field(ge=1)
    # Omitted if None, so that older manifests keep their bytes.
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
                why = f"hwnas does not lower networks for the runtime {self.runtime!r}"
            raise ValueError(f"[quantization] is set, but {why}; remove it")
        return self

    @model_validator(mode="after")
    def _typed_runtimes_take_the_graph_as_it_is(self) -> Recipe:
        if not self.facts.typed:
            return self
        if self.quantization is not None and self.quantization.activations != "int8":
            raise ValueError(
                f"activations is {self.quantization.activations!r}, but the runtime {self.runtime!r} supports only "
                "symmetric int8: set it to 'int8'"
            )
        if self.precision == "bf16" and self.opset is not None and self.opset < _BF16_OPSET:
            raise ValueError(
                f"opset is {self.opset}, whose convolutions do not support bfloat16: set it to {_BF16_OPSET} to 24 "
                "with precision 'bf16'"
            )
        return self

    @model_validator(mode="after")
    def _each_thread_has_a_core(self) -> Recipe:
        if self.cores is None:
            return self
        if not self.facts.measured:
            raise ValueError(f"cores is set, but hwnas does not time the runtime {self.runtime!r}; remove it")
        if len(self.cores) != self.threads:
            raise ValueError(
                f"cores is {cores_text(self.cores)!r} and threads is {self.threads}: list one logical core for each "
                "thread, or remove cores"
            )
        return self

    @model_validator(mode="after")
    def _opset_belongs_to_onnx(self) -> Recipe:
        takes_onnx = self.facts.form == "onnx"
        if takes_onnx and self.opset is None:
            raise ValueError(f"opset is missing; the runtime {self.runtime!r} takes an ONNX graph: set it to 18 to 24")
        if not takes_onnx and self.opset is not None:
            raise ValueError(f"opset is {self.opset}, but the runtime {self.runtime!r} takes no ONNX graph; remove it")
        return self

    @property
    def facts(self) -> RuntimeFacts:
        """The record of its runtime."""
        return runtime_facts(self.runtime)

    def __hash__(self) -> int:
        # `options` is a dict, so pydantic's own hash of a frozen model would fail.
        return hash((self.name, self.hash))

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of everything that changes the lowered graph or its latency.

        Left out are `schema` (the file format), `name` and `description` (text), `parity` (it checks the lowered graph
        and changes neither it nor its latency), `max_accuracy_drop` (tables hold ops that are entirely in int8) and the
        range of int8 weights (it changes values in the graph but neither types nor kernels). So a recipe can be
        renamed, described better or checked more strictly without a new measurement. A field added later counts
        unless it is named here; it is omitted if None, so that older tables stay valid.
        """
        judged = {"schema_": True, "name": True, "description": True, "parity": True}
        content = self.model_dump(
            mode="json", exclude={**judged, "quantization": {"max_accuracy_drop", "weights"}}, exclude_none=True
        )
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
