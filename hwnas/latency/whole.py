"""Latencies of whole networks in a CSV file: a column ``arch`` and a column ``latency_ms``.

An arch is written as its values (``{"resolution": 32, …}``, the ``arch`` of hwnas's JSON files), or in the notation of
the literature for spaces that have one: a cell of NAS-Bench-201, FBNet's 22 numbers, a genotype of DARTS.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwnas.errors import HwnasError, InvalidValue, TableError, some
from hwnas.spaces import Arch, Codes, Space
from hwnas.spaces.catalog import parse_notation

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float64]

ARCH_COLUMNS, LATENCY_COLUMNS = ("arch", "code", "codes"), ("latency_ms", "latency")
AGREE = 0.1  # relative difference of two measurements of a network, above which one of them is wrong
IMPLAUSIBLE = 5.0  # a network this many times faster or slower than its MACs or the sources suggest was not measured
SAME_UNIT = 50.0  # a target this many times faster or slower than every expectation is in another unit
MACS_PER_S = (1e7, 1e13)  # of whole networks at batch 1: from microcontrollers to the largest GPUs


@dataclass(frozen=True, kw_only=True)
class WholeNetworks:
    """Measured whole networks of a space.

    Attributes:
        space: their space.
        codes: ``(n, variables)``, each network once.
        latency_ms: ``(n,)``; the median of repeated measurements.
        repeated: number of networks that were measured several times.
        disagreement: the largest relative difference of two measurements of a network; 0 without repetitions.
        name: of the file.
        sha256: of its content.
    """

    space: Space
    codes: Codes
    latency_ms: Floats
    repeated: int
    disagreement: float
    name: str
    sha256: str

    def __len__(self) -> int:
        return len(self.codes)

    def without(self, rows: npt.NDArray[np.bool_]) -> WholeNetworks:
        """The networks of the other rows."""
        from dataclasses import replace

        return replace(self, codes=self.codes[~rows], latency_ms=self.latency_ms[~rows])


def read_networks(path: Path, space: Space, column: str | None = None) -> WholeNetworks:
    """Read and check a file.

    Args:
        path: the CSV file.
        space: of the networks.
        column: name of the latencies' column; `latency_ms` or `latency`, or the only other column, if None.

    Raises:
        TableError: the file cannot be read, has no such columns, or a row is not a network of the space or has no
            positive latency.
        InvalidValue: measurements of a network differ by more than 10%, all latencies are equal, or their unit seems to
            be another one.
    """
    try:
        content = path.read_bytes()
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))  # spreadsheets start with a BOM
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}; name a CSV file of networks and latencies") from error
    except (ValueError, csv.Error) as error:
        raise TableError(
            f"{path} is not a CSV file with a header ({error}); its columns should be arch and latency_ms"
        ) from error
    if not lines:
        raise TableError(f"{path} is empty; it should be a CSV file with the columns arch and latency_ms")
    header, *rows = lines
    arch_at, latency_at = _columns(path, [name.strip() for name in header], column)
    found: dict[bytes, list[float]] = {}
    order: list[Codes] = []
    for number, cells in enumerate(rows, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}, line {number}"
        if len(cells) != len(header):
            raise TableError(f"{where}: {len(cells)} cells; the header has {len(header)}")
        code = space.encode([_arch(cells[arch_at].strip(), space, where)])[0]
        if code.tobytes() not in found:
            order.append(code)
        found.setdefault(code.tobytes(), []).append(_latency(cells[latency_at], where))
    if not order:
        raise TableError(f"{path} has no rows; each should be a network and its latency in milliseconds")
    codes = np.stack(order)
    _check_agreement(path, space, codes, found)
    latency_ms = np.array([float(np.median(found[code.tobytes()])) for code in order])
    if len(order) > 2 and np.ptp(latency_ms) == 0:
        raise InvalidValue(
            f"{path}: all {len(order)} latencies are {latency_ms[0]:g} ms. Different networks take different times: "
            "name the column of the measured latencies, with more digits if the tool rounds them"
        )
    _check_unit(path, space, codes, latency_ms)
    spreads = [max(times) / min(times) - 1 for times in found.values()]
    return WholeNetworks(
        space=space,
        codes=codes,
        latency_ms=latency_ms,
        repeated=sum(len(times) > 1 for times in found.values()),
        disagreement=max(spreads),
        name=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def networks_csv(space: Space, codes: Codes) -> str:
    """Networks as CSV with an empty column of latencies, for a tool that times them: `read_networks` reads it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("arch", "latency_ms"))
    for arch in space.decode(codes):
        writer.writerow((json.dumps(dict(arch)), ""))
    return text.getvalue()


