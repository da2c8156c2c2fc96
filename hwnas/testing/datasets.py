"""Test suites for datasets."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch

from hwnas.data import ImageData, Split, TokenData
from hwnas.data.sequences import PADDING, START
from hwnas.errors import InvalidValue

SIDES = (24, 32)
RECTANGLE = (24, 40)  # height and width
_COUNT = 8


class DatasetSuite:
    """Tests of a dataset of images; a subclass, named Test..., provides it as a class-scoped fixture `data`."""

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> ImageData:
        """The dataset under test; a subclass overrides it."""
        raise NotImplementedError("a subclass of DatasetSuite must define a class-scoped fixture `data`")

    def test_what_it_is(self, data: ImageData) -> None:
        assert data.name
        assert len(set(data.classes)) == len(data.classes) >= 2
        assert data.in_channels in (1, 3)
        assert len(data.mean) == len(data.std) == data.in_channels
        assert data.fingerprint() == data.fingerprint()

    @pytest.mark.parametrize("side", SIDES)
    def test_shapes_types_and_labels(self, data: ImageData, side: int) -> None:
        images, targets = data.train_batch(0, _COUNT, side, seed=0)
        several = data.task == "multi-label"
        if targets.dim() == 2 and not several:  # shares of several classes
            assert (targets.dtype, targets.shape[1]) == (torch.float32, len(data.classes))
            assert (targets >= 0).all()
            assert torch.allclose(targets.sum(dim=1), torch.ones(len(targets)))
            targets = targets.argmax(dim=1)
        batches = [(images, targets)]
        batches += [next(data.batches(split, side, limit=_COUNT)) for split in get_args(Split)]
        for x, y in batches:
            assert x.shape == (len(y), data.in_channels, side, side)
            assert 1 <= len(y) <= _COUNT
            assert x.dtype == torch.float32
            assert x.isfinite().all()
            if several:
                assert (y.dtype, y.shape[1]) == (torch.float32, len(data.classes))
                assert ((y >= 0) & (y <= 1)).all()
            else:
                assert y.dtype == torch.int64
                assert ((y >= 0) & (y < len(data.classes))).all()

    def test_rectangles_have_their_shape_or_are_refused(self, data: ImageData) -> None:
        if not data.rectangles:
            with pytest.raises(InvalidValue, match="has square images"):
                data.train_batch(0, _COUNT, RECTANGLE, seed=0)
            with pytest.raises(InvalidValue, match="has square images"):
                data.batches("test", RECTANGLE)
            return
        batches = [data.train_batch(0, _COUNT, RECTANGLE, seed=0), next(data.batches("test", RECTANGLE, limit=_COUNT))]
        for x, y in batches:
            assert x.shape == (len(y), data.in_channels, *RECTANGLE)

    def test_a_training_batch_depends_on_its_arguments_only(self, data: ImageData) -> None:
        first = data.train_batch(3, _COUNT, SIDES[0], seed=1)
        list(data.batches("validation", SIDES[0], limit=_COUNT))
        torch.manual_seed(123)
        again = data.train_batch(3, _COUNT, SIDES[0], seed=1)
        other = data.train_batch(4, _COUNT, SIDES[0], seed=1)
        assert all(map(torch.equal, first, again))
        assert not torch.equal(first[0], other[0])

    @pytest.mark.parametrize("split", get_args(Split))
    def test_a_split_has_the_same_images_every_time(self, data: ImageData, split: Split) -> None:
        first, again = (list(data.batches(split, SIDES[0], limit=_COUNT)) for _ in range(2))
        assert sum(len(y) for _, y in first) == min(_COUNT, data.size(split))
        for one, other in zip(first, again, strict=True):
            assert all(map(torch.equal, one, other))

    def test_reading_leaves_the_global_generator_alone(self, data: ImageData) -> None:
        before = torch.get_rng_state()
        data.train_batch(0, _COUNT, SIDES[0], seed=0)
        list(itertools.islice(data.batches("test", SIDES[0], limit=_COUNT), 1))
        assert torch.equal(torch.get_rng_state(), before)


class TokenSuite:
    """Tests of a dataset of sequences; a subclass, named Test..., provides it as a class-scoped fixture `data`."""

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> TokenData:
        """The dataset under test; a subclass overrides it."""
        raise NotImplementedError("a subclass of TokenSuite must define a class-scoped fixture `data`")

    def test_what_it_is(self, data: TokenData) -> None:
        assert data.name
        assert len(set(data.classes)) == len(data.classes) >= 2
        assert data.reads == (0, data.vocabulary)
        assert data.fingerprint() == data.fingerprint()

    def test_tokens_and_labels(self, data: TokenData) -> None:
        length = data.resolution
        batches = [data.train_batch(0, _COUNT, length, seed=0)]
        batches += [next(data.batches(split, length, limit=_COUNT)) for split in get_args(Split)]
        for x, y in batches:
            assert x.shape == (len(y), length)
            assert 1 <= len(y) <= _COUNT
            assert (x.dtype, y.dtype) == (torch.int64, torch.int64)
            assert ((x >= 0) & (x < data.vocabulary)).all()
            assert ((y >= 0) & (y < len(data.classes))).all()
            assert (x[:, 0] == START).all()
            there = x != PADDING
            assert (there[:, :-1] >= there[:, 1:]).all()  # padding is at the end

    def test_shorter_and_longer_sequences(self, data: TokenData) -> None:
        whole, _ = data.train_batch(1, _COUNT, data.resolution, seed=0)
        longer, _ = data.train_batch(1, _COUNT, data.resolution + 5, seed=0)
        assert torch.equal(longer[:, : data.resolution], whole)
        assert (longer[:, data.resolution :] == PADDING).all()
        shorter, _ = data.train_batch(1, _COUNT, 3, seed=0)
        assert shorter.shape == (_COUNT, 3)
        with pytest.raises(InvalidValue, match="at least 1"):
            data.train_batch(1, _COUNT, 0, seed=0)

    def test_a_training_batch_depends_on_its_arguments_only(self, data: TokenData) -> None:
        first = data.train_batch(3, _COUNT, data.resolution, seed=1)
        list(data.batches("validation", data.resolution, limit=_COUNT))
        torch.manual_seed(123)
        again = data.train_batch(3, _COUNT, data.resolution, seed=1)
        other = data.train_batch(4, _COUNT, data.resolution, seed=1)
        assert all(map(torch.equal, first, again))
        assert not torch.equal(first[0], other[0])
        parts = [data.train_batch(3, _COUNT, data.resolution, seed=1, part=(i, 2))[0] for i in range(2)]
        assert torch.equal(torch.cat(parts), first[0])

    @pytest.mark.parametrize("split", get_args(Split))
    def test_a_split_has_the_same_sequences_every_time(self, data: TokenData, split: Split) -> None:
        first, again = (list(data.batches(split, data.resolution, limit=_COUNT, batch_size=3)) for _ in range(2))
        assert sum(len(y) for _, y in first) == min(_COUNT, data.size(split))
        for one, other in zip(first, again, strict=True):
            assert all(map(torch.equal, one, other))
