"""Vision transformers: AutoFormer's spaces, and a small one for small images.

Source: Chen et al., "AutoFormer: Searching Transformers for Visual Recognition", ICCV 2021, table 2 and the published
code (the choices of each space); Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (patches, class token);
Touvron et al., "Training data-efficient image transformers", ICML 2021 (DeiT).

The width and the depth are variables of the whole network, the heads and the expansion of each layer are its own.
Unlike in AutoFormer, positions are only added to the patches: there are no relative ones in the attention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from hwnas.spaces.ops import Op, Shape, make_op
from hwnas.spaces.options import SpaceOptions
from hwnas.spaces.sides import SQUARE, check_sides, image_sides
from hwnas.spaces.slots import Slot, Variable, from_depth, own_values
from hwnas.spaces.space import Space
from hwnas.spaces.wiring import chain


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionTransformer:
    """A family of vision transformers.

    Attributes:
        patch: side of a patch in pixels.
        head: width of a head.
        widths: choices of the width of the tokens, ascending.
        depths: choices of the number of layers, ascending.
        heads: choices of the number of heads of a layer, ascending.
        expansions: choices of the hidden width of a feed-forward network, in percent of the width, ascending.
        resolutions: choices of the height of the images, ascending; multiples of the patch.
        classes, in_channels: defaults, overridden by the data.
        aspect: width to height of the images.
    """

    name: str
    patch: int
    head: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    expansions: tuple[int, ...]
    resolutions: tuple[int, ...]
    classes: int
    in_channels: int
    aspect: str = SQUARE

    @property
    def options(self) -> SpaceOptions:
        """The options of this family, with its values."""
        return SpaceOptions.model_construct(resolution=self.resolutions, expansions=self.expansions, aspect=self.aspect)

    def adjusted(self, options: SpaceOptions) -> VisionTransformer:
        """This family with options; those that are None keep their values.

        Raises:
            InvalidValue: a side is not a multiple of the patch.
        """
        resolutions, aspect = options.resolution or self.resolutions, options.aspect or self.aspect
        check_sides(resolutions, self.patch, multiple=self.patch, aspect=aspect)
        return replace(self, resolutions=resolutions, expansions=options.expansions or self.expansions, aspect=aspect)

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space of these networks for images of `in_channels` channels and `classes` classes."""
        depth = Variable(name="depth", values=self.depths)
        variables = [
            Variable(name="resolution", values=self.resolutions),
            Variable(name="width", values=self.widths),
            depth,
        ]
        sizes = ("resolution", "width")
        slots = [Slot(name="patches", group="patches", variables=sizes, op=partial(_patches, self, in_channels))]
        for i in range(1, max(self.depths) + 1):
            matters = from_depth(depth, i)
            read = sizes if matters is None else (*sizes, "depth")
            for name, kind, values, op in (
                ("attention", "heads", self.heads, _attention),
                ("ffn", "expansion", self.expansions, _ffn),
            ):
                variables.append(Variable(name=f"{kind}_{i}", values=values, matters=matters))
                slots.append(
                    Slot(
                        name=f"layer{i}.{name}",
                        group=f"layer{i}",
                        variables=(*read, f"{kind}_{i}"),
                        op=partial(op, self, i, matters is not None),
                    )
                )
        slots.append(Slot(name="classifier", group="head", variables=sizes, op=partial(_classifier, self, classes)))
        return Space(
            name=self.name,
            variables=tuple(variables),
            slots=tuple(slots),
            classes=classes,
            in_channels=in_channels,
            wiring=chain(slots),  # explicit: what is quantised at a residual depends on both of its readers
            aspect=self.aspect,
        )


def _tokens(net: VisionTransformer, resolution: int, width: int) -> Shape:
    """Shape of the tokens: the class token and one for each patch."""
    high, wide = image_sides(resolution, net.aspect)
    return 1 + (high // net.patch) * (wide // net.patch), width


def _patches(net: VisionTransformer, in_channels: int, resolution: int, width: int) -> Op:
    shape = (in_channels, *image_sides(resolution, net.aspect))
    return make_op("patches", shape, _tokens(net, resolution, width), patch=net.patch, first=1, positions="learned")


def _attention(
    net: VisionTransformer, block: int, optional: bool, resolution: int, width: int, *depth_heads: int
) -> Op | None:
    """The attention of a layer; `block` and `optional` as in `own_values`."""
    if (own := own_values(block, optional, depth_heads)) is None:
        return None
    heads = int(own[0])
    shape = _tokens(net, resolution, width)
    return make_op("attention", shape, shape, heads=heads, head=net.head, norm="pre", masked=0)


def _ffn(
    net: VisionTransformer, block: int, optional: bool, resolution: int, width: int, *depth_expansion: int
) -> Op | None:
    """The feed-forward network of a layer; `block` and `optional` as in `own_values`."""
    if (own := own_values(block, optional, depth_expansion)) is None:
        return None
    expansion = int(own[0])
    shape = _tokens(net, resolution, width)
    return make_op("ffn", shape, shape, hidden=width * expansion // 100, act="gelu", norm="pre")


def _classifier(net: VisionTransformer, classes: int, resolution: int, width: int) -> Op:
    shape = _tokens(net, resolution, width)
    return make_op("pooled-linear", shape, (classes,), pool="first", norm="pre", masked=0)


TRANSFORMERS = (
    VisionTransformer(
        name="autoformer-tiny",
        patch=16,
        head=64,
        widths=(192, 216, 240),
        depths=(12, 13, 14),
        heads=(3, 4),
        expansions=(350, 400),
        resolutions=(224,),
        classes=1000,
        in_channels=3,
    ),
    VisionTransformer(
        name="autoformer-small",
        patch=16,
        head=64,
        widths=(320, 384, 448),
        depths=(12, 13, 14),
        heads=(5, 6, 7),
        expansions=(300, 350, 400),
        resolutions=(224,),
        classes=1000,
        in_channels=3,
    ),
    VisionTransformer(
        name="vit-tiny",
        patch=4,
        head=16,
        widths=(32, 64, 96),
        depths=(2, 3, 4, 5, 6),
        heads=(2, 4, 6),
        expansions=(100, 200, 400),
        resolutions=(24, 28, 32),
        classes=10,
        in_channels=1,
    ),
)