def _columns(path: Path, header: Sequence[str], column: str | None) -> tuple[int, int]:
    """Indices of the columns of archs and latencies."""
    archs = [name for name in header if name in ARCH_COLUMNS]
    if not archs:
        raise TableError(f"{path} has the columns {', '.join(header) or 'none'}; one should be arch, the networks")
    others = [name for name in header if name != archs[0]]
    named = [name for name in others if name in LATENCY_COLUMNS] or others
    wanted = column or (named[0] if len(named) == 1 else None)
    if wanted not in others:
        problem = f"no column {column!r}" if column else f"{len(others)} columns beside {archs[0]}"
        raise TableError(
            f"{path} has {problem}; choose the latencies with --column, one of: {', '.join(others) or 'none'}"
        )
    return header.index(archs[0]), header.index(wanted)


def _arch(text: str, space: Space, where: str) -> Arch:
    try:
        if text.startswith("{"):
            values = json.loads(text)
            return space.arch(values.get("arch", values))
        return parse_notation(space, text)
    except RecursionError as error:
        raise TableError(f"{where}: {text!r:.80} is not a network of {space.name}: it is nested too deep") from error
    except (HwnasError, ValueError, TypeError, AttributeError) as error:
        raise TableError(f"{where}: {text!r:.80} is not a network of {space.name}: {error}") from error


def _latency(text: str, where: str) -> float:
    try:
        latency_ms = float(text)
    except ValueError:
        latency_ms = math.nan
    if not (math.isfinite(latency_ms) and latency_ms > 0):
        raise TableError(f"{where}: the latency is {text!r}; it should be a positive number of milliseconds")
    return latency_ms


def _check_agreement(path: Path, space: Space, codes: Codes, found: dict[bytes, list[float]]) -> None:
    worst = max(codes, key=lambda code: max(found[code.tobytes()]) / min(found[code.tobytes()]))
    times = found[worst.tobytes()]
    if max(times) / min(times) - 1 > AGREE:
        [arch] = space.decode(worst[None])
        raise InvalidValue(
            f"{path}: the measurements of one network differ by {max(times) / min(times) - 1:.0%}, from {min(times):g} "
            f"to {max(times):g} ms; at most {AGREE:.0%} is accepted. Measure it again, or delete the wrong row: "
            + json.dumps(dict(arch))
        )


def _check_unit(path: Path, space: Space, codes: Codes, latency_ms: Floats) -> None:
    """Networks have at least MFLOPs and at most TFLOPs a second: a factor of 1,000 is seen."""
    speed = float(np.median(space.macs(codes) / latency_ms)) * 1e3
    for unit, factor in (("seconds", 1e3), ("microseconds", 1e-3)):
        if not MACS_PER_S[0] <= speed <= MACS_PER_S[1] and MACS_PER_S[0] <= speed / factor <= MACS_PER_S[1]:
            raise wrong_unit(path.name, float(np.median(latency_ms)), unit, f"{speed:.1e} MACs a second")


def wrong_unit(name: str, median: float, unit: str, why: str) -> InvalidValue:
    """The error of latencies that are not in milliseconds."""
    times = "multiply" if unit == "seconds" else "divide"
    return InvalidValue(
        f"{name}: the median latency is {median:g}, which would be {why}: the unit looks like {unit}. "
        f"Latencies are in milliseconds; {times} them by 1,000"
    )


def failed_rows(latency_ms: Floats, expected_ms: Floats) -> npt.NDArray[np.bool_]:
    """Measurements that failed: more than 5 times off what is expected, apart from the common level, ``(n,)``.

    Args:
        latency_ms: ``(n,)``.
        expected_ms: in any unit, ``(n,)``.
    """
    ratio = np.log(latency_ms / expected_ms)
    return np.asarray(np.abs(ratio - np.median(ratio)) > math.log(IMPLAUSIBLE))


def plausible(measured: WholeNetworks, expected_ms: Floats, expectation: str) -> WholeNetworks:
    """The measurements without those that failed by what is expected; these are logged.

    Args:
        measured: the measurements.
        expected_ms: latencies by each of several expectations, ``(expectations, n)``.
        expectation: who expects what, for messages: ``the sources suggest``.

    Raises:
        InvalidValue: their unit seems to be another one than that of the expectations.
    """
    ratios = [float(np.median(measured.latency_ms / row)) for row in expected_ms]
    for unit, nearest in (("seconds", max(ratios)), ("microseconds", min(ratios))):
        if nearest < 1 / SAME_UNIT if unit == "seconds" else nearest > SAME_UNIT:
            why = f"{nearest:.2g} times what {expectation}"
            raise wrong_unit(measured.name, float(np.median(measured.latency_ms)), unit, why)
    failed = failed_rows(measured.latency_ms, np.exp(np.log(np.maximum(expected_ms, 1e-9)).mean(axis=0)))
    if failed.any():
        log.warning(
            "%s: %d of %d measurements are more than %g times off what %s, and are left out: %s ms",
            measured.name,
            failed.sum(),
            len(failed),
            IMPLAUSIBLE,
            expectation,
            some([f"{ms:g}" for ms in measured.latency_ms[failed]]),
        )
    return measured.without(failed)
