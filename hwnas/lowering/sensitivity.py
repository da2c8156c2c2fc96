"""Accuracy cost of the layers of an int8 network."""

from __future__ import annotations

import numpy as np

from hwnas.lowering.images import Images
from hwnas.lowering.observe import Logits, outputs
from hwnas.lowering.quantize import Quantizer
from hwnas.progress import Progress, silent


def sensitivities(quantizer: Quantizer, images: Images, *, progress: Progress = silent) -> dict[str, float]:
    """The cost of each layer if only this layer is in int8: name -> nats, the most costly first.

    It is the Kullback-Leibler divergence of the class probabilities from those of fp32, averaged over the images. One
    layer at a time is in int8, not in float: among the rounding errors of all others, the effect of one layer may have
    either sign.

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
    """Mean Kullback-Leibler divergence of the class probabilities of two networks, in nats; both ``(n, classes)``."""
    p, q = _log_softmax(expected.astype(np.float64)), _log_softmax(got.astype(np.float64))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_softmax(
    x: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    shifted = x - x.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
