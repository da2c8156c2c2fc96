"""ONNX Runtime on a GPU: the CUDA and TensorRT execution providers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper
from pydantic import Field
from torch import Tensor

from hwnas.errors import BundleError, RuntimeUnavailable
from hwnas.lowering import Program
from hwnas.runner.onnxruntime import inference_session, session_settings
from hwnas.runner.program import CannotLoad
from hwnas.runtimes.base import parse_options
from hwnas.runtimes.cuda import WARM_UP, Bound, CudaOptions, CudaSession, stream, timing_caches
from hwnas.runtimes.driven import source_of
from hwnas.runtimes.onnxruntime import GraphOptimization
from hwnas.targets.runtimes import Precision

# Types of a graph's input and output, for torch and for ONNX Runtime.
_TYPES = {"tensor(float)": (torch.float32, np.float32), "tensor(float16)": (torch.float16, np.float16)}
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
# Both packages provide the module `onnxruntime`.
_INSTALL = "pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"


class OnnxRuntimeCudaOptions(CudaOptions, frozen=True):
    """The ``[options]`` of an onnxruntime-cuda recipe.

    Attributes:
        graph_optimization: ONNX Runtime's level of graph rewriting.
    """

    graph_optimization: GraphOptimization = "all"


class OnnxRuntimeTensorRtOptions(OnnxRuntimeCudaOptions, frozen=True):
    """The ``[options]`` of an onnxruntime-tensorrt recipe.

    Attributes:
        optimization_level: of TensorRT's builder; higher levels compile longer.
        timing_cache: store TensorRT's kernel timings on disk, so that the next program compiles faster.
    """

    optimization_level: int = Field(default=3, ge=0, le=5)
    timing_cache: bool = True


class OnnxRuntimeCudaSession(CudaSession):
    """An ONNX graph in ONNX Runtime's CUDA execution provider, without nodes on the CPU.

    ONNX Runtime captures one CUDA graph per session, for the arrays bound in its first runs, so each bound call has its
    own session.
    """

    provider: ClassVar[str] = _CUDA
    known_options: ClassVar[type[OnnxRuntimeCudaOptions]] = OnnxRuntimeCudaOptions

    @staticmethod
    def version() -> str:
        """Version of onnxruntime."""
        return str(ort.__version__)

    @classmethod
    def missing(cls, precision: Precision = "fp32") -> list[str]:
        """Also the provider and the libraries that it loads."""
        if cls.provider not in ort.get_available_providers():
            here = ", ".join(ort.get_available_providers())
            return [
                f"ONNX Runtime {ort.__version__} has no {cls.provider}, only {here}: {_INSTALL}",
                *super().missing(precision),
            ]
        return super().missing(precision) or _unloadable(cls.provider)

    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        """The providers with their settings, the preferred one first."""
        return [(_CUDA, {**_on_stream(), "enable_cuda_graph": _flag(self._options.cuda_graph), "use_tf32": "0"})]

    def _compile(self, program: Program | Path) -> tuple[int, ...]:
        self._options = parse_options(self.recipe, self.known_options)
        self._spare: ort.InferenceSession | None = self._session()
        [entry] = self._spare.get_inputs()
        return tuple(entry.shape)

    def _session(self) -> ort.InferenceSession:
        settings = session_settings(self.recipe.threads, self._options.graph_optimization)
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            session = inference_session(source_of(self._program), settings, self._providers())
        except CannotLoad as error:
            raise BundleError(str(error)) from error
        if self.provider not in session.get_providers():
            raise RuntimeUnavailable(
                f"{self.recipe.name} runs in ONNX Runtime's {self.provider}, which did not start; the session has "
                f"{', '.join(session.get_providers())}. See ONNX Runtime's message on stderr for the reason"
            )
        return session

    def _allocate(self) -> Bound:
        session, self._spare = self._spare or self._session(), None
        [entry], [result] = session.get_inputs(), session.get_outputs()
        binding = session.io_binding()
        arrays: list[Tensor] = []
        for end, bind in ((entry, binding.bind_input), (result, binding.bind_output)):
            if end.type not in _TYPES:
                raise BundleError(f"{end.name} of the graph is {end.type}; it should be {' or '.join(_TYPES)}")
            dtype, element = _TYPES[end.type]
            arrays.append(torch.zeros(tuple(end.shape), dtype=dtype, device="cuda"))
            bind(end.name, "cuda", 0, element, tuple(end.shape), arrays[-1].data_ptr())
        given, y = arrays
        asynchronously = ort.RunOptions()
        asynchronously.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def run() -> Tensor:
            session.run_with_iobinding(binding, asynchronously)
            return y

        for _ in range(WARM_UP):
            run()
        stream().synchronize()
        return Bound(given, run)

    def _close(self) -> None:
        super()._close()
        self._spare = None


class OnnxRuntimeTensorRtSession(OnnxRuntimeCudaSession):
    """An ONNX graph in ONNX Runtime's TensorRT execution provider, with the CUDA provider for unsupported nodes."""

    provider: ClassVar[str] = _TENSORRT
    known_options: ClassVar[type[OnnxRuntimeCudaOptions]] = OnnxRuntimeTensorRtOptions
    # Importing TensorRT's package loads the libraries that the provider needs.
    libraries: ClassVar[dict[str, str]] = {"tensorrt": "pip install 'tensorrt<11' (ONNX Runtime needs TensorRT 10)"}

    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        options = self._options
        assert isinstance(options, OnnxRuntimeTensorRtOptions)
        tensorrt = {
            **_on_stream(),
            "trt_cuda_graph_enable": _flag(options.cuda_graph),
            # Allows the fp16 types in the graph: required for networks that are not strongly typed.
            "trt_fp16_enable": _flag(self.recipe.precision == "fp16"),
            "trt_builder_optimization_level": str(options.optimization_level),
            "trt_timing_cache_enable": _flag(options.timing_cache),
        }
        if options.timing_cache:
            tensorrt["trt_timing_cache_path"] = str(timing_caches())
        return [(_TENSORRT, tensorrt), (_CUDA, {**_on_stream(), "use_tf32": "0"})]


def _on_stream() -> dict[str, str]:
    return {"device_id": "0", "user_compute_stream": str(stream().cuda_stream)}


def _flag(value: bool) -> str:
    return str(int(value))


@cache
def _unloadable(provider: str) -> list[str]:
    """Whether a provider fails to load its libraries: ONNX Runtime then falls back to the CPU, and only logs it."""
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", shape[:1], shape[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    started = inference_session(model.SerializeToString(), settings, [provider]).get_providers()
    if provider in started:
        return []
    return [
        f"ONNX Runtime {ort.__version__} cannot load the libraries of its {provider} (CUDA, cuDNN, TensorRT in the "
        f"versions that it was built for; torch is built for CUDA {torch.version.cuda}): {_INSTALL}, and see "
        "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#requirements"
    ]
