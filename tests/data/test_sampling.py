from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.data import ClutteredDigits, Images
from hwnas.data.sampling import Balanced
from hwnas.errors import InvalidValue

LABELS = torch.tensor([0] * 20 + [2] * 5 + [1] * 3)


def test_each_round_has_one_image_of_each_class() -> None:
    draw = Balanced(LABELS)
    drawn = [draw(7, place) for place in range(120)]
    for start in range(0, 120, 3):
        assert sorted(LABELS[drawn[start : start + 3]].tolist()) == [0, 1, 2]
    # 40 rounds are 2 epochs of the first class, 8 of the second, and 13 and a third of the third.
    counts = Counter(drawn)
    assert {counts[i] for i in range(20)} == {2}
    assert {counts[i] for i in range(20, 25)} == {8}
    assert {counts[i] for i in range(25, 28)} <= {13, 14}


def test_an_order_depends_on_the_seed_and_the_place_only() -> None:
    places = list(range(60))
    order = [Balanced(LABELS)(7, place) for place in places]
    backwards = Balanced(LABELS)
    assert [backwards(7, place) for place in reversed(places)] == order[::-1]
    assert [backwards(8, place) for place in places] != order


def test_parts_of_a_balanced_batch_are_those_of_the_whole(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        for name, count in {"a": 6, "b": 2}.items():
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((16, 16), 30 * i, np.uint8)).save(tmp_path / split / name / f"{i}.png")
    data = Images(tmp_path)
    images, labels = data.train_batch(1, 8, 16, seed=0, sampler="balanced")
    assert labels.bincount().tolist() == [4, 4]
    parts = [data.train_batch(1, 8, 16, seed=0, sampler="balanced", part=(i, 2)) for i in (0, 1)]
    assert torch.equal(torch.cat([part[0] for part in parts]), images)
    assert torch.equal(torch.cat([part[1] for part in parts]), labels)


def test_generated_images_have_no_balanced_sampler() -> None:
    with pytest.raises(InvalidValue, match='cluttered-digits has no balanced sampler; write sampler = "shuffled"'):
        ClutteredDigits().train_batch(0, 8, 32, seed=0, sampler="balanced")
