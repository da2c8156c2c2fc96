"""A model of the user: a checked ONNX graph with static inputs, and its signature."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import onnx

from hwnas.errors import ModelError
from hwnas.lowering.serialized import serialized
from hwnas.models.onnx_file import branches, read_onnx
from hwnas.models.shapes import Shapes, fixed, parse_shapes, signature_of
from hwnas.plugins import in_file
from hwnas.runner.signature import Signature

if TYPE_CHECKING:
    from torch import Tensor, nn

Source: TypeAlias = "Path | str | nn.Module"

NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A model.

    Attributes:
        name: for messages, folders and reports.
        graph: the ONNX graph, whose inputs have static shapes.
        signature: its inputs and outputs.
        sha256: of the graph as it was read.
        notes: what was changed or assumed, as sentences.
    """

    name: str
    graph: onnx.ModelProto
    signature: Signature
    sha256: str
    notes: tuple[str, ...] = ()


def open_model(
    source: Source,
    *,
    shapes: Shapes | Sequence[str] = (),
    example: Sequence[Tensor] | None = None,
    weights: Path | None = None,
) -> Model:
    """Read a model.

    Args:
        source: an ONNX file (opset 9 or later; weights may be in other files beside it); a ``.pt2`` file of
            ``torch.export.save``; ``file.py:NAME``, a function without arguments that returns a torch module, or a
            module and a tuple of its inputs; or a torch module.
        shapes: name of an input -> its shape, or of a symbolic axis -> its size; or texts such as ``x=1x3x224x224`` and
            ``width=320``. A symbolic first axis is 1 if no shape is given for it.
        example: inputs of a torch module; from `shapes` if None, in float32.
        weights: file of a torch module's weights, ``.safetensors`` or ``torch.save`` of a state dictionary.

    Raises:
        ModelError: it cannot be read, has open axes, or contains what hwnas does not take; the message names the node.
        PluginError: the Python file cannot be loaded.
        GraphError: it is larger than an ONNX file may be.
        InvalidValue: a shape has another form, or names no input or axis.
    """
    wanted = parse_shapes(shapes)
    name, graph = _read(source, wanted, example, weights)
    return open_graph(graph, name, wanted)


def open_graph(graph: onnx.ModelProto, name: str, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> Model:
    """The model of an ONNX graph in memory.

    Args:
        graph: the graph; it is not checked.
        name: of the model.
        shapes: as for `open_model`, parsed.

    Raises:
        ModelError, InvalidValue: as `open_model`.
    """
    digest = hashlib.sha256(serialized(graph)).hexdigest()
    graph, notes = fixed(graph, shapes, name)
    notes += branches(graph)
    return Model(name=name, graph=graph, signature=signature_of(graph, name), sha256=digest, notes=tuple(notes))


def _read(
    source: Source, shapes: Mapping[str, tuple[int, ...]], example: Sequence[Tensor] | None, weights: Path | None
) -> tuple[str, onnx.ModelProto]:
    """The name of a model and its graph, whose axes may be open."""
    if isinstance(source, Path | str):
        text = str(source)
        if weights is not None and not in_file(text):
            raise ModelError(f"{text} contains its weights; --weights is for a Python file")
        if text.endswith(".onnx"):
            return Path(text).stem, read_onnx(Path(text))
        from hwnas.models.torch_module import exported_file, made_in_file

        if text.endswith(".pt2"):
            return Path(text).stem, exported_file(Path(text))
        if in_file(text):
            return made_in_file(text, shapes, weights)
        raise ModelError(
            f"{text} is not a model: it should be an ONNX file (.onnx), a file of torch.export.save (.pt2), or "
            "path/to/file.py:NAME"
        )
    from hwnas.models.torch_module import exported_module

    return type(source).__name__, exported_module(source, shapes, example, weights)
