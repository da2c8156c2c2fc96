from __future__ import annotations

from hwnas.spaces import Op, Space, make_space

SPACE = make_space("resnet50")


def blocks(space: Space, **values: int) -> dict[str, Op]:
    return {slot.name: op for slot, op in space.ops(space.arch({**space.largest, **values}))}


def test_once_for_alls_resnet_as_published() -> None:
    assert SPACE.choices["resolution"] == list(range(128, 225, 4))
    assert SPACE.choices["depth_stem"] == [0, 1]
    assert [SPACE.choices[f"depth_{s}"] for s in range(1, 5)] == [[2, 3, 4], [2, 3, 4], [4, 5, 6], [2, 3, 4]]
    ops = blocks(SPACE)
    firsts = [ops[f"stage{s}.block1"] for s in range(1, 5)]
    assert [op.output for op in firsts] == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    assert [op.number("mid") for op in firsts] == [88, 176, 360, 720]
    assert [op.number("stride") for op in firsts] == [1, 2, 2, 2]
    assert all(op["downsample"] == name.endswith("block1") for name, op in ops.items() if op.kind == "bottleneck")


def test_a_width_is_that_of_one_stage_and_of_the_input_of_the_next() -> None:
    ops = blocks(SPACE, width_2=65)
    assert ops["stage1.block4"].output[0] == ops["stage2.block1"].input[0] == 256
    assert {ops[f"stage2.block{b}"].output[0] for b in range(1, 5)} == {336}
    assert ops["stage3.block1"].input[0] == 336
    assert ops["stage3.block1"].output[0] == 1024


def test_the_stem() -> None:
    largest, small = blocks(SPACE), blocks(SPACE, width_stem=65, width_0=80, depth_stem=0)
    assert [op.key for name, op in largest.items() if name.startswith("stem")] == [
        "conv 3x224x224>32x112x112 act=relu kernel=3 stride=2",
        "residual-conv 32x112x112>32x112x112 act=relu kernel=3",
        "conv 32x112x112>64x112x112 act=relu kernel=3 stride=1",
        "maxpool 64x112x112>64x56x56 kernel=3 stride=2",
    ]
    assert [op.key for name, op in small.items() if name.startswith("stem")] == [
        "conv 3x224x224>24x112x112 act=relu kernel=3 stride=2",
        "conv 24x112x112>48x112x112 act=relu kernel=3 stride=1",
        "maxpool 48x112x112>48x56x56 kernel=3 stride=2",
    ]


def test_the_plain_resnet_is_about_as_large_as_he_et_al_say() -> None:
    # ResNet-50D at depth 3, 4, 6, 3 and expansion 0.25 has 25.6 million.
    depths = {"depth_1": 3, "depth_2": 4, "depth_3": 6, "depth_4": 3}
    plain = {name: 25 for name in SPACE.choices if name.startswith("expansion")}
    [params] = SPACE.params(SPACE.encode([SPACE.arch({**SPACE.largest, **depths, **plain, "depth_stem": 1})]))
    assert 25.4e6 < params < 25.8e6
