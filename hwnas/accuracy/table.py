"""A user's accuracies as a CSV file: one column per variable of the space, and one called ``accuracy``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwnas.errors import DataError
from hwnas.spaces import Codes, Space

Floats = npt.NDArray[np.float64]
COLUMN = "accuracy"


def read_accuracies(path: Path, space: Space) -> tuple[Codes, Floats]:
    """Networks and their accuracies: ``(n, variables)`` and ``(n,)``.

    Raises:
        DataError: the file cannot be read, has the variables of another space, or a row with an invalid value or an
            accuracy that is not a fraction; the message names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    wanted = {*space.column, COLUMN}
    if set(header) != wanted or len(header) > len(wanted):
        missing, extra = sorted(wanted - set(header)), sorted(set(header) - wanted)
        twice = sorted(name for name in wanted if header.count(name) > 1)
        raise DataError(
            f"{path} is not a table of accuracies of {space.name}: its columns should be the variables of the space "
            f"and {COLUMN!r}; missing: {', '.join(missing) or 'none'}; unknown: {', '.join(extra) or 'none'}"
            + (f"; duplicate: {', '.join(twice)}" if twice else "")
        )
    codes, accuracies = np.zeros((len(rows), len(space.variables)), np.uint8), np.zeros(len(rows))
    for number, (line, row) in enumerate(rows):
        if None in row or None in row.values():
            raise DataError(f"{path}, line {line}: the row has more or fewer values than the {len(header)} columns")
        for i, variable in enumerate(space.variables):
            text = row[variable.name]
            if text not in map(str, variable.values):
                raise DataError(
                    f"{path}, line {line}: {variable.name} is {text!r}; choose from "
                    f"{', '.join(map(str, variable.values))}"
                )
            codes[number, i] = list(map(str, variable.values)).index(text)
        try:
            accuracies[number] = float(row[COLUMN])
        except ValueError:
            accuracies[number] = np.nan
        if not 0 <= accuracies[number] <= 1:
            raise DataError(
                f"{path}, line {line}: accuracy is {row[COLUMN]!r}; it should be a fraction between 0 and 1"
            )
    return space.canonical(codes), accuracies
