"""Common parts of runtimes on NVIDIA GPUs: requirements, device memory, CUDA graphs and timing.

torch provides CUDA for all of them: device tensors, streams, events, CUDA graphs.
"""

from __future__ import annotations

import importlib
import shutil
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import pydantic
import torch
from torch import Tensor

from hwnas.errors import OutputError
from hwnas.files.atomic import reason_of
from hwnas.lowering import Program
from hwnas.runtimes.base import Array, Call, Session
from hwnas.targets import Recipe
from hwnas.targets.catalog import writable_home
from hwnas.targets.runtimes import Precision

_RUNS = 4  # runs per sample
WARM_UP = 3  # runs before a capture: libraries select algorithms and allocate memory in first runs
_BUSY_BYTES = 2**28  # the GPU clears this much in about a tenth of a millisecond, while the runs are enqueued


class CudaOptions(pydantic.BaseModel, extra="forbid", frozen=True):
    """The ``[options]`` of every GPU runtime.

    Attributes:
        cuda_graph: capture a run once and replay it, instead of launching its kernels one by one.
    """

    cuda_graph: bool = True


@dataclass(frozen=True, slots=True)
class Bound:
    """A program with its own device memory.

    Attributes:
        given: the input.
        enqueue: enqueues one run on `stream` and returns the output without waiting.
        keeps: objects that a CUDA graph refers to by address only and that must outlive it.
    """

    given: Tensor
    enqueue: Callable[[], Tensor]
    keeps: object = None


class CudaSession(Session):
    """A program on the first GPU.

    A latency is device time: the duration of a run without launch latency, with input and output on the device. Copies
    from and to the host are excluded from tables and network latencies.

    Attributes:
        libraries: module -> how to install it, for all requirements besides torch.
    """

    libraries: ClassVar[dict[str, str]] = {}

    def __init__(self, program: Program | Path, recipe: Recipe) -> None:
        self._own: Bound | None = None  # for `run`
        self._bounds: list[Bound] = []
        super().__init__(program, recipe)

    @classmethod
    def missing(cls, precision: Precision = "fp32") -> list[str]:
        """Missing libraries, driver and GPU."""
        missing = [f"{name} is not installed: {how}" for name, how in cls.libraries.items() if not _importable(name)]
        if torch.version.cuda is None:
            missing.append(
                f"torch {torch.__version__} is built without CUDA: pip install --force-reinstall "
                f"torch=={torch.__version__.split('+')[0]} (PyPI's torch has CUDA on Linux, pytorch.org's on Windows)"
            )
        if shutil.which("nvidia-smi") is None:
            missing.append("there is no NVIDIA driver (nvidia-smi is not found): install the driver of your GPU")
        elif torch.version.cuda is not None and not torch.cuda.is_available():
            missing.append(
                f"torch {torch.__version__} finds no GPU that it can use: see `nvidia-smi`; the driver must be one for "
                f"CUDA {torch.version.cuda} or later, and CUDA_VISIBLE_DEVICES must not hide the GPU"
            )
        return missing

    def facts(self) -> dict[str, str]:
        """The GPU's name in CUDA, its compute capability, and the version of CUDA."""
        return {**gpu_facts(), **super().facts()}

    def time_ms(self, call: Call) -> float:
        """Device time of one run in milliseconds: events around several runs, enqueued while the GPU is busy."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(stream()):
            _filler().zero_()
            call()  # clearing memory evicted the weights from the cache
            start.record()
            for _ in range(_RUNS):
                call()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / _RUNS

    def _load(self, program: Program | Path) -> tuple[int, ...]:
        with torch.cuda.stream(stream()):
            return self._compile(program)

    def _run(self, x: Array) -> Array:
        with torch.cuda.stream(stream()):
            self._own = bound = self._own or self._allocate()
            bound.given.copy_(torch.from_numpy(x))
            y: Array = bound.enqueue().float().cpu().numpy()
        return y

    def _bind(self, x: Array) -> Call:
        with torch.cuda.stream(stream()):
            bound = self._allocate()
            bound.given.copy_(torch.from_numpy(x))
        stream().synchronize()
        self._bounds.append(bound)
        return bound.enqueue

    @abstractmethod
    def _compile(self, program: Program | Path) -> tuple[int, ...]:
        """Compile the program; returns the shape of its input."""

    @abstractmethod
    def _allocate(self) -> Bound:
        """The program with its own memory."""

    def _close(self) -> None:
        stream().synchronize()
        self._own = None
        self._bounds.clear()


def captured(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A run captured as a CUDA graph; call it with `stream` as the current stream.

    Args:
        run: enqueues a run on the current stream and returns its output.
    """
    for _ in range(WARM_UP):
        run()
    stream().synchronize()
    graph = torch.cuda.CUDAGraph()
    # One pool for all graphs: they never run concurrently, do not share data, and keep their own outputs.
    with torch.cuda.graph(graph, pool=_pool(), stream=stream()):
        y = run()
    return partial(_replay, graph, y)


def _replay(graph: torch.cuda.CUDAGraph, y: Tensor) -> Tensor:
    graph.replay()
    return y


@cache
def stream() -> torch.cuda.Stream:
    """The stream of all programs."""
    return torch.cuda.Stream()


def timing_caches() -> Path:
    """The folder of TensorRT's timing caches for this machine.

    Raises:
        OutputError: it cannot be created.
    """
    folder = writable_home() / "timing_caches"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create {folder}: {reason_of(error)}; choose another $HWNAS_HOME") from error
    return folder


@cache
def gpu_facts() -> dict[str, str]:
    """Dependencies of a program that was compiled for this GPU."""
    major, minor = torch.cuda.get_device_capability()
    return {
        "gpu": torch.cuda.get_device_name(),
        "compute_capability": f"{major}.{minor}",
        "cuda": str(torch.version.cuda),
    }


@cache
def _pool() -> torch.cuda._POOL_HANDLE:
    return torch.cuda.graph_pool_handle()


@cache
def _filler() -> Tensor:
    return torch.empty(_BUSY_BYTES, dtype=torch.uint8, device="cuda")


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except (ImportError, OSError):  # OSError: shared libraries are missing
        return False
    return True
