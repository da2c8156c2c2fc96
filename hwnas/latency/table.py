"""Latency tables: one measured op per row, with a manifest."""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import logging
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hwnas.errors import InvalidValue, MissingOp, TableCorrupt, TableError, TableMismatch, UnknownName
from hwnas.files import read_spec, toml_text, write_whole
from hwnas.latency.manifest import Fit, Manifest, TableOrigin, Validation
from hwnas.latency.sources import Origin
from hwnas.spaces import Domain, Op, Space, make_space, parse_op
from hwnas.targets import Target, detect_host, resolve_target, table_path
from hwnas.targets.device import other_machine
from hwnas.targets.runtimes import installed_version

log = logging.getLogger(__name__)

TIMES_MS = (1e-9, 1e9)  # plausible times of an op; their sums and ratios are finite
COLUMNS = ("op", "latency_ms_p25", "latency_ms_p50", "latency_ms_p90", "samples", "macs", "params")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One op's latency: quantiles in milliseconds over `samples` runs."""

    latency_ms_p25: float
    latency_ms_p50: float
    latency_ms_p90: float
    samples: int


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """The measured ops of a target.

    Attributes:
        target: the measured target.
        rows: key of an op -> its row.
        manifest: provenance of the rows.
        folder: folder of tables that it was read from, if it is not the catalog's; commands in messages name it.
    """

    target: Target
    rows: Mapping[str, Row]
    manifest: Manifest
    folder: Path | None = field(default=None, compare=False)

    @property
    def origin(self) -> Origin:
        """Measured by hwnas, imported, or transferred."""
        return self.manifest.origin

    def latency_ms(self, op: Op) -> float:
        """p25 of an op.

        Raises:
            MissingOp: it was not measured; the message names the nearest rows.
        """
        try:
            return self.rows[op.key].latency_ms_p25
        except KeyError:
            near = difflib.get_close_matches(op.key, self.rows, n=3, cutoff=0.0)
            raise MissingOp(
                f"the latency table of {self.target.name} has no op {op.key!r}. Nearest rows: {near}. "
                + self._remedy(_measure((), self.target, self.folder, " --only-missing"))
            ) from None

    def require(self, space: Space) -> None:
        """Check that every op of a space was measured.

        Raises:
            MissingOp: ops are missing; the message names the first, their number, and the command that measures them.
        """
        missing = [op.key for op in space.distinct_ops if op.key not in self.rows]
        if missing:
            near = difflib.get_close_matches(missing[0], self.rows, n=2, cutoff=0.0)
            raise MissingOp(
                f"the latency table of {self.target.name} lacks {len(missing)} of the {len(space.distinct_ops)} ops of "
                f"{space.name}, first {missing[0]!r} (nearest row: {near[0] if near else 'none'}). "
                + self._remedy(_measure([space], self.target, self.folder, " --only-missing"))
            )

    def _remedy(self, measure: str) -> str:
        """How to add rows; `measure` is the command for a measured table, with its verb."""
        if self.manifest.origin == "imported":
            return (
                "This table was imported. If it belongs to the space at another width, choose that space; if files are "
                f"missing, add them with `hwnas tables import` and --target {self.target.name}"
            )
        if self.manifest.origin == "transferred":
            return (
                "This table was transferred from other targets. Transfer it again for the space that you need with "
                f"`hwnas tables transfer --space SPACE --target {self.target.name}`"
            )
        return f"{measure}."

    def fit_for(self, space: Space) -> Fit | None:
        """The fit whose domain covers a space; of several, the one with the smallest domain."""
        covering = [fit for fit in self.manifest.fits if fit.domain.covers(space)]
        return min(covering, key=lambda fit: fit.domain.make().size, default=None)

    def with_fit(self, fit: Fit) -> LatencyTable:
        """The table with a fit added; it replaces one for the same domain."""
        fits = [old for old in self.manifest.fits if old.domain != fit.domain]
        return replace(self, manifest=self.manifest.model_copy(update={"fits": [*fits, fit]}))

    def with_validation(self, space: Space, validation: Validation) -> LatencyTable:
        """The table with a validation stored in the fit of a space."""
        fit = self.fit_for(space)
        assert fit is not None
        return self.with_fit(fit.model_copy(update={"validation": validation}))


def profile_command(space: Space, target: Target, tables: Path | None = None, *, verb: str = "profile") -> str:
    """The command that measures a space on a target.

    Args:
        space: the space.
        target: the target.
        tables: folder of tables; the catalog's if None.
        verb: ``profile``, or ``validate``, which has the same options.
    """
    domain = Domain.of(space)
    fixed = "".join(f" --fix {name}={','.join(map(str, values))}" for name, values in domain.choices.items())
    whole = make_space(space.name)
    channels = "" if space.in_channels == whole.in_channels else f" --channels {space.in_channels}"
    if space.vocabulary != whole.vocabulary:
        channels = f" --vocabulary {space.vocabulary}"
    classes = "" if space.classes == whole.classes else f" --classes {space.classes}"
    folder = f" --tables {shlex.quote(str(tables))}" if tables else ""
    return f"hwnas {verb} --space {shlex.quote(space.name)} --target {target.name}{fixed}{channels}{classes}{folder}"


