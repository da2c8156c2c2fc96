"""Torch modules and exported programs as ONNX models."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from hwnas.errors import ModelError
from hwnas.lowering.quiet import quiet_export
from hwnas.models.onnx_file import checked_model
from hwnas.plugins import from_file

OPSET = 20  # that of hwnas's own exports


def exported_file(path: Path) -> onnx.ModelProto:
    """The model of a file of ``torch.export.save``. Loading it may run code that it contains: it should be your own.

    Raises:
        ModelError: it cannot be read or exported.
    """
    return _to_onnx(loaded_program(path), (), path.name)


def loaded_program(path: Path) -> torch.export.ExportedProgram:
    """The program of a file of ``torch.export.save``.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return torch.export.load(path)
    except Exception as error:  # torch has no common base class for its load errors
        raise ModelError(f"{path} is not a file of torch.export.save: {first_line(error)}") from error


def made_in_file(text: str, shapes: Mapping[str, tuple[int, ...]], weights: Path | None) -> tuple[str, onnx.ModelProto]:
    """Name and model of ``file.py:NAME``: a function that returns a module, or a module and its inputs.

    The file runs with torch's seed 0.

    Raises:
        PluginError: the file cannot be loaded, or the function fails.
        ModelError: what it returns is something else, or cannot be exported.
    """
    module, example = module_in_file(text)
    given = (example,) if isinstance(example, Tensor) else example
    return text.rpartition(":")[2], exported_module(module, shapes, given, weights)


def module_in_file(text: str) -> tuple[nn.Module, Any]:
    """The module of ``file.py:NAME``, and its example inputs; None without any. The file runs with torch's seed 0.

    Raises:
        PluginError: the file cannot be loaded.
        ModelError: the function fails, or returns something else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # weights that the file draws are the same in each run
        make = from_file(text, "model")
        try:
            found = make() if callable(make) and not isinstance(make, nn.Module) else make
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise ModelError(f"{text} raised {type(error).__name__}: {error}") from error
    module, example = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"{text} returns the type {type(module).__name__}; it should return a torch module, or a module and a "
            "tuple of its inputs"
        )
    return module, example


def exported_module(
    module: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    example: Sequence[Tensor] | None = None,
    weights: Path | None = None,
) -> onnx.ModelProto:
    """The model of a torch module in evaluation mode.

    Args:
        module: the module.
        shapes: name of a parameter of ``forward`` -> shape, for float32 inputs; without an example, for all parameters
            without a default.
        example: its inputs.
        weights: file of its weights.

    Raises:
        ModelError: the inputs are not known, the weights do not fit, or it cannot be exported.
    """
    name = type(module).__name__
    if weights is not None:
        load_weights(module, weights)
    if example is None:
        if not shapes:
            raise ModelError(
                f"the inputs of {name} are not known: give their shapes (--shape x=1x3x224x224, by the names of the "
                "parameters of forward), or let the function return the module and a tuple of its inputs"
            )
        return _to_onnx(module.eval(), (), name, {each: torch.zeros(sizes) for each, sizes in shapes.items()})
    return _to_onnx(module.eval(), tuple(example), name)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load the weights of a module from a file: ``.safetensors``, or a state dictionary of ``torch.save``.

    Raises:
        ModelError: the file cannot be read, or does not fit the module.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except Exception as error:  # a missing file, another format, another module
        raise ModelError(f"cannot load the weights {path} into {type(module).__name__}: {first_line(error)}") from error


def _to_onnx(
    what: nn.Module | torch.export.ExportedProgram,
    example: tuple[Tensor, ...],
    name: str,
    named: Mapping[str, Tensor] | None = None,
) -> onnx.ModelProto:
    try:
        with quiet_export(), contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                cast("Any", what), example, kwargs=dict(named or {}), dynamo=True, opset_version=OPSET, verbose=False
            )
        assert program is not None
        return checked_model(program.model_proto, name)
    except ModelError:
        raise
    except Exception as error:  # torch has no common base class for its export errors
        raise ModelError(f"torch cannot export {name} to ONNX: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of a message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:400]
