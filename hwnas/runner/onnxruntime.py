"""ONNX Runtime on the CPU, as the runner drives it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from hwnas.runner.program import (
    BATCH,
    Call,
    CannotLoad,
    Layer,
    LayerRuns,
    RunnerProgram,
    Source,
    layer_times,
    readable,
    shown,
)
from hwnas.runner.signature import Feeds, Signature, Value

if TYPE_CHECKING:
    from hwnas.runner.onnx_nodes import NodeFacts

# Types of tensors: ONNX Runtime's name -> numpy's.
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("float16", "int64", "int32", "int16", "int8")},
    **{f"tensor({name})": name for name in ("uint64", "uint32", "uint16", "uint8")},
}
_KERNEL_TIME = "_kernel_time"
_WITH_BODIES = ("If", "Loop", "Scan")
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
        # Not the entries themselves: each keeps the session alive, and closing would not free it.
        ends = self._session.get_inputs(), self._session.get_outputs()
        inputs, outputs = (tuple(_value(entry, batch) for entry in side) for side in ends)
        self._describe(Signature(inputs, outputs), batch)

    @staticmethod
    def version() -> str:
        """Version of onnxruntime."""
        return str(ort.__version__)

    def run_feeds(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Feeds:
        """Named inputs -> named outputs."""
        names = [value.name for value in self.signature.outputs]
        return dict(zip(names, self._session.run(names, dict(feeds))))

    def bind_feeds(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Call:
        """A call that runs the program on named inputs without copies; outputs of known shape are preallocated."""
        binding = self._session.io_binding()
        arrays = []
        for name, x in feeds.items():
            arrays.append(ort.OrtValue.ortvalue_from_numpy(x))
            binding.bind_ortvalue_input(name, arrays[-1])
        first = next(iter(feeds.values()))
        for value in self.signature.outputs:
            # With a symbolic batch axis, only that axis is not known.
            any_batch = value.shape[:1] == (None,) and self._settings[3] is None
            shape = [len(first) if any_batch and i == 0 else axis for i, axis in enumerate(value.shape)]
            known = [axis for axis in shape if axis is not None]
            if len(known) < len(shape):
                binding.bind_output(value.name)
            else:
                arrays.append(ort.OrtValue.ortvalue_from_numpy(np.empty(known, value.dtype)))
                binding.bind_ortvalue_output(value.name, arrays[-1])
        call: Call = partial(self._session.run_with_iobinding, binding)
        # The binding does not keep the arrays alive: ONNX Runtime 1.19 then writes into freed memory.
        call.arrays = arrays  # type: ignore[attr-defined]
        return call

    def layers(self, feeds: Mapping[str, np.ndarray[Any, Any]], runs: int) -> LayerRuns:
        """Times of the nodes of the optimised graph, by ONNX Runtime's profiler.

        Raises:
            CannotLoad: protobuf is missing, which ``pip install onnxruntime`` brings.
        """
        try:
            from hwnas.runner.onnx_nodes import node_facts
        except ImportError as error:  # nothing else needs it, so a machine without it is timed
            raise CannotLoad(f"the times of layers need protobuf ({error}): pip install -U protobuf") from error
        threads, _, options, batch = self._settings
        settings = session_settings(threads, options.get("graph_optimization", "all"))
        if batch is not None:
            settings.add_free_dimension_override_by_name(BATCH, batch)
        settings.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            settings.profile_file_prefix = str(Path(folder, "profile"))
            settings.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
            settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
            session = inference_session(self._source, settings, ["CPUExecutionProvider"])
            names = [value.name for value in self.signature.outputs]
            counted: list[bool] = []

            def profiled(counts: bool) -> None:
                session.run(names, dict(feeds))
                counted.append(counts)

            turns = self._in_turns(profiled, feeds, runs)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            return _layer_runs(events, counted, turns, node_facts(Path(folder, "optimized.onnx")))

    def again(self) -> OnnxRuntimeProgram:
        """The same program in a new session."""
        threads, precision, options, batch = self._settings
        return OnnxRuntimeProgram(self._source, threads=threads, precision=precision, options=options, batch=batch)

    def close(self) -> None:
        """Free the session."""
        del self._session


def _value(entry: ort.NodeArg, batch: int | None) -> Value:
    """An input or output of a session.

    Raises:
        CannotLoad: it is not a tensor of numbers.
    """
    if entry.type not in _DTYPES:
        raise CannotLoad(f"{entry.name} has the type {entry.type}; it should be {', '.join(_DTYPES)}")
    axes = [axis if isinstance(axis, int) else batch if axis == BATCH else None for axis in entry.shape]
    return Value(entry.name, tuple(axes), _DTYPES[entry.type])


def _layer_runs(
    events: Sequence[Mapping[str, Any]],
    counted: Sequence[bool],
    turns: Sequence[Sequence[float]],
    nodes: Mapping[str, NodeFacts],
) -> LayerRuns:
    """The layers in the events of a profile, some of whose runs count, beside the times of runs without one.

    A node that runs several times in a run, in the body of a loop, takes their sum.
    """
    times: dict[str, list[float]] = {}
    facts: dict[str, Mapping[str, Any]] = {}
    for event, us in _own_us(
        [one for one in events if one.get("cat") == "Node" and one["name"].endswith(_KERNEL_TIME)]
    ):
        name = event["name"][: -len(_KERNEL_TIME)]
        times.setdefault(name, []).append(us / 1e3)
        facts[name] = event["args"]
    whole = [name for name, samples in times.items() if len(samples) % len(counted) == 0]
    counts = np.array(counted)
    by_run = np.empty((int(counts.sum()), len(whole)))
    for i, name in enumerate(whole):
        by_run[:, i] = np.reshape(times[name], (len(counted), -1)).sum(axis=1)[counts]
    ms_by_layer, whole_ms = layer_times(by_run, turns)
    layers = [
        Layer(
            name=name,
            kind=str(facts[name].get("op_name", "")),
            ms=float(ms),
            inputs=_with_packed(_shapes(facts[name].get("input_type_shape")), nodes.get(name)),
            outputs=_shapes(facts[name].get("output_type_shape")),
            variant=nodes[name].variant if name in nodes else "",
        )
        for name, ms in zip(whole, ms_by_layer)
    ]
    return LayerRuns(layers, whole_ms)


def _own_us(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Events of nodes, each with its duration in µs less that of the nodes in its body.

    ONNX Runtime counts the time of a branch in its `If`, too.
    """
    ordered = sorted(events, key=lambda event: (event["ts"], -event["dur"]))
    own = [event["dur"] for event in ordered]
    around: list[int] = []
    for i, event in enumerate(ordered):
        while around and event["ts"] >= ordered[around[-1]]["ts"] + ordered[around[-1]]["dur"]:
            around.pop()
        if around:
            own[around[-1]] -= event["dur"]
        if event["args"].get("op_name") in _WITH_BODIES:
            around.append(i)
    return zip(ordered, own)


def _with_packed(shapes: tuple[tuple[int, ...], ...], node: NodeFacts | None) -> tuple[tuple[int, ...], ...]:
    """Shapes of a profile's inputs, and of the weights that it does not report: those that are stored packed."""
    others = list(shapes[1:])
    packed = []
    for weight in node.weights if node else ():
        if weight in others:
            others.remove(weight)
        else:
            packed.append(weight)
    return (*shapes, *packed)


def _shapes(given: Sequence[Mapping[str, Sequence[int]]] | None) -> tuple[tuple[int, ...], ...]:
    """Shapes from a profile's list of ``{type: shape}``."""
    return tuple(tuple(shape) for entry in given or () for shape in entry.values())


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
