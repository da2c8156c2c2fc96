"""The test transform's resize and centre crop, with memory in proportion to the output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.data.options import Size, Transform, sides

if TYPE_CHECKING:
    from PIL import Image

ELONGATED = 16  # aspect ratio beyond which only the crop is resized


def fitted(image: Image.Image, size: Size, how: Transform) -> Image.Image:
    """An image resized and cropped to a size.

    Raises:
        ValueError: the image is smaller than the size, and the transform does not resize.
    """
    from PIL import Image

    side, resized, crop = how.geometry(size)
    if side == "none":
        check_native(image, size)
        return _centre(image, size)
    rows, columns = sides(resized)
    if side == "both":
        whole = image.resize((columns, rows), Image.Resampling.BILINEAR)
        return whole if crop is None else _centre(whole, crop)
    width, height = covering(image.size, rows, columns)
    if max(width, height) > ELONGATED * max(rows, columns):  # a strip: the whole may not fit into the memory
        rows, columns = sides(size)
        left, top = (width - columns) // 2, (height - rows) // 2
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + columns) * x, (top + rows) * y)
        return image.resize((columns, rows), Image.Resampling.BILINEAR, box=box)
    return _centre(image.resize((width, height), Image.Resampling.BILINEAR), size)


def covering(image: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    """Width and height of the smallest image of the same ratio with at least these rows and columns of pixels.

    Args:
        image: width and height of the image.
        rows: its least height.
        columns: its least width; where it equals the height, the short side has this length.
    """
    width, height = image
    side, length = (width, columns) if width * rows <= height * columns else (height, rows)
    return round(width * length / side), round(height * length / side)


def check_native(image: Image.Image, size: Size) -> None:
    """Refuse an image that is too small to be cropped without a resize.

    Raises:
        ValueError: a side is shorter than that of the size.
    """
    rows, columns = sides(size)
    if image.width < columns or image.height < rows:
        needed = f"the resolution {size}" if rows == columns else f"the {columns} x {rows} of the network"
        raise ValueError(
            f"has {image.width} x {image.height} pixels, fewer than {needed}; resize = 'none' in "
            "[data.transform] needs larger images, use 'short' or 'both', or a smaller resolution"
        )


def _centre(image: Image.Image, size: Size) -> Image.Image:
    rows, columns = sides(size)
    left, top = (image.width - columns) // 2, (image.height - rows) // 2
    return image.crop((left, top, left + columns, top + rows))
