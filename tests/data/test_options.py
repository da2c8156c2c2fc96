from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from hwnas.cli.options import data_options
from hwnas.data import DataOptions, Images, Transform, open_data
from hwnas.data.options import older_options, read_options
from hwnas.errors import CheckpointError, DataError, InvalidValue, SpecError
from hwnas.files import read_spec
from hwnas.pipeline.job import DataChoice

USUAL = DataOptions()


def made(root: Path, mode: str = "RGB", *, size: tuple[int, int] = (60, 40), shade: int | None = None) -> Path:
    """Two classes of images of noise, or of one shade."""
    rng = np.random.default_rng(0)
    for folder, count in (("train", 4), ("val", 2), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
                pixels = (
                    rng.integers(0, 256, shape, dtype=np.uint8) if shade is None else np.full(shape, shade, np.uint8)
                )
                path = root / folder / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


def test_channels_come_from_the_images(tmp_path: Path) -> None:
    colour, gray = Images(made(tmp_path / "a")), Images(made(tmp_path / "b", "L"))
    assert (colour.in_channels, gray.in_channels) == (3, 1)
    assert (len(gray.mean), len(gray.std)) == (1, 1)
    for x, _ in (gray.train_batch(0, 4, 16, seed=0), *gray.batches("test", 16)):
        assert x.shape == (4, 1, 16, 16)
        assert x.dtype == torch.float32
    assert gray.transform(16)["channels"] == "L"
    assert gray.recorded_options() == {"channels": 1}


def test_one_image_in_colour_makes_the_data_colour(tmp_path: Path) -> None:
    made(tmp_path, "L")
    Image.new("RGB", (20, 20)).save(tmp_path / "train" / "cat" / "0.png")
    assert Images(tmp_path).in_channels == 3


@pytest.mark.parametrize(("mode", "channels"), [("L", 3), ("RGB", 1)])
def test_channels_may_be_given(tmp_path: Path, mode: str, channels: int) -> None:
    data = open_data("images", path=made(tmp_path, mode), options=DataOptions(channels=channels))  # type: ignore[arg-type]
    x, _ = data.train_batch(0, 4, 16, seed=0)
    assert x.shape[1] == data.in_channels == channels
    assert data.fingerprint() != Images(tmp_path).fingerprint()


def test_gray_is_the_mean_of_nothing_but_the_image(tmp_path: Path) -> None:
    data = Images(made(tmp_path, "L", shade=204))
    x, _ = next(data.batches("test", 16))
    assert torch.allclose(x, torch.full_like(x, (0.8 - 0.449) / 0.226), atol=1e-5)


def test_the_default_is_written_out_and_equal_to_the_explicit(tmp_path: Path) -> None:
    how = Transform(
        resize="short", crop=0.875, value_range=(0, 1), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    first, second = Images(made(tmp_path)), Images(tmp_path, options=DataOptions(channels=3, transform=how))
    for a, b in (
        (first.train_batch(0, 4, 24, seed=0), second.train_batch(0, 4, 24, seed=0)),
        *zip(first.batches("test", 24), second.batches("test", 24), strict=True),
    ):
        assert torch.equal(a[0], b[0])
    assert first.transform(24) == second.transform(24)
    assert first.transform(24)["orientation"] == "EXIF"


def deployed(path: Path, how: dict[str, object]) -> torch.Tensor:
    """The network's input, from nothing but the image and the manifest's transform."""
    image = Image.open(path)
    if (resize := how["resize"]) is not None:
        assert isinstance(resize, dict)
        length = resize["size"]
        size = (
            (length, length) if resize["side"] == "both" else [round(s * length / min(image.size)) for s in image.size]
        )
        image = image.resize(tuple(size), Image.Resampling.BILINEAR)
    if (crop := how["crop"]) is not None:
        assert isinstance(crop, dict)
        left, top = ((side - crop["size"]) // 2 for side in image.size)
        image = image.crop((left, top, left + crop["size"], top + crop["size"]))
    low, high = how["value_range"]  # type: ignore[misc]
    pixels = np.asarray(image, np.float64).reshape(image.height, image.width, -1) / 255 * (high - low) + low
    return torch.from_numpy((pixels - how["mean"]) / how["std"]).permute(2, 0, 1).float()


@pytest.mark.parametrize(
    "how",
    [
        Transform(),
        Transform(crop=1.0),
        Transform(resize="both"),
        Transform(resize="both", crop=0.9),
        Transform(resize="none"),
        Transform(resize="both", value_range=(0, 255), mean=(127.5,), std=(60.0,)),
        Transform(value_range=(-1, 1)),
        Transform(mean="measured", std="measured"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_manifest_describes_the_transform(tmp_path: Path, how: Transform, mode: str) -> None:
    if mode == "RGB" and isinstance(how.mean, tuple):
        how = how.model_copy(update={"mean": how.mean * 3, "std": how.std * 3})  # type: ignore[operator]
    data = Images(made(tmp_path, mode), options=DataOptions(transform=how))
    told = json.loads(json.dumps(data.transform(24)))
    x, labels = next(data.batches("test", 24))
    assert x.shape == (len(labels), data.in_channels, 24, 24)
    for got, (name, _) in zip(x, data.files("test"), strict=True):
        assert torch.allclose(got, deployed(tmp_path / name, told), atol=1e-4)
    again = Images(tmp_path, options=read_options(data.recorded_options()))
    assert torch.equal(next(again.batches("test", 24))[0], x)
    assert data.fingerprint() == again.fingerprint()
    batch, _ = data.train_batch(0, 4, 24, seed=0)
    assert batch.shape == (4, data.in_channels, 24, 24)


def test_both_shows_the_whole_image(tmp_path: Path) -> None:
    made(tmp_path, "L", size=(80, 40), shade=0)
    for path in (tmp_path / "test").rglob("*.png"):
        image = Image.new("L", (80, 40))
        image.paste(255, (0, 0, 4, 40))  # an edge that the usual crop hides
        image.save(path)
    usual, _ = next(Images(tmp_path).batches("test", 20))
    whole, _ = next(Images(tmp_path, options=DataOptions(transform=Transform(resize="both"))).batches("test", 20))
    assert usual.std() < 1e-6
    assert whole[0, 0, 10, 0] > whole[0, 0, 10, 10] + 1


def test_measured_statistics_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    data = Images(made(tmp_path), options=DataOptions(transform=Transform(mean="measured", std="measured")))
    pixels = np.concatenate(
        [np.asarray(Image.open(tmp_path / name)).reshape(-1, 3) / 255 for name, _ in data.files("train")]
    )
    assert np.allclose(data.mean, pixels.mean(axis=0), atol=1e-4)
    assert np.allclose(data.std, pixels.std(axis=0), atol=1e-3)
    assert data.recorded_options()["transform"]["mean"] == list(data.mean)  # type: ignore[index,call-overload]


def test_images_of_one_shade_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="standard deviation cannot be measured"):
        Images(made(tmp_path, "L", shade=9), options=DataOptions(transform=Transform(std="measured")))


def test_an_image_smaller_than_the_resolution_is_named_without_a_resize(tmp_path: Path) -> None:
    data = Images(made(tmp_path), options=DataOptions(transform=Transform(resize="none")))
    with pytest.raises(DataError, match=r"\.png has 60 x 40 pixels, fewer than the resolution 48; resize = 'none'"):
        next(data.batches("test", 48))
    with pytest.raises(DataError, match=r"\.png has 60 x 40 pixels"):
        data.train_batch(0, 2, 48, seed=0)


def test_the_number_of_statistics_must_be_that_of_the_channels(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"mean in \[data.transform\] has 3 values, but the images are read with 1 channel"
    ):
        Images(made(tmp_path, "L"), options=DataOptions(transform=Transform(mean=(0.5, 0.5, 0.5))))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"crop": "none"}, "oblong; use crop = 1, or resize = 'both'"),
        ({"crop": 7.0}, "a share from 0.1 to 1"),
        ({"resize": "none", "crop": 0.9}, "omit it"),
        ({"value_range": (1.0, 0.0)}, "the value of black and a larger one of white"),
        ({"std": (0.0,)}, "above 0"),
        ({"mean": (0.1, 0.2)}, "1 or 3 values"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_transform_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Transform.model_validate(wrong)


def test_options_of_a_job(tmp_path: Path) -> None:
    job = tmp_path / "data.toml"
    job.write_text(
        'name = "images"\npath = "p"\nchannels = 1\nsplit = [70, 15, 15]\n'
        '[transform]\nresize = "both"\nmean = [0.5]\nstd = "measured"\n'
    )
    choice = read_spec(job, DataChoice)
    expected = Transform(resize="both", mean=(0.5,), std="measured")
    assert choice.options == DataOptions(channels=1, split=(70, 15, 15), transform=expected)
    assert read_options(choice.options.recorded()) == choice.options
    job.write_text('name = "images"\n[transform]\nresize = "long"\n')
    with pytest.raises(SpecError, match=r"transform.resize is 'long'"):
        read_spec(job, DataChoice)


def test_options_of_a_command(tmp_path: Path) -> None:
    file = tmp_path / "data.toml"
    file.write_text('channels = 3\n[transform]\nresize = "both"\n')
    found = data_options(file, 1, "80,10,10", None, True)
    assert found == DataOptions(channels=1, split=(80, 10, 10), skip_bad=True, transform=Transform(resize="both"))
    assert data_options(None, None, None, None, False) == USUAL
    for wrong, said in (("80,20", "--split"), ("a,b,c", "three shares"), ("1,0,0", "three shares above 0")):
        with pytest.raises(InvalidValue, match=said):
            data_options(None, None, wrong, None, False)
    with pytest.raises(InvalidValue, match="--channels 2"):
        data_options(None, 2, None, None, False)


def test_a_dataset_without_options_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="cluttered-digits takes no options; omit channels"):
        open_data("cluttered-digits", options=DataOptions(channels=3))


def test_recorded_options_that_are_malformed_are_refused() -> None:
    with pytest.raises(CheckpointError, match="malformed"):
        read_options({"channels": 7})
    with pytest.raises(CheckpointError, match="below the dataset's folder"):
        read_options({"skip": ["../../secret.png"]})


def test_data_of_older_supernets_keep_their_fingerprint_and_their_rules(tmp_path: Path) -> None:
    gray, colour = made(tmp_path / "gray", "L"), made(tmp_path / "colour")
    assert Images(gray, options=older_options(3)).in_channels == 3
    assert Images(colour, options=older_options(3)).fingerprint() == Images(colour).fingerprint()
    assert Images(colour, options=older_options(3)).transform(24).keys() == Images(colour).transform(24).keys() - {
        "orientation"
    }
