"""The metrics of each training step: a CSV file and, if TensorBoard is installed, its event files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hwnas.errors import OutputError
from hwnas.files import reason_of, write_whole

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.csv"
COLUMNS = (
    "step",
    "phase",
    "learning_rate",
    "loss_largest",
    "loss_smallest",
    "loss_random",
    "images_per_s",
    "metric_training",
    "metric_validation",
)
_OLDER = 7  # number of columns in files of the first versions


class Metrics:
    """Metrics of a training, one row per step; rows of repeated steps are dropped.

    Args:
        folder: for ``metrics.csv`` and ``tensorboard/``.
        done: number of steps done; later rows are dropped.

    Raises:
        OutputError: a file cannot be written.
    """

    def __init__(self, folder: Path, done: int) -> None:
        path = folder / METRICS
        try:
            rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []
            whole = [row for row in rows if len(row) in (_OLDER, len(COLUMNS)) and row[0].isdigit()]
            kept = [row + [""] * (len(COLUMNS) - len(row)) for row in whole if int(row[0]) <= done]
            write_whole(path, "".join(map(_line, [COLUMNS, *kept])))
            self._file = path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {reason_of(error)}") from error
        self._board: SummaryWriter | None = None
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def record(self, step: int, phase: str, **values: float) -> None:
        """Append a row.

        Args:
            step: counted from 1.
            phase: name of the phase.
            values: values of the other columns; missing values stay empty.

        Raises:
            OutputError: the disk is full.
        """
        figures = [f"{values[name]:.6g}" if name in values else "" for name in COLUMNS[2:]]
        try:
            self._file.write(_line([step, phase, *figures]))
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self._file.name}: {reason_of(error)}") from error
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Flush all records to the operating system, so that they survive the end of this process."""
        if self._board:
            self._board.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board:
            self._board.close()


def _line(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
