"""Networks trained from scratch, really but briefly: what is yielded, what is kept, what stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from hwnas.accuracy import Evaluator
from hwnas.data import ClutteredDigits
from hwnas.errors import InvalidValue, SearchStopped
from hwnas.search.study import from_scratch
from hwnas.search.study.from_scratch import FromScratch
from hwnas.spaces import Space
from hwnas.supernet import Phase, Supernet, TrainConfig, load_supernet, save_supernet, train
from hwnas.tasks.figures import ClassificationFigures
from hwnas.tasks.metrics import figures_of

CONFIG = TrainConfig(
    phases=[Phase(name="all", steps=5, learning_rate=0.05)], batch_size=16, ema_decay=0.9, checkpoint_every=2
)


@pytest.fixture
def make(space: Space, data: ClutteredDigits, tmp_path: Path) -> Callable[..., FromScratch]:
    def made(**other: object) -> FromScratch:
        given: dict[str, object] = {
            "space": space,
            "data": data,
            "data_facts": {"name": "cluttered-digits", "path": None},
            "config": CONFIG,
            "epochs": 2,
            "images": 100,
            "seed": 3,
            "fabric": Fabric(accelerator="cpu", devices=1),
            "folder": tmp_path / "best",
            "study": "x",
        }
        return FromScratch(**{**given, **other})  # type: ignore[arg-type]

    return made


def test_it_is_the_training_of_that_network_alone(
    make: Callable[..., FromScratch], space: Space, data: ClutteredDigits, tmp_path: Path
) -> None:
    arch = space.largest
    accuracies = list(make()(arch))
    assert len(accuracies) == 2
    alone = Supernet(space.fix(**arch), seed=3)
    train(alone, data, CONFIG, seed=3, folder=tmp_path / "alone")
    kept, facts = load_supernet(tmp_path / "best")
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], tensor, rtol=0, atol=0)
    assert facts.training["validation_accuracy"] == accuracies[-1]
    assert facts.training["study"] == "x"
    assert accuracies[-1] == Evaluator(alone, data, images=100, seed=4).accuracy(arch)


def judge_by(values: Iterator[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric of each network that was trained to the end."""

    def judged(*args: Any) -> ClassificationFigures:
        return figures_of(*args).model_copy(update={"value": next(values)})

    monkeypatch.setattr(from_scratch, "figures_of", judged)


def test_the_best_is_kept(make: Callable[..., FromScratch], space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter((0.3, 0.5, 0.4, 0.5))
    judge_by(found, monkeypatch)
    archs = space.decode(space.sample(4, seed=0))
    assert len(set(archs)) == 4
    scratch = make(epochs=1)
    assert scratch.kept is None
    kept = []
    for arch in archs:
        for _ in scratch(arch):
            pass
        assert scratch.kept
        kept.append(scratch.kept.domain.make().largest)
    assert kept == [archs[0], archs[1], archs[1], archs[1]]


def test_a_training_that_is_cut_short_keeps_nothing(make: Callable[..., FromScratch], space: Space) -> None:
    scratch = make()
    next(scratch(space.smallest))
    assert scratch.kept is None
    told: list[str] = []
    stopped = replace(scratch, progress=lambda what, *_, **__: told.append(what), stop=lambda: len(told) >= 2)
    with pytest.raises(SearchStopped):
        list(stopped(space.smallest))
    assert told == ["training"] * 2
    assert scratch.kept is None


def test_a_kill_between_two_files_leaves_no_network(
    make: Callable[..., FromScratch], space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than weights beside the facts of others."""
    found = iter((0.3, 0.5))
    judge_by(found, monkeypatch)
    scratch = make(epochs=1)
    list(scratch(space.smallest))

    def killed(*given: object, **named: object) -> None:
        from hwnas.supernet import store

        monkeypatch.setattr(store.json, "dumps", lambda *_, **__: 1 / 0)
        save_supernet(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("hwnas.search.study.from_scratch.save_supernet", killed)
    with pytest.raises(ZeroDivisionError):
        list(scratch(space.largest))
    assert scratch.kept is None


@pytest.mark.parametrize("epochs", [0, 6])
def test_as_many_epochs_as_updates_at_most(make: Callable[..., FromScratch], epochs: int) -> None:
    with pytest.raises(InvalidValue, match=f"has 1 to 5 epochs, not {epochs}"):
        make(epochs=epochs)
