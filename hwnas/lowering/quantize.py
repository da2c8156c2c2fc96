"""int8 as explicit Q/DQ pairs in the ONNX graph, the same graph for every runtime.

ONNX Runtime's quantiser is used; operators that it does not quantise (HardSwish, HardSigmoid) stay in fp32.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime import quantization as ortq
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from hwnas.errors import GraphError
from hwnas.files import temporary_folder
from hwnas.graphs import Graph, copied, sort_nodes
from hwnas.lowering.images import Images, batch_of, batched, check_images
from hwnas.lowering.serialized import serialized
from hwnas.runner.signature import Feeds
from hwnas.targets import Quantization

LAYERS = ("Conv", "Gemm", "MatMul")  # operators with weights
_WITH_BIAS = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization", "InstanceNormalization", "LayerNormalization")
Counts = npt.NDArray[np.floating]

_LEVELS = 128
_AT_ONCE = 16  # batches whose activations a histogram calibrator keeps in memory
_BINS = 2048  # of a histogram, over the whole range
_TAIL = 0.01  # the largest share of a tensor's values that entropy may clip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scheme:
    """Which parts of a graph are quantised."""

    type: ortq.QuantType
    symmetric: bool
    op_types: tuple[str, ...]
    options: dict[str, object]


# TensorRT fuses the nodes after a layer by itself, rejects zero-points other than 0 and int32 biases, and requires
# pairs only at the inputs of layers ("Working with Quantized Types" in its documentation).
_SCHEMES = {
    "uint8": _Scheme(
        type=ortq.QuantType.QUInt8,
        symmetric=False,
        op_types=tuple(sorted({*QDQRegistry, *QLinearOpsRegistry})),
        options={},
    ),
    "int8": _Scheme(
        type=ortq.QuantType.QInt8,
        symmetric=True,
        op_types=LAYERS,
        options={"QuantizeBias": False, "OpTypesToExcludeOutputQuantization": list(LAYERS)},
    ),
}
_METHODS: dict[str, tuple[ortq.CalibrationMethod, dict[str, object]]] = {
    "minmax": (ortq.CalibrationMethod.MinMax, {}),
    "percentile": (ortq.CalibrationMethod.Percentile, {"num_bins": _BINS}),
    "entropy": (ortq.CalibrationMethod.Entropy, {"num_bins": _BINS}),
}


class Quantizer:
    """An fp32 graph with calibrated ranges; it creates int8 graphs, optionally with some layers in float.

    Weights are quantised per output channel and symmetrically, activations per tensor, over their range on the images
    (Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018).

    Args:
        model: an fp32 graph with inputs of one static shape, ``(batch, channels, height, width)``.
        images: ``(n, channels, height, width)``, inputs of the network; several inputs get the same images. Or named
            inputs, one entry per run.
        how: the recipe's ``[quantization]`` with resolved ``weights`` (`hwnas.targets.with_weights`).

    Attributes:
        model: the fp32 graph.
        layers: names of the nodes with weights, in the order of execution.

    Raises:
        InvalidValue: the images cannot be used for calibration.
        GraphError: the graph is larger than an ONNX file may be, or ONNX Runtime cannot run it.
        OutputError: the temporary files that ONNX Runtime needs cannot be written.
    """

    def __init__(self, model: onnx.ModelProto, images: Images | Sequence[Feeds], how: Quantization) -> None:
        if isinstance(images, np.ndarray):
            check_images(images)
            names = [entry.name for entry in model.graph.input]
            feeds: Sequence[Feeds] = [dict.fromkeys(names, batch) for batch in batched(images, batch_of(model))]
        else:
            feeds = images
        assert how.weights != "auto", "a form's recipe is decided"
        self.model = model
        self._seven_bits = how.weights == "int7"
        self.layers = tuple(node.name for node in Graph(model).nodes if node.op_type in LAYERS)
        self._scheme = _SCHEMES[how.activations]
        self._inferred = onnx.shape_inference.infer_shapes(serialized(model))
        with temporary_folder("int8 calibration") as folder, _quiet():
            try:
                self._ranges = self._seen(folder, feeds, how)
            except (Fail, RuntimeException) as error:
                raise GraphError(f"ONNX Runtime cannot run the graph for int8 calibration: {error}") from error

    def quantized(self, keep: Collection[str] = ()) -> onnx.ModelProto:
        """The graph with Q/DQ pairs around the operators that can run in int8; weights are stored as int8.

        Args:
            keep: layers that stay in float, with the nodes after them up to the next layers.

        Raises:
            GraphError: ONNX Runtime cannot quantise the graph.
        """
        with _quiet():
            quantizer = QDQQuantizer(
                _with_own_biases(copied(self._inferred)),
                per_channel=True,
                reduce_range=self._seven_bits,
                weight_qType=ortq.QuantType.QInt8,
                activation_qType=self._scheme.type,
                tensors_range=self._ranges,
                nodes_to_quantize=[],
                nodes_to_exclude=sorted(_with_followers(Graph(self.model), keep)),
                op_types_to_quantize=self._scheme.op_types,
                extra_options={"ActivationSymmetric": self._scheme.symmetric, **self._scheme.options},
            )
            try:
                quantizer.quantize_model()
            except Exception as error:  # the quantiser has no base class for its errors
                raise GraphError(f"ONNX Runtime cannot quantise the graph: {error}") from error
            quantizer.model.topological_sort()
        result: onnx.ModelProto = quantizer.model.model
        sort_nodes(result.graph)
        result.producer_name, result.producer_version = "hwnas", ""  # as in every other graph
        del result.graph.value_info[:]  # shapes are inferred when needed, and these belong to one image size
        return result

    def _seen(self, place: Path, feeds: Sequence[Feeds], how: Quantization) -> ortq.calibrate.TensorsData:
        """The range of every activation over the inputs."""
        if Graph(self.model).op_types.isdisjoint(self._scheme.op_types):
            return ortq.calibrate.TensorsData(ortq.CalibrationMethod.MinMax, {})  # e.g. a pooling alone
        (place / "fp32.onnx").write_bytes(serialized(self._inferred))
        method, options = _METHODS[how.method]
        calibrator = ortq.create_calibrator(
            place / "fp32.onnx",
            self._scheme.op_types,
            augmented_model_path=str(place / "augmented.onnx"),
            calibrate_method=method,
            extra_options={"symmetric": self._scheme.symmetric, **options},
        )
        if not calibrator.select_tensors_to_calibrate(calibrator.model)[0]:  # tokens only
            return ortq.calibrate.TensorsData(ortq.CalibrationMethod.MinMax, {})
        for start in range(0, len(feeds), _AT_ONCE):
            calibrator.collect_data(_Reader(feeds[start : start + _AT_ONCE]))
        if how.method == "entropy":
            seen = calibrator.collector.histogram_dict.items()
            found = {name: informative_range(counts, edges, low, high) for name, (counts, edges, low, high, _) in seen}
            return ortq.calibrate.TensorsData(ortq.CalibrationMethod.MinMax, found)
        return calibrator.compute_data()


def _with_own_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with a bias for each node: one that nodes share is copied, in place.

    ONNX Runtime's quantiser copies it itself, and numbers the copies by the initializers' names alone: the fourth copy
    of ``val_11`` becomes ``val_114``, which in a graph of torch's exporter is another tensor (PoolFormer).
    """
    stored = {entry.name: entry for entry in model.graph.initializer}
    seen: set[str] = set()
    for node in model.graph.node:
        name = node.input[2] if node.op_type in _WITH_BIAS and len(node.input) > 2 else ""
        if name in seen:
            own = model.graph.initializer.add()
            own.CopyFrom(stored[name])
            own.name = node.input[2] = f"{name}.of.{node.output[0]}"
        elif name in stored:
            seen.add(name)
    return model


