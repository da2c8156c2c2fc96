"""ONNX Runtime on the CPU, as the runner drives it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort

from hwnas.runner.program import BATCH, Call, CannotLoad, RunnerProgram, Source, input_shape, readable, shown

_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class OnnxRuntimeProgram(RunnerProgram):
    """An ONNX graph in ONNX Runtime's CPU execution provider."""

    def __init__(
        self, source: Source, *, threads: int, precision: str, options: Mapping[str, Any], batch: int | None = 1
    ) -> None:
        settings = session_settings(threads, options.get("graph_optimization", "all"))
        if threads > 1:
            # Threads spin for a tenth of a second after a run, and would slow the next program.
            settings.add_session_config_entry("session.force_spinning_stop", "1")
            affinities = _affinities(threads)
            if affinities:
                settings.add_session_config_entry("session.intra_op_thread_affinities", affinities)
        if batch is not None:
            settings.add_free_dimension_override_by_name(BATCH, batch)
        self._settings, self._source = (threads, precision, options, batch), source
        self._session = inference_session(source, settings, ["CPUExecutionProvider"])
        [entry] = self._session.get_inputs()
        [result] = self._session.get_outputs()
        # Not the entries themselves: each keeps the session alive, and closing would not free it.
        if entry.type == "tensor(uint8)":
            self.dtype = np.dtype(np.uint8)
        self._input, self._output, self._output_image = entry.name, result.name, tuple(result.shape[1:])
        self.shape = input_shape([axis if isinstance(axis, int) else None for axis in entry.shape], batch)

    @staticmethod
    def version() -> str:
        """Version of onnxruntime."""
        return str(ort.__version__)

    def run(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An input of `shape`, or any number of images -> the output, in float32."""
        [y] = self._session.run([self._output], {self._input: x})
        return np.asarray(y, np.float32)

    def bind(self, x: np.ndarray[Any, Any]) -> Call:
        """A call that runs the program on `x` without copies and with a preallocated output."""
        binding = self._session.io_binding()
        y = np.empty((len(x), *self._output_image), np.float32)
        given, out = (ort.OrtValue.ortvalue_from_numpy(array) for array in (x, y))
        binding.bind_ortvalue_input(self._input, given)
        binding.bind_ortvalue_output(self._output, out)
        call: Call = partial(self._session.run_with_iobinding, binding)
        # The binding does not keep the arrays alive: ONNX Runtime 1.19 then writes into freed memory.
        call.arrays = (given, out)  # type: ignore[attr-defined]
        return call

    def again(self) -> OnnxRuntimeProgram:
        """The same program in a new session."""
        threads, precision, options, batch = self._settings
        return OnnxRuntimeProgram(self._source, threads=threads, precision=precision, options=options, batch=batch)

    def close(self) -> None:
        """Free the session."""
        del self._session


def session_settings(threads: int, level: str) -> ort.SessionOptions:
    """Session options for all execution providers.

    Args:
        threads: threads of a run.
        level: of graph rewriting: none, basic, extended or all.
    """
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = _LEVELS[level]
    settings.log_severity_level = 3
    return settings


def inference_session(source: Source, settings: ort.SessionOptions, providers: Sequence[Any]) -> ort.InferenceSession:
    """A session of a graph, or of its file, with these execution providers only.

    Raises:
        CannotLoad: it cannot be loaded.
    """
    try:
        # Without fallback: ONNX Runtime would retry on the CPU if a GPU's provider fails.
        return ort.InferenceSession(readable(source), settings, providers=list(providers), enable_fallback=0)
    except Exception as error:  # ONNX Runtime has no common base class for its load errors
        raise CannotLoad(f"ONNX Runtime {ort.__version__} cannot load {shown(source)}: {error}") from error


def _affinities(threads: int) -> str:
    """Cores of all threads except the caller's, in ONNX Runtime's format: counted from 1, joined by ``;``.

    Without pinning, a thread sometimes starts on the caller's core and spins there. Empty if the system cannot pin
    threads, or has fewer cores than threads.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return ";".join(str(core + 1) for core in cores[: threads - 1]) if len(cores) >= threads else ""
