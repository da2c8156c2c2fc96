"""The test transform's resize and centre crop, with memory in proportion to the output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.data.options import Transform

if TYPE_CHECKING:
    from PIL import Image

ELONGATED = 16  # aspect ratio beyond which only the crop is resized


def fitted(image: Image.Image, resolution: int, how: Transform) -> Image.Image:
    """An image resized and cropped to ``(resolution, resolution)``.

    Raises:
        ValueError: the image is smaller than the resolution, and the transform does not resize.
    """
    from PIL import Image

    side, length, crop = how.geometry(resolution)
    if side == "none":
        check_native(image, resolution)
        return _centre(image, resolution)
    if side == "both":
        resized = image.resize((length, length), Image.Resampling.BILINEAR)
        return resized if crop is None else _centre(resized, crop)
    width, height = (round(side * length / min(image.size)) for side in image.size)
    if max(width, height) > ELONGATED * length:  # a strip: crop first, as the whole may not fit into the memory
        left, top = (width - resolution) // 2, (height - resolution) // 2
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + resolution) * x, (top + resolution) * y)
        return image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=box)
    return _centre(image.resize((width, height), Image.Resampling.BILINEAR), resolution)


def check_native(image: Image.Image, resolution: int) -> None:
    """Refuse an image that is too small to be cropped without a resize.

    Raises:
        ValueError: a side is shorter than the resolution.
    """
    if min(image.size) < resolution:
        raise ValueError(
            f"has {image.width} x {image.height} pixels, fewer than the resolution {resolution}; resize = 'none' in "
            "[data.transform] needs larger images, use 'short' or 'both', or a smaller resolution"
        )


def _centre(image: Image.Image, side: int) -> Image.Image:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
