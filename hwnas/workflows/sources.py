"""The sources of a transfer, from the patterns of users."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import HwnasError, TableError, some

if TYPE_CHECKING:
    from hwnas.latency import LatencyTable
    from hwnas.latency.transfer import Known
    from hwnas.spaces import Space

_DEVICES = "devices/"

log = logging.getLogger(__name__)


def known_sources(
    patterns: Sequence[str], space: Space, *, without: str | None = None, option: str = "--from"
) -> tuple[Known, Space]:
    """The sources of a transfer to a target, which suffice to check it; and the space that they are known on.

    Args:
        patterns: of tables (`source_tables`).
        space: of the new target's networks.
        without: name of the target.
        option: of the command line that has the patterns, for messages.

    Raises:
        TableError: a pattern matches no table, a table cannot be read, or none has the space.
        InvalidValue: a target occurs twice, or no source can be left out for the check.
    """
    from hwnas.latency.transfer import judges
    from hwnas.latency.transfer.tables import common_space, known_of

    found = source_tables(patterns, without=without, option=option)
    whole = common_space(found, space)
    known = known_of(found, whole, option=option)
    judges(known, option=option)
    return known, whole


def source_tables(patterns: Sequence[str], *, without: str | None = None, option: str = "--from") -> list[LatencyTable]:
    """The tables that patterns name. Those that a wildcard or a folder matches but that cannot be read are left out.

    Args:
        patterns: ``device/recipe`` with wildcards, ``devices/PATTERN`` for all recipes of devices, a folder of tables,
            or a table's CSV file.
        without: name of the target that is not a source.
        option: of the command line that has the patterns, for messages.

    Raises:
        TableError: a pattern matches no table, or none of those that it matches can be read.
        TableMismatch, TableCorrupt, SpecError: a table that is named without wildcards cannot be used.
    """
    from hwnas.latency.table import read_table_file

    paths: dict[Path, bool] = {}  # whether it is named itself
    for pattern in patterns:
        found, named = _matches(pattern)
        if not found:
            raise TableError(
                f"{option} {pattern!r} matches no latency table; `hwnas tables list` shows the known ones. Name "
                "device/recipe (with wildcards), a folder of tables, or a table's CSV file"
            )
        paths |= {path: named or paths.get(path, False) for path in found}
    tables, unreadable = [], []
    for path, named in paths.items():
        try:
            tables.append(read_table_file(path))
        except HwnasError as error:
            if named:
                raise
            unreadable.append(str(error))
    if unreadable and not tables:
        raise TableError(f"none of the tables of {option} can be read: {some(unreadable, most=1)}")
    if unreadable:
        log.warning("%d tables cannot be read and are left out: %s", len(unreadable), some(unreadable, most=1))
    return [table for table in tables if table.target.name != without]


def _matches(pattern: str) -> tuple[list[Path], bool]:
    """The files of tables that a pattern matches; and whether it names one without wildcards."""
    from hwnas.targets import tables

    place = Path(pattern)
    if pattern.endswith(".csv"):
        return [place], True
    if place.is_dir() and not pattern.startswith(_DEVICES):
        return sorted(place.glob("*/*.csv")) or sorted(place.glob("*.csv")), False
    known = {f"{found.device}/{found.recipe}": found.path for found in tables()}
    wanted = f"{pattern.removeprefix(_DEVICES)}/*" if pattern.startswith(_DEVICES) else pattern
    return [path for name, path in sorted(known.items()) if fnmatch.fnmatchcase(name, wanted)], wanted in known
