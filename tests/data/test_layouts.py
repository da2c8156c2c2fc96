from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image

from hwnas.data import Augmentation, DataOptions, Images, Split
from hwnas.data.check import check_images
from hwnas.data.label_files import in_order
from hwnas.errors import DataError

SPLITS: tuple[Split, ...] = get_args(Split)
NUMBERS = iter(range(10**6))


def draw(path: Path, number: int | None = None) -> None:
    """An image whose colour is unique."""
    number = next(NUMBERS) if number is None else number
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (number % 256, number // 256 % 256, 7)).save(path)


def classes(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        for i in range(count):
            draw(root / name / f"{i}.png")
    return root


def counts(data: Images) -> dict[str, dict[str, int]]:
    return {split: dict(Counter(data.classes[label] for _, label in data.files(split))) for split in SPLITS}


def test_folders_below_a_class_folder_belong_to_the_class(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            draw(tmp_path / split / name / "0.png")
            draw(tmp_path / split / name / "indoors" / "night" / "1.png")
            draw(tmp_path / split / name / ".hidden" / "2.png")
    data = Images(tmp_path)
    assert counts(data)["train"] == {"cat": 2, "dog": 2}
    assert ("train/cat/indoors/night/1.png", 0) in data.files("train")
    assert next(data.batches("test", 16))[0].shape == (4, 3, 16, 16)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs symbolic links")
def test_a_loop_of_symbolic_links_ends(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        classes(tmp_path / split, {"cat": 1, "dog": 1})
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / "cat", target_is_directory=True)
    assert Images(tmp_path).size("train") == 2


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs symbolic links")
def test_folders_that_link_each_other_are_listed_once(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        classes(tmp_path / name, {"a": 3, "b": 2, "c": 1})
        for one in "abc":
            for other in "abc":
                if other != one:
                    (tmp_path / name / one / f"to_{other}").symlink_to(f"../{other}", target_is_directory=True)
    data = Images(tmp_path, options=DataOptions(split=(50, 25, 25)))
    files = [tmp_path / name for split in SPLITS for name, _ in data.files(split)]
    assert len(files) == len({file.resolve() for file in files}) == 12


def test_class_folders_are_split_by_shares(tmp_path: Path) -> None:
    root = classes(tmp_path, {"cat": 40, "dog": 20, "eel": 3})
    data = Images(root, options=DataOptions(split=(70, 15, 15)))
    assert counts(data) == {
        "train": {"cat": 28, "dog": 14, "eel": 1},
        "validation": {"cat": 6, "dog": 3, "eel": 1},
        "test": {"cat": 6, "dog": 3, "eel": 1},
    }
    files = [{name for name, _ in data.files(split)} for split in SPLITS]
    assert sum(map(len, files)) == len(set.union(*files)) == 63
    again = Images(root, options=DataOptions(split=(0.7, 0.15, 0.15)))
    other = Images(root, options=DataOptions(split=(70, 15, 15), split_seed=1))
    assert again.files("test") == data.files("test")
    assert set(other.files("test")) != set(data.files("test"))


def test_an_image_more_in_one_class_leaves_the_split_of_others(tmp_path: Path) -> None:
    root, how = classes(tmp_path, {"cat": 10, "dog": 10}), DataOptions(split=(60, 20, 20))
    before = {name for name, label in Images(root, options=how).files("test") if label == 0}
    draw(root / "dog" / "more.png")
    assert {name for name, label in Images(root, options=how).files("test") if label == 0} == before


def test_a_class_of_two_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the class dog of .* has 2 images; .* needs at least 3"):
        Images(classes(tmp_path, {"cat": 4, "dog": 2}), options=DataOptions(split=(70, 15, 15)))


def test_what_is_split_already_is_not_split_again(tmp_path: Path) -> None:
    for split in ("train", "val"):
        classes(tmp_path / split, {"cat": 4, "dog": 4})
    with pytest.raises(DataError, match=r"is already split \(it has train and val\); omit split"):
        Images(tmp_path, options=DataOptions(split=(70, 15, 15)))


def test_class_folders_without_shares_are_told_of_split(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no folder train, only cat, dog; .*<class>/ folders with --split 70,15,15"
    ):
        Images(classes(tmp_path, {"cat": 4, "dog": 4}))


def labelled(root: Path, text: str, files: int = 12) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(files):
        draw(root / "pictures" / f"{i}.png")
    (root / "labels.csv").write_text(text)
    return root


def rows(splits: str, labels: tuple[str, ...] = ("cat", "dog"), files: int = 12) -> str:
    names = splits.split(",")
    lines = [f"pictures/{i}.png,{labels[i % len(labels)]},{names[i // 2 % len(names)]}" for i in range(files)]
    return "file,label,split\n" + "\n".join(lines) + "\n"


def test_labels_from_a_csv_with_splits(tmp_path: Path) -> None:
    data = Images(labelled(tmp_path, rows("train,val,test")), options=DataOptions(labels="labels.csv"))
    assert data.classes == ("cat", "dog")
    assert counts(data) == {split: {"cat": 2, "dog": 2} for split in SPLITS}
    assert ("pictures/1.png", 1) in data.files("train")
    assert ("pictures/2.png", 0) in data.files("validation")


def test_a_csv_without_a_test_split_holds_out_as_folders_do(tmp_path: Path) -> None:
    data = Images(labelled(tmp_path, rows("train,train,val", files=30), 30), options=DataOptions(labels="labels.csv"))
    assert counts(data) == {
        "train": {"cat": 9, "dog": 9},
        "validation": {"cat": 1, "dog": 1},
        "test": {"cat": 5, "dog": 5},
    }


def test_a_csv_without_splits_is_split_by_shares(tmp_path: Path) -> None:
    text = "file,label\n" + "".join(f"pictures/{i}.png,{(10, 9, 100)[i % 3]}\n" for i in range(30))
    how = DataOptions(labels="labels.csv", split=(80, 10, 10))
    data = Images(labelled(tmp_path, text, 30), options=how)
    assert data.classes == ("9", "10", "100")  # numbers are in numeric order
    assert counts(data)["train"] == {"9": 8, "10": 8, "100": 8}
    with pytest.raises(DataError, match=r"no column split; add one .*--split 70,15,15"):
        Images(tmp_path, options=DataOptions(labels="labels.csv"))


def test_the_csv_may_be_elsewhere_and_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    labelled(tmp_path / "data", "")
    (tmp_path / "mine.csv").write_text(rows("train,val,test"), encoding="utf-8-sig")
    data = Images(tmp_path / "data", options=DataOptions(labels=str(tmp_path / "mine.csv")))
    assert data.size("train") == 4


def test_all_wrong_lines_of_a_csv_are_listed(tmp_path: Path) -> None:
    text = (
        rows("train,val,test")
        + "pictures/0.png,cat,train\n,cat,train\n../x.png,cat,train\npictures/9,,train\na,b,dev\n"
    )
    with pytest.raises(DataError) as caught:
        Images(labelled(tmp_path, text), options=DataOptions(labels="labels.csv"))
    said = str(caught.value)
    assert "has 5 wrong lines" in said
    for line in (
        "line 14: pictures/0.png is already in line 2",
        "line 15: the file is missing",
        "line 16: ../x.png is not a path below the dataset's folder",
        "line 17: pictures/9 has no label",
        "line 18: the split of a is 'dev'; it should be one of train, val",
    ):
        assert line in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name;class\n", r"has the columns name;class; its first line should be file,label"),
        ("file,cat,split\n", "or for shares of several classes file and the name of each class"),
        ("file,cat,dog,cat,split\n", "two columns of one name"),
        (",file,cat,dog,split\n0,a.png,1,0,train\n", r"column 1 of .* has no readable name"),
        ("file, cat,dog,split\n", "lists no images"),
        ("file,label,split\na.png,cat,train\nb.png,cat,val\n", "only the class cat"),
        ("file,label,split\na.png,cat,train\nb.png,dog,train\n", "has only the split train"),
        ("file,label,split\na.png,cat,train\nb.png,cat,train\nc.png,dog,val\n", "no training images of dog"),
    ],
)
def test_a_wrong_csv(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Images(labelled(tmp_path, text), options=DataOptions(labels="labels.csv"))


def test_shares_of_several_classes(tmp_path: Path) -> None:
    """Probabilities, votes, or several classes: a training learns the shares, an evaluation the largest."""
    shares = ("1,0,0", "0.25,0.75,0", "1,1,", "0,3,1", "0,0,1", "2,0,2")
    lines = [f"pictures/{i}.png,{shares[i % 6]},{['train', 'val', 'test'][i // 6]}" for i in range(18)]
    text = "file,cat,dog,bird,split\n" + "\n".join(lines) + "\n"
    data = Images(labelled(tmp_path, text, 18), options=DataOptions(labels="labels.csv"))
    assert data.classes == ("cat", "dog", "bird")  # the order of the columns
    labels = {0: 0, 1: 1, 2: 0, 3: 1, 4: 2, 5: 0}  # the first of equal ones
    assert dict(data.files("train")) == {f"pictures/{i}.png": label for i, label in labels.items()}
    images, targets = data.train_batch(0, 6, 24, seed=0)
    assert (images.shape, targets.shape, targets.dtype) == ((6, 3, 24, 24), (6, 3), torch.float32)
    expected = [[1, 0, 0], [0.25, 0.75, 0], [0.5, 0.5, 0], [0, 0.75, 0.25], [0, 0, 1], [0.5, 0, 0.5]]
    assert sorted(targets.tolist()) == sorted(expected)
    mixed = data.train_batch(0, 6, 24, seed=0, augmentation=Augmentation(mixup=0.5))[1]
    assert torch.allclose(mixed.sum(dim=1), torch.ones(6))
    [(_, evaluated)] = data.batches("validation", 24)
    assert sorted(evaluated.tolist()) == [0, 0, 0, 1, 1, 2]
    before = data.split_fingerprint("train"), data.split_fingerprint("test")
    (tmp_path / "labels.csv").write_text(text.replace("0.25,0.75,0,train", "0.3,0.7,0,train"))
    changed = Images(tmp_path, options=DataOptions(labels="labels.csv"))
    assert changed.split_fingerprint("train") != before[0]
    assert changed.split_fingerprint("test") == before[1]


def test_wrong_shares(tmp_path: Path) -> None:
    text = "file,cat,dog,split\na.png,1,-1,train\nb.png,0,0,train\nc.png,many,1,train\nd.png,inf,1,train\n"
    text += "e.png,1e308,1e308,train\nf.png,0,67,train,0,33\ng.png,1\n"
    with pytest.raises(DataError) as caught:
        Images(labelled(tmp_path, text), options=DataOptions(labels="labels.csv"))
    for said in (
        "line 2: the share of 'dog' in a.png is '-1'; it should be a number from 0 to 1e+12",
        "line 3: b.png has no label: all its shares are 0",
        "line 4: the share of 'cat' in c.png is 'many'",
        "line 5: the share of 'cat' in d.png is 'inf'",
        "line 6: the share of 'cat' in e.png is '1e308'",
        "line 7: the line of f.png has more cells than the first line",
        "line 8: the split of g.png is ''",
    ):
        assert said in str(caught.value)


def test_a_missing_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the labels .*none\.csv"):
        Images(tmp_path, options=DataOptions(labels="none.csv"))


def test_options_survive_a_move(tmp_path: Path) -> None:
    how = DataOptions(split=(70, 15, 15), split_seed=3)
    data = Images(classes(tmp_path / "a", {"cat": 9, "dog": 9}), options=how)
    images, labels = next(data.batches("test", 16))
    (tmp_path / "a").rename(tmp_path / "b")
    moved = Images(tmp_path / "b", options=DataOptions.model_validate_json(json.dumps(data.recorded_options())))
    again = next(moved.batches("test", 16))
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], labels)


@pytest.mark.parametrize("changed", SPLITS)
def test_a_fingerprint_per_split(tmp_path: Path, changed: Split) -> None:
    for split in ("train", "val", "test"):
        classes(tmp_path / split, {"cat": 2, "dog": 2})
    before = Images(tmp_path)
    prints, whole = {split: before.split_fingerprint(split) for split in SPLITS}, before.fingerprint()
    assert len(set(prints.values())) == 3
    Image.new("RGB", (99, 99)).save(tmp_path / before.files(changed)[0][0])
    after = Images(tmp_path)
    assert after.fingerprint() != whole
    assert [split for split in SPLITS if after.split_fingerprint(split) != prints[split]] == [changed]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("file,label\n0.png,crack,soiled\n", {"multi_label": True}, "line of 0.png has more cells"),
        ("file,label\n0.png,big cat, red\n", {}, "label with a comma in quotes"),
        ("file,label,label\n0.png,cat,dog\n", {}, "two columns of one name"),
        ('file,label\n0.png,"big\ncat"\n', {}, "cannot be printed"),
        ("file,label\n0.png,cat\n./0.png,dog\n", {}, "0.png is already in line 2"),
        (".//0.png".join(("file,label\n0.png,cat\n", ",dog\n")), {}, "0.png is already in line 2"),
    ],
)
def test_cells_and_paths_of_a_csv_are_taken_as_they_are_meant(
    tmp_path: Path, text: str, options: dict[str, bool], said: str
) -> None:
    root = labelled(tmp_path, text)
    with pytest.raises(DataError, match=said):
        Images(root, options=DataOptions(labels="labels.csv", split=(60, 20, 20), **options))


def test_a_path_with_dots_is_the_file(tmp_path: Path) -> None:
    text = "file,label\n" + "".join(f"./pictures/{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(12))
    options = DataOptions(labels="./labels.csv", split=(60, 20, 20))
    root = labelled(tmp_path, text)
    assert sorted(name for split in SPLITS for name, _ in Images(root, options=options).files(split)) == sorted(
        f"pictures/{i}.png" for i in range(12)
    )
    assert check_images(Images.listed(root, options)).ignored == []


def test_the_order_of_numbers_does_not_depend_on_the_process() -> None:
    assert in_order({"02", "1", "2", "01"}) == ["01", "1", "02", "2"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            Image.new("L", (8, 8), 7).save(tmp_path / (split + ".png"))
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("L", (8, 8), 7).save(tmp_path / split / name / "a.png")
    os.mkfifo(tmp_path / "train" / "cat" / "b.png")
    data = Images(tmp_path)
    with pytest.raises(DataError, match="not a regular file"):
        list(data.batches("train", 8))
