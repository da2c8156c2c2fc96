"""Reference networks: the same in every version, so that a machine's speed on two days can be compared.

They do not depend on the blocks of the prior, which change as kernels are added. One that is changed needs another
name: tables then say that they were measured beside others.
"""

from __future__ import annotations

import numpy as np
import onnx

from hwnas.models.prior.builder import Builder, Value

__all__ = ["REFERENCES", "reference_networks"]


def reference_networks() -> dict[str, onnx.ModelProto]:
    """Name -> network: dense convolutions, depthwise ones, attention; 2 to 10 ms each on a core of a present CPU."""
    return {name: network(Builder(np.random.default_rng(i))) for i, (name, network) in enumerate(REFERENCES.items())}


def _residual(b: Builder) -> onnx.ModelProto:
    x = b.act(b.conv(b.input((1, 3, 224, 224)), 32, 7, 2), "relu")
    x = b.pool(x, "MaxPool", 3, 2)
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        out = b.conv(b.act(b.conv(x, channels, 3, stride), "relu"), channels, 3)
        x = b.act(b.add(out, x if x.shape == out.shape else b.conv(x, channels, 1, stride)), "relu")
    return _classified(b, x)


def _depthwise(b: Builder) -> onnx.ModelProto:
    x = b.act(b.conv(b.input((1, 3, 224, 224)), 16, 3, 2), "relu")
    for channels, kernel, stride in ((24, 3, 2), (24, 3, 1), (40, 5, 2), (40, 5, 1), (80, 3, 2), (112, 5, 1)):
        inner = 4 * x.shape[1]
        out = b.act(b.conv(b.act(b.conv(x, inner), "relu"), inner, kernel, stride, inner), "relu")
        gate = b.act(b.conv(b.act(b.conv(b.mean(out, 2, 3), inner // 4), "relu"), inner), "sigmoid")
        out = b.conv(b.mul(out, gate), channels)
        x = b.add(out, x) if x.shape == out.shape else out
    return _classified(b, x)


def _tokens(b: Builder) -> onnx.ModelProto:
    width, heads, side = 192, 3, 14
    x = b.conv(b.input((1, 3, 16 * side, 16 * side)), width, 16, 16, pad=False)
    x = b.transpose(b.reshape(x, 1, width, side * side), 0, 2, 1)
    for _ in range(3):
        x = b.add(x, _attention(b, b.layer_norm(x), heads))
        x = b.add(x, b.linear(b.act(b.linear(b.layer_norm(x), 4 * width), "gelu"), width))
    return b.model(b.linear(b.mean(b.layer_norm(x), 1, keep=False), 100))


def _attention(b: Builder, x: Value, heads: int) -> Value:
    _, count, width = x.shape
    q, k, v = (b.reshape(b.linear(x, width), 1, count, heads, width // heads) for _ in range(3))
    scores = b.matmul(b.transpose(q, 0, 2, 1, 3), b.transpose(k, 0, 2, 3, 1))
    weights = b.softmax(b.mul(scores, b.scalar((width // heads) ** -0.5)))
    found = b.transpose(b.matmul(weights, b.transpose(v, 0, 2, 1, 3)), 0, 2, 1, 3)
    return b.linear(b.reshape(found, 1, count, width), width)


def _classified(b: Builder, x: Value) -> onnx.ModelProto:
    return b.model(b.linear(b.reshape(b.mean(x, 2, 3), 1, x.shape[1]), 100))


REFERENCES = {"reference residual": _residual, "reference depthwise": _depthwise, "reference tokens": _tokens}
