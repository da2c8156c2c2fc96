"""What a new table of a target adds to, and what it takes the place of."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import TableMismatch
from hwnas.workflows import inputs
from hwnas.workflows.inputs import Place

if TYPE_CHECKING:
    from hwnas.latency import LatencyTable
    from hwnas.latency.manifest import TableOrigin
    from hwnas.targets import Target

log = logging.getLogger(__name__)


def path_in(tables: Place | None, target: Target) -> Path:
    """The file of a target's table in a folder of tables; in the user's home if that is None."""
    from hwnas.targets import writable_home

    return inputs.table_in(Path(tables) if tables else writable_home() / "latency_tables", target)


def warn_of_shipped(target: Target, path: Path, tables: Place | None) -> None:
    """Log that the user's first table of a target, at `path`, will take the place of a shipped one, if it does."""
    if shipped := _shipped(target, path, tables):
        log.warning(
            "your table of %s will replace the shipped one, %s, for every space, because figures of two machines "
            "are not mixed. --tables with another folder keeps both",
            target.name,
            shipped,
        )


def _shipped(target: Target, path: Path, tables: Place | None) -> Path | None:
    from hwnas.targets import table_path

    return None if tables is not None or path.is_file() else table_path(target)


def table_to_extend(
    target: Target, path: Path, origin: TableOrigin, tables: Place | None, *, replace: bool
) -> LatencyTable | None:
    """The older table at `path`, to which rows of an origin can be added; None if there is none, or it is replaced.

    Raises:
        TableMismatch: it, or a shipped table that the new one would take the place of, has another origin.
        TableError: it cannot be read.
    """
    from hwnas.latency import read_table
    from hwnas.latency.table import check_origin

    shipped = _shipped(target, path, tables)
    if shipped and not replace and (kept := read_table(target, shipped).origin) != origin:
        raise TableMismatch(
            f"the shipped table of {target.name}, {shipped}, was {kept}; a table that is {origin} would take its place "
            "for every space. --replace lets it, --tables with another folder keeps both"
        )
    warn_of_shipped(target, path, tables)
    old = read_table(target, path) if path.is_file() and not replace else None
    check_origin(old, origin)
    return old
