"""Test suite for datasets."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch

from hwnas.data import Data, Split
from hwnas.errors import InvalidValue

SIDES = (24, 32)
RECTANGLE = (24, 40)  # height and width
_COUNT = 8


class DatasetSuite:
    """Tests of a dataset; a subclass, named Test..., provides it as a class-scoped fixture `data`."""

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> Data:
        """The dataset under test; a subclass overrides it."""
        raise NotImplementedError("a subclass of DatasetSuite must define a class-scoped fixture `data`")

    def test_what_it_is(self, data: Data) -> None:
        assert data.name
        assert len(set(data.classes)) == len(data.classes) >= 2
        assert data.in_channels in (1, 3)
        assert len(data.mean) == len(data.std) == data.in_channels
        assert data.fingerprint() == data.fingerprint()

    @pytest.mark.parametrize("side", SIDES)
    def test_shapes_types_and_labels(self, data: Data, side: int) -> None:
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

    def test_rectangles_have_their_shape_or_are_refused(self, data: Data) -> None:
        if not data.rectangles:
            with pytest.raises(InvalidValue, match="has square images"):
                data.train_batch(0, _COUNT, RECTANGLE, seed=0)
            with pytest.raises(InvalidValue, match="has square images"):
                data.batches("test", RECTANGLE)
            return
        batches = [data.train_batch(0, _COUNT, RECTANGLE, seed=0), next(data.batches("test", RECTANGLE, limit=_COUNT))]
        for x, y in batches:
            assert x.shape == (len(y), data.in_channels, *RECTANGLE)

    def test_a_training_batch_depends_on_its_arguments_only(self, data: Data) -> None:
        first = data.train_batch(3, _COUNT, SIDES[0], seed=1)
        list(data.batches("validation", SIDES[0], limit=_COUNT))
        torch.manual_seed(123)
        again = data.train_batch(3, _COUNT, SIDES[0], seed=1)
        other = data.train_batch(4, _COUNT, SIDES[0], seed=1)
        assert all(map(torch.equal, first, again))
        assert not torch.equal(first[0], other[0])

    @pytest.mark.parametrize("split", get_args(Split))
    def test_a_split_has_the_same_images_every_time(self, data: Data, split: Split) -> None:
        first, again = (list(data.batches(split, SIDES[0], limit=_COUNT)) for _ in range(2))
        assert sum(len(y) for _, y in first) == min(_COUNT, data.size(split))
        for one, other in zip(first, again, strict=True):
            assert all(map(torch.equal, one, other))

    def test_reading_leaves_the_global_generator_alone(self, data: Data) -> None:
        before = torch.get_rng_state()
        data.train_batch(0, _COUNT, SIDES[0], seed=0)
        list(itertools.islice(data.batches("test", SIDES[0], limit=_COUNT), 1))
        assert torch.equal(torch.get_rng_state(), before)
