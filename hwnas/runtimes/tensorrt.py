"""TensorRT 10 and 11 through Polygraphy: strongly typed networks with static shapes.

The graph defines the precision. TensorRT 11 supports no other way, and TensorRT 10 is used likewise: without builder
flags for fp16, bf16 or int8, and without a calibrator.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import onnx
import torch
from pydantic import Field
from torch import Tensor

from hwnas.errors import BundleError, RuntimeUnavailable
from hwnas.files import write_whole
from hwnas.lowering import Program
from hwnas.lowering.serialized import serialized
from hwnas.runtimes.base import Array, parse_options
from hwnas.runtimes.cuda import Bound, CudaOptions, CudaSession, captured, gpu_facts, stream, timing_caches
from hwnas.runtimes.engine import SUFFIX, EngineNote, read_engine, write_engine
from hwnas.targets.runtimes import Precision

_MAJORS = ("10", "11")
_PROFILED_RUNS = 20
_INSTALL = "pip install 'hwnas[tensorrt]'"


class TensorRtOptions(CudaOptions, frozen=True):
    """The ``[options]`` of a tensorrt recipe.

    Attributes:
        optimization_level: of the builder; higher levels try more kernels and take longer.
        workspace_mib: largest scratch memory of a kernel on the device.
        timing_cache: store kernel timings on disk, so that the next program compiles faster.
    """

    optimization_level: int = Field(default=3, ge=0, le=5)
    workspace_mib: int = Field(default=1024, ge=1)
    timing_cache: bool = True


class TensorRtSession(CudaSession):
    """An ONNX graph compiled by TensorRT, or the file of an engine (``.engine``, with its note)."""

    libraries: ClassVar[dict[str, str]] = {"tensorrt": _INSTALL, "polygraphy": _INSTALL}

    @staticmethod
    def version() -> str:
        """Version of tensorrt."""
        import tensorrt as trt

        return str(trt.__version__)

    @classmethod
    def missing(cls, precision: Precision = "fp32") -> list[str]:
        """Also an unsupported version of TensorRT."""
        missing = super().missing(precision)
        if not missing and cls.version().split(".")[0] not in _MAJORS:
            return [f"TensorRT {cls.version()} is not supported, {' and '.join(_MAJORS)} are: {_INSTALL}"]
        return missing

    def facts(self) -> dict[str, str]:
        """The GPU, the versions, and the engine's hash."""
        return {
            **super().facts(),
            "tensorrt": self.version(),
            "polygraphy": version("polygraphy"),
            "engine_sha256": hashlib.sha256(self._plan).hexdigest(),
        }

    def write_compiled(self, folder: Path) -> None:
        """Write the engine, ``model.engine``, and its note."""
        self._require_open()
        write_engine(folder / f"model{SUFFIX}", self._plan, EngineNote.of(self._plan, **self._built_on()))

    def layer_times_ms(self, x: Array) -> dict[str, float]:
        """Time of each layer of the engine in milliseconds, averaged over some runs without a CUDA graph.

        TensorRT fuses layers of the graph, and names a fused layer after all of them. The times add up to more than the
        network's latency, because each layer is timed separately.

        Args:
            x: an image, as for `run`.

        Raises:
            RuntimeInputError: another shape or type, or the session is closed.
        """
        import tensorrt as trt

        given = self._checked(x)

        class Layers(trt.IProfiler):  # type: ignore[misc]  # the package declares no types
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)
                self.ms: dict[str, float] = {}

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                self.ms[layer_name] = self.ms.get(layer_name, 0.0) + ms

        layers = Layers()
        with torch.cuda.stream(stream()):
            context, array, run = self._context()
            array.copy_(torch.from_numpy(given))
            run()
            stream().synchronize()
            context.profiler = layers
            for _ in range(_PROFILED_RUNS):
                run()
                stream().synchronize()
        return {name: ms / _PROFILED_RUNS for name, ms in layers.ms.items()}

    def _compile(self, program: Program | Path) -> tuple[int, ...]:
        self._options = parse_options(self.recipe, TensorRtOptions)
        if isinstance(program, Path) and program.suffix == SUFFIX:
            self._name, self._plan = program.name, read_engine(program, **self._built_on())
        else:
            self._name = program.name if isinstance(program, Path) else "the graph"
            with self._explained():
                self._plan = self._built(program)
        return self._deserialise()

    def _built(self, program: Program | Path) -> bytes:
        """The engine of a graph, serialised."""
        import tensorrt as trt
        from polygraphy.backend.trt import create_config, engine_bytes_from_network, network_from_onnx_bytes

        if isinstance(program, Path):
            source = program.read_bytes()
        else:
            assert isinstance(program, onnx.ModelProto)
            source = serialized(program)
        gpu = gpu_facts()["compute_capability"]
        cache = timing_caches() / f"tensorrt-{self.version()}-sm{gpu}.cache" if self._options.timing_cache else None
        builder, network, parser = network_from_onnx_bytes(source, strongly_typed=True)
        config = create_config(
            builder,
            network,
            builder_optimization_level=self._options.optimization_level,
            memory_pool_limits={trt.MemoryPoolType.WORKSPACE: self._options.workspace_mib * 2**20},
            load_timing_cache=str(cache) if cache and cache.is_file() else None,
        )
        plan = bytes(engine_bytes_from_network((builder, network, parser), config))
        if cache:
            write_whole(cache, bytes(config.get_timing_cache().serialize()))
        return plan

    def _deserialise(self) -> tuple[int, ...]:
        from polygraphy.backend.trt import engine_from_bytes

        with self._explained():
            self._engine = engine_from_bytes(self._plan)
        [given] = [name for name in self._names() if self._is_input(name)]
        return tuple(self._engine.get_tensor_shape(given))

    def _names(self) -> list[str]:
        return [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]

    def _is_input(self, name: str) -> bool:
        import tensorrt as trt

        return bool(self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)

    def _context(self) -> tuple[Any, Tensor, Any]:
        """An execution context with its own arrays: the context, its input, and the function that enqueues a run."""
        import tensorrt as trt

        dtypes = {trt.float32: torch.float32, trt.float16: torch.float16, trt.bfloat16: torch.bfloat16}
        context = self._engine.create_execution_context()
        arrays = {}
        for name in self._names():
            shape, dtype = tuple(self._engine.get_tensor_shape(name)), self._engine.get_tensor_dtype(name)
            arrays[name] = torch.zeros(shape, dtype=dtypes[dtype], device="cuda")
            context.set_tensor_address(name, arrays[name].data_ptr())
        [given] = [array for name, array in arrays.items() if self._is_input(name)]
        [y] = [array for name, array in arrays.items() if not self._is_input(name)]

        def run() -> Tensor:
            if not context.execute_async_v3(stream().cuda_stream):
                raise RuntimeUnavailable(
                    f"TensorRT {self.version()} cannot run {self._name}; see its log for the reason"
                )
            return y

        return context, given, run

    def _allocate(self) -> Bound:
        _, given, run = self._context()
        return Bound(given, captured(run) if self._options.cuda_graph else run, keeps=run)

    def _again(self) -> Self:
        """Deserialise the engine, which is fast; building it takes seconds."""
        other = copy.copy(self)
        other._own, other._bounds = None, []
        with torch.cuda.stream(stream()):
            other._deserialise()
        return other

    def _close(self) -> None:
        super()._close()
        del self._engine

    def _built_on(self) -> dict[str, str]:
        here = gpu_facts()
        return {"gpu": here["gpu"], "compute_capability": here["compute_capability"], "tensorrt": self.version()}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Limit Polygraphy's log to errors, and translate its exceptions."""
        from polygraphy.exception import PolygraphyException
        from polygraphy.logger import G_LOGGER

        try:
            with G_LOGGER.verbosity(G_LOGGER.ERROR):
                yield
        except (OSError, PolygraphyException) as error:
            raise BundleError(f"TensorRT {self.version()} cannot load {self._name}: {error}") from error
