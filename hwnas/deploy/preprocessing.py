"""From an image file to the input of a bundle, as Python lines for Pillow and numpy, and in words."""

from __future__ import annotations

from typing import cast

from pydantic import JsonValue

# Every step of a transform that the lines know (`hwnas.data.Data.transform`). Others may be a user's own.
STEPS = frozenset(
    ("layout", "channels", "dtype", "orientation", "pixel_range", "resize", "crop", "value_range", "mean", "std")
)
_NORMALISE = ("value_range", "mean", "std")
_INDENT = "    "


def photograph_lines(transform: dict[str, JsonValue]) -> str | None:
    """A function ``prepared(file)`` from an image file to the input of a network, one image, as Python.

    It needs ``np``, ``Image`` and ``ImageOps``. Sizes and crops are rounded as in `hwnas.data`.

    Args:
        transform: of a manifest's input.

    Returns:
        the lines; None if the transform has a step that they do not know, or lacks one.
    """
    uint8 = transform.get("dtype") == "uint8"
    needed = {"layout", "channels", "dtype", "resize", "crop", *(() if uint8 else _NORMALISE)}
    if not needed <= transform.keys() <= STEPS or transform["channels"] not in ("RGB", "L"):
        return None
    resize, crop = transform["resize"], transform["crop"]
    if isinstance(resize, dict) and (resize.get("interpolation"), resize.get("antialias")) != ("bilinear", True):
        return None
    lines = ["image = Image.open(file)"]
    if transform.get("orientation") == "EXIF":
        lines.append("image = ImageOps.exif_transpose(image)")
    lines += _deep(transform.get("pixel_range"))
    gray = transform["channels"] == "L"
    lines.append(f'image = image.convert("RGB"){".convert(" + chr(34) + "L" + chr(34) + ")" if gray else ""}')
    lines += _resized(resize) + _cropped(crop)
    lines += ["x = np.asarray(image)[None, :, :, None]" if gray else "x = np.asarray(image)[None]"]
    if not uint8:
        lines += _normalised(transform)
    if transform["layout"] == "NCHW":
        lines.append("x = x.transpose(0, 3, 1, 2)")
    body = "\n".join(_INDENT + line for line in [*lines, "return np.ascontiguousarray(x)"])
    return f"def prepared(file):\n{body}\n"


def _deep(pixel_range: JsonValue) -> list[str]:
    """Lines for images with more than 8 bits per channel, which Pillow would clip to white."""
    scaled = 'np.asarray(image).astype(np.float32) * (255 if image.mode == "F" else 255 / 65535)'
    if pixel_range is not None:
        low, high = cast("list[float]", pixel_range)
        scaled = f"(np.asarray(image).astype(np.float32) - {low!r}) * {255 / (high - low)!r}"
    return [
        'if image.mode.startswith(("I", "F")):  # more than 8 bits per channel',
        f"    pixels = {scaled}",
        "    image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))",
    ]


def _resized(resize: JsonValue) -> list[str]:
    if not isinstance(resize, dict):
        return []
    height, width = _sides(resize["size"])
    if resize["side"] == "both":
        return [f"image = image.resize(({width}, {height}), Image.Resampling.BILINEAR)"]
    if resize["side"] == "cover":
        return [
            f"narrow = image.width * {height} <= image.height * {width}",
            f"side, length = (image.width, {width}) if narrow else (image.height, {height})",
            "image = image.resize([round(each * length / side) for each in image.size], Image.Resampling.BILINEAR)",
        ]
    return [
        f"size = [round(side * {height} / min(image.size)) for side in image.size]",
        "image = image.resize(size, Image.Resampling.BILINEAR)",
    ]


def _cropped(crop: JsonValue) -> list[str]:
    if not isinstance(crop, dict):
        return []
    height, width = _sides(crop["size"])
    return [
        f"left, top = (image.width - {width}) // 2, (image.height - {height}) // 2",
        f"image = image.crop((left, top, left + {width}, top + {height}))",
    ]


def _sides(size: JsonValue) -> tuple[int, int]:
    """Height and width of a size in a transform: one number for squares, else both."""
    height, width = size if isinstance(size, list) else (size, size)
    return cast("int", height), cast("int", width)


def _normalised(transform: dict[str, JsonValue]) -> list[str]:
    low, high = cast("list[float]", transform["value_range"])
    scaled = "x.astype(np.float32) / 255"
    if (low, high) != (0, 1):
        scaled += f" * {high - low!r} + {low!r}"
    return [f"x = {scaled}", f"x = (x - np.float32({transform['mean']})) / np.float32({transform['std']})"]


def step_words(transform: dict[str, JsonValue]) -> list[str]:
    """The steps of a transform, each as a line, then how sizes and crops are rounded."""
    lines = [f"- {step}: {_text(value)}" for step, value in transform.items() if value is not None]
    resize, crop = transform.get("resize"), transform.get("crop")
    rounding = []
    if any(isinstance(step, dict) and isinstance(step.get("size"), list) for step in (resize, crop)):
        rounding.append("A size of two numbers is height and width.")
    if isinstance(resize, dict) and resize.get("side") == "short" and "size" in resize:
        rounding.append(
            f"The short side becomes {resize['size']} pixels. The other one keeps the ratio and is rounded to the "
            "nearest integer, a half to the even one; torchvision rounds down, and differs by a pixel on half of all "
            "photographs."
        )
    if isinstance(resize, dict) and resize.get("side") == "cover" and "size" in resize:
        height, width = _sides(resize["size"])
        rounding.append(
            f"The image keeps its ratio and becomes the smallest one that is at least {height} pixels high and {width} "
            "pixels wide: one side has this length, the other is rounded to the nearest integer, a half to even."
        )
    if isinstance(resize, dict) and resize.get("interpolation") == "bilinear":
        rounding.append("The filter is Pillow's `BILINEAR`, which averages where it shrinks, and rounds to 8 bits.")
    if isinstance(crop, dict) and "size" in crop:
        height, width = _sides(crop["size"])
        rounding.append(f"The crop starts at (width - {width}) / 2 and (height - {height}) / 2, both rounded down.")
    return [*lines, *(["", " ".join(rounding)] if rounding else [])]


def _text(value: JsonValue) -> str:
    """The settings of a preprocessing step as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    return str(value)
