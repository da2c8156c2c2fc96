"""Several labels per image: what files mean, which splits they give, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pydantic
import pytest
import torch
from PIL import Image
from several import CLASSES, shapes

from hwnas.data import Augmentation, Data, DataOptions, Images, Split
from hwnas.data.check import check_images
from hwnas.errors import DataError, InvalidValue
from hwnas.testing import DatasetSuite

SPLITS: tuple[Split, ...] = get_args(Split)
HOW = DataOptions(labels="labels.csv", multi_label=True)


def labelled(root: Path, text: str, files: int = 12) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(files):
        Image.new("L", (10, 10), i).save(root / f"{i}.png")
    (root / "labels.csv").write_text(text)
    return root


class TestShapes(DatasetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, tmp_path_factory: pytest.TempPathFactory) -> Data:
        return Images(shapes(tmp_path_factory.mktemp("shapes"), 60), options=HOW)


def test_names_in_a_cell_and_columns_of_classes_mean_the_same(tmp_path: Path) -> None:
    listed = Images(shapes(tmp_path / "listed", 50), options=HOW)
    columns = Images(shapes(tmp_path / "columns", 50, columns=True), options=HOW)
    assert listed.task == columns.task == "multi-label"
    assert listed.classes == columns.classes == CLASSES
    for split in SPLITS:
        assert listed.files(split) == columns.files(split)
        for one, other in zip(listed.batches(split, 24), columns.batches(split, 24), strict=True):
            assert all(map(torch.equal, one, other))
    assert {0.0, 1.0} == set(listed.train_labels().unique().tolist())


def test_probabilities_stay_and_an_image_may_have_no_label(tmp_path: Path) -> None:
    text = "file,cat,dog,split\n0.png,1,0.8,train\n1.png,,0,train\n2.png,0.3,1,train\n3.png,1,1,val\n4.png,0,0,test\n"
    data = Images(labelled(tmp_path, text), options=HOW)
    labels = {name: values for (name, _), values in zip(data.files("train"), rows(data, "train"), strict=True)}
    assert labels == {"0.png": [1, pytest.approx(0.8)], "1.png": [0, 0], "2.png": [pytest.approx(0.3), 1]}
    assert (rows(data, "validation"), rows(data, "test")) == ([[1, 1]], [[0, 0]])
    assert [data.class_sizes(split) for split in SPLITS] == [[1, 2], [1, 1], [0, 0]]
    _, targets = data.train_batch(0, 3, 24, seed=0)
    assert sorted(targets.tolist()) == sorted(data.train_labels().tolist())
    notes = check_images(Images.listed(tmp_path, HOW)).notes
    assert notes == ["the class cat has no images in test", "the class dog has no images in test"]


def rows(data: Images, split: Split) -> list[list[float]]:
    found: list[list[float]] = torch.cat([labels for _, labels in data.batches(split, 24)]).tolist()
    return found


def test_mixed_images_have_mixed_labels(tmp_path: Path) -> None:
    data = Images(shapes(tmp_path, 50), options=HOW)
    plain = data.train_batch(0, 8, 24, seed=0)[1]
    _, mixed = data.train_batch(0, 8, 24, seed=0, augmentation=Augmentation(mixup=0.5))
    pairs = plain[[1, 0, 3, 2, 5, 4, 7, 6]]
    assert (mixed >= torch.minimum(plain, pairs) - 1e-6).all()
    assert (mixed <= torch.maximum(plain, pairs) + 1e-6).all()
    assert not torch.equal(mixed, plain)


def test_a_split_by_shares_keeps_rare_classes(tmp_path: Path) -> None:
    """Of 100 images, one has `rare`, always beside `cat`; every fourth has `dog`, every fifth no label."""

    def label(i: int) -> str:
        return ";".join(
            [*(["cat"] if i % 5 else []), *(["dog"] if i % 4 == 1 and i % 5 else []), *(["rare"] if i == 7 else [])]
        )

    text = "file,label\n" + "".join(f"{i}.png,{label(i)}\n" for i in range(100))
    root = labelled(tmp_path, text, 100)
    data = Images(root, options=HOW.model_copy(update={"split": (60.0, 20.0, 20.0)}))
    assert [data.size(split) for split in SPLITS] == [60, 20, 20]
    sizes = {split: dict(zip(data.classes, data.class_sizes(split), strict=True)) for split in SPLITS}
    assert sizes["train"]["rare"] == 1
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        assert abs(sizes[split]["dog"] - 20 * share) <= 1
        assert abs(sizes[split]["cat"] - 80 * share) <= 2
    files = [{name for name, _ in data.files(split)} for split in SPLITS]
    assert len(set.union(*files)) == 100
    other = Images(root, options=HOW.model_copy(update={"split": (60.0, 20.0, 20.0), "split_seed": 1}))
    assert {name for name, _ in other.files("test")} != files[2]


def test_without_a_test_split_training_images_are_held_out(tmp_path: Path) -> None:
    text = "file,label,split\n" + "".join(
        f"{i}.png,{('a', 'b', 'a;b', '')[i % 4]},{'val' if i >= 80 else 'train'}\n" for i in range(100)
    )
    data = Images(labelled(tmp_path, text, 100), options=HOW)
    assert [data.size(split) for split in SPLITS] == [72, 8, 20]
    assert data.class_sizes("validation")[0] == 4  # a tenth of those with the first of equally rare classes


def test_samples_of_a_split_are_stratified_by_the_rarest_class(tmp_path: Path) -> None:
    data = Images(shapes(tmp_path, 300), options=HOW)
    whole = torch.cat([labels for _, labels in data.batches("train", 24)])[:, 2].mean()
    for size in (10, 30, 60):
        part = next(data.batches("train", 24, limit=size))[1]
        assert abs(part[:, 2].mean() - whole) <= 1 / size  # the spot is the rarest


def test_labels_are_part_of_the_fingerprints(tmp_path: Path) -> None:
    text = "file,cat,dog,split\n0.png,1,0,train\n1.png,0,1,train\n2.png,1,0,val\n3.png,1,0,test\n"
    several = Images(labelled(tmp_path, text), options=HOW)
    shares = Images(tmp_path, options=HOW.model_copy(update={"multi_label": False}))
    assert several.fingerprint() != shares.fingerprint()
    before = [several.split_fingerprint(split) for split in SPLITS]
    assert all(one != shares.split_fingerprint(split) for one, split in zip(before, SPLITS, strict=True))
    (tmp_path / "labels.csv").write_text(text.replace("1,0,val", "1,0.5,val"))
    after = [Images(tmp_path, options=HOW).split_fingerprint(split) for split in SPLITS]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_options_are_recorded(tmp_path: Path) -> None:
    data = Images(shapes(tmp_path, 50), options=HOW)
    recorded = json.dumps(data.recorded_options())
    assert Images(tmp_path, options=DataOptions.model_validate_json(recorded)).fingerprint() == data.fingerprint()
    assert "multi_label" not in DataOptions(labels="labels.csv").model_dump()


def test_wrong_lines_are_listed(tmp_path: Path) -> None:
    text = "file,cat,dog,split\na.png,1,-1,train\nb.png,2,0,train\nc.png,many,1,train\nd.png,1\ne.png,1,0,dev\n"
    with pytest.raises(DataError) as caught:
        Images(labelled(tmp_path, text), options=HOW)
    for said in (
        "line 2: the probability of 'dog' in a.png is '-1'; it should be a number from 0 to 1",
        "line 3: the probability of 'cat' in b.png is '2'",
        "line 4: the probability of 'cat' in c.png is 'many'",
        "line 5: the split of d.png is ''",
        "line 6: the split of e.png is 'dev'",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label,split\n0.png,,train\n1.png,,val\n", "has only the class none; at least 2"),
        ("file,label,split\n0.png,cat,train\n1.png,cat,val\n", "has only the class cat"),
        (
            "file,label,split\n0.png,cat,train\n1.png,dog,val\n2.png,cat,train\n",
            "no training images of dog; .* at least",
        ),
        ("file,cat,dog,split\n0.png,1,0.4,train\n1.png,1,1,val\n2.png,1,0,train\n", "no training images of dog"),
        ("file,label,split\n0.png,cat;dog,train\n1.png,cat,val\n", "lists 1 training images; .* at least 2"),
        ("file,label,split\n0.png,cat;dog,train\n1.png,cat,train\n", "has only the split train"),
    ],
)
def test_a_wrong_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Images(labelled(tmp_path, text), options=HOW)


def test_the_option_is_named_where_it_may_be_missing(tmp_path: Path) -> None:
    text = "file,cat,dog,split\n0.png,1,0,train\n1.png,0,0,train\n"
    with pytest.raises(DataError, match=r"all its shares are 0; .* set multi_label = true \(--multi-label\)"):
        Images(labelled(tmp_path, text), options=DataOptions(labels="labels.csv"))
    text = "file,label,split\n" + "".join(
        f"{i}.png,{('cat', 'cat;dog')[i % 2]},{('train', 'val')[i // 4]}\n" for i in range(8)
    )
    listed = Images.listed(labelled(tmp_path, text), DataOptions(labels="labels.csv"))
    assert "cat;dog counts as one class; if it lists several labels of an image, set multi_label" in str(
        check_images(listed).notes
    )


def test_what_does_not_go_with_several_labels(tmp_path: Path) -> None:
    with pytest.raises(pydantic.ValidationError, match="several labels per image need labels, a CSV file"):
        DataOptions(multi_label=True)
    data = Images(shapes(tmp_path, 50), options=HOW)
    with pytest.raises(InvalidValue, match='sampler = "balanced" cannot draw each class equally often'):
        data.train_batch(0, 4, 24, seed=0, sampler="balanced")
