"""Precision written into the ONNX graph: int8 as explicit Q/DQ pairs, the same graph for every runtime.

Quantising runs in ONNX Runtime's own tool; what it chooses not to quantise (HardSwish, HardSigmoid) stays in fp32.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime import quantization as ortq
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from hwnas.targets import Quantization

Images = npt.NDArray[np.float32]

_AT_ONCE = 16  # batches whose activations a histogram calibrator holds in memory
_OP_TYPES = sorted({*QDQRegistry, *QLinearOpsRegistry})
_METHODS = {"minmax": ortq.CalibrationMethod.MinMax, "percentile": ortq.CalibrationMethod.Percentile}
_ACTIVATIONS = {"uint8": ortq.QuantType.QUInt8, "int8": ortq.QuantType.QInt8}


def quantized(model: onnx.ModelProto, images: Images, how: Quantization) -> onnx.ModelProto:
    """A graph with Q/DQ pairs around what can run in int8; weights are stored as int8.

    Weights are quantised per output channel and symmetrically, biases to int32; activations per tensor, over the range
    they take on the images (Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018).

    Args:
        model: an fp32 graph with inputs of one static shape, ``(batch, channels, height, width)``.
        images: ``(n, channels, height, width)``, as the network takes them; several inputs get the same.
        how: the recipe's ``[quantization]``.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        place = Path(folder)
        onnx.save(onnx.shape_inference.infer_shapes(model), place / "fp32.onnx")
        ranges = _ranges(place, model, images, how)
        quantizer = QDQQuantizer(
            onnx.load(place / "fp32.onnx"),
            per_channel=True,
            reduce_range=False,
            weight_qType=ortq.QuantType.QInt8,
            activation_qType=_ACTIVATIONS[how.activations],
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=_OP_TYPES,
            extra_options={"ActivationSymmetric": how.activations == "int8"},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    result.producer_name, result.producer_version = "hwnas", ""  # as of every other graph
    del result.graph.value_info[:]  # shapes are inferred where they are needed, and these are of one image size
    return result


def _ranges(place: Path, model: onnx.ModelProto, images: Images, how: Quantization) -> ortq.calibrate.TensorsData:
    """The range of every activation over the images."""
    calibrator = ortq.create_calibrator(
        place / "fp32.onnx",
        _OP_TYPES,
        augmented_model_path=str(place / "augmented.onnx"),
        calibrate_method=_METHODS[how.method],
        extra_options={"symmetric": how.activations == "int8"},
    )
    names = [entry.name for entry in model.graph.input]
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    lacking = -len(images) % batch  # the last batch is filled up with images from the beginning
    whole = np.concatenate([images, np.resize(images, (lacking, *images.shape[1:]))]) if lacking else images
    batches = [whole[start : start + batch] for start in range(0, len(whole), batch)]
    for start in range(0, len(batches), _AT_ONCE):
        calibrator.collect_data(_Reader(names, batches[start : start + _AT_ONCE]))
    return calibrator.compute_data()


class _Reader(ortq.CalibrationDataReader):  # type: ignore[misc]
    """Batches one by one, as the calibrators ask for them."""

    def __init__(self, names: list[str], batches: list[Images]) -> None:
        whole = [np.ascontiguousarray(batch) for batch in batches]
        self._feeds: Iterator[dict[str, Images]] = iter([dict.fromkeys(names, batch) for batch in whole])

    def get_next(self) -> dict[str, Images] | None:
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the tool prints, and its advice to optimise the graph first: BN is folded already."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
