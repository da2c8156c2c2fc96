"""The check of image files, on a folder with odd files of some 40 kinds; all are generated."""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.accuracy.evaluate import check_positive
from hwnas.data import DataOptions, Images
from hwnas.data.check import check_images
from hwnas.data.options import read_options
from hwnas.errors import DataError, InvalidValue
from hwnas.pipeline import compile_job, preview_job, read_job
from hwnas.pipeline.cache import Stage
from hwnas.pipeline.checked import open_checked
from hwnas.pipeline.plan import plan_job
from hwnas.progress import silent
from hwnas.supernet import read_facts
from hwnas.tasks.metrics import parse_metric
from hwnas.workflows import check_data
from hwnas.workflows.inputs import reopen_data

RNG = np.random.default_rng(0)


def noise(height: int = 32, width: int = 40) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG file with a header and any body."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def cut(path: Path, share: float = 0.5) -> None:
    """A file that ends too early."""
    noise().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def of(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def floats(value: float) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        pixels = np.zeros((8, 8), np.float32)
        pixels[0, 0] = value
        Image.fromarray(pixels).save(path)

    return save


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.jpg": (of(b""), "empty (0 bytes)"),
    "text.png": (of(b"not an image\n"), "not an image of a known format"),
    "page.jpg": (of(b"<!DOCTYPE html><title>404</title>"), "not an image of a known format"),
    "print.png": (of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"), "not an image of a known format"),
    "document.jpg": (of(b"%PDF-1.7\n"), "not an image of a known format"),
    "archive.png": (of(b"PK\x03\x04" + bytes(26)), "not an image of a known format"),
    "drawing.webp": (of(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not an image of a known format"),
    "film.gif": (of(b"\0\0\0\x18ftypmp42" + bytes(16)), "not an image of a known format"),
    "cut.jpg": (cut, "truncated"),
    "cut.png": (cut, "truncated"),
    "cut.webp": (cut, ""),
    "cut.bmp": (cut, "truncated"),
    "cut.tif": (cut, ""),
    "header.png": (of(png(8, 8)), "truncated"),
    "nothing.png": (of(png(0, 8)), ""),
    "bomb.png": (of(png(100_000, 100_000)), "at most 178,956,970 pixels"),
    "nan.tif": (floats(float("nan")), "NaN"),
    "range.tif": (floats(1e4), "its pixels are 0 to 10000, outside 0 to 1; set pixel_range"),
    "link.png": (lambda path: path.symlink_to("nowhere.png"), "a symbolic link to nothing"),
    "loop.png": (lambda path: path.symlink_to("loop.png"), "a symbolic link to nothing"),
    "pipe.png": (os.mkfifo if hasattr(os, "mkfifo") else lambda path: path.symlink_to("x"), ""),
}

IGNORED: dict[str, tuple[Callable[[Path], object], str]] = {
    "train/cat/.DS_Store": (of(b"x"), "hidden"),
    "train/cat/._0.png": (of(b"x"), "hidden"),
    "train/cat/Thumbs.db": (of(b"x"), "its suffix .db is not that of an image"),
    "train/cat/notes.txt": (of(b"x"), "its suffix .txt is not that of an image"),
    "train/cat/film.mp4": (of(b"x"), "its suffix .mp4 is not that of an image"),
    "train/cat/README": (of(b"x"), "it has no suffix of an image"),
    "train/loose.png": (lambda path: noise().save(path), "not in a class folder"),
    "labels.csv": (of(b"file,label\n"), "its suffix .csv is not that of an image"),
    "train/.ipynb_checkpoints/": (lambda path: path.mkdir(), "hidden"),
    "extra/": (lambda path: path.mkdir(), "a folder besides train, val and test"),
}


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    noise().save(path, exif=exif)


GOOD: dict[str, Callable[[Path], object]] = {
    "deep.png": lambda path: Image.fromarray(RNG.integers(0, 65536, (9, 9)).astype(np.uint16)).save(path),
    "deep.tif": lambda path: Image.fromarray(RNG.integers(0, 65536, (9, 9)).astype(np.uint16)).save(path),
    "float.tif": floats(0.7),
    "palette.gif": lambda path: noise().convert("P").save(path),
    "animated.gif": lambda path: noise().save(path, save_all=True, append_images=[noise()]),
    "ink.jpg": lambda path: noise().convert("CMYK").save(path),
    "ink.tif": lambda path: noise().convert("CMYK").save(path),
    "turned.jpg": _turned,
    "strip.png": lambda path: noise(4, 3000).save(path),
    "pixel.png": lambda path: noise(1, 1).save(path),
    "bits.png": lambda path: noise().convert("1").save(path),
    "alpha.png": lambda path: noise().convert("RGBA").save(path),
    "UPPER.JPEG": lambda path: noise().save(path),
    "with space, ünïcode 全角.png": lambda path: noise().save(path),
    "wrong-suffix.jpg": lambda path: noise().save(path, format="PNG"),
    "deeper/still/0.png": lambda path: noise().save(path),
}
if sys.platform == "linux":
    GOOD[os.fsdecode(b"caf\xe9.png")] = lambda path: noise().save(path)


def odd_folder(root: Path, usual: int = 20) -> Path:
    """An image folder of two classes with all these files; ``train/fox`` has none, two images are in both splits."""
    for split, count in (("train", usual), ("val", max(3, usual // 4))):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                noise().save(root / split / name / f"{i}.png")
    (root / "train" / "fox").mkdir()
    for name, make in GOOD.items():
        path = root / "train" / "dog" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
    for name, (make, _) in BAD.items():
        make(root / "train" / "cat" / name)
    for name, (make, _) in IGNORED.items():
        make(root / name.rstrip("/"))
    (root / "val" / "cat" / "again.png").write_bytes((root / "train" / "cat" / "0.png").read_bytes())
    return root


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_folder(tmp_path_factory.mktemp("odd"))


def test_some_forty_kinds_of_odd_files_are_one_list(odd: Path) -> None:
    found = check_data(odd).check
    bad = {issue.file: issue.reason for issue in found.bad}
    assert set(bad) == {f"train/cat/{name}" for name in BAD} | {"train/fox/"}
    for name, (_, reason) in BAD.items():
        assert reason in bad[f"train/cat/{name}"], name
        assert "<_io" not in bad[f"train/cat/{name}"]
        assert "replace it" not in bad[f"train/cat/{name}"]
    assert bad["train/fox/"] == "a class folder without images in any split"
    ignored = {issue.file: issue.reason for issue in found.ignored}
    assert set(ignored) == set(IGNORED)
    for name, (_, reason) in IGNORED.items():
        assert ignored[name].startswith(reason), name
    assert len(BAD) + len(IGNORED) + len(GOOD) >= 40
    [same] = found.duplicates
    assert "test: val/cat/again.png" in same
    assert any(name in same for name in ("train: train/cat/0.png", "validation: train/cat/0.png"))


def test_bad_files_are_left_out_and_recorded(odd: Path) -> None:
    with pytest.raises(DataError, match=r"train/fox has no images"):
        Images(odd)
    data = Images(odd, options=DataOptions(skip_bad=True))
    names = {name for split in ("train", "validation", "test") for name, _ in data.files(split)}  # type: ignore[arg-type]
    assert {f"train/dog/{name}" for name in GOOD} <= names
    assert not names & {f"train/cat/{name}" for name in BAD}
    assert data.classes == ("cat", "dog")
    recorded = json.loads(json.dumps(data.recorded_options()))
    assert set(recorded["skip"]) == {f"train/cat/{name}" for name in BAD} | {"train/fox"}
    again = Images(odd, options=read_options(recorded))
    assert again.files("train") == data.files("train")
    assert again.fingerprint() == data.fingerprint()
    for split in ("train", "validation", "test"):
        assert sum(len(y) for _, y in data.batches(split, 16)) == data.size(split)  # type: ignore[arg-type]


def test_leaving_a_file_out_and_removing_it_are_the_same(tmp_path: Path) -> None:
    root = odd_folder(tmp_path / "odd")
    data = Images(root, options=DataOptions(skip_bad=True, channels=3))
    prints = [data.fingerprint(), data.split_fingerprint("train")]
    for name in BAD:
        (root / "train" / "cat" / name).unlink()
    (root / "train" / "fox").rmdir()
    clean = Images(root)
    assert [clean.fingerprint(), clean.split_fingerprint("train")] == prints
    assert check_data(root).check.bad == []


def test_images_of_one_class_may_all_be_bad(tmp_path: Path) -> None:
    root = odd_folder(tmp_path / "odd")
    for path in (root / "val" / "dog").iterdir():
        path.write_bytes(b"")
    assert len(check_data(root).check.bad) == len(BAD) + 1 + 5
    with pytest.raises(DataError, match=r"val/dog has no images, only 5 that are left out"):
        Images(root, options=DataOptions(skip_bad=True))


def test_labelled_files_that_do_not_exist_are_bad(tmp_path: Path) -> None:
    root = odd_folder(tmp_path / "odd")
    rows = [
        f"train/{name}/{i}.png,{name},{('train', 'val', 'test')[i % 3]}" for i in range(9) for name in ("cat", "dog")
    ]
    (root / "labels.csv").write_text("\n".join(["file,label,split", *rows, "train/cat/none.png,cat,train"]))
    answer = check_data(root, data_options=DataOptions(labels="labels.csv"))
    assert [(issue.file, issue.reason) for issue in answer.check.bad] == [("train/cat/none.png", "does not exist")]
    ignored = {issue.file: issue.reason for issue in answer.check.ignored}
    assert ignored["train/cat/12.png"] == "not listed in labels.csv"
    data = Images(root, options=DataOptions(labels="labels.csv", skip_bad=True))
    assert data.size("train") == 6


def test_a_class_without_images_in_a_split_is_noted(tmp_path: Path) -> None:
    root = odd_folder(tmp_path / "odd")
    rows = [f"train/{name}/{i}.png,{name},{'train' if i < 6 else 'val'}" for i in range(9) for name in ("cat", "dog")]
    rows = [row for row in rows if not row.endswith("dog,val")]
    (root / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    assert (
        "the class dog has no images in test"
        in check_data(root, data_options=DataOptions(labels="labels.csv")).check.notes
    )


def test_the_hash_of_a_listing_follows_the_files(tmp_path: Path) -> None:
    root = odd_folder(tmp_path / "odd")
    first = Images.listed(root).listing_hash()
    assert Images.listed(root).listing_hash() == first
    (root / "train" / "cat" / "1.png").write_bytes(b"")
    assert Images.listed(root).listing_hash() != first
    assert len(check_images(Images.listed(root)).bad) == len(BAD) + 2


JOB = """
schema = 1
targets = ["this/onnxruntime-cpu-fp32"]
budget = "300%"
space = { name = "mobilenetv3-tiny", fix = FIX }
latency = { calibration_networks = 8, bound_networks = 19, validation_networks = 6 }
accuracy = { subnets = 20, images = 40, calibration_images = 20 }
search = { candidates = 3, random_networks = 4, confidence = 0.6 }

[data]
name = "images"
path = "odd"

[data.transform]
resize = "both"

[training]
batch_size = 8
phases = [{ name = "all", steps = 6, learning_rate = 0.1 }]
"""
FIX = {
    "resolution": [24, 32],
    "depth_1": 1,
    "depth_2": [1, 3],
    "depth_3": [1, 3],
    "kernel_1_1": 3,
    "kernel_2_1": [3, 5],
}
FIX |= {f"kernel_{block}": 3 for block in ("2_2", "2_3", "3_1", "3_2", "3_3")}
FIX |= {"expansion_1_1": 2, "expansion_2_2": 4, "expansion_2_3": 4, "expansion_3_1": [2, 4], "expansion_3_2": 4}
FIX |= {"expansion_3_3": 4}


def job_file(folder: Path, *, skip_bad: bool) -> Path:
    fix = ", ".join(f"{name} = {value}" for name, value in FIX.items())
    text = JOB.replace("FIX", f"{{ {fix} }}")
    (folder / "job.toml").write_text(text.replace('"odd"\n', '"odd"\nskip_bad = true\n') if skip_bad else text)
    return folder / "job.toml"


def test_a_job_lists_all_bad_files_before_anything_is_timed(tmp_path: Path) -> None:
    odd_folder(tmp_path / "odd")
    with pytest.raises(DataError) as caught:
        compile_job(read_job(job_file(tmp_path, skip_bad=False)), tmp_path / "out")
    for name, (_, reason) in BAD.items():
        assert f"train/cat/{name}: " in str(caught.value)
        assert reason in str(caught.value)
    assert f"{len(BAD) + 1} of " in str(caught.value)
    assert "skip_bad = true under [data]" in str(caught.value)
    assert not list(tmp_path.glob("out/stages/profile-*"))


def test_a_bad_file_that_opening_does_not_find_is_found_by_the_first_stage(tmp_path: Path) -> None:
    root = odd_folder(tmp_path / "odd")
    for name in BAD:
        (root / "train" / "cat" / name).unlink()
    (root / "train" / "fox").rmdir()
    (root / "val" / "dog" / "1.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"1 of \d+ images of .*odd cannot be read:\n  val/dog/1\.png: not an image"):
        compile_job(read_job(job_file(tmp_path, skip_bad=False)), tmp_path / "out")
    assert [path.name.split("-")[0] for path in (tmp_path / "out" / "stages").iterdir()] == ["check"]


@pytest.mark.long
def test_with_skip_bad_the_job_runs_and_a_changed_test_image_leaves_its_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = odd_folder(tmp_path / "odd")
    job, out = read_job(job_file(tmp_path, skip_bad=True)), tmp_path / "out"
    [answer] = compile_job(job, out)["targets"].values()
    assert [stage["name"] for stage in answer["stages"]][:2] == ["check", "profile"]
    assert f"{len(BAD) + 1} bad images are left out" in caplog.text
    assert "1 files are in several splits" in caplog.text
    manifest = json.loads((out / answer["bundle"] / "manifest.json").read_text())
    assert manifest["input"]["transform"]["resize"]["side"] == "both"
    assert manifest["input"]["transform"]["crop"] is None
    [trained] = out.glob("stages/train-*")
    facts = read_facts(trained)
    assert "train/cat/cut.jpg" in facts.data["options"]["skip"]  # type: ignore[index,call-overload,operator]
    assert facts.data["options"]["transform"] == {"resize": "both"}  # type: ignore[index,call-overload]
    assert reopen_data(facts).transform(24) == Images(
        root, options=DataOptions(skip_bad=True, transform=job.data.transform)
    ).transform(24)
    data = json.loads((out / "figures.json").read_text())["provenance"]["Data"]
    assert data["folder"] == "odd" and data["images left out"] == str(len(BAD) + 1)
    assert json.loads(data["transform"]) == {"resize": "both"}
    assert all(stage.cached for stage in preview_job(job, out))
    noise(50, 50).save(root / "val" / "dog" / "0.png")
    rerun = {stage.name for stage in preview_job(job, out) if not stage.cached}
    assert rerun == {"check", "export", "bench"}
    noise(50, 50).save(root / "train" / "dog" / "0.png")
    assert {"train", "accuracy", "search"} <= {stage.name for stage in preview_job(job, out) if not stage.cached}


def test_a_training_that_an_older_version_began_keeps_its_key(tmp_path: Path) -> None:
    root = odd_folder(tmp_path / "odd")
    job, out = read_job(job_file(tmp_path, skip_bad=True)), tmp_path / "out"
    [new] = plan_job(job, out)
    data = new.context.data
    assert new.train.inputs["data"] == data.split_fingerprint("train")
    assert new.accuracy.inputs["data"] == data.split_fingerprint("validation")
    assert new.export.inputs["data"] == data.split_fingerprint("test")
    old = replace(new.train, inputs={**new.train.inputs, "data": data.fingerprint()})
    old.unfinished.mkdir(parents=True)
    [plan] = plan_job(job, out)
    assert plan.train.key == old.key
    assert plan.accuracy.inputs == new.accuracy.inputs and plan.export.inputs == new.export.inputs
    noise(50, 50).save(root / "val" / "dog" / "0.png")
    assert plan_job(job, out)[0].train.key == new.train.key


def test_a_repaired_image_is_found_when_the_check_is_executed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size and time may be what they were, or its drive was away for a moment."""
    root = odd_folder(tmp_path / "odd")
    choice = read_job(job_file(tmp_path, skip_bad=True)).data
    earlier = check_images(Images.listed(root, choice.options)).model_dump()
    earlier["bad"].append({"file": "train/dog/0.png", "reason": "cannot be read: Input/output error"})
    monkeypatch.setattr(Stage, "is_whole", lambda stage: True)
    monkeypatch.setattr(Stage, "result", lambda stage: earlier)
    once, _, _ = open_checked(choice, tmp_path / "stages", silent)
    again, _, _ = open_checked(choice, tmp_path / "stages", silent, again=True)
    assert again.size("train") == once.size("train") + 1


def test_a_metric_of_a_class_that_no_validation_image_has_is_refused_at_once(tmp_path: Path) -> None:
    for i in range(12):
        noise().save(tmp_path / f"{i}.png")
    rows = [f"{i}.png,{'defect' if i % 2 and i < 8 else 'ok'},{('train', 'test', 'val')[i // 4]}" for i in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    data = Images(tmp_path, options=DataOptions(labels="labels.csv"))
    with pytest.raises(InvalidValue, match=r"no validation image of images has the class defect, so f1 of defect"):
        check_positive(data, parse_metric("f1", data.classes, "defect"))
    check_positive(data, parse_metric("f1", data.classes, "ok"))
    check_positive(data, parse_metric("f1", data.classes))
