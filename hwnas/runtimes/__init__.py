"""Runtimes: what executes a lowered program, and how it is timed without copies."""

from __future__ import annotations

import importlib
from pathlib import Path

from hwnas.errors import RuntimeUnavailable
from hwnas.lowering import Program
from hwnas.runtimes.base import Session
from hwnas.targets import Recipe
from hwnas.targets.runtimes import RuntimeName

__all__ = ["Session", "open_session", "session_class"]

# Module and class of each runtime: a vendor's library is imported when its runtime is opened.
_SESSIONS: dict[RuntimeName, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime", "OnnxRuntimeSession"),
    "openvino": ("openvino", "OpenVinoSession"),
    "torch": ("torch", "TorchSession"),
    "roofline": ("roofline", "RooflineSession"),
    "torch-cuda": ("torch_cuda", "TorchCudaSession"),
    "onnxruntime-cuda": ("onnxruntime_gpu", "OnnxRuntimeCudaSession"),
    "onnxruntime-tensorrt": ("onnxruntime_gpu", "OnnxRuntimeTensorRtSession"),
    "tensorrt": ("tensorrt", "TensorRtSession"),
}


def session_class(recipe: Recipe) -> type[Session]:
    """The session class of a recipe's runtime; imports the vendor's library.

    Raises:
        RuntimeUnavailable: a library, a driver or a GPU is missing, the CPU has no instructions for the recipe's
            precision, or hwnas does not drive this runtime.
    """
    if recipe.runtime not in _SESSIONS:
        raise RuntimeUnavailable(
            f"{recipe.name} has the runtime {recipe.runtime!r}, which hwnas does not drive: its tables can be imported "
            "and searched, but nothing can be measured or deployed with it. Runtimes: " + ", ".join(_SESSIONS)
        )
    module, name = _SESSIONS[recipe.runtime]
    found: type[Session] = getattr(importlib.import_module(f"hwnas.runtimes.{module}"), name)
    if missing := found.missing(recipe.precision):
        raise RuntimeUnavailable(f"{recipe.name} cannot run here: {'; '.join(missing)}")
    return found


def open_session(program: Program | Path, recipe: Recipe) -> Session:
    """Compile a program, or the file that `Form.write` wrote, for a recipe. Use it in a ``with``.

    Raises:
        SpecError: the recipe has an option that the runtime does not know.
        RuntimeUnavailable: the runtime cannot run here.
        BundleError: the file is not a program of this runtime.
    """
    return session_class(recipe)(program, recipe)
