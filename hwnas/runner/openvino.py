"""OpenVINO on the CPU, as the runner drives it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import openvino as ov

from hwnas.runner.program import Call, CannotLoad, RunnerProgram, Source, input_shape, readable, shown

# int8 is defined by the graph; everything outside Q/DQ pairs is computed in fp32, as in ONNX Runtime.
_COMPUTES_IN = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVinoProgram(RunnerProgram):
    """An ONNX graph in OpenVINO's CPU plugin, one stream, tuned for latency."""

    opens_in_threads = True  # compiling and importing release the GIL

    def __init__(
        self, source: Source, *, threads: int, precision: str, options: Mapping[str, Any], batch: int | None = 1
    ) -> None:
        self._core = core = ov.Core()
        self._settings = settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": _COMPUTES_IN[precision],
            "ENABLE_CPU_PINNING": False,  # the process is pinned
        }
        if precision == "int8":
            # On one thread, OpenVINO 2026.4 fuses two int8 linear layers (the first without bias) into one kernel with
            # wrong results; a test compares the outputs with ONNX Runtime's.
            settings["SNIPPETS_MODE"] = "DISABLE"
        try:
            model = core.read_model(readable(source))
            axes = [None if axis.is_dynamic else axis.get_length() for axis in model.inputs[0].partial_shape]
            self.shape = input_shape(axes, batch)
            if None in axes and batch is not None:
                model.reshape(list(self.shape))  # with a symbolic axis, a run takes 8 to 60% longer
            self._compiled = core.compile_model(model, "CPU", settings)
            self._exported = b""
        except RuntimeError as error:
            raise CannotLoad(f"OpenVINO {self.version()} cannot load {shown(source)}: {str(error).strip()}") from error
        if model.inputs[0].element_type == ov.Type.u8:
            self.dtype = np.dtype(np.uint8)
        self._out_image = tuple(axis.get_length() for axis in list(model.outputs[0].partial_shape)[1:])
        self._begin()

    def _begin(self) -> None:
        self._request = self._compiled.create_infer_request()
        self._bound: list[tuple[Any, Any]] = []

    @staticmethod
    def version() -> str:
        """Version of openvino, without the build number."""
        return str(ov.__version__).split("-", 1)[0]

    @classmethod
    def missing(cls, precision: str) -> list[str]:
        """The bf16 instructions that this CPU lacks; without them OpenVINO computes in fp32 without a warning."""
        capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision != "bf16" or "BF16" in capabilities:
            return []
        return [
            f"it computes in bf16, which this CPU does not support: OpenVINO reports {', '.join(capabilities)}. bf16 "
            "needs avx512_bf16 or amx_bf16; use an fp32 recipe"
        ]

    def again(self) -> OpenVinoProgram:
        """Import the compiled program, which takes a fifth of the time of compiling."""
        if not self._exported:
            self._exported = self._compiled.export_model().getvalue()  # an imported model cannot be exported again
        other = copy.copy(self)
        other._compiled = self._core.import_model(self._exported, "CPU", self._settings)
        other._begin()
        return other

    def run(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An input of `shape`, or any number of images -> the output, in float32."""
        out = np.empty((len(x), *self._out_image), np.float32)
        _connect(self._request, x, out)
        self._request.infer(share_outputs=True)
        return out

    def bind(self, x: np.ndarray[Any, Any]) -> Call:
        """A call that runs the program on `x` without copies and with a preallocated output."""
        request = self._compiled.create_infer_request()  # each bound call has its own arrays
        out = np.empty((len(x), *self._out_image), np.float32)
        _connect(request, x, out)
        self._bound.append((x, out))  # OpenVINO does not keep them alive
        return partial(request.infer, share_outputs=True)

    def close(self) -> None:
        """Free the program."""
        del self._request, self._compiled, self._bound, self._core, self._exported


def _connect(request: ov.InferRequest, x: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> None:
    """Let a request read and write these arrays without copies."""
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    request.set_output_tensor(ov.Tensor(out, shared_memory=True))
