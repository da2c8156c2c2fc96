"""Spaces of images that are not square: their sides, ops and names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwnas.errors import InvalidValue, UnknownName
from hwnas.nn import build
from hwnas.spaces import SPACES, Domain, Slot, Space, Variable, make_op, make_space, space_name, space_options
from hwnas.spaces.kinds import squeeze_width
from hwnas.spaces.sides import LEAST_SIDE, MOST_SIDE, aspect_of, check_sides, image_sides

WIDE, TALL = "2:1", "1:2"
SMALL = "mobilenetv3-small"


@pytest.mark.parametrize(
    ("text", "same"),
    [("2:1", "2:1"), ("4:2", "2:1"), ("16:9", "16:9"), ("7:7", "1:1"), ("3 : 6", "1:2"), ("32:1", "32:1")],
)
def test_an_aspect_is_in_lowest_terms(text: str, same: str) -> None:
    assert aspect_of(text) == same


@pytest.mark.parametrize("wrong", ["0:1", "1:0", "-2:1", "2", "2:", "1.5:1", "2:1:1", "a:b", "", "2/1", 2, 2.0, [2, 1]])
def test_what_is_no_aspect(wrong: object) -> None:
    with pytest.raises(InvalidValue, match=r'aspect of a space is .*; write width:height .* of at least 1, "2:1"'):
        make_space(SMALL, options={"aspect": wrong})


@pytest.mark.parametrize("wrong", ["1000:1", "33:1", "1:33"])
def test_absurd_aspects(wrong: str) -> None:
    with pytest.raises(InvalidValue, match=f"is '{wrong}'; one side may be at most 32 times as long as the other"):
        make_space(f"{SMALL}+aspect={wrong}")


def test_the_resolution_is_the_height() -> None:
    assert image_sides(64, "4:1") == (64, 256)
    assert image_sides(64, "1:4") == (64, 16)
    assert image_sides(90, "16:9") == (90, 160)
    space = make_space(SMALL, options={"resolution": [32, 48], "aspect": "4:1"})
    assert space.name == f"{SMALL}+resolution=32,48+aspect=4:1"
    assert space.choices["resolution"] == [32, 48]
    assert space.input_shape(space.largest) == (3, 48, 192)
    assert (space.input_size(space.largest), space.input_size(space.smallest)) == ((48, 192), (32, 128))
    assert make_space(SMALL).input_size(make_space(SMALL).largest) == 128
    stem = space.ops(space.largest)[0][1]
    assert stem.key == "conv 3x48x192>16x24x96 act=hswish kernel=3 stride=2"


def test_names_and_domains_reproduce_the_space() -> None:
    space = make_space(f"{SMALL}+aspect=8:4+resolution=64", classes=2).fix(depth_1=1)
    assert space.name == f"{SMALL}+resolution=64+aspect=2:1"
    again = Domain.of(space).make()
    assert (again.name, again.aspect, again.distinct_ops) == (space.name, WIDE, space.distinct_ops)
    assert space_name(space.name, {"aspect": "1:1"}) == f"{SMALL}+resolution=64"
    assert space_options(space.name).aspect == WIDE


@pytest.mark.parametrize("base", [base for base in SPACES if make_space(base).vocabulary is None])
@pytest.mark.parametrize("aspect", [WIDE, TALL])
def test_shapes_of_ops_are_those_of_their_modules(base: str, aspect: str) -> None:
    """Every op of the smallest and the largest network at one resolution, on zeros of the shape that it says."""
    sides = {"resnet50": 64, "mobilenetv3": 72, "mobilenetv3-w1.2": 72, "proxyless-w1.3": 72}
    side = 48 if base.startswith("autoformer") else sides.get(base, 40)
    space = make_space(base, options={"resolution": side if aspect == WIDE else 2 * side, "aspect": aspect})
    for arch in (space.smallest, space.largest):
        nodes = space.network(arch)
        for node in nodes:
            for read in node.reads:
                given = space.input_shape(arch) if read < 0 else nodes[read].op.output
                assert given == node.op.input, node.name
        for op in {node.op for node in nodes}:
            with torch.device("meta"):
                module = build(op).eval()
            x = [torch.empty(1, *shape, device="meta") for shape in op.inputs]
            assert module(*x).shape == (1, *op.output), op.key


@pytest.mark.parametrize("base", ["mobilenetv3-tiny", "resnet50", "nasbench201", "darts-tiny"])
def test_twice_the_width_costs_twice_the_macs_of_convolutions(base: str) -> None:
    square, wide = (make_space(f"{base}+resolution=64{more}") for more in ("", "+aspect=2:1"))
    for (_, op), (_, twice) in zip(square.ops(square.largest), wide.ops(wide.largest), strict=True):
        assert twice.params == op.params
        squeeze = 2 * op.number("mid") * squeeze_width(op.number("mid")) if dict(op.attributes).get("se") else 0
        per_image = squeeze if len(op.output) == 3 else op.macs
        assert twice.macs - per_image == 2 * (op.macs - per_image)


def test_transposed_images_cost_the_same() -> None:
    wide, tall = (make_space(f"{SMALL}+resolution={side}+aspect={a}") for side, a in ((64, "3:1"), (192, "1:3")))
    for arch, other in ((wide.smallest, tall.smallest), (wide.largest, tall.largest)):
        for (_, op), (_, turned) in zip(wide.ops(arch), tall.ops(other), strict=True):
            assert (op.macs, op.params, op.activations) == (turned.macs, turned.params, turned.activations)
            assert op.input == (turned.input[0], *turned.input[:0:-1])


@given(
    resolutions=st.lists(st.integers(LEAST_SIDE, 700), min_size=1, max_size=4, unique=True).map(sorted),
    wide=st.integers(1, 40),
    high=st.integers(1, 40),
    strides=st.sampled_from([4, 16, 32]),
    multiple=st.sampled_from([1, 4]),
)
@settings(max_examples=300, deadline=None)
def test_images_are_accepted_if_and_only_if_they_fit(
    resolutions: list[int], wide: int, high: int, strides: int, multiple: int
) -> None:
    assume(wide != high and max(wide, high) <= 32 * min(wide, high))
    widths = [side * wide / high for side in resolutions]
    fits = all(
        width.is_integer() and width % multiple == 0 and side % multiple == 0
        for side, width in zip(resolutions, widths, strict=True)
    )
    sizes = [*resolutions, *widths]
    fits = fits and min(sizes) >= max(strides, LEAST_SIDE) and max(sizes) <= MOST_SIDE
    try:
        check_sides(resolutions, strides, multiple=multiple, aspect=aspect_of(f"{wide}:{high}"))
    except InvalidValue as error:
        assert not fits, error
    else:
        assert fits


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            SMALL,
            {"aspect": "16:9"},
            "with the aspect 16:9, resolution 48 gives images of 48 x 85.3333 pixels .height x width.; both must be "
            "integers: use resolutions that are multiples of 9, such as resolution=45,54$",
        ),
        (SMALL, {"aspect": "4:3", "resolution": [64, 96, 128]}, "multiples of 3, such as resolution=96$"),
        (
            "darts",
            {"aspect": "3:2", "resolution": [32, 36]},
            "36 x 54 pixels .*; both must be multiples of 4: .* multiples of 8, such as resolution=32$",
        ),
        (
            "darts",
            {"aspect": "2:1", "resolution": 30},
            "30 x 60 pixels .*; both must be multiples of 4: .* 4, such as resolution=28,32",
        ),
        (
            SMALL,
            {"aspect": "1:4"},
            "resolution 48 gives images of 48 x 12 pixels .*, which are too small: the strides of the network divide "
            "each side by 16, .*; use resolutions of 64 or more",
        ),
        ("nasbench201", {"aspect": "1:8"}, "32 x 4 pixels .* too small: .* use resolutions of 64 or more"),
        (
            SMALL,
            {"aspect": "32:1", "resolution": [64, 160]},
            "160 x 5120 pixels .* too large: .* use resolutions of 128 or less",
        ),
    ],
)
def test_resolutions_that_do_not_fit(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        make_space(name, options=options)


class Square:
    """A family without the option."""

    in_channels, classes = 1, 2
    options = space_options("nasbench201-tiny").model_copy(update={"aspect": None})

    def space(self, *, in_channels: int, classes: int) -> Space:
        raise NotImplementedError

    def adjusted(self, options: object) -> Square:
        raise NotImplementedError


def test_a_family_without_the_option_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES, "own", Square())  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="unknown option of the space own: 'aspect'"):
        make_space("own+aspect=2:1")


def own(aspect: str) -> Space:
    def head(resolution: int) -> Any:
        return make_op("linear", (1, *image_sides(resolution, aspect)), (2,))

    slots = (Slot(name="head", group="head", variables=("resolution",), op=head),)
    variables = (Variable(name="resolution", values=(8, 9)),)
    return Space(name="own", variables=variables, slots=slots, classes=2, in_channels=1, aspect=aspect)


def test_a_space_of_ones_own_has_an_aspect() -> None:
    space = own("3:1")
    assert space.input_shape(space.smallest) == (1, 8, 24)
    with pytest.raises(InvalidValue, match="use resolutions that are multiples of 2"):
        own("3:2").input_shape(own("3:2").largest)
    with pytest.raises(InvalidValue, match="the aspect of a space is 'wide'; write width:height"):
        own("wide").input_shape({"resolution": 8})
