"""Import of latency tables in other formats, measured elsewhere.

An imported row has one statistic instead of three quantiles, and there are no context terms: the model is the plain
sum of the rows (see `hwnas.latency.load_model`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.errors import InvalidValue, TableError
from hwnas.latency.manifest import Manifest
from hwnas.latency.ofa_yaml import Mean, parse_ofa_yaml
from hwnas.latency.table import LatencyTable, Row, check_origin, merged
from hwnas.plugins import Registry
from hwnas.spaces import Op
from hwnas.targets import Target

NETWORKS = "networks"  # whole networks as CSV, whose space must be known (`hwnas.latency.import_networks`)
FORMATS: dict[str, Callable[[bytes, str], dict[Op, Mean]]] = {"ofa-yaml": parse_ofa_yaml}
_KNOWN = Registry(
    "format of latency tables",
    "hwnas.table_formats",
    FORMATS,
    fits=callable,
    needs="a function (content: bytes, name: str) -> dict[hwnas.spaces.Op, hwnas.latency.ofa_yaml.Mean]",
)


def format_names() -> list[str]:
    """Names of the formats that can be imported: whole networks, then those of ops: hwnas's, then those of plugins."""
    return [NETWORKS, *_KNOWN.names()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The combined content of imported files.

    Attributes:
        format: one of `format_names`.
        files: SHA-256 (hex) -> name of each file.
        means: the mean of each op; for an op in several files, weighted by their counts.
        repeated: ops with different values in several files.
        largest_difference: of these ops, the largest relative difference: the largest value over the smallest, minus 1.
        most_different: the op of that difference; None if there is none.
    """

    format: str
    files: dict[str, str]
    means: dict[Op, Mean]
    repeated: int
    largest_difference: float
    most_different: Op | None


def read_files(paths: Sequence[Path], format_: str) -> Imported:
    """Read tables of another format; the order of the files does not matter.

    Raises:
        UnknownName: there is no such format.
        PluginError: it is a plugin's, and cannot be loaded.
        TableError: a file cannot be read.
        InvalidValue: two files are identical: one measurement would count twice.
        TableCorrupt: a file is malformed.
    """
    parse = _KNOWN[format_]
    files: dict[str, str] = {}
    found: dict[Op, list[Mean]] = {}
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TableError(f"cannot read {path}: {error.strerror}; name the files of the tables to import") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest in files:
            raise InvalidValue(f"{files[digest]} and {path.name} are the same file; pass each file once")
        files[digest] = path.name
        for op, mean in parse(content, str(path)).items():
            found.setdefault(op, []).append(mean)
    differences = {op: _difference(means) for op, means in found.items()}
    most = max(differences, key=differences.__getitem__, default=None)
    repeated = sum(difference > 0 for difference in differences.values())
    return Imported(
        format=format_,
        files=files,
        means={op: _weighted(means) for op, means in found.items()},
        repeated=repeated,
        largest_difference=differences[most] if most else 0.0,
        most_different=most if repeated else None,
    )


def imported_table(imported: Imported, target: Target, old: LatencyTable | None = None) -> LatencyTable:
    """The latency table of a target from imported files.

    All three quantiles are set to the mean; the manifest records this.

    Args:
        imported: the content of the files.
        target: the target that they were measured on.
        old: an imported table of the same target; rows that the files do not contain are kept.

    Raises:
        TableMismatch: the older table was measured.
    """
    check_origin(old, "imported")
    rows, fits = merged(((op.key, _row(mean)) for op, mean in imported.means.items()), old)
    before = old.manifest.measurement if old else {}
    files = {key: name for key, name in before.items() if key.startswith("sha256-")}
    files |= {f"sha256-{digest}": name for digest, name in imported.files.items()}
    facts = {"statistic": "mean", "imported_from": imported.format, "files": len(files), **files}
    manifest = Manifest.of_other_tables(target, "imported", facts, fits)
    return LatencyTable(target=target, rows=rows, manifest=manifest)


def _row(mean: Mean) -> Row:
    ms = mean.latency_ms
    return Row(latency_ms_p25=ms, latency_ms_p50=ms, latency_ms_p90=ms, samples=mean.samples)


def _difference(means: Sequence[Mean]) -> float:
    values = [mean.latency_ms for mean in means]
    return max(values) / min(values) - 1


def _weighted(means: Sequence[Mean]) -> Mean:
    samples = sum(mean.samples for mean in means)
    # fsum: the result does not depend on the order of the files.
    return Mean(latency_ms=math.fsum(mean.latency_ms * (mean.samples / samples) for mean in means), samples=samples)