def float_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the layers of an int8 graph that stay in float."""
    graph = Graph(model)
    layers = [node for node in graph.nodes if node.op_type in LAYERS]
    weights = [graph.producer(layer.inputs[1]) for layer in layers]
    return [
        layer.name
        for layer, weight in zip(layers, weights, strict=True)
        if weight is None or weight.op_type != "DequantizeLinear"
    ]


def _with_followers(graph: Graph, layers: Collection[str]) -> set[str]:
    """Layers and the nodes between them and the next layers; a node after several layers only if all are included.

    An int8 ReLU after a float layer would reintroduce the rounding that the layer avoids.
    """
    behind: dict[str, frozenset[str]] = {}  # value -> the layers that it depends on
    found = set(layers)
    for node in graph.nodes:
        sources = frozenset[str]().union(*(behind.get(name, frozenset()) for name in node.inputs))
        own = frozenset({node.name}) if node.op_type in LAYERS else sources
        behind |= dict.fromkeys(node.outputs, own)
        if own and own <= set(layers):
            found.add(node.name)
    return found


def informative_range(counts: Counts, edges: Counts, low: float, high: float) -> tuple[Counts, Counts]:
    """The part of a range that preserves the most information with 128 levels on either side of 0.

    The limit whose quantised distribution of magnitudes is closest to the observed one by Kullback-Leibler divergence
    (Migacz, "8-bit inference with TensorRT", 2017). ONNX Runtime's search takes a minute for a small network, and
    cost one network 13 points of accuracy.

    At most 1% of the observed values other than zero are beyond the limit. The divergence alone does not account for
    clipping: if the first non-empty bin is the last one kept, all values are in that bin and it is 0, and if most
    values are equal, it prefers a limit there. The published search of TensorRT and that of MXNet have no such bound.

    Args:
        counts: ``(bins,)``, a histogram that is symmetric around 0.
        edges: ``(bins + 1,)`` of its bins.
        low: the smallest observed value.
        high: the largest observed value.
    """
    half = len(counts) // 2
    sizes = (counts[-half:] + counts[:half][::-1]).astype(np.float64)
    sizes[0] = sizes[1]  # zero is always kept
    tail = _TAIL * sizes[1:].sum()
    best, limit = np.inf, half
    for kept in range(_LEVELS, half + 1, _LEVELS // 16):
        clipped = sizes[kept:].sum()
        if clipped > tail:
            continue
        wanted = sizes[:kept].copy()
        wanted[-1] += clipped
        starts = np.arange(_LEVELS) * kept // _LEVELS
        taken = np.diff(np.append(starts, kept))
        there = wanted > 0
        level = np.add.reduceat(sizes[:kept], starts) / np.maximum(np.add.reduceat(there, starts, dtype=np.int64), 1)
        got = np.where(there, np.repeat(level, taken), 0.0) + 1e-9  # for a bin with clipped values only
        p, q = wanted[there] / wanted.sum(), got[there] / got.sum()
        divergence = float((p * np.log(p / q)).sum())
        if divergence < best:
            best, limit = divergence, kept
    bound = float(edges[-1]) * limit / half
    return np.asarray(max(low, -bound), np.float32), np.asarray(min(high, bound), np.float32)


class _Reader(ortq.CalibrationDataReader):  # type: ignore[misc]
    """Iterator of inputs for the calibrators."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the quantiser's output and its advice to optimise the graph first: BN is already folded.

    Its histogram of a tensor that is 0 on all inputs divides by 0; the range is 0 all the same.
    """
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), np.errstate(invalid="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)
