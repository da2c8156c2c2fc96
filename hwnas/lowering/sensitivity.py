"""Which layers of an int8 network cost the most."""

from __future__ import annotations

import numpy as np

from hwnas.lowering.images import Images
from hwnas.lowering.observe import Logits, outputs
from hwnas.lowering.quantize import Quantizer
from hwnas.progress import Progress, silent


def sensitivities(quantizer: Quantizer, images: Images, *, progress: Progress = silent) -> dict[str, float]:
    """What each layer costs where it alone is in int8: name -> nats, the most costly first.

    The Kullback-Leibler divergence of the network's classes from those of fp32, meant over the images. Layers one at a
    time in int8, not one at a time in float: beside the rounding of all others, that of one can go either way.

    Args:
        quantizer: of the network.
        images: ``(n, channels, height, width)``.
        progress: callback, invoked after every layer.
    """
    expected, found = outputs(quantizer.model, images), {}
    for i, layer in enumerate(quantizer.layers):
        progress("measuring what each layer costs in int8", i, len(quantizer.layers))
        others = [other for other in quantizer.layers if other != layer]
        found[layer] = divergence(expected, outputs(quantizer.quantized(others), images))
    progress("measuring what each layer costs in int8", len(quantizer.layers), len(quantizer.layers))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def divergence(expected: Logits, got: Logits) -> float:
    """Mean Kullback-Leibler divergence of the classes that two networks tell, in nats; both ``(n, classes)``."""
    p, q = _log_softmax(expected.astype(np.float64)), _log_softmax(got.astype(np.float64))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_softmax(
    x: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    shifted = x - x.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
