"""The training loop: the updates from the last checkpoint to the end.

Supernet training and the differentiable search use it. A study trains each of its networks as a supernet of one arch.
An update depends only on its number and the state in the checkpoint, so a resumed training is bit-identical to an
uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from hwnas.errors import CheckpointError
from hwnas.progress import Progress
from hwnas.training.checkpoint import CHECKPOINT, Checkpoint, read_checkpoint, write_checkpoint
from hwnas.training.metrics import Metrics
from hwnas.training.threads import training_threads

if TYPE_CHECKING:
    from hwnas.training.alone import Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The report of an update.

    Attributes:
        what: name of the training or phase, for the progress output.
        done: number of its updates done, including this one.
        total: its total number of updates.
        note: note for the progress output, such as the loss.
        phase: name of the phase in the metrics.
        figures: column of the metrics -> value, except for ``images_per_s``.
    """

    what: str
    done: int
    total: int
    note: str
    phase: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


class Loop:
    """The updates of a training, from the checkpoint in its folder to a given number.

    Args:
        folder: for the checkpoint and the metrics.
        subject: values that identify the training.
        resume: continue from a checkpoint in the folder; otherwise the first new checkpoint replaces it.

    Raises:
        CheckpointError: the checkpoint is broken, or was written with other settings.

    Attributes:
        path: path of the checkpoint.
        found: the checkpoint to continue from; None if the training starts from the beginning. The caller restores its
            state before it calls `run`.
        done: number of updates done.
        saved: number of updates in the checkpoint; 0 if this training has no checkpoint.
    """

    def __init__(self, folder: Path, subject: Mapping[str, JsonValue], *, resume: bool) -> None:
        self.path, self._folder, self._subject = folder / CHECKPOINT, folder, subject
        self.found = read_checkpoint(self.path, subject) if resume else None
        self.done = self.saved = self.found.step if self.found else 0

    def run(
        self,
        update: Callable[[int], Update],
        state: Callable[[int], Checkpoint],
        *,
        end: int,
        batch_size: int,
        checkpoint_every: int,
        processes: Processes,
        progress: Progress,
        metrics: bool = False,
        validate: Callable[[int], Mapping[str, float] | None] = lambda done: None,
        ended: Callable[[], str | None] = lambda: None,
    ) -> str | None:
        """Run the updates up to `end`. Return the reason if they stopped earlier, otherwise None.

        The steps after each update are, in this order: `validate`, the metrics row, the checkpoint if one is due, the
        progress callback, and `ended`. An update that is saved in a checkpoint before the progress callback reports it
        is never repeated.

        Args:
            update: runs the update with a number, counted from 0. An exception ends the loop and keeps the last
                checkpoint.
            state: returns the state on which the next update depends, after a number of updates. Only the main process
                calls it.
            end: number of updates after which the loop ends, with a checkpoint.
            batch_size: images per update, over all processes.
            checkpoint_every: updates between two checkpoints.
            processes: the processes of the training. Each runs its own loop; the main process writes the files.
            progress: callback, invoked after every update, in images.
            metrics: write a row for each update to ``metrics.csv``; rows of repeated updates are dropped.
            validate: validates after a number of updates; returns columns of the metrics, or None if no validation is
                due. ``images_per_s`` excludes its time.
            ended: polled after every update; if it returns a reason, the loop ends without another checkpoint.

        Raises:
            CheckpointError: another process has another checkpoint.
            OutputError: a file cannot be written.
        """
        if processes.broadcast(self.done) != self.done:
            raise CheckpointError(
                f"{self.path} is not the checkpoint of the first process, whose updates the training would continue: "
                "several hosts need a folder on a drive that they share"
            )
        with ExitStack() as stack:
            kept = metrics and processes.is_global_zero
            rows = stack.enter_context(Metrics(self._folder, self.done)) if kept else None
            threads = stack.enter_context(training_threads(processes.device, processes.world_size))
            before = time.monotonic()
            while self.done < end:
                report = update(self.done)
                threads.step()
                self.done += 1
                now = time.monotonic()
                if (found := validate(self.done)) is not None:
                    threads.pause()
                if rows:
                    figures = {**report.figures, **(found or {})}
                    rows.record(self.done, report.phase, images_per_s=batch_size / (now - before), **figures)
                before = now if found is None else time.monotonic()
                if self.done % checkpoint_every == 0 or self.done == end:
                    if rows:
                        rows.flush()  # updates in a checkpoint are not repeated
                    if processes.is_global_zero:
                        write_checkpoint(self.path, self._subject, state(self.done))
                    processes.barrier()
                    self.saved = self.done
                progress(
                    report.what,
                    report.done * batch_size,
                    report.total * batch_size,
                    unit="images",
                    note=threads.noted(report.note),
                )
                if reason := ended():
                    return reason
        return None
