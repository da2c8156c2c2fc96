from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import TableError
from hwnas.latency import LatencyTable, Row
from hwnas.latency.diff import diff_tables
from hwnas.spaces import Space
from hwnas.targets import Target

Make = Callable[..., LatencyTable]


@pytest.fixture(scope="module")
def table(space: Space, elsewhere: Target, make_table: Make) -> LatencyTable:
    # Nothing is run: the versions are of the host, which does not matter here.
    return make_table(space, elsewhere)


def times(table: LatencyTable, factors: dict[str, float]) -> LatencyTable:
    """The table with some rows slower; the others are left out."""
    rows = {
        key: replace(
            table.rows[key],
            latency_ms_p25=table.rows[key].latency_ms_p25 * factor,
            latency_ms_p50=1.0,  # only p25 counts
        )
        for key, factor in factors.items()
    }
    return replace(table, rows=rows)


def test_a_table_and_itself(table: LatencyTable) -> None:
    found = diff_tables(table, table)
    assert (found.a, found.b) == ("board/made-up", "board/made-up")
    assert (found.ratio_p5, found.ratio_median, found.ratio_p95) == (1, 1, 1)
    assert found.kendall_tau == pytest.approx(1)
    assert (found.only_a, found.only_b) == ((), ())
    assert {op.op for op in found.ops} == set(table.rows)


def test_rows_side_by_side(table: LatencyTable) -> None:
    keys = sorted(table.rows)
    factors = dict.fromkeys(keys[2:], 1.1) | {keys[2]: 0.4, keys[3]: 2.0}
    found = diff_tables(table, times(table, factors))
    assert found.only_a == tuple(keys[:2])
    assert found.only_b == ()
    # 0.4 is further from 1 than 2 is.
    assert [op.op for op in found.ops[:2]] == [keys[2], keys[3]]
    for op in found.ops:
        assert op.ratio == pytest.approx(factors[op.op])
        assert op.a_ms == table.rows[op.op].latency_ms_p25
        assert op.b_ms == pytest.approx(op.a_ms * factors[op.op])
    quantiles = np.quantile(list(factors.values()), (0.05, 0.5, 0.95))
    assert (found.ratio_p5, found.ratio_median, found.ratio_p95) == pytest.approx(tuple(quantiles))


def test_the_other_way_round(table: LatencyTable) -> None:
    keys = sorted(table.rows)
    other = times(table, {key: 1 + i / 10 for i, key in enumerate(keys[1:])})
    there, back = diff_tables(table, other), diff_tables(other, table)
    assert back.only_b == there.only_a == (keys[0],)
    assert back.kendall_tau == pytest.approx(there.kendall_tau)
    assert {op.op: op.ratio for op in back.ops} == pytest.approx({op.op: 1 / op.ratio for op in there.ops})


@given(order=st.permutations(range(5)))
def test_rank_correlation_by_counting_pairs(table: LatencyTable, order: list[int]) -> None:
    def made(values: Sequence[int]) -> LatencyTable:
        rows = [Row(latency_ms_p25=1.0 + v, latency_ms_p50=9.0, latency_ms_p90=9.0, samples=1) for v in values]
        return replace(table, rows=dict(zip(sorted(table.rows), rows, strict=False)))

    pairs = [(i, j) for i in range(5) for j in range(i)]
    agreeing = sum(1 if order[i] > order[j] else -1 for i, j in pairs)
    assert diff_tables(made(range(5)), made(order)).kendall_tau == pytest.approx(agreeing / len(pairs))


def test_one_op_has_no_ranks(table: LatencyTable) -> None:
    [key, *_] = table.rows
    found = diff_tables(times(table, {key: 1.0}), table)
    assert found.kendall_tau is None
    assert found.ratio_median == 1


def test_nothing_in_common(table: LatencyTable) -> None:
    a, b, *_ = table.rows
    with pytest.raises(TableError, match=r"board/made-up \(1 rows\) and board/made-up \(1 rows\) have no op in common"):
        diff_tables(times(table, {a: 1.0}), times(table, {b: 1.0}))
