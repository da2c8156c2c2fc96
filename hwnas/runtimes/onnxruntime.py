"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Literal

import pydantic

from hwnas.runner.onnxruntime import OnnxRuntimeProgram
from hwnas.runtimes.driven import DrivenSession

GraphOptimization = Literal["none", "basic", "extended", "all"]


class OnnxRuntimeOptions(pydantic.BaseModel, extra="forbid", frozen=True):
    """The ``[options]`` of an onnxruntime recipe.

    Attributes:
        graph_optimization: ONNX Runtime's level of graph rewriting.
    """

    graph_optimization: GraphOptimization = "all"


class OnnxRuntimeSession(DrivenSession):
    """An ONNX graph in ONNX Runtime's CPU execution provider."""

    takes_uint8 = True
    takes_any_batch = True
    program = OnnxRuntimeProgram
    known_options = OnnxRuntimeOptions
