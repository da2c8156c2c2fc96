"""Sides of a space's images: the variable `resolution` is the height, and the aspect gives the width."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache

from hwnas.errors import InvalidValue

SQUARE = "1:1"
MOST_ELONGATED = 32  # width to height, or height to width; a line of text is about 16:1
LEAST_SIDE, MOST_SIDE = 8, 4096  # pixels
_ASPECT = re.compile(r"(\d{1,4}):(\d{1,4})")


def aspect_of(given: object) -> str:
    """An aspect in lowest terms, from a text ``width:height``: ``2:1`` from ``4:2``.

    Raises:
        ValueError: it has another form, or is too elongated.
    """
    found = _ASPECT.fullmatch(given.replace(" ", "")) if isinstance(given, str) else None
    width, height = map(int, found.groups()) if found else (0, 0)
    if not width or not height:
        raise ValueError('write width:height as two integers of at least 1, "2:1"')
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise ValueError(f"one side may be at most {MOST_ELONGATED} times as long as the other")
    shared = math.gcd(width, height)
    return f"{width // shared}:{height // shared}"


def _terms(aspect: str) -> tuple[int, int]:
    """Width and height of an aspect, in lowest terms."""
    try:
        width, height = aspect_of(aspect).split(":")
    except ValueError as error:
        raise InvalidValue(f"the aspect of a space is {aspect!r}; {error}") from error
    return int(width), int(height)


@cache
def image_sides(resolution: int, aspect: str) -> tuple[int, int]:
    """Height and width of images in pixels.

    Args:
        resolution: their height.
        aspect: width to height, as text: ``2:1``.

    Raises:
        InvalidValue: the aspect is invalid, or the width is not an integer.
    """
    width, height = _terms(aspect)
    if resolution * width % height:
        raise InvalidValue(
            f"with the aspect {aspect}, images of {resolution} pixels in height have a width of "
            f"{resolution * width / height:.6g}; use resolutions that are multiples of {height}"
        )
    return resolution, resolution * width // height


def check_sides(resolutions: Sequence[int], strides: int, *, multiple: int = 1, aspect: str = SQUARE) -> None:
    """Check that the images of a space fit its network.

    Args:
        resolutions: heights of the images in pixels, ascending.
        strides: product of all strides; no side is shorter.
        multiple: number that divides every side.
        aspect: width to height of the images.

    Raises:
        InvalidValue: a side is too short or too long, not an integer, or not divisible.
    """
    if aspect != SQUARE:
        _check_rectangles(resolutions, strides, multiple, aspect)
        return
    if resolutions[0] < strides:
        raise InvalidValue(
            f"resolution {resolutions[0]} is too small: the strides of the network divide the side of an image by "
            f"{strides}; use {strides} or more{', or fewer stages with stride 2' if multiple == 1 else ''}"
        )
    for side in resolutions:
        if rest := side % multiple:
            raise InvalidValue(
                f"resolution {side} is not a multiple of {multiple}, by which the network divides the side of an "
                f"image; use {side - rest} or {side - rest + multiple}"
            )


def _check_rectangles(resolutions: Sequence[int], strides: int, multiple: int, aspect: str) -> None:
    width, height = _terms(aspect)

    def images(resolution: int) -> str:
        return (
            f"with the aspect {aspect}, resolution {resolution} gives images of {resolution} x "
            f"{resolution * width / height:.6g} pixels (height x width)"
        )

    # The width is divisible if, and only if, resolution * width is a multiple of height * multiple.
    step = math.lcm(multiple, height * multiple // math.gcd(height * multiple, width))
    if wrong := [side for side in resolutions if side % step]:
        below = wrong[0] // step * step
        near = [side for side in (below, below + step) if side]
        fitting = [side for side in resolutions if not side % step] or near
        raise InvalidValue(
            f"{images(wrong[0])}; both must be {f'multiples of {multiple}' if multiple > 1 else 'integers'}: use "
            f"resolutions that are multiples of {step}, such as resolution={','.join(map(str, fitting))}"
        )
    shortest = max(strides, LEAST_SIDE)
    least = -(-max(shortest, -(-shortest * height // width)) // step) * step
    if resolutions[0] < least:
        raise InvalidValue(
            f"{images(resolutions[0])}, which are too small: the strides of the network divide each side by {strides}, "
            f"and a side has at least {LEAST_SIDE} pixels; use resolutions of {least} or more"
        )
    most = min(MOST_SIDE, MOST_SIDE * height // width) // step * step
    if resolutions[-1] > most:
        raise InvalidValue(
            f"{images(resolutions[-1])}, which are too large: a side has at most {MOST_SIDE} pixels; use "
            f"resolutions of {most} or less"
        )
