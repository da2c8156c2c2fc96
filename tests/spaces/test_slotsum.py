"""A sum of merged arrays is the sum over the slots, whatever the slots read."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.spaces import SPACES, Codes, SlotSum, make_space

MERGED = 2**16  # the largest array that merging makes


def direct(total: SlotSum, codes: Codes) -> npt.NDArray[np.float64]:
    return total.constant + total.per_slot(codes).sum(axis=1)


def close(got: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> None:
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=0)


def sum_of(lengths: list[int], axes: list[tuple[int, ...]], seed: int = 0) -> SlotSum:
    """A sum of positive terms, so that a relative error means something."""
    rng = np.random.default_rng(seed)
    arrays = tuple(rng.uniform(0.1, 1, [lengths[a] for a in own]) for own in axes)
    return SlotSum(constant=float(rng.uniform(0, 10)), axes=tuple(axes), arrays=arrays)


def codes_for(lengths: list[int], n: int, seed: int = 1) -> Codes:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(length, size=n, dtype=np.uint8) for length in lengths], axis=1)


@st.composite
def sums(draw: st.DrawFn) -> tuple[SlotSum, Codes]:
    """Slots that read any variables in any order, some of them none; some variables have one value or no reader."""
    lengths = draw(st.lists(st.one_of(st.integers(1, 5), st.integers(1, 40)), min_size=1, max_size=12))
    columns = st.lists(st.sampled_from(range(len(lengths))), unique=True, max_size=4).map(tuple)
    axes = draw(st.lists(columns.filter(lambda own: math.prod(lengths[a] for a in own) <= 50_000), min_size=1))
    total = sum_of(lengths, axes, seed=draw(st.integers(0, 99)))
    return total, codes_for(lengths, draw(st.integers(0, 50)))


@settings(max_examples=200, deadline=None)
@given(sums())
def test_the_sum_is_that_of_its_terms(drawn: tuple[SlotSum, Codes]) -> None:
    total, codes = drawn
    close(total(codes), direct(total, codes))
    close(total(np.asfortranarray(codes)), direct(total, codes))


@pytest.mark.parametrize("name", SPACES)
def test_every_space_whole_and_restricted(name: str) -> None:
    whole = make_space(name)
    smallest = {v.name: v.values[0] for v in whole.variables}
    for space in (whole, whole.fix(**{whole.reads.size: whole.variables[0].values[-1]}), whole.fix(**smallest)):
        rng = np.random.default_rng(0)
        cost = {op: rng.uniform(0.01, 1) for op in space.distinct_ops}
        total = space.slot_sum(cost.__getitem__)
        codes = space.sample(5000, seed=3)  # more than one batch of rows, and a part of one
        close(total(codes), direct(total, codes))
        assert np.array_equal(space.macs(codes), space.macs.per_slot(codes).sum(axis=1))


def test_no_rows() -> None:
    total = make_space("mobilenetv3").macs
    assert total(np.zeros((0, 46), np.uint8)).shape == (0,)


def test_no_slots_and_slots_that_read_nothing() -> None:
    codes = np.zeros((3, 2), np.uint8)
    assert SlotSum(constant=2.5, axes=(), arrays=())(codes).tolist() == [2.5] * 3
    constants = SlotSum(constant=2.5, axes=((), ()), arrays=(np.array(1.0), np.array(4.0)))
    assert constants(codes).tolist() == [7.5] * 3
    assert constants(codes[:, :0]).tolist() == [7.5] * 3


def test_more_variables_than_an_array_may_have_axes() -> None:
    lengths = [1] * 100 + [2]
    total = sum_of(lengths, [(i, 100) for i in range(100)] + [(i,) for i in range(100)])
    codes = codes_for(lengths, 10)
    close(total(codes), direct(total, codes))


def test_large_arrays_stay_apart_and_take_in_what_reads_no_more() -> None:
    lengths = [40, 40, 40, 40, 2]
    axes = [(0, 1, 2), (3, 2, 1), (2, 0), (1, 3), (4, 0, 1)]
    total = sum_of(lengths, axes)
    # 64,000 entries each; a joint array of the first two would have 2,560,000.
    assert total._lookup.table.size == 2 * 40**3 + 2 * 40**2
    codes = codes_for(lengths, 3000)
    close(total(codes), direct(total, codes))


def test_places_beyond_single_precision_are_exact() -> None:
    lengths = [2, 129, 256, 256]
    assert math.prod(lengths) > 2**24
    array = np.arange(math.prod(lengths), dtype=np.float64).reshape(lengths)
    total = SlotSum(constant=0.5, axes=((0, 1, 2, 3), (3,)), arrays=(array, np.zeros(256)))
    last = np.array([[1, 128, 255, odd] for odd in (251, 253, 254, 255)], np.uint8)
    assert np.array_equal(total(last), direct(total, last))


def test_a_space_of_24_slots_takes_few_lookups() -> None:
    total = make_space("mobilenetv3").macs
    assert len(total.arrays) == 24
    assert len(total._lookup.offsets) <= 7
    assert total._lookup.table.size <= 7 * MERGED


def test_a_replaced_sum_forgets_the_merged_arrays() -> None:
    total = sum_of([3, 4], [(0,), (1,)])
    codes = codes_for([3, 4], 20)
    doubled = replace(total, constant=0.0, arrays=tuple(2 * array for array in total.arrays))
    close(2 * (total(codes) - total.constant), doubled(codes))
    close(doubled(codes), direct(doubled, codes))
