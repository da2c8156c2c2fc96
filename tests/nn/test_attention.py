"""Patterns of attention against dense attention with the corresponding mask or projection."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.nn import build
from hwnas.nn.attention import LshAttention, rotations
from hwnas.nn.tokens import grid_sinusoid, sinusoid
from hwnas.spaces import Op, make_op

WIDTH, HEADS, HEAD = 24, 3, 8
LENGTHS = (1, 7, 16, 33, 50)
PATTERNS = {
    "attention": {},
    "window-attention": {"window": 4},
    "block-attention": {"block": 8},
    "linformer": {"rank": 5},
    "lsh-attention": {"buckets": 4, "chunk": 8},
}


def op_of(kind: str, length: int, *, masked: int = 0, norm: str = "pre") -> Op:
    shape = (length, WIDTH)
    return make_op(kind, shape, shape, heads=HEADS, head=HEAD, norm=norm, masked=masked, **PATTERNS[kind])


def module_of(op: Op) -> nn.Module:
    torch.manual_seed(0)
    module = build(op).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)
    return module


def heads_of(module: nn.Module, x: Tensor, names: str = "qkv") -> list[Tensor]:
    """Queries, keys and values of the heads, ``(n, heads, length, head)``, by the definition."""
    y = [module.body.get_submodule(name)(module.norm(x)) for name in names]
    return [each.view(*x.shape[:2], HEADS, HEAD).transpose(1, 2) for each in y]


def finished(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return x + module.body.out(y.transpose(1, 2).flatten(2))


def dense(q: Tensor, k: Tensor, v: Tensor, read: Tensor) -> Tensor:
    """Attention with the keys that a query reads, bool ``(..., length, length)``."""
    scores = (q @ k.transpose(-1, -2) / math.sqrt(HEAD)).masked_fill(~read, -math.inf)
    return scores.softmax(-1) @ v


def mask_of(length: int) -> Tensor:
    """Two sequences, one of which has padding in its last third."""
    mask = torch.ones(2, length)
    mask[1, max(1, 2 * length // 3) :] = 0
    return mask


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("masked", [0, 1])
@pytest.mark.parametrize("kind", ["attention", "window-attention", "block-attention"])
def test_a_pattern_is_dense_attention_with_its_mask(kind: str, masked: int, length: int) -> None:
    op = op_of(kind, length, masked=masked)
    module, x, mask = module_of(op), torch.randn(2, length, WIDTH), mask_of(length)
    place = torch.arange(length)
    gap = (place[:, None] - place[None]).abs()
    read = {
        "attention": torch.ones(length, length, dtype=torch.bool),
        "window-attention": gap <= 4,
        "block-attention": place[:, None] // 8 == place[None] // 8,
    }[kind]
    keys = mask.bool()[:, None, None, :] if masked else torch.ones(1, 1, 1, length, dtype=torch.bool)
    with torch.no_grad():
        q, k, v = heads_of(module, x)
        expected = finished(module, x, dense(q, k, v, read & keys))
        got = module(x, mask) if masked else module(x)
    real = mask.bool() if masked else torch.ones(2, length, dtype=torch.bool)  # padding may have no keys at all
    assert torch.allclose(got[real], expected[real], atol=1e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("masked", [0, 1])
def test_linformer_is_attention_to_projected_keys(masked: int, length: int) -> None:
    module, x, mask = (
        module_of(op_of("linformer", length, masked=masked)),
        torch.randn(2, length, WIDTH),
        mask_of(length),
    )
    with torch.no_grad():
        q, k, v = heads_of(module, x)
        there = mask[:, None, :, None] if masked else torch.ones(1, 1, length, 1)
        fewer_k = torch.einsum("rl,nhld->nhrd", module.body.keys.weight, k * there)
        fewer_v = torch.einsum("rl,nhld->nhrd", module.body.values.weight, v * there)
        y = (q @ fewer_k.transpose(-1, -2) / math.sqrt(HEAD)).softmax(-1) @ fewer_v
        got = module(x, mask) if masked else module(x)
    assert torch.allclose(got, finished(module, x, y), atol=1e-5)


@pytest.mark.parametrize("masked", [0, 1])
@pytest.mark.parametrize("kind", ["attention", "window-attention", "block-attention", "linformer"])
def test_what_is_read_is_the_mean_of_the_attention_matrix(kind: str, masked: int) -> None:
    length = 21
    module, x, mask = module_of(op_of(kind, length, masked=masked)), torch.randn(2, length, WIDTH), mask_of(length)
    there = mask if masked else torch.ones(2, length)
    place = torch.arange(length)
    near = {
        "window-attention": (place[:, None] - place[None]).abs() <= 4,
        "block-attention": place[:, None] // 8 == place[None] // 8,
    }.get(kind, torch.ones(length, length, dtype=torch.bool))
    with torch.no_grad():
        q, k, _ = heads_of(module, x)
        if kind == "linformer":
            kept = there[:, None, :, None]
            keys = torch.einsum("rl,nhld->nhrd", module.body.keys.weight, k * kept)
            scores = (q @ keys.transpose(-1, -2) / math.sqrt(HEAD)).softmax(-1)
            matrix = scores @ (module.body.values.weight * there[:, None, None, :])
        else:
            seen = near & there.bool()[:, None, None, :]
            matrix = (q @ k.transpose(-1, -2) / math.sqrt(HEAD)).masked_fill(~seen, -math.inf).softmax(-1)
        queries = (there / there.sum(1, keepdim=True))[:, None, :, None]
        expected = (matrix * queries).nansum(2)  # a padded query may have no key, and counts for nothing
        got = module.body.read(module.norm(x), mask if masked else None)
    assert got.shape == (2, HEADS, length)
    assert torch.allclose(got, expected, atol=1e-5)
    if kind != "linformer":
        assert torch.allclose(got.sum(2), torch.ones(2, HEADS), atol=1e-5)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_what_is_read_by_hashing_sums_to_one_and_skips_padding() -> None:
    module, x, mask = module_of(op_of("lsh-attention", 21, masked=1)), torch.randn(2, 21, WIDTH), mask_of(21)
    with torch.inference_mode():
        got = module.body.read(module.norm(x), mask)
    assert torch.allclose(got.sum(2), torch.ones(2, HEADS), atol=1e-5)
    assert got[1, :, mask[1] == 0].abs().max() < 1e-6


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("masked", [0, 1])
def test_lsh_reads_its_bucket_in_its_chunk_and_the_one_before(masked: int, length: int) -> None:
    module, x, mask = (
        module_of(op_of("lsh-attention", length, masked=masked)),
        torch.randn(2, length, WIDTH),
        mask_of(length),
    )
    body = module.body
    assert isinstance(body, LshAttention)
    with torch.no_grad():
        q, v = heads_of(module, x, "qv")
        turned = q @ rotations(HEAD, 4)
        bucket = torch.cat([turned, -turned], -1).argmax(-1)
        if masked:
            bucket = torch.where(mask.bool()[:, None], bucket, 4)
        # The place of a token in the order of buckets, by counting those before it.
        place = torch.arange(length)
        before = (bucket[..., None, :] < bucket[..., :, None]) | (
            (bucket[..., None, :] == bucket[..., :, None]) & (place[None, :] < place[:, None])
        )
        chunk = before.sum(-1) // 8
        near = (chunk[..., :, None] - chunk[..., None, :] == 0) | (chunk[..., :, None] - chunk[..., None, :] == 1)
        read = near & (bucket[..., :, None] == bucket[..., None, :])
        k = functional.normalize(q, dim=-1) * math.sqrt(HEAD)
        expected = finished(module, x, dense(q, k, v, read))
        got = module(x, mask) if masked else module(x)
    real = mask.bool() if masked else torch.ones(2, length, dtype=torch.bool)
    assert torch.allclose(got[real], expected[real], atol=1e-5)


def masked_op(kind: str, length: int) -> Op:
    shape = (length, WIDTH)
    if kind in PATTERNS:
        return op_of(kind, length, masked=1)
    return make_op(kind, shape, shape, norm="pre", masked=1, **({"kernel": 5} if kind == "token-conv" else {}))


@pytest.mark.parametrize("kind", [*PATTERNS, "token-conv", "token-mix"])
def test_padding_changes_no_token(kind: str) -> None:
    length = 33
    module, x, mask = module_of(masked_op(kind, length)), torch.randn(2, length, WIDTH), mask_of(length)
    other = torch.where(mask.bool()[..., None], x, torch.randn_like(x) * 3)
    with torch.no_grad():
        first, second = module(x, mask), module(other, mask)
    assert torch.allclose(first[mask.bool()], second[mask.bool()], atol=1e-6)
    assert not torch.allclose(x, other)


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_the_classifier_does_not_read_padding(pool: str) -> None:
    module = module_of(make_op("pooled-linear", (9, WIDTH), (4,), pool=pool, norm="pre", masked=1))
    x, mask = torch.randn(2, 9, WIDTH), mask_of(9)
    with torch.no_grad():
        got = module(x, mask)
        real = x[1, : int(mask[1].sum())]
        pooled = module.norm(real).mean(0) if pool == "mean" else module.norm(real[0])
        assert torch.allclose(got[1], module.linear(pooled), atol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_a_layer_equals_torchs_encoder(norm: str) -> None:
    """An attention and a feed-forward network with the weights of `torch.nn.TransformerEncoderLayer`."""
    if norm == "none":
        pytest.skip("torch has no layer without LayerNorm")
    length, hidden = 11, 40
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm == "pre"
    ).eval()
    shape = (length, WIDTH)
    attention = build(make_op("attention", shape, shape, heads=HEADS, head=HEAD, norm=norm, masked=1)).eval()
    ffn = build(make_op("ffn", shape, shape, hidden=hidden, act="gelu", norm=norm)).eval()
    with torch.no_grad():
        for mine, his in ((attention.norm, theirs.norm1), (ffn.norm, theirs.norm2)):
            his.weight.normal_(1, 0.3)
            his.bias.normal_(0, 0.3)
            mine.load_state_dict(his.state_dict())
        weights, biases = theirs.self_attn.in_proj_weight.chunk(3), theirs.self_attn.in_proj_bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            attention.body.get_submodule(name).load_state_dict({"weight": weight, "bias": bias})
        attention.body.out.load_state_dict(theirs.self_attn.out_proj.state_dict())
        ffn.body.up.load_state_dict(theirs.linear1.state_dict())
        ffn.body.down.load_state_dict(theirs.linear2.state_dict())
        x, mask = torch.randn(2, length, WIDTH), mask_of(length)
        got, expected = ffn(attention(x, mask)), theirs(x, src_key_padding_mask=~mask.bool())
    assert torch.allclose(got[mask.bool()], expected[mask.bool()], atol=1e-5)


@pytest.mark.parametrize("act", ["gelu", "relu", "relu2", "silu", "geglu", "swiglu"])
def test_feed_forward_networks_by_their_formulas(act: str) -> None:
    module = module_of(make_op("ffn", (5, WIDTH), (5, WIDTH), hidden=16, act=act, norm="none"))
    x = torch.randn(2, 5, WIDTH)
    up = functional.linear(x, module.body.up.weight, module.body.up.bias)
    gate = functional.linear(x, module.body.gate.weight, module.body.gate.bias) if act.endswith("glu") else up
    inner = {
        "gelu": lambda: up * 0.5 * (1 + torch.erf(up / math.sqrt(2))),
        "relu": lambda: up.clamp(min=0),
        "relu2": lambda: up.clamp(min=0) ** 2,
        "silu": lambda: up * torch.sigmoid(up),
        "geglu": lambda: gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2))) * up,
        "swiglu": lambda: gate * torch.sigmoid(gate) * up,
    }[act]()
    expected = x + functional.linear(inner, module.body.down.weight, module.body.down.bias)
    assert torch.allclose(module(x), expected, atol=1e-5)


def test_sinusoidal_positions_by_the_closed_form() -> None:
    table = sinusoid(50, 10)
    for place in (0, 1, 17, 49):
        for i in range(5):
            angle = place / 10_000 ** (2 * i / 10)
            assert float(table[place, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table[place, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-6)
    grid = grid_sinusoid(3, 5, 12)
    assert grid.shape == (15, 12)
    assert torch.equal(grid[7], torch.cat([sinusoid(3, 6)[1], sinusoid(5, 6)[2]]))


@pytest.mark.parametrize("kind", [*PATTERNS, "ffn"])
def test_pixels_are_tokens_row_by_row(kind: str) -> None:
    attributes = {"hidden": 16, "act": "gelu"} if kind == "ffn" else {"heads": HEADS, "head": HEAD, "masked": 0}
    own = {**attributes, **PATTERNS.get(kind, {}), "norm": "pre"}
    image = build(make_op(kind, (WIDTH, 4, 5), (WIDTH, 4, 5), **own)).eval()
    tokens = build(make_op(kind, (20, WIDTH), (20, WIDTH), **own)).eval()
    tokens.load_state_dict(image.state_dict())
    x = torch.randn(2, WIDTH, 4, 5)
    with torch.no_grad():
        expected = tokens(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
        assert torch.allclose(image(x), expected, atol=1e-6)


@pytest.mark.parametrize("kind", list(PATTERNS))
def test_a_layer_can_be_trained_after_it_was_evaluated(kind: str) -> None:
    module, x, mask = module_of(op_of(kind, 21, masked=1)), torch.randn(2, 21, WIDTH), mask_of(21)
    with torch.inference_mode():
        module(x, mask)
    module.train()(x, mask).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("masked", [0, 1])
def test_training_and_evaluation_compute_the_same(masked: int) -> None:
    module, x, mask = module_of(op_of("attention", 21, masked=masked)), torch.randn(2, 21, WIDTH), mask_of(21)
    given = (x, mask) if masked else (x,)
    with torch.no_grad():
        assert torch.allclose(module.train()(*given), module.eval()(*given), atol=1e-5)
