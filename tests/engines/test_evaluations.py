"""Evaluations, studies and sweeps on the pool: bit for bit those of this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from engine_work import Noting, noted

from hwnas.accuracy import Evaluator
from hwnas.deploy import comparing
from hwnas.deploy.sweep import sweep
from hwnas.engines import SERIAL, Engine, EngineConfig, open_engine
from hwnas.errors import DataError, EngineError, SearchStopped
from hwnas.files import Journal
from hwnas.machines import LocalMachine
from hwnas.search.study.from_scratch import FromScratch
from hwnas.spaces import Space
from hwnas.supernet import Phase, TrainConfig
from hwnas.targets import Target, resolve_target
from hwnas.workflows import studies
from hwnas.workflows.inputs import _same_evaluator, evaluator_of

# Workers do not have the smaller test split of the tests.
pytestmark = pytest.mark.usefixtures("all_test_images")

IMAGES = 200
TRAINING = TrainConfig(phases=[Phase(name="all", steps=4, learning_rate=0.05)], batch_size=8)


@pytest.fixture(scope="module")
def pool() -> Iterator[Engine]:
    """One for all tests: its processes load torch."""
    with open_engine(EngineConfig(name="pool", workers=2)) as engine:
        yield engine


def opened(folder: Path, engine: Engine, *, metric: str = "auc") -> Evaluator:
    """The AUC depends on every output; top-1 accuracy would hide their last digits."""
    evaluator, _ = evaluator_of(folder, images=IMAGES, calibration_images=IMAGES, metric=metric, engine=engine)
    return evaluator


@pytest.mark.long
def test_evaluations_are_equal_bit_for_bit(pool: Engine, space: Space, supernet_folder: Path, tmp_path: Path) -> None:
    archs = [*space.decode(space.sample(6, seed=2)), space.largest]
    entries = []
    for engine in (SERIAL, pool):
        evaluator = opened(supernet_folder, engine)
        with Journal(tmp_path / str(engine.workers), {}) as journal:
            accuracies = evaluator.accuracies(archs, journal, what="x")
            figures = evaluator.figures(archs[:2], journal)
            entries.append((accuracies, figures, dict(sorted(journal.entries.items()))))
    assert entries[0] == entries[1]


TWO_THREADS = """
import sys
from pathlib import Path
import torch
from hwnas.engines import EngineConfig, open_engine
from hwnas.files import Journal
from hwnas.workflows.inputs import evaluator_of

assert torch.get_num_threads() == 2
found = []
for name, workers in (("serial", None), ("pool", 2)):
    with open_engine(EngineConfig(name=name, workers=workers)) as engine:
        evaluator, _ = evaluator_of(sys.argv[1], images=200, calibration_images=200, metric="auc", engine=engine)
        space = evaluator.supernet.space
        with Journal(Path(sys.argv[2]) / name, {}) as journal:
            found.append(evaluator.accuracies(space.decode(space.sample(6, seed=2)), journal, what="x"))
