"""Differences between two latency tables, op by op."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from hwnas.errors import TableError
from hwnas.latency.table import LatencyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class OpDiff:
    """An op in both tables: its p25 in each, in milliseconds, and ``b_ms / a_ms``."""

    op: str
    a_ms: float
    b_ms: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDiff:
    """Comparison of two tables.

    Attributes:
        a, b: names of the targets.
        ops: the common ops, by decreasing difference; ratios of 1/2 and 2 rank equally.
        ratio_p5, ratio_median, ratio_p95: quantiles of the ratios ``b / a`` over these ops.
        kendall_tau: rank correlation of their latencies; None if undefined, e.g. for a single op.
        only_a, only_b: keys of the ops in one table only, sorted.
    """

    a: str
    b: str
    ops: tuple[OpDiff, ...]
    ratio_p5: float
    ratio_median: float
    ratio_p95: float
    kendall_tau: float | None
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def diff_tables(a: LatencyTable, b: LatencyTable) -> TableDiff:
    """Compare two tables by p25, the quantile that predictions use.

    Args:
        a: the reference table.
        b: the other table, e.g. of the same target on another day, or of another target.

    Raises:
        TableError: they have no op in common.
    """
    common = sorted(a.rows.keys() & b.rows.keys())
    if not common:
        raise TableError(
            f"the tables of {a.target.name} ({len(a.rows)} rows) and {b.target.name} ({len(b.rows)} rows) have no op "
            "in common; tables of the same space and resolution do. `hwnas tables show --json` lists all ops of a table"
        )
    a_ms = np.array([a.rows[key].latency_ms_p25 for key in common])
    b_ms = np.array([b.rows[key].latency_ms_p25 for key in common])
    ratios = b_ms / a_ms
    p5, median, p95 = (float(q) for q in np.quantile(ratios, (0.05, 0.5, 0.95)))
    ranked = len(np.unique(a_ms)) > 1 and len(np.unique(b_ms)) > 1
    ops = [
        OpDiff(op=key, a_ms=float(x), b_ms=float(y), ratio=float(ratio))
        for key, x, y, ratio in zip(common, a_ms, b_ms, ratios, strict=True)
    ]
    return TableDiff(
        a=a.target.name,
        b=b.target.name,
        ops=tuple(sorted(ops, key=lambda op: -abs(math.log(op.ratio)))),
        ratio_p5=p5,
        ratio_median=median,
        ratio_p95=p95,
        kendall_tau=float(stats.kendalltau(a_ms, b_ms).statistic) if ranked else None,
        only_a=tuple(sorted(a.rows.keys() - b.rows.keys())),
        only_b=tuple(sorted(b.rows.keys() - a.rows.keys())),
    )
