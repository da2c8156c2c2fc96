"""int8 for a user's model within limits: the most costly layers stay in float until the outputs are close enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from hwnas.errors import GraphError
from hwnas.lowering.observe import session_of
from hwnas.lowering.quantize import Quantizer, float_layers
from hwnas.models import Model
from hwnas.models.lowered import quantizer_of
from hwnas.models.samples import Samples
from hwnas.progress import Progress, silent
from hwnas.runner.signature import Feeds
from hwnas.targets import Recipe

_STEPS = 10  # largest number of steps that keep further layers in float
_JUDGED = 4  # samples for the cost of a layer


class Int8Programs:
    """int8 programs of a model, calibrated once for all recipes that quantise alike.

    Args:
        model: the model.
        recipe: an int8 recipe with a decided range of weights.
        samples: for the ranges of activations.
        expected: outputs of the graph in fp32 on the samples.

    Raises:
        GraphError: the model cannot be quantised.
    """

    def __init__(self, model: Model, recipe: Recipe, samples: Samples, expected: Sequence[Feeds]) -> None:
        self._quantizer = quantizer_of(model, recipe, samples)
        self._judged = samples.feeds[:_JUDGED], expected[:_JUDGED]
        self._costly: list[str] | None = None
        self._whole = self._quantizer.quantized()
        if len(float_layers(self._whole)) == len(self._quantizer.layers):
            raise GraphError(f"no layer of {model.name} can be quantised: it has none with weights that are constant")

    def within(
        self, refused: Callable[[onnx.ModelProto], str | None], progress: Progress = silent
    ) -> tuple[onnx.ModelProto, list[str]]:
        """A program that is not refused, or the whole one in int8 if every one is.

        Args:
            refused: why a program is refused; None if it is not.
            progress: callback, invoked after every layer and every step.

        Returns:
            the program, and its layers in float.
        """
        if refused(self._whole) is None:
            return self._whole, float_layers(self._whole)
        if self._costly is None:
            self._costly = _costs(self._quantizer, *self._judged, progress)
        step = -(-len(self._costly) // _STEPS)
        for kept in range(step, len(self._costly), step):
            progress("keeping layers in float until the outputs are close enough", kept, len(self._costly))
            program = self._quantizer.quantized(self._costly[:kept])
            if refused(program) is None:
                return program, float_layers(program)
        return self._whole, float_layers(self._whole)


def _costs(quantizer: Quantizer, feeds: Sequence[Feeds], expected: Sequence[Feeds], progress: Progress) -> list[str]:
    """The layers, the most costly first: by the error of the outputs if only this layer is in int8.

    The error of an output is its mean squared difference over its mean square, summed over the outputs.
    """
    found: dict[str, float] = {}
    for i, layer in enumerate(quantizer.layers):
        progress("measuring what each layer costs in int8", i, len(quantizer.layers))
        others = [other for other in quantizer.layers if other != layer]
        found[layer] = _error(expected, _outputs(quantizer.quantized(others), feeds))
    progress("measuring what each layer costs in int8", len(quantizer.layers), len(quantizer.layers))
    return sorted(found, key=lambda layer: -found[layer])


def _error(expected: Sequence[Feeds], got: Sequence[Feeds]) -> float:
    total = 0.0
    for name in expected[0]:
        a = np.concatenate([np.ravel(each[name]) for each in expected]).astype(np.float64)
        b = np.concatenate([np.ravel(each[name]) for each in got]).astype(np.float64)
        total += float(np.mean((a - b) ** 2) / max(float(np.mean(a**2)), 1e-30))
    return total


def _outputs(program: onnx.ModelProto, feeds: Sequence[Feeds]) -> list[Feeds]:
    """Outputs in fp32 with the rounding of Q/DQ pairs, without int8 kernels: the same on every CPU."""
    session = session_of(program)
    names = [entry.name for entry in session.get_outputs()]
    return [dict(zip(names, session.run(names, each), strict=True)) for each in feeds]