assert found[0] == found[1], found
"""


@pytest.mark.long
def test_workers_have_as_many_threads_as_the_process_that_starts_them(supernet_folder: Path, tmp_path: Path) -> None:
    """The sums of BN's statistics depend on it. Waiting threads do not spin: other tests may use the cores."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    words = [sys.executable, "-c", TWO_THREADS, str(supernet_folder), str(tmp_path)]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_killed_worker_repeats_nothing_that_the_journal_has(
    pool: Engine, space: Space, supernet_folder: Path, tmp_path: Path
) -> None:
    archs = list(dict.fromkeys(space.decode(space.sample(18, seed=3))))
    expected = [opened(supernet_folder, SERIAL).accuracy(arch) for arch in archs]
    evaluator, log = opened(supernet_folder, pool), tmp_path / "log"
    assert isinstance(evaluator.again, partial)
    evaluator.again = Noting(evaluator.again, log, kill_at=len(archs) // 2)  # type: ignore[assignment]
    done: list[int] = []
    with Journal(tmp_path / "j", {}) as journal:
        found = evaluator.accuracies(archs, journal, what="x", progress=lambda _, count, *__, **___: done.append(count))
        assert found == expected
    assert done == sorted(done)
    assert done[-1] == len(archs)
    assert log.with_name("killed").exists()
    recorded = Counter(json.loads(line)["key"] for line in (tmp_path / "j").read_text().splitlines()[1:])
    assert set(recorded.values()) == {1}
    begun = Counter(text for _, text in noted(log) if text != "opened")
    repeated = [key for key, count in begun.items() if count > 1]
    assert len(begun) == len(archs)
    assert 0 < len(repeated) <= -(-len(archs) // 2)  # those in the hand of the killed worker
    with Journal(tmp_path / "j", {}) as journal:
        assert evaluator.accuracies(archs, journal, what="x") == expected
    assert Counter(text for _, text in noted(log) if text != "opened") == begun


def test_another_supernet_or_other_data_are_refused(supernet_folder: Path) -> None:
    how = {"images": IMAGES, "calibration_images": IMAGES}
    evaluator, facts = evaluator_of(supernet_folder, **how)  # type: ignore[arg-type]
    subject = evaluator.subject(facts.weights_sha256)
    assert _same_evaluator(subject, supernet_folder, how).images == IMAGES
    with pytest.raises(DataError, match=r"differ from those of the host that evaluates on it \(data, weights\)"):
        _same_evaluator({**subject, "data": "other", "weights": "other"}, supernet_folder, how)


@pytest.mark.long
def test_a_sweep_is_equal(pool: Engine, space: Space, supernet_folder: Path, tmp_path: Path) -> None:
    targets = [resolve_target(f"this/{name}") for name in ("onnxruntime-cpu-fp32", "onnxruntime-cpu-int8")]
    found = []
    for engine in (SERIAL, pool):
        evaluator, facts = evaluator_of(supernet_folder, images=IMAGES, calibration_images=IMAGES, engine=engine)
        with evaluator.journal(tmp_path / str(engine.workers), facts.weights_sha256) as journal:
            swept = sweep(space.smallest, evaluator, targets, journal, max_drop=1.0)
            found.append(
                (
                    {one.target.name: (one.parity, one.size_bytes) for one in swept.recipes},
                    dict(sorted(journal.entries.items())),
                    swept.left_out,
                )
            )
    assert found[0] == found[1]
    assert len(found[0][0]) == 2


class Elsewhere(LocalMachine):
    """A machine that is no device's host, and whose connection cannot be sent to workers."""

    def __reduce__(self) -> str:
        raise TypeError("a connection")

    def check(self, target: Target) -> None:
        """Accept every target."""

    def versions(self, target: Target) -> dict[str, str]:
        return {"system": "another"}


@pytest.mark.long
def test_a_sweep_on_another_machine(
    pool: Engine, space: Space, supernet_folder: Path, elsewhere: Target, tmp_path: Path
) -> None:
    evaluator, facts = evaluator_of(supernet_folder, images=IMAGES, calibration_images=IMAGES, engine=pool)
    with evaluator.journal(tmp_path, facts.weights_sha256) as journal:
        swept = sweep(space.smallest, evaluator, [elsewhere], journal, max_drop=1.0, machine=Elsewhere())
        assert len(journal.entries) == 1
    assert swept.picked
    assert swept.picked.target == elsewhere


def test_a_sweep_refuses_workers_on_another_host(this: Target) -> None:
    """A recipe's accuracy may depend on the CPU."""
    todo = comparing._Todo(target=this, path=Path("model.onnx"), key="x", here=comparing._facts(this))
    comparing._check_same_host(todo)
    other = replace(todo, here={**todo.here, "CPU flags": ("avx512_vnni",), "system": "another"})
    with pytest.raises(EngineError, match=r"differs from the host of the sweep in system, CPU flags\. The engine pool"):
        comparing._check_same_host(other)


@pytest.fixture
def study(space: Space, tmp_path: Path) -> partial[FromScratch]:
    """Makes the training of a study's networks, from names."""
    (tmp_path / "study").mkdir()
    return partial(
        studies._from_scratch,
        "mobilenetv3-tiny",
        "cluttered-digits",
        tmp_path / "study",
        data_path=None,
        data_options=None,
        fix={variable.name: variable.values for variable in space.variables},
        config=TRAINING,
        epochs=2,
        name="x",
        images=IMAGES,
        metric="auc",
        positive=None,
        accelerator="cpu",
        precision="32-true",
        seed=3,
    )


@pytest.mark.long
def test_a_training_is_equal_bit_for_bit(pool: Engine, space: Space, study: partial[FromScratch]) -> None:
    here = study()
    there = replace(here, engine=pool, again=study)
    expected = list(here(space.largest))
    weights = (here.folder / "supernet.safetensors").read_bytes()
    (here.folder / "supernet.json").unlink()
    assert list(there(space.largest)) == expected
    assert (here.folder / "supernet.safetensors").read_bytes() == weights
    assert not list(here.folder.glob("hwnas-*"))  # no checkpoint stays


def test_a_study_with_other_data_is_refused(study: partial[FromScratch]) -> None:
    settings = study().settings
    assert studies._same(study, settings).settings == settings
    with pytest.raises(DataError, match=r"the study has other settings \(data\)"):
        studies._same(study, {**settings, "data": "other"})


def test_a_training_that_is_stopped_ends_its_worker(space: Space, study: partial[FromScratch]) -> None:
    with open_engine(EngineConfig(name="pool", workers=1)) as engine:
        train = replace(study(), engine=engine, again=study, stop=lambda: True)
        timer = threading.Timer(0.2, engine.close)
        timer.start()
        with pytest.raises(SearchStopped):
            list(train(space.largest))
        timer.join()
