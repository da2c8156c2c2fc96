"""Layers of transformers: on tokens ``(length, width)``, or on the pixels of an image ``(channels, height, width)``.

A layer is two ops: a mixer, in which tokens read each other, and a feed-forward network. Each contains its residual
connection and its LayerNorm: before it (`norm` is "pre": Xiong et al., "On Layer Normalization in the Transformer
Architecture", ICML 2020), after the sum ("post": Vaswani et al., "Attention Is All You Need", NeurIPS 2017), or none.
With `masked`, an op also reads which tokens are not padding, ``(length,)``: padding changes no other token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hwnas.spaces.kinds.base import InnerChannels, OpKind, both_live

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwnas.spaces.ops import Op, Shape

GATED = {
    "geglu": "gelu",
    "swiglu": "silu",
}  # Shazeer, "GLU Variants Improve Transformer", 2020 -> the gate's activation


def tokens_of(shape: Shape) -> tuple[int, int]:
    """Length and width of tokens; the pixels of an image are tokens row by row."""
    if len(shape) == 3:
        channels, height, width = shape
        return height * width, channels
    length, width = shape
    return length, width


def inner_width(op: Op) -> int:
    """Width of the queries of all heads."""
    return op.number("heads") * op.number("head")


def keys_of(op: Op) -> int:
    """Number of keys that a query of an attention reads, padding of blocks included."""
    length, _ = tokens_of(op.input)
    reads: dict[str, Callable[[], int]] = {
        "attention": lambda: length,
        "window-attention": lambda: 3 * op.number("window"),
        "block-attention": lambda: op.number("block"),
        "linformer": lambda: op.number("rank"),
        "lsh-attention": lambda: 2 * op.number("chunk"),
    }
    return reads[op.kind]()


def queries_of(op: Op) -> int:
    """Number of queries of a head, padding of blocks included."""
    length, _ = tokens_of(op.input)
    sizes = {"window-attention": "window", "block-attention": "block", "lsh-attention": "chunk"}
    size = op.number(sizes[op.kind]) if op.kind in sizes else 1
    return -(-length // size) * size


def _masked(op: Op) -> tuple[Shape, ...]:
    return (op.input, op.input[:1]) if op.number("masked") else (op.input,)


def _norm_params(op: Op) -> int:
    return 0 if op["norm"] == "none" else 2 * tokens_of(op.input)[1]


def _attention_macs(op: Op) -> int:
    """Projections, and the products of queries with keys and of weights with values."""
    (length, width), inner = tokens_of(op.input), inner_width(op)
    projections = (3 if op.kind != "lsh-attention" else 2) * width * inner + inner * width
    products = 2 * queries_of(op) * keys_of(op) * inner
    thinner = 2 * op.number("rank") * length * inner if op.kind == "linformer" else 0
    hashing = length * inner * op.number("buckets") // 2 if op.kind == "lsh-attention" else 0
    return length * projections + products + thinner + hashing


def _attention_params(op: Op) -> int:
    (length, width), inner = tokens_of(op.input), inner_width(op)
    projections = (3 if op.kind != "lsh-attention" else 2) * (width + 1) * inner + (inner + 1) * width
    return _norm_params(op) + projections + (2 * op.number("rank") * length if op.kind == "linformer" else 0)


def _attention_activations(op: Op) -> int:
    (length, width), inner = tokens_of(op.input), inner_width(op)
    kept, scores = length * width, op.number("heads") * queries_of(op) * keys_of(op)
    return kept + max(length * (width + 3 * inner), 3 * length * inner + scores, 2 * length * inner + scores)


def _conv_macs(op: Op) -> int:
    length, width = tokens_of(op.input)
    return length * width * (op.number("kernel") + width)


def _conv_params(op: Op) -> int:
    _, width = tokens_of(op.input)
    return _norm_params(op) + width * (op.number("kernel") + 1) + (width + 1) * width


def _mix_macs(op: Op) -> int:
    length, width = tokens_of(op.input)
    return length * length * width + length * width * width


def _mix_params(op: Op) -> int:
    length, width = tokens_of(op.input)
    return _norm_params(op) + length * (length + 1) + (width + 1) * width


def _mixer_activations(op: Op) -> int:
    return 3 * math.prod(op.input)


def _hidden(op: Op) -> int:
    return op.number("hidden")


def _ffn_layers(op: Op) -> int:
    """Number of linear layers that read the input."""
    return 2 if op["act"] in GATED else 1


def _ffn_macs(op: Op) -> int:
    length, width = tokens_of(op.input)
    return length * width * _hidden(op) * (_ffn_layers(op) + 1)


def _ffn_params(op: Op) -> int:
    _, width = tokens_of(op.input)
    return _norm_params(op) + _ffn_layers(op) * (width + 1) * _hidden(op) + (_hidden(op) + 1) * width


def _ffn_activations(op: Op) -> int:
    length, width = tokens_of(op.input)
    return length * (width + max(width + _ffn_layers(op) * _hidden(op), (_ffn_layers(op) + 1) * _hidden(op)))


def _positions_params(op: Op) -> int:
    return math.prod(op.output) if op["positions"] == "learned" else 0


def _patches_macs(op: Op) -> int:
    (channels, height, width), patch = op.input, op.number("patch")
    return channels * patch * patch * op.output[1] * (height // patch) * (width // patch)


def _patches_params(op: Op) -> int:
    wide = op.output[1]
    return (op.input[0] * op.number("patch") ** 2 + 1 + op.number("first")) * wide + _positions_params(op)


def _classifier_macs(op: Op) -> int:
    return op.input[1] * op.output[0]


def _classifier_params(op: Op) -> int:
    norm = 0 if op["norm"] == "none" else 2 * op.input[1]
    return norm + (op.input[1] + 1) * op.output[0]


def _attention(module: str, *attributes: str) -> OpKind:
    return OpKind(
        module=f"hwnas.nn.attention:{module}",
        attributes=frozenset({"heads", "head", "norm", "masked", *attributes}),
        macs=_attention_macs,
        params=_attention_params,
        activations=_attention_activations,
        inputs=_masked,
        attends=True,
        resizable=False,
    )


TOKENS: dict[str, OpKind] = {
    # square patches of an image as tokens, perhaps with a class token before them (Dosovitskiy et al., "An Image is
    # Worth 16x16 Words", ICLR 2021); positions are learned, sinusoidal or none
    "patches": OpKind(
        module="hwnas.nn.tokens:Patches",
        attributes=frozenset({"patch", "first", "positions"}),
        macs=_patches_macs,
        params=_patches_params,
        activations=both_live,
        takes="hwnas.nn.tokens:taken_patches",
        resizable=False,
    ),
    # vectors of tokens, scaled by the square root of their width if `scaled` (Vaswani et al. 2017), and positions
    "embedding": OpKind(
        module="hwnas.nn.tokens:TokenEmbedding",
        attributes=frozenset({"vocabulary", "positions", "scaled"}),
        params=lambda op: op.number("vocabulary") * op.output[1] + _positions_params(op),
        activations=both_live,
        dtype="int64",
        resizable=False,
    ),
    # 1 for a token, 0 for padding, which is the token 0
    "mask": OpKind(module="hwnas.nn.tokens:Mask", activations=both_live, dtype="int64", resizable=False),
    # every token reads all (Vaswani et al. 2017)
    "attention": _attention("attention"),
    # those at most `window` positions away (Beltagy et al., "Longformer", 2020)
    "window-attention": _attention("window_attention", "window"),
    # those of the same block (Qiu et al., "Blockwise Self-Attention for Long Document Understanding", 2020)
    "block-attention": _attention("block_attention", "block"),
    # `rank` linear combinations of all (Wang et al., "Linformer", 2020)
    "linformer": _attention("linformer", "rank"),
    # those of similar direction, found by locality-sensitive hashing (Kitaev et al., "Reformer", ICLR 2020)
    "lsh-attention": _attention("lsh_attention", "buckets", "chunk"),
    # depthwise convolution over the tokens, then a linear layer
    "token-conv": OpKind(
        module="hwnas.nn.tokens:token_conv",
        attributes=frozenset({"kernel", "norm", "masked"}),
        macs=_conv_macs,
        params=_conv_params,
        activations=_mixer_activations,
        inputs=_masked,
        takes="hwnas.nn.tokens:taken_conv",
        attends=True,
        resizable=False,
    ),
    # a linear layer over the tokens (Tolstikhin et al., "MLP-Mixer", NeurIPS 2021), then one over the width
    "token-mix": OpKind(
        module="hwnas.nn.tokens:token_mix",
        attributes=frozenset({"norm", "masked"}),
        macs=_mix_macs,
        params=_mix_params,
        activations=_mixer_activations,
        inputs=_masked,
        attends=True,
        resizable=False,
    ),
    # two linear layers, or three with a gate; activation gelu, relu, relu2 (squared: So et al., "Primer", NeurIPS
    # 2021), silu, geglu or swiglu
    "ffn": OpKind(
        module="hwnas.nn.tokens:feed_forward",
        attributes=frozenset({"hidden", "act", "norm"}),
        macs=_ffn_macs,
        params=_ffn_params,
        activations=_ffn_activations,
        inner=(
            InnerChannels(
                reader="body.down.weight",
                writers=("body.up.weight", "body.up.bias", "body.gate.weight", "body.gate.bias"),
                width=_hidden,
            ),
        ),
        resizable=False,
    ),
    # LayerNorm, the mean of all tokens or the first one, linear
    "pooled-linear": OpKind(
        module="hwnas.nn.tokens:pooled_linear",
        attributes=frozenset({"pool", "norm", "masked"}),
        macs=_classifier_macs,
        params=_classifier_params,
        activations=_mixer_activations,
        inputs=_masked,
        resizable=False,
    ),
}