def _measure(spaces: Iterable[Space], target: Target, tables: Path | None, more: str = "") -> str:
    """A sentence, without its full stop, with the commands that measure spaces; without a space, it names the verb."""
    if commands := [profile_command(space, target, tables) for space in spaces]:
        commands[0] += more  # --replace in a second command would drop what the first one measured
        return f"Measure with: {' and '.join(commands)}"
    folder = f" --tables {shlex.quote(str(tables))}" if tables else ""
    return f"`hwnas profile --target {target.name}{folder}{more}` with the --space that you need measures it"


def _measure_again(manifest: Manifest, target: Target, tables: Path | None, space: Space | None) -> str:
    """As `_measure`, to replace a table: of the space that it is read for, else of all spaces that it has a fit of."""
    spaces = [space] if space else [fit.domain.make() for fit in manifest.fits]
    return _measure(spaces, target, tables, " --replace")


def read_table(target: Target, path: Path | None = None, *, space: Space | None = None) -> LatencyTable:
    """Read a target's table, from the catalog unless a path is given.

    If it was measured with another version of the runtime, or on another machine that matches the same device, a
    warning is logged.

    Args:
        target: the target.
        path: of the CSV file.
        space: the space that the table is read for; commands in messages name it.

    Raises:
        TableError: there is no table for the target.
        TableMismatch: it belongs to another target, or the recipe of that name has changed since.
        TableCorrupt: a row is malformed, NaN, not positive or duplicate, or the file was changed.
        SpecError: the manifest is malformed.
    """
    given, path = path, path or table_path(target)
    tables = given.parents[1] if given and given.match(f"{target.name}.csv") and given != table_path(target) else None
    if path is None or not path.is_file():
        raise TableError(
            f"there is no latency table for {target.name}{f' at {path}' if path else ''}. "
            + _measure([space] if space else (), target, tables)
        )
    content = path.read_bytes()
    rows = _parse(path, content.decode("utf-8", errors="replace"))
    digest = hashlib.sha256(content).hexdigest()
    manifest = _manifest(path, digest)
    if (manifest.device, manifest.recipe) != (target.device.name, target.recipe.name):
        raise TableMismatch(f"{path} is the table of {manifest.device}/{manifest.recipe}, not of {target.name}")
    if manifest.csv_sha256 != digest:
        raise TableCorrupt(
            f"{path} was changed after it was written: its sha256 is {digest[:12]}…, but its manifest has "
            f"{manifest.csv_sha256[:12]}…. Restore it, or delete both files and run hwnas profile again."
        )
    if manifest.recipe_hash != target.recipe.hash:
        raise TableMismatch(
            f"{path} was made with another recipe {target.recipe.name!r} (hash {manifest.recipe_hash[:12]}…, now "
            f"{target.recipe.hash[:12]}…): its figures are not valid for this one. Give the changed recipe another "
            f"name, or replace the table. " + _measure_again(manifest, target, tables, space)
        )
    _warn_of_another_version(path, manifest, target, lambda: _measure_again(manifest, target, tables, space))
    _warn_of_another_machine(path, manifest, target)
    return LatencyTable(target=target, rows=rows, manifest=manifest, folder=tables)


def read_table_file(path: Path) -> LatencyTable:
    """Read the table in a CSV file, for the target named in its manifest.

    Raises:
        TableError: there is no such file, or its device or recipe is not known here.
        TableMismatch, TableCorrupt, SpecError: as `read_table`.
    """
    if not path.is_file():
        raise TableError(f"there is no latency table at {path}; `hwnas tables list` shows the known tables")
    manifest = _manifest(path, hashlib.sha256(path.read_bytes()).hexdigest())
    name = f"{manifest.device}/{manifest.recipe}"
    try:
        target = resolve_target(name)
    except (UnknownName, InvalidValue) as error:
        raise TableError(
            f"{path} is a table of {name}, which is unknown on this host: {error} Copy devices/{manifest.device}.toml "
            f"and exporters/{manifest.recipe}.toml from the table's origin into $HWNAS_HOME."
        ) from error
    return read_table(target, path)


def _warn_of_another_version(path: Path, manifest: Manifest, target: Target, measure: Callable[[], str]) -> None:
    if manifest.origin != "measured":
        return  # it was not measured with this host's runtime, and its version is unknown
    runtime = target.recipe.runtime
    present = installed_version(runtime)
    if present is None or (target.device.kind == "gpu" and not detect_host().gpus):
        return  # the runtime is not installed, and a search does not need it
    measured_with = manifest.versions.get(runtime, "of unknown version")
    if measured_with.split("+")[0] != present:
        log.warning(
            "%s was measured with %s %s, but %s is installed here: latencies may differ. %s",
            path,
            runtime,
            measured_with,
            present,
            measure(),
        )


