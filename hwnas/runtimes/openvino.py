"""OpenVINO on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import onnx
import pydantic

from hwnas.errors import BundleError, RuntimeUnavailable
from hwnas.lowering import Program
from hwnas.lowering.serialized import serialized
from hwnas.runtimes.base import Array, Session, parse_options
from hwnas.targets.runtimes import Precision

try:
    import openvino as ov
except RuntimeError as error:  # its telemetry requires the user's home folder
    raise RuntimeUnavailable(f"cannot load OpenVINO: {error} Set HOME to a writable folder") from error

# int8 is defined by the graph; everything outside Q/DQ pairs is computed in fp32, as in ONNX Runtime.
_COMPUTES_IN = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVinoOptions(pydantic.BaseModel, extra="forbid", frozen=True):
    """The ``[options]`` of an openvino recipe: none."""


class OpenVinoSession(Session):
    """An ONNX graph in OpenVINO's CPU plugin, one stream, tuned for latency."""

    takes_uint8 = True
    opens_in_threads = True  # compiling and importing release the GIL

    @classmethod
    def missing(cls, precision: Precision = "fp32") -> list[str]:
        """The bf16 instructions that this CPU lacks; without them OpenVINO computes in fp32 without a warning."""
        capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision != "bf16" or "BF16" in capabilities:
            return []
        return [
            f"it computes in bf16, which this CPU does not support: OpenVINO reports {', '.join(capabilities)}. bf16 "
            "needs avx512_bf16 or amx_bf16; use an fp32 recipe"
        ]

    @staticmethod
    def version() -> str:
        """Version of openvino, without the build number."""
        return str(ov.__version__).split("-", maxsplit=1)[0]

    def _load(self, program: Program | Path) -> tuple[int, ...]:
        parse_options(self.recipe, OpenVinoOptions)
        self._core = core = ov.Core()
        self._settings = settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self.recipe.threads,
            "INFERENCE_PRECISION_HINT": _COMPUTES_IN[self.recipe.precision],
            "ENABLE_CPU_PINNING": False,  # `hwnas.timing` pins the process
        }
        if self.recipe.precision == "int8":
            # On one thread, OpenVINO 2026.4 fuses two int8 linear layers (the first without bias) into one kernel with
            # wrong results; a test compares the outputs with ONNX Runtime's.
            settings["SNIPPETS_MODE"] = "DISABLE"
        try:
            if isinstance(program, Path):
                model = core.read_model(program)
            else:
                assert isinstance(program, onnx.ModelProto)
                model = core.read_model(serialized(program))
            self._compiled = core.compile_model(model, "CPU", settings)
            self._exported = b""
        except RuntimeError as error:
            name = program.name if isinstance(program, Path) else "the graph"
            raise BundleError(f"OpenVINO {self.version()} cannot load {name}: {str(error).strip()}") from error
        if model.inputs[0].element_type == ov.Type.u8:
            self.dtype = np.dtype(np.uint8)
        self._out_shape = tuple(model.outputs[0].shape)
        self._begin()
        return tuple(model.inputs[0].shape)

    def _begin(self) -> None:
        self._request = self._compiled.create_infer_request()
        self._bound: list[tuple[Array, Array]] = []

    def _again(self) -> Self:
        """Import the compiled program, which takes a fifth of the time of compiling."""
        if not self._exported:
            self._exported = self._compiled.export_model().getvalue()  # an imported model cannot be exported again
        other = copy.copy(self)
        other._compiled = self._core.import_model(self._exported, "CPU", self._settings)
        other._begin()
        return other

    def _run(self, x: Array) -> Array:
        out = np.empty(self._out_shape, np.float32)
        _connect(self._request, x, out)
        self._request.infer(share_outputs=True)
        return out

    def _bind(self, x: Array) -> Callable[[], object]:
        request = self._compiled.create_infer_request()  # each bound call has its own arrays
        out = np.empty(self._out_shape, np.float32)
        _connect(request, x, out)
        self._bound.append((x, out))  # OpenVINO does not keep them alive
        return partial(request.infer, share_outputs=True)

    def _close(self) -> None:
        del self._request, self._compiled, self._bound, self._core, self._exported


def _connect(request: ov.InferRequest, x: Array, out: Array) -> None:
    """Let a request read and write these arrays without copies."""
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    request.set_output_tensor(ov.Tensor(out, shared_memory=True))
