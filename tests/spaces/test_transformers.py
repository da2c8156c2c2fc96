"""Spaces with attention: the networks, their counts, and what a reference computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hwnas.errors import InvalidValue
from hwnas.nn import build, network
from hwnas.spaces import Space, Variable, from_depth, make_space
from hwnas.spaces.kinds import KINDS
from hwnas.supernet import Supernet, extract
from hwnas.testing.spaces import random_inputs

NAMES = ("autoformer-tiny", "autoformer-small", "vit-tiny", "hybrid-tiny", "sequence", "encoder")


def smaller(name: str) -> Space:
    """The space for small inputs where that makes a test fast; it has the same variables."""
    options = {"autoformer-tiny": {"resolution": 32}, "autoformer-small": {"resolution": 32}, "encoder": {"length": 40}}
    return make_space(name, classes=7, options=options.get(name))


def test_autoformers_choices_are_the_published_ones() -> None:
    tiny, small = (make_space(f"autoformer-{size}") for size in ("tiny", "small"))
    assert tiny.choices["width"] == [192, 216, 240]
    assert small.choices["width"] == [320, 384, 448]
    for space in (tiny, small):
        assert space.choices["depth"] == [12, 13, 14]
        assert space.input_shape(space.largest) == (3, 224, 224)
        assert space.ops(space.largest)[0][1].output == (197, space.choices["width"][-1])
    assert (tiny.choices["heads_1"], tiny.choices["expansion_14"]) == ([3, 4], [350, 400])
    assert (small.choices["heads_1"], small.choices["expansion_14"]) == ([5, 6, 7], [300, 350, 400])
    # Layers 13 and 14 count only where they exist.
    layers = sum((2 * 2) ** depth for depth in (12, 13, 14))
    assert tiny.size == 3 * layers


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", NAMES)
def test_a_supernet_computes_what_the_extracted_network_does(name: str, count: int) -> None:
    space = smaller(name)
    supernet = Supernet(space, seed=0).eval()
    count = count if name in ("vit-tiny", "hybrid-tiny", "sequence") else count // 10
    for arch in space.decode(space.sample(count, seed=1)):
        x = random_inputs(space, arch, 2)
        with torch.no_grad():
            assert torch.allclose(supernet(x, arch), extract(supernet, arch)(x), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_macs_are_those_of_torch(name: str) -> None:
    space = smaller(name)
    for arch in (space.largest, *space.decode(space.sample(6, seed=2))):
        with torch.device("meta"):
            net = network(space, arch).eval()
        x = random_inputs(space, arch, 1).to("meta")
        ops = [op for _, op in space.ops(arch)]
        assert sum(op.params for op in ops) == sum(p.numel() for p in net.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(x)
        assert sum(op.macs for op in ops) == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", NAMES)
def test_dependent_variables_count_once(name: str) -> None:
    space = smaller(name)
    codes = space.sample(300, seed=3)
    for i, conditions in enumerate(space.conditions):
        idle = np.zeros(len(codes), bool)
        for one in conditions:
            idle |= ~one.matters[codes[:, one.column]]
        assert (codes[idle, i] == 0).all()
    # Archs with equal networks are equal.
    seen: dict[tuple[str, ...], bytes] = {}
    for code, arch in zip(codes, space.decode(codes), strict=True):
        ops = tuple(f"{slot.name} {op.key}" for slot, op in space.ops(arch))
        assert seen.setdefault(ops, code.tobytes()) == code.tobytes()


def test_a_variable_that_depends_on_a_variable_that_has_no_effect_has_none() -> None:
    space = make_space("sequence")
    deep = {**space.largest, "depth": 2, "mixer_3": "attention", "heads_3": 4}
    arch = space.arch(deep)
    assert (arch["mixer_3"], arch["heads_3"]) == (space.variable("mixer_3").values[0], 2)
    assert not space.has_effect("heads_3", arch)
    fixed = space.fix(mixer_3="attention")
    assert fixed.arch({**deep})["heads_3"] == 2
    assert fixed.size < space.size


def test_conditions_of_depths() -> None:
    depth = Variable(name="depth", values=(2, 3, 4))
    assert from_depth(depth, 2) is None
    assert from_depth(depth, 3) == ("depth", (3, 4))


def test_a_variable_comes_after_the_one_it_depends_on() -> None:
    space = make_space("vit-tiny")
    turned = Space(name="turned", variables=space.variables[::-1], slots=space.slots, classes=2, in_channels=1)
    with pytest.raises(InvalidValue, match="has to come before it"):
        turned.sample(1, seed=0)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
def test_patches_are_a_convolution_with_positions(positions: str) -> None:
    from hwnas.spaces import make_op

    op = make_op("patches", (3, 8, 12), (7, 16), patch=4, first=1, positions=positions)
    module = build(op)
    x = torch.randn(2, 3, 8, 12)
    with torch.no_grad():
        y = module(x)
        tokens = module.patches(x).flatten(2).transpose(1, 2)
        expected = torch.cat([module.first.weight.expand(2, 1, -1), tokens], 1)
        if positions == "learned":
            expected = expected + module.positions.weight
        if positions != "sinusoidal":
            assert torch.allclose(y, expected, atol=1e-6)
        assert torch.allclose(y[:, 0], expected[:, 0], atol=1e-6)
    assert y.shape == (2, 7, 16)


def test_smaller_images_have_the_nearest_positions() -> None:
    space = make_space("vit-tiny")
    supernet = Supernet(space, seed=0).eval()
    large, small = ({**space.largest, "resolution": side} for side in (32, 24))
    elastic = supernet.elastic("patches", space.ops(large)[0][1])
    table = elastic.state(space.ops(large)[0][1])["positions.weight"]
    own = elastic.state(space.ops(small)[0][1])["positions.weight"]
    assert own.shape[0] == 37
    for row in range(6):
        for column in range(6):
            nearest = [math.floor((i + 0.5) * 8 / 6) for i in (row, column)]
            assert torch.equal(own[1 + 6 * row + column], table[1 + 8 * nearest[0] + nearest[1]])


def test_a_vision_transformer_equals_timms() -> None:
    timm = pytest.importorskip("timm")
    from functools import partial

    space = make_space("autoformer-tiny", classes=11, options={"resolution": 32})
    arch = space.arch({**space.largest, "depth": 12, "width": 192, **{f"heads_{i}": 3 for i in range(1, 15)}})
    torch.manual_seed(0)
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=192, depth=12, num_heads=3, num_classes=11,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    ).eval()  # fmt: skip
    ours = network(space, arch).eval()
    parts = dict(ours.named_children())
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.05)
        parts["patches"].patches.load_state_dict(theirs.patch_embed.proj.state_dict())
        parts["patches"].first.weight.copy_(theirs.cls_token[0])
        parts["patches"].positions.weight.copy_(theirs.pos_embed[0])
        for i, block in enumerate(theirs.blocks, start=1):
            attention, ffn = parts[f"layer{i}_attention"], parts[f"layer{i}_ffn"]
            attention.norm.load_state_dict(block.norm1.state_dict())
            for j, name in enumerate("qkv"):
                own = {key: tensor.chunk(3)[j] for key, tensor in block.attn.qkv.state_dict().items()}
                attention.body.get_submodule(name).load_state_dict(own)
            attention.body.out.load_state_dict(block.attn.proj.state_dict())
            ffn.norm.load_state_dict(block.norm2.state_dict())
            ffn.body.up.load_state_dict(block.mlp.fc1.state_dict())
            ffn.body.down.load_state_dict(block.mlp.fc2.state_dict())
        parts["classifier"].norm.load_state_dict(theirs.norm.state_dict())
        parts["classifier"].linear.load_state_dict(theirs.head.state_dict())
        x = torch.randn(2, 3, 32, 32)
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert sum(p.numel() for p in theirs.parameters()) == int(space.params(space.encode([arch]))[0])


def test_kinds_with_attention_are_trained_with_adamw() -> None:
    from hwnas.supernet import usual_training

    for name in NAMES:
        assert usual_training(make_space(name)).optimizer == "adamw"
    usual = usual_training(make_space("mobilenetv3-tiny"))
    assert (usual.optimizer, usual.phases[0].learning_rate, usual.weight_decay) == ("sgd", 0.2, 3e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_space_of_another_kind_of_inputs_is_refused(name: str) -> None:
    tokens = make_space(name).vocabulary is not None
    with pytest.raises(InvalidValue, match="not for images" if tokens else "not for tokens"):
        make_space(name, **({"in_channels": 3} if tokens else {"vocabulary": 100}))


def test_a_length_below_linformers_rank_is_refused() -> None:
    with pytest.raises(InvalidValue, match="below 32, the rank"):
        make_space("sequence", options={"length": 16})


def test_every_kind_of_tokens_is_in_a_space() -> None:
    used = {op.kind for name in NAMES for op in make_space(name).distinct_ops}
    tokens = {
        kind
        for kind, record in KINDS.items()
        if (record.module or "").startswith(("hwnas.nn.attention", "hwnas.nn.tokens"))
    }
    assert tokens <= used
