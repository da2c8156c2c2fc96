"""OpenVINO on the CPU, as the runner drives it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import openvino as ov

from hwnas.runner.program import (
    Call,
    CannotLoad,
    Layer,
    LayerRuns,
    RunnerProgram,
    Source,
    input_shape,
    layer_times,
    readable,
    shown,
)
from hwnas.runner.signature import Feeds, Signature, Value

# Types of tensors: OpenVINO's name -> numpy's. (`Type.to_dtype` of OpenVINO 2026.4 never returns in a thread that opens
# programs beside others.)
_DTYPES = {
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{sign[0]}{bits}": f"{sign}{bits}" for sign in ("int", "uint") for bits in (8, 16, 32, 64)},
    "boolean": "bool",
}
_ADDED = re.compile(r"([A-Z][A-Za-z]*)_\d+")
# int8 is defined by the graph; everything outside Q/DQ pairs is computed in fp32, as in ONNX Runtime.
_COMPUTES_IN = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVinoProgram(RunnerProgram):
    """An ONNX graph in OpenVINO's CPU plugin, one stream, tuned for latency."""

    opens_in_threads = True  # compiling and importing release the GIL

    def __init__(
        self, source: Source, *, threads: int, precision: str, options: Mapping[str, Any], batch: int | None = 1
    ) -> None:
        self._core = core = ov.Core()
        self._any_batch = batch is None
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
            if not model.inputs:
                raise CannotLoad(f"{shown(source)} has no inputs")
            axes = _axes(model.inputs[0])
            if None in axes and batch is not None:
                # With a symbolic axis, a run takes 8 to 60% longer.
                model.reshape({0: list(input_shape(axes, batch))})
            self._compiled = core.compile_model(model, "CPU", settings)
            self._exported, self._model = b"", model
        except RuntimeError as error:
            raise CannotLoad(f"OpenVINO {self.version()} cannot load {shown(source)}: {str(error).strip()}") from error
        self._describe(Signature(tuple(map(_value, model.inputs)), tuple(map(_value, model.outputs))), batch)
        self._begin()

    def _begin(self) -> None:
        self._request = self._compiled.create_infer_request()
        self._bound: list[list[Any]] = []

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

    def run_feeds(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Feeds:
        """Named inputs -> named outputs."""
        held = self._connect(self._request, feeds)
        self._request.infer(share_outputs=True)
        names = [value.name for value in self.signature.outputs]
        found = {name: self._request.get_output_tensor(i).data.copy() for i, name in enumerate(names)}
        del held  # until here: the request writes into these arrays
        return found

    def bind_feeds(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Call:
        """A call that runs the program on named inputs without copies; outputs of known shape are preallocated."""
        request = self._compiled.create_infer_request()  # each bound call has its own arrays
        self._bound.append(self._connect(request, feeds))  # OpenVINO does not keep them alive
        return partial(request.infer, share_outputs=True)

    def layers(self, feeds: Mapping[str, np.ndarray[Any, Any]], runs: int) -> LayerRuns:
        """Times of the nodes of the compiled graph, by OpenVINO's performance counters."""
        compiled = self._core.compile_model(self._model, "CPU", {**self._settings, "PERF_COUNT": True})
        request = compiled.create_infer_request()
        held = self._connect(request, feeds)
        times: list[dict[str, float]] = []  # of a run, by node
        facts = {}

        def profiled(counts: bool) -> None:
            request.infer(share_outputs=True)
            if not counts:
                return
            times.append({})
            for entry in request.profiling_info:
                if entry.real_time.total_seconds() or entry.status == ov.ProfilingInfo.Status.EXECUTED:
                    before = times[-1].get(entry.node_name, 0.0)
                    times[-1][entry.node_name] = before + entry.real_time.total_seconds() * 1e3
                    facts[entry.node_name] = (entry.node_type, entry.exec_type)

        turns = self._in_turns(profiled, feeds, runs)
        del held
        by_run = np.array([[run.get(name, 0.0) for name in facts] for run in times])
        ms_by_layer, whole_ms = layer_times(by_run, turns)
        shapes = {node.get_friendly_name(): node for node in compiled.get_runtime_model().get_ops()}
        sources = {node.get_friendly_name(): node for node in self._model.get_ops()}
        found = [
            Layer(
                name=name,
                kind=facts[name][0],
                ms=float(ms),
                detail=facts[name][1],
                inputs=_shapes(shapes[name].inputs()) if name in shapes else (),
                outputs=_shapes(shapes[name].outputs()) if name in shapes else (),
                variant=_variant(shapes[name], sources) if name in shapes else "",
            )
            for name, ms in zip(facts, ms_by_layer)
        ]
        return LayerRuns(found, whole_ms)

    def close(self) -> None:
        """Free the program."""
        del self._request, self._compiled, self._bound, self._core, self._exported, self._model

    def _connect(self, request: ov.InferRequest, feeds: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
        """Let a request read and write arrays without copies; returns what must be kept alive."""
        arrays = list(feeds.values())
        for i, value in enumerate(self.signature.inputs):
            request.set_input_tensor(i, ov.Tensor(feeds[value.name], shared_memory=True))
        for i, value in enumerate(self.signature.outputs):
            # With a symbolic batch axis, only that axis is not known.
            any_batch = value.shape[:1] == (None,) and self._any_batch
            axes = [len(arrays[0]) if any_batch and j == 0 else axis for j, axis in enumerate(value.shape)]
            known = [axis for axis in axes if axis is not None]
            if len(known) == len(axes):
                arrays.append(np.empty(known, value.dtype))
                request.set_output_tensor(i, ov.Tensor(arrays[-1], shared_memory=True))
        return arrays


def _axes(port: ov.Output) -> list[int | None]:
    """The axes of an input or output; None for a symbolic one, and for one of unknown rank."""
    if port.partial_shape.rank.is_dynamic:
        return [None]
    return [None if axis.is_dynamic else axis.get_length() for axis in port.partial_shape]


def _value(port: ov.Output) -> Value:
    """An input or output of a model.

    Raises:
        CannotLoad: it is not a tensor of numbers.
    """
    name = port.any_name if port.names else port.get_node().get_friendly_name()
    found = port.element_type.get_type_name()
    if found not in _DTYPES:
        raise CannotLoad(f"{name} has the type {found}; it should be {', '.join(_DTYPES)}")
    return Value(name, tuple(_axes(port)), _DTYPES[found])


def _shapes(ports: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    """The static shapes of inputs or outputs."""
    return tuple(tuple(port.get_shape()) for port in ports if port.get_partial_shape().is_static)


def _variant(node: ov.Node, sources: Mapping[str, ov.Node]) -> str:
    """The operators that a node of the compiled graph was fused from, as far as they are known.

    Of a transpose, the order of the axes.

    Args:
        node: of the compiled graph.
        sources: name of a node -> node of the model's graph. A node that OpenVINO added has a name like Multiply_7747.
    """
    kinds, own = [], []
    for name in node.get_rt_info()["originalLayersNames"].astype(str).split(","):
        added = _ADDED.fullmatch(name)
        if name in sources and sources[name].get_type_name() != "Constant":
            kinds.append(_operator(sources[name]))
            own.append(sources[name])
        elif added and added[1] != "Constant":
            kinds.append(added[1])
    if node.get_rt_info()["layerType"].astype(str) == "Transpose" and own:
        return _order(own[0])
    return _attributes(own[0]) if len(kinds) == len(own) == 1 else ",".join(kinds)


def _order(node: ov.Node) -> str:
    """The axes of the transpose that a node is, or that was moved through it: the nearest one above it."""
    while node.get_type_name() != "Transpose":
        if node.get_input_size() == 0:
            return ""
        node = node.input_value(0).get_node()
    order = node.input_value(1).get_node()
    return "perm=" + ".".join(map(str, order.data)) if order.get_type_name() == "Constant" else ""


def _operator(node: ov.Node) -> str:
    """The type of a node; of a product of a value and its own function, such as SiLU, with that function.

    OpenVINO fuses both into one operator, which has the name of the product; a product with a constant is much faster.
    Of a resize, the mode: a cubic one takes 100 times as long as one to the nearest.
    """
    kind = str(node.get_type_name())
    if kind == "Interpolate":
        return f"mode={node.get_attributes()['mode']}"
    if kind == "Multiply":
        ends = [node.input_value(i) for i in (0, 1)]
        for own, other in (ends, ends[::-1]):
            function = own.get_node()
            if function.get_input_size() and function.input_value(0) == other:
                return f"{kind}*{function.get_type_name()}"
    return kind


def _attributes(node: ov.Node) -> str:
    """What the time of a node of the model's graph depends on: the axes of a transpose, the kernel of a pool."""
    kind = _operator(node)
    if kind == "Transpose":
        return _order(node)
    kernel = node.get_attributes().get("kernel") if "Pool" in kind else None
    return kind if kernel is None else "kernel_shape=" + ".".join(map(str, kernel))
