"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
import pydantic

from hwnas.errors import BundleError
from hwnas.lowering import Program
from hwnas.lowering.serialized import serialized
from hwnas.runtimes.base import Array, Session, parse_options
from hwnas.targets import Recipe

GraphOptimization = Literal["none", "basic", "extended", "all"]


class OnnxRuntimeOptions(pydantic.BaseModel, extra="forbid", frozen=True):
    """The ``[options]`` of an onnxruntime recipe.

    Attributes:
        graph_optimization: ONNX Runtime's level of graph rewriting.
    """

    graph_optimization: GraphOptimization = "all"


_LEVELS: dict[GraphOptimization, object] = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class OnnxRuntimeSession(Session):
    """An ONNX graph in ONNX Runtime's CPU execution provider."""

    takes_uint8 = True

    @staticmethod
    def version() -> str:
        """Version of onnxruntime."""
        return str(ort.__version__)

    def _load(self, program: Program | Path) -> tuple[int, ...]:
        options = parse_options(self.recipe, OnnxRuntimeOptions)
        settings = session_settings(self.recipe, options.graph_optimization)
        if self.recipe.threads > 1:
            # Threads spin for a tenth of a second after a run, and would slow the next program.
            settings.add_session_config_entry("session.force_spinning_stop", "1")
            if affinities := _affinities(self.recipe.threads):
                settings.add_session_config_entry("session.intra_op_thread_affinities", affinities)
        self._session = inference_session(program, settings, ["CPUExecutionProvider"])
        [entry] = self._session.get_inputs()
        [result] = self._session.get_outputs()
        # Not the entries themselves: each keeps the session alive, and closing would not free it.
        if entry.type == "tensor(uint8)":
            self.dtype = np.dtype(np.uint8)
        self._input, self._output, self._output_shape = entry.name, result.name, tuple(result.shape)
        return tuple(entry.shape)

    def _run(self, x: Array) -> Array:
        [y] = self._session.run([self._output], {self._input: x})
        return np.asarray(y, np.float32)

    def _bind(self, x: Array) -> Callable[[], object]:
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, ort.OrtValue.ortvalue_from_numpy(x))
        out = ort.OrtValue.ortvalue_from_numpy(np.empty(self._output_shape, np.float32))
        binding.bind_ortvalue_output(self._output, out)
        return partial(self._session.run_with_iobinding, binding)

    def _close(self) -> None:
        del self._session


def session_settings(recipe: Recipe, level: GraphOptimization) -> ort.SessionOptions:
    """Session options for all execution providers."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = recipe.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = _LEVELS[level]
    settings.log_severity_level = 3
    return settings


def inference_session(
    program: Program | Path, settings: ort.SessionOptions, providers: Sequence[str | tuple[str, dict[str, str]]]
) -> ort.InferenceSession:
    """A session of a graph, or of its file, with these execution providers only.

    Raises:
        BundleError: it cannot be loaded.
    """
    if isinstance(program, Path):
        source: str | bytes = str(program)
    else:
        assert isinstance(program, onnx.ModelProto)
        source = serialized(program)
    try:
        # Without fallback: ONNX Runtime would retry on the CPU if a GPU's provider fails.
        return ort.InferenceSession(source, settings, providers=list(providers), enable_fallback=0)
    except Exception as error:  # ONNX Runtime has no common base class for its load errors
        name = program.name if isinstance(program, Path) else "the graph"
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {name}: {error}") from error


def _affinities(threads: int) -> str:
    """Cores of all threads except the caller's, in ONNX Runtime's format: counted from 1, joined by ``;``.

    Without pinning, a thread sometimes starts on the caller's core and spins there. Empty if the system cannot pin
    threads, or has fewer cores than threads.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return ";".join(str(core + 1) for core in cores[: threads - 1]) if len(cores) >= threads else ""
