"""A benchmark's table as an oracle: look-ups of trained accuracies, which are counted.

A search on such a table costs nothing, and the best network is known. Strategies are compared by their regret, the
distance from the best after a number of evaluations (Dong and Yang, "NAS-Bench-201", ICLR 2020, section 5).
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwnas.errors import DataError, InfeasibleBudget, InvalidValue, UnknownName
from hwnas.spaces import Arch, Codes, Space, make_space
from hwnas.spaces.nasbench201 import nasbench201_string, parse_nasbench201

Floats = npt.NDArray[np.float64]
Within = Callable[[Codes], npt.NDArray[np.bool_]]

ARCH = "arch"
_WHOLE = "nasbench201"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkTable:
    """Accuracies of NAS-Bench-201's cells.

    Attributes:
        path: of the file.
        codes: the cells, as codes of ``nasbench201``: ``(n, variables)``.
        accuracies: name of a column -> fractions, ``(n,)``.
    """

    path: Path
    codes: Codes
    accuracies: dict[str, Floats]

    def column(self, name: str | None = None) -> Floats:
        """The accuracies of a column; None selects the only one.

        Raises:
            UnknownName: there is no such column, or the name is None and there are several.
        """
        if name is None and len(self.accuracies) == 1:
            [name] = self.accuracies
        if name is None or name not in self.accuracies:
            raise UnknownName(f"column of {self.path}", name or "", self.accuracies)
        return self.accuracies[name]


def read_benchmark(path: Path) -> BenchmarkTable:
    """A user's table: a CSV file with cells in the benchmark's notation in the column ``arch``, and accuracies.

    A column is in percent if any of its values is above 1, otherwise in fractions.

    Raises:
        DataError: the file cannot be read, or is not such a table; the message names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    names = header[1:]
    if header[:1] != [ARCH] or not names or len(set(header)) < len(header) or not all(map(str.strip, names)):
        raise DataError(
            f"{path} is not a table of a benchmark: its first line should have {ARCH!r} and distinct names of "
            f"accuracies, such as arch,cifar10-valid; not {','.join(header)!r}"
        )
    if not rows:
        raise DataError(f"{path} has no networks below its first line")
    space, lines = make_space(_WHOLE), dict[Arch, int]()
    values = np.zeros((len(rows), len(names)))
    for number, (line, row) in enumerate(rows):
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} values, but {len(header)} columns")
        try:
            arch = parse_nasbench201(space, row[0].strip())
        except InvalidValue as error:
            raise DataError(f"{where}: {error}") from error
        if arch in lines:
            raise DataError(f"{where}: {row[0]} is a duplicate of line {lines[arch]}")
        lines[arch] = line
        for i, text in enumerate(row[1:]):
            values[number, i] = _accuracy(text, f"{where}: {names[i]}")
    percent = values.max(axis=0) > 1
    return BenchmarkTable(
        path=path,
        codes=space.encode(list(lines)),
        accuracies=dict(zip(names, (values / np.where(percent, 100, 1)).T, strict=True)),
    )


def _accuracy(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 100:
        raise DataError(f"{where} is {text!r}; an accuracy should be from 0 to 1, or from 0 to 100 in percent")
    return value


class Oracle:
    """A column of a table as the objective of a search: a function of codes that counts evaluations.

    Args:
        table: of the benchmark.
        space: a NAS-Bench-201 space, possibly restricted: the space of the codes.
        column: of the table; None for the only one.
        within: codes ``(n, variables)`` -> mask of networks within the budgets, ``(n,)``; None for all. Others are
            looked up and counted, too, but are never the best.

    Raises:
        UnknownName: see `BenchmarkTable.column`.
        InvalidValue: the space is another one, or the table has none of its networks.
        InfeasibleBudget: no network of the table is within the budgets.
    """

    def __init__(
        self, table: BenchmarkTable, space: Space, *, column: str | None = None, within: Within | None = None
    ) -> None:
        self.space, self._path = space, table.path
        self._within: Within = within or (lambda codes: np.ones(len(codes), bool))
        codes, rows = _of_space(table, space)
        accuracies = table.column(column)[rows]
        self._known = {row.tobytes(): value for row, value in zip(codes, accuracies.tolist(), strict=True)}
        kept = self._within(codes)
        if not kept.any():
            raise InfeasibleBudget(
                f"none of the {len(codes)} networks of {table.path} is within the budgets", objectives=()
            )
        best = int(np.where(kept, accuracies, -np.inf).argmax())
        self.best = float(accuracies[best])
        [self.best_arch] = space.decode(codes[[best]])
        self._seen: set[bytes] = set()
        self._best_so_far: list[float] = []

    def __call__(self, codes: Codes) -> Floats:
        """Codes ``(n, variables)`` -> accuracies as fractions, ``(n,)``.

        Raises:
            DataError: the table lacks a network; the message names it.
        """
        found = np.zeros(len(codes))
        for i, (row, kept) in enumerate(zip(self.space.canonical(codes), self._within(codes), strict=True)):
            key = row.tobytes()
            if key not in self._known:
                [arch] = self.space.decode(row[None])
                raise DataError(
                    f"{self._path} has no accuracy of {nasbench201_string(arch)}. It has {len(self._known)} of the "
                    f"{self.space.size} networks of {self.space.name}; use the whole table, or restrict the space"
                )
            found[i] = self._known[key]
            if key not in self._seen:
                self._seen.add(key)
                before = self._best_so_far[-1] if self._best_so_far else np.nan
                # `fmax` ignores NaN.
                self._best_so_far.append(float(np.fmax(before, found[i])) if kept else before)
        return found

    @property
    def evaluations(self) -> int:
        """Number of distinct networks that were looked up: a repeated one would not be trained again."""
        return len(self._seen)

    @property
    def best_so_far(self) -> Floats:
        """The best accuracy within the budgets after each evaluation, ``(evaluations,)``; NaN before the first."""
        return np.array(self._best_so_far)

    @property
    def regret(self) -> Floats:
        """Its distance from the table's best within the budgets, ``(evaluations,)``."""
        return self.best - self.best_so_far


def _of_space(table: BenchmarkTable, space: Space) -> tuple[Codes, npt.NDArray[np.intp]]:
    """The networks of a table that are in a space: their codes, and their rows in the table."""
    whole = make_space(_WHOLE)
    if not set(whole.column) <= set(space.column):
        raise InvalidValue(f"{space.name} has no NAS-Bench-201 cells; use nasbench201 or nasbench201-tiny")
    codes, kept = space.encode([space.largest]).repeat(len(table.codes), axis=0), np.ones(len(table.codes), bool)
    for variable, column in zip(whole.variables, table.codes.T, strict=True):
        if len(variable.values) > 1:  # the resolution belongs to the space
            own = np.array(space.variable(variable.name).values)
            values = np.array(variable.values)[column]
            kept &= np.isin(values, own)
            codes[:, space.column[variable.name]] = np.searchsorted(own, values)
    if not kept.any():
        raise InvalidValue(f"{table.path} has no network of {space.name} under these restrictions")
    [rows] = np.nonzero(kept)
    return codes[rows], rows
