"""What a training reports of each step: a CSV file and, where TensorBoard is installed, its event files."""

from __future__ import annotations

import csv
import io
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hwnas.errors import OutputError
from hwnas.targets import write_whole

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.csv"
COLUMNS = ("step", "phase", "learning_rate", "loss_largest", "loss_smallest", "loss_random", "images_per_s")


class Metrics:
    """Rows of a training, one a step; rows of steps that are done again are dropped.

    Args:
        folder: for ``metrics.csv`` and ``tensorboard/``.
        done: steps behind the training.

    Raises:
        OutputError: a file cannot be written.
    """

    def __init__(self, folder: Path, done: int) -> None:
        path = folder / METRICS
        try:
            lines = path.read_text().splitlines() if path.is_file() else []
            rows = [
                line for line in lines[1:] if line.partition(",")[0].isdigit() and line.count(",") == len(COLUMNS) - 1
            ]
            kept = [row for row in rows if int(row.partition(",")[0]) <= done]
            write_whole(path, "\n".join([",".join(COLUMNS), *kept]) + "\n")
            self._file = path.open("a", newline="")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        self._board: SummaryWriter | None = None
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def record(self, step: int, phase: str, **values: float) -> None:
        """Append a row.

        Args:
            step: counted from 1.
            phase: its name.
            values: of the other columns; what is missing stays empty.

        Raises:
            OutputError: the disk is full.
        """
        row = io.StringIO()
        figures = [f"{values[name]:.6g}" if name in values else "" for name in COLUMNS[2:]]
        csv.writer(row, lineterminator="\n").writerow([step, phase, *figures])
        try:
            self._file.write(row.getvalue())
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self._file.name}: {error.strerror}") from error
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board:
            self._board.close()
