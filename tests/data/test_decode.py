from __future__ import annotations

import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.data import Images
from hwnas.data.decode import is_gray, opened
from hwnas.errors import DataError


def stored(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def decoded(path: Path, **options: object) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(opened(path, str(path), **options))  # type: ignore[arg-type]


RAMP = np.linspace(0, 65535, 16 * 12).round().astype(np.uint16).reshape(12, 16)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    pixels = decoded(stored(tmp_path / f"deep.{suffix}", Image.fromarray(RAMP)))
    assert np.array_equal(pixels[..., 0], (RAMP / 257).round().astype(np.uint8))
    assert (pixels == pixels[..., :1]).all()


def test_big_endian_sixteen_bits(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (16, 12), RAMP.astype(">u2").tobytes())
    pixels = decoded(stored(tmp_path / "deep.tif", image), channels=1)
    assert np.array_equal(pixels, (RAMP / 257).round().astype(np.uint8))


def test_a_pixel_range_says_what_is_white(tmp_path: Path) -> None:
    path = stored(tmp_path / "twelve-bits.tif", Image.fromarray((RAMP >> 4).astype(np.uint16)))
    assert decoded(path).max() == 16  # nearly black: 4095 of 65535
    pixels = decoded(path, pixel_range=(0, 4095), channels=1)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert decoded(path, pixel_range=(1000, 2000), channels=1).max() == 255  # clipped


def test_floating_point_from_0_to_1(tmp_path: Path) -> None:
    path = stored(tmp_path / "float.tif", Image.fromarray((RAMP / 65535).astype(np.float32)))
    assert np.array_equal(decoded(path, channels=1), (RAMP / 257).round().astype(np.uint8))


@pytest.mark.parametrize(("value", "said"), [(300.0, "its pixels are 0 to 300, outside 0 to 1"), (np.nan, "NaN")])
def test_floating_point_outside_its_range_is_refused(tmp_path: Path, value: float, said: str) -> None:
    pixels = np.zeros((4, 4), np.float32)
    pixels[1, 1] = value
    path = stored(tmp_path / "float.tif", Image.fromarray(pixels))
    with pytest.raises(DataError, match=rf"float\.tif as an image \(.*{said}"):
        opened(path, str(path))


@pytest.mark.parametrize("suffix", ["gif", "png", "tif"])
def test_palettes_become_their_colours(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert (decoded(stored(tmp_path / f"palette.{suffix}", image)) == (200, 100, 50)).all()
    assert not is_gray(tmp_path / f"palette.{suffix}")


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    path = stored(tmp_path / f"print.{suffix}", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    assert np.abs(decoded(path).astype(int) - (255, 0, 0)).max() <= 3
    assert decoded(path, channels=1).shape == (8, 8)


def test_exif_orientation_is_applied_and_may_be_left(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    path = stored(tmp_path / "turned.png", image, exif=exif)
    assert decoded(path).shape == (30, 10, 3)
    assert decoded(path)[0, 0, 0] == 255
    assert decoded(path, orientation=False).shape == (10, 30, 3)


def test_malformed_exif_leaves_the_pixels(tmp_path: Path) -> None:
    path = stored(tmp_path / "odd.jpg", Image.new("RGB", (30, 10)), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09garbage")
    assert decoded(path).shape == (10, 30, 3)


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (250, 10)]
    path = stored(tmp_path / "film.gif", frames[0], save_all=True, append_images=frames[1:])
    assert decoded(path)[0, 0, 0] == 250


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "I;16", "YCbCr"])
def test_any_mode_becomes_gray(tmp_path: Path, mode: str) -> None:
    suffix = {"YCbCr": "jpg", "PA": "tif"}.get(mode, "png")
    path = stored(tmp_path / f"any.{suffix}", Image.new(mode, (8, 6)))
    assert decoded(path, channels=1).shape == (6, 8)
    assert decoded(path).shape == (6, 8, 3)
    assert is_gray(path) == (mode not in ("RGBA", "YCbCr")) or mode in ("P", "PA")


def test_a_file_of_a_format_that_runs_programs_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n")
    with pytest.raises(DataError, match=r"a\.png as an image \(cannot identify"):
        opened(path, str(path))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_absurd_sizes_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(100_000, 100_000))
    with pytest.raises(DataError, match=r"bomb\.png .*at most 178,956,970 pixels are read; scale it down"):
        opened(path, str(path))


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("size", [(60_000, 4), (4, 60_000)])
def test_a_strip_takes_memory_in_proportion_to_the_output(tmp_path: Path, size: tuple[int, int]) -> None:
    x = np.linspace(0, 255, max(size)).round().astype(np.uint8)
    strip = np.repeat(x[None] if size[0] > size[1] else x[:, None], 4, axis=0 if size[0] > size[1] else 1)
    for folder in ("train", "val", "test"):
        for name in "ab":
            stored(tmp_path / folder / name / "strip.png", Image.fromarray(strip))
    data, before = Images(tmp_path), peak_bytes()
    images, _ = next(data.batches("test", 224))
    crops, _ = data.train_batch(0, 2, 224, seed=0)
    assert peak_bytes() - before < 200e6
    middle = (images[:, 0].mean() * data.std[0] + data.mean[0]) * 255
    assert abs(middle - 127.5) < 1  # of the gradient: the centre was cropped
    assert crops.shape == (2, data.in_channels, 224, 224)


@pytest.mark.parametrize("size", [(90, 60), (61, 200), (500, 37)])
def test_cropping_before_resizing_gives_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for folder in ("train", "val", "test"):
        for name in "ab":
            stored(tmp_path / folder / name / "0.png", Image.fromarray(pixels))
    whole, _ = next(Images(tmp_path).batches("test", 56))
    monkeypatch.setattr("hwnas.data.geometry.ELONGATED", 0)
    cropped, _ = next(Images(tmp_path).batches("test", 56))
    assert (whole - cropped).abs().max() <= 1.01 / 255 / 0.224


def test_a_pixel_range_does_not_apply_where_pillow_keeps_eight_bits(tmp_path: Path) -> None:
    """A 12-bit colour image would be almost black: Pillow keeps the upper 8 of 16 bits of each channel."""
    rows = b"".join(b"\0" + struct.pack(">12H", *[4095] * 12) for _ in range(4))  # 4 x 4 RGB, 16 bits

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    path = tmp_path / "deep.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert (decoded(path) == 15).all()  # of 255, as 4095 of 65535
    with pytest.raises(DataError, match=r"RGB with 16 bits per channel.*pixel_range does not apply"):
        decoded(path, pixel_range=(0, 4095))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff(tmp_path: Path, orientation: int, compression: str) -> None:
    stored_pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(stored_pixels)
    path = stored(tmp_path / "turned.tif", image, tiffinfo={0x0112: orientation}, compression=compression)
    upright = {
        1: stored_pixels,
        2: stored_pixels[:, ::-1],
        3: stored_pixels[::-1, ::-1],
        4: stored_pixels[::-1],
        5: stored_pixels.T,
        6: np.rot90(stored_pixels, -1),
        7: np.rot90(stored_pixels, 2).T,
        8: np.rot90(stored_pixels),
    }[orientation]
    assert np.array_equal(decoded(path, channels=1), upright)
    assert np.array_equal(decoded(path, channels=1, orientation=False), stored_pixels)
