"""The loop of a training, with a training that adds numbers."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hwnas.errors import CheckpointError, TrainingDiverged
from hwnas.progress import Progress, silent
from hwnas.training import loop
from hwnas.training.alone import Alone
from hwnas.training.checkpoint import CHECKPOINT, Checkpoint, read_checkpoint
from hwnas.training.loop import Loop, Update
from hwnas.training.metrics import METRICS

END, EVERY, BATCH = 7, 3, 4
SUBJECT = {"seed": 0}
CPU = Alone(torch.device("cpu"))


class Stop(Exception):
    """Stands for a kill."""


@dataclass
class Adding:
    """A training whose state depends on the number and the order of all its updates."""

    folder: Path
    resume: bool = True
    fails_at: int | None = None
    events: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loop = Loop(self.folder, SUBJECT, resume=self.resume)
        found = self.loop.found
        self.total: Tensor = found.model["total"] if found else torch.ones(1, dtype=torch.float64)

    def update(self, number: int) -> Update:
        if number == self.fails_at:
            raise TrainingDiverged(f"no figure; saved: {self.loop.saved}")
        self.events.append("update")
        self.numbers.append(number)
        self.saved.append(self.loop.saved)
        self.total = self.total / 3 + number
        loss = float(self.total)
        return Update(
            what="adding",
            done=number + 1,
            total=END,
            note=f"loss {loss:.3f}",
            phase="all",
            figures={"loss_largest": loss},
        )

    def state(self, done: int) -> Checkpoint:
        self.events.append("state")
        return Checkpoint(step=done, model={"total": self.total}, average={}, momentum={})

    def run(self, progress: Progress = silent, *, processes: Alone = CPU, **changes: Any) -> str | None:
        settings = {"end": END, "batch_size": BATCH, "checkpoint_every": EVERY, "metrics": True, **changes}
        return self.loop.run(self.update, self.state, processes=processes, progress=progress, **settings)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def kept(folder: Path) -> Checkpoint:
    checkpoint = read_checkpoint(folder / CHECKPOINT, SUBJECT)
    assert checkpoint
    return checkpoint


@pytest.mark.parametrize("killed_after", range(1, END + 1))
def test_a_killed_training_goes_on_from_its_checkpoint(killed_after: int, tmp_path: Path) -> None:
    whole = Adding(tmp_path / "whole")
    assert whole.run() is None

    def kill(what: str, done: int, total: int, **_: str) -> None:
        if done == killed_after * BATCH:
            raise Stop

    with pytest.raises(Stop):
        Adding(tmp_path / "killed").run(kill)
    resumed = Adding(tmp_path / "killed")
    resumed.run()
    first = END if killed_after == END else killed_after // EVERY * EVERY
    assert resumed.numbers == list(range(first, END))  # what the progress reports behind a checkpoint is not done again
    assert torch.equal(resumed.total, whole.total)
    assert kept(tmp_path / "killed").step == END
    steps = [(row["step"], row["phase"], row["loss_largest"]) for row in rows(tmp_path / "killed")]
    assert steps == [(row["step"], row["phase"], row["loss_largest"]) for row in rows(tmp_path / "whole")]
    assert [step for step, *_ in steps] == [str(number + 1) for number in range(END)]


def test_checkpoints_are_written_every_few_updates_and_at_the_end(tmp_path: Path) -> None:
    adding = Adding(tmp_path)
    assert (adding.loop.found, adding.loop.done, adding.loop.saved) == (None, 0, 0)
    adding.run()
    assert adding.saved == [0, 0, 0, 3, 3, 3, 6]
    assert adding.loop.saved == adding.loop.done == END
    assert kept(tmp_path).step == END


def test_a_paused_training_goes_on(tmp_path: Path) -> None:
    whole = Adding(tmp_path / "whole")
    whole.run()
    for end in (2, 5, END):
        part = Adding(tmp_path / "parts")
        part.run(end=end)
        assert kept(tmp_path / "parts").step == part.loop.done == end
    assert torch.equal(part.total, whole.total)
    finished = Adding(tmp_path / "parts")
    before = (tmp_path / "parts" / CHECKPOINT).stat().st_mtime_ns
    assert finished.run() is None
    assert finished.events == []
    assert (tmp_path / "parts" / CHECKPOINT).stat().st_mtime_ns == before
    assert len(rows(tmp_path / "parts")) == END


def test_rows_and_checkpoints_come_before_the_progress(tmp_path: Path) -> None:
    adding = Adding(tmp_path)

    def progress(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        assert (what, total, unit) == ("adding", END * BATCH, "images")
        assert note == f"loss {float(adding.total):.3f}"
        assert len(rows(tmp_path)) * BATCH == done
        adding.events.append("progress")

    def ended() -> str | None:
        adding.events.append("ended")
        return None

    adding.run(progress, end=2, checkpoint_every=2, ended=ended)
    assert adding.events == ["update", "progress", "ended", "update", "state", "progress", "ended"]


@pytest.mark.parametrize("after", [1, 3, END])
def test_a_reason_ends_the_updates(after: int, tmp_path: Path) -> None:
    adding = Adding(tmp_path)
    assert adding.run(ended=lambda: "enough" if adding.loop.done == after else None) == "enough"
    assert adding.numbers == list(range(after))
    assert adding.events.count("state") == after // EVERY + (after == END)


def test_an_update_that_fails_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="saved: 3"):
        Adding(tmp_path, fails_at=5).run()
    assert kept(tmp_path).step == 3
    assert len(rows(tmp_path)) == 5


def test_starting_anew(tmp_path: Path) -> None:
    Adding(tmp_path).run(end=4)
    with pytest.raises(TrainingDiverged, match="saved: 0"):
        Adding(tmp_path, resume=False, fails_at=1).run()
    assert kept(tmp_path).step == 4  # until the new training has a checkpoint
    assert [row["step"] for row in rows(tmp_path)] == ["1"]
    anew = Adding(tmp_path, resume=False)
    anew.run(end=2)
    assert anew.numbers == [0, 1]
    assert kept(tmp_path).step == 2


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    Adding(tmp_path).run(end=1)
    with pytest.raises(CheckpointError, match=r"seed \(there 0, now 1\)"):
        Loop(tmp_path, {"seed": 1}, resume=True)


def test_a_training_without_metrics(tmp_path: Path) -> None:
    Adding(tmp_path).run(metrics=False)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_images_per_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = accumulate([0.5, 1.0, 2.0], initial=100.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    Adding(tmp_path).run(end=3)
    assert [float(row["images_per_s"]) for row in rows(tmp_path)] == [BATCH / 0.5, BATCH / 1.0, BATCH / 2.0]


def test_only_the_main_process_writes_and_the_others_wait(tmp_path: Path) -> None:
    waits: list[int] = []

    class Second(Alone):
        world_size = 2
        is_global_zero = False

        def barrier(self) -> None:
            waits.append(adding.loop.done)

    adding = Adding(tmp_path)
    adding.run(processes=Second(torch.device("cpu")))
    assert list(tmp_path.iterdir()) == []
    assert waits == [3, 6, 7]
    assert adding.numbers == list(range(END))
    assert "state" not in adding.events
