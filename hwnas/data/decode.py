"""Decode image files with Pillow: any mode and depth becomes RGB or gray with 8 bits per channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from hwnas.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

# Formats whose decoders read pixels and nothing else: Pillow hands EPS to Ghostscript, and only identifies MPEG or WMF.
FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "TGA", "PCX", "AVIF", "PSD"),
    *("QOI", "ICO", "SGI", "MSP", "XBM"),
)
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2"),
    *(".j2k", ".jpx", ".tga", ".pcx", ".avif", ".psd", ".qoi", ".sgi", ".dib", ".jpe", ".jfif", ".apng"),
)
MOST_PIXELS = 178_956_970  # 716 MB in Pillow's memory, and Pillow's own limit
GRAY_MODES = ("1", "L", "LA", "La")
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_DEPTH_RANGES = {"F": (0.0, 1.0)}  # other modes of more than 8 bits hold 16
_SIXTEEN_BITS = (0.0, 65535.0)


def opened(
    source: Path | BinaryIO,
    name: str,
    *,
    channels: int = 3,
    orientation: bool = True,
    pixel_range: tuple[float, float] | None = None,
) -> Image.Image:
    """The first frame of an image file, with 8 bits per channel.

    Args:
        source: the file.
        name: of the image in messages.
        channels: 3 for RGB, 1 for gray. Transparency is dropped.
        orientation: whether to rotate and flip as the EXIF orientation says.
        pixel_range: values that become black and white in an image with more than 8 bits per channel; values outside
            are clipped. None is 0 to 65535, or 0 to 1 for floating point; values outside are then an error.

    Raises:
        DataError: it cannot be read, has too many pixels, or values outside the range of its type.
    """
    from PIL import Image

    try:
        with _open(source) as image:
            _check_pixels(image)
            if pixel_range is not None:
                _check_depth(image)
            turned = image.getexif().get(_ORIENTATION, 1) if image.format == "TIFF" and not orientation else 1
            image.load()
            upright = _upright(image) if orientation else _turned_back(image, turned)
            return _converted(_eight_bits(upright, pixel_range), channels)
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(name, str(error))) from error
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, struct.error and others
        raise DataError(f"cannot read {name} as an image ({error}); replace it or remove it") from error


def is_gray(path: Path) -> bool:
    """Whether an image file stores gray pixels, from its header; False if it cannot be read.

    An RGB file whose channels are equal is not gray: that would take decoding it.
    """
    try:
        with _open(path) as image:
            if image.mode == "P":
                palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
                return bool(len(palette)) and bool((palette == palette[:, :1]).all())
            return image.mode in GRAY_MODES or _is_deep(image.mode)
    except Exception:  # found by the check of the data, or when the image is decoded
        return False


@contextmanager
def _open(source: Path | BinaryIO) -> Iterator[Image.Image]:
    """An image that is open, not loaded.

    Pillow gets a file object, not a path: it maps uncompressed files of a path into memory, and mixes up the rows of
    TIFF images that their orientation turns by 90 degrees (Pillow 13.0).
    """
    from PIL import Image

    if not isinstance(source, Path):
        with Image.open(source, formats=_known_formats()) as image:
            yield image
        return
    if source.exists() and not source.is_file():  # opening a FIFO would block
        raise OSError("it is not a regular file")
    with source.open("rb") as file, Image.open(file, formats=_known_formats()) as image:
        yield image


@lru_cache(maxsize=1)
def _known_formats() -> tuple[str, ...]:
    """The formats that this Pillow has: AVIF and QOI are missing in older ones."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are read, scale it down"
        )


def _check_depth(image: Image.Image) -> None:
    """Check that Pillow gives an image's values in their full depth.

    Raises:
        ValueError: it keeps the upper 8 of 16 bits, so a range of values has lost its meaning.
    """
    if not _is_deep(image.mode) and any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        raise ValueError(
            f"it is {image.mode} with 16 bits per channel, of which Pillow reads the upper 8, so pixel_range does not "
            "apply; convert it to 8 bits per channel"
        )


def _too_large(name: str, reason: str) -> str:
    return f"cannot read {name} as an image ({reason}): at most {MOST_PIXELS:,} pixels are read; scale it down"


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    try:
        turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # malformed EXIF data do not make the pixels unreadable
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _turned_back(image: Image.Image, orientation: int) -> Image.Image:
    """An image as it is stored, which Pillow turned when it loaded it: it does that with TIFF images."""
    from PIL import Image

    method = Image.Transpose
    back = {
        2: method.FLIP_LEFT_RIGHT,
        3: method.ROTATE_180,
        4: method.FLIP_TOP_BOTTOM,
        5: method.TRANSPOSE,
        6: method.ROTATE_90,
        7: method.TRANSVERSE,
        8: method.ROTATE_270,
    }
    turned = orientation in back and _ORIENTATION not in image.getexif()  # older versions of Pillow leave it there
    return image.transpose(back[orientation]) if turned else image


def _is_deep(mode: str) -> bool:
    """Whether a mode has more than 8 bits per channel."""
    return mode.startswith(("I", "F"))


def _eight_bits(image: Image.Image, pixel_range: tuple[float, float] | None) -> Image.Image:
    """An image with more than 8 bits per channel scaled to 8; Pillow would clip it to white."""
    from PIL import Image

    if not _is_deep(image.mode):
        return image
    pixels = np.asarray(image).astype(np.float32)
    low, high = pixel_range or _DEPTH_RANGES.get(image.mode, _SIXTEEN_BITS)
    least, most = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError("it has pixels that are NaN or infinite")
    if pixel_range is None and (least < low or most > high):
        raise ValueError(
            f"its pixels are {least:g} to {most:g}, outside {low:g} to {high:g}; set pixel_range in [data.transform] "
            "to the values of black and white"
        )
    scaled = ((pixels - low) * (255 / (high - low))).clip(0, 255)
    return Image.fromarray(scaled.round().astype(np.uint8))


def _converted(image: Image.Image, channels: int) -> Image.Image:
    if channels == 3:
        return image.convert("RGB")
    return image.convert("L") if image.mode in GRAY_MODES else image.convert("RGB").convert("L")
