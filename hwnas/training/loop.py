"""The loop of a training: the updates from its last checkpoint to its end.

The training of supernets and the differentiable search run it. A study trains each of its networks as a supernet of one
arch. An update depends on nothing but its number and the state that a checkpoint holds, so a training that was killed
continues with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from hwnas.progress import Progress
from hwnas.training.checkpoint import CHECKPOINT, Checkpoint, read_checkpoint, write_checkpoint
from hwnas.training.metrics import Metrics
from hwnas.training.threads import training_threads

if TYPE_CHECKING:
    from hwnas.training.alone import Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What an update reports.

    Attributes:
        what: name of the training, or of its phase, for the progress.
        done: updates of it that are over, this one included.
        total: all its updates.
        note: for the progress, such as the loss.
        phase: for the row of the metrics.
        figures: column of the metrics -> value, except for ``images_per_s``.
    """

    what: str
    done: int
    total: int
    note: str
    phase: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


class Loop:
    """The updates of a training, from the checkpoint in its folder to an end.

    Args:
        folder: for the checkpoint and the metrics.
        subject: distinguishes this training from others.
        resume: continue from a checkpoint in the folder; otherwise the first new checkpoint replaces it.

    Raises:
        CheckpointError: the checkpoint is broken, or was written with other settings.

    Attributes:
        path: of the checkpoint.
        found: the checkpoint to continue from, None at the beginning. The caller restores its state before it calls
            `run`.
        done: updates that are over.
        saved: updates that the checkpoint holds; 0 if this training has no checkpoint.
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
        """Run the updates up to `end`. Return why they ended earlier, or None.

        After each update come, in this order, `validate`, the row of the metrics, the checkpoint where one is due, the
        progress and `ended`: what the progress reports behind a checkpoint is never done again.

        Args:
            update: does the update of a number, counted from 0. What it raises ends the loop, and the last checkpoint
                stays.
            state: all that the next update depends on, after a number of updates. Only the main process calls it.
            end: number of updates after which the loop ends, with a checkpoint.
            batch_size: images of an update, over all processes.
            checkpoint_every: updates between two checkpoints.
            processes: that take part, each with a loop of its own; the main one writes the files.
            progress: callback, invoked after every update, in images.
            metrics: keep a row of each update in ``metrics.csv``; rows of updates that are done again are dropped.
            validate: evaluates after a number of updates; returns columns of the metrics, or None if nothing was due.
                Its time is not part of ``images_per_s``.
            ended: polled after every update; a reason ends the loop without a further checkpoint.

        Raises:
            OutputError: a file cannot be written.
        """
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
                        rows.flush()  # an update that a checkpoint holds is not done again
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