def _warn_of_another_machine(path: Path, manifest: Manifest, target: Target) -> None:
    host = detect_host()
    if manifest.origin != "measured" or target.device.kind != "cpu" or target.device.differences(host):
        return
    if differences := other_machine(manifest.host, host):
        log.warning(
            "%s may be the table of another machine (%s): latencies may differ. Give this machine its own name with: "
            "hwnas devices detect --save --name %s-2",
            path,
            "; ".join(differences),
            target.device.name,
        )


def write_table(table: LatencyTable, path: Path) -> LatencyTable:
    """Write a table and its manifest; returns the table with the checksum of what was written.

    A kill between the two files leaves the new rows with their manifest under the name ``.toml.next``, which
    `read_table` accepts, so the pair is always consistent.

    Raises:
        OutputError: a file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key, row in sorted(table.rows.items()):
        op = parse_op(key)
        quantiles = (f"{ms:.6g}" for ms in (row.latency_ms_p25, row.latency_ms_p50, row.latency_ms_p90))
        writer.writerow((key, *quantiles, row.samples, op.macs, op.params))
    content = text.getvalue().encode()
    manifest = table.manifest.model_copy(update={"csv_sha256": hashlib.sha256(content).hexdigest()})
    following = _next(path)
    if path.is_file() and following.is_file():
        # A kill left these rows with their manifest under the next name: complete that write.
        current = _manifest(path, hashlib.sha256(path.read_bytes()).hexdigest())
        write_whole(path.with_suffix(".toml"), toml_text(current))
    write_whole(following, toml_text(manifest))
    write_whole(path, content)
    write_whole(path.with_suffix(".toml"), toml_text(manifest))
    following.unlink()
    return replace(table, manifest=manifest)


def table_lock(path: Path) -> Path:
    """The lock file of a table for `hwnas.files.only_one`, held from reading it until its new rows are written."""
    return path.with_name(f".{path.stem}.lock")


def _next(path: Path) -> Path:
    return path.with_suffix(".toml.next")


def _manifest(path: Path, digest: str) -> Manifest:
    if not path.with_suffix(".toml").is_file() and not _next(path).is_file():
        raise TableCorrupt(f"{path} has no manifest, so its target and protocol are unknown")
    if _next(path).is_file():
        following = read_spec(_next(path), Manifest)
        if following.csv_sha256 == digest:
            return following
    return read_spec(path.with_suffix(".toml"), Manifest)


def _parse(path: Path, text: str) -> dict[str, Row]:
    try:
        header, *lines = csv.reader(io.StringIO(text)) if text else [[]]
    except csv.Error as error:
        raise TableCorrupt(f"{path} is not a CSV file: {error}") from error
    if tuple(header) != COLUMNS:
        raise TableCorrupt(f"{path} has the columns {header}; a latency table must have {list(COLUMNS)}")
    rows: dict[str, Row] = {}
    for number, cells in enumerate(lines, start=2):
        where = f"{path}, line {number}"
        if len(cells) != len(COLUMNS):
            raise TableCorrupt(f"{where}: {len(cells)} cells; a row must have {len(COLUMNS)}")
        try:
            op = parse_op(cells[0])
            p25, p50, p90 = (float(cell) for cell in cells[1:4])
            samples, macs, params = (int(cell) for cell in cells[4:])
        except (ValueError, InvalidValue) as error:
            raise TableCorrupt(f"{where}: {error}") from error
        if not all(TIMES_MS[0] < ms < TIMES_MS[1] for ms in (p25, p50, p90)):
            raise TableCorrupt(
                f"{where}: latencies are {cells[1:4]} ms; they must be positive, finite numbers from {TIMES_MS[0]:g} "
                f"to {TIMES_MS[1]:g}"
            )
        if not p25 <= p50 <= p90 or samples < 1 or (macs, params) != (op.macs, op.params):
            raise TableCorrupt(
                f"{where}: quantiles must be ascending, samples positive, macs {op.macs} and params {op.params}"
            )
        if op.key in rows:
            raise TableCorrupt(f"{where}: the op {op.key!r} is a duplicate")
        rows[op.key] = Row(latency_ms_p25=p25, latency_ms_p50=p50, latency_ms_p90=p90, samples=samples)
    return rows


def check_origin(old: LatencyTable | None, origin: TableOrigin) -> None:
    """Check that rows of an origin may be added to a table.

    Raises:
        TableMismatch: the table has another origin. The figures are not comparable, so they are never mixed.
    """
    if old is not None and old.manifest.origin != origin:
        raise TableMismatch(
            f"the table of {old.target.name} was {old.manifest.origin}; {origin} rows cannot be added to it, because "
            "their times are not comparable. --replace drops the old table, --tables with another folder keeps both"
        )


def merged(rows: Iterable[tuple[str, Row]], old: LatencyTable | None) -> tuple[dict[str, Row], list[Fit]]:
    """An older table updated with new rows; fits that use one of the new rows are dropped."""
    new = dict(rows)
    if old is None:
        return new, []
    fits = [fit for fit in old.manifest.fits if not any(op.key in new for op in fit.domain.make().distinct_ops)]
    return {**old.rows, **new}, fits
