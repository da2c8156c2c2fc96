"""A study: networks within budgets, each trained from scratch."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import DataError, OutputError, SearchStopped
from hwnas.progress import Progress, Stopping, silent, unstoppable
from hwnas.workflows import inputs
from hwnas.workflows.answers import StudyAnswer, StudyCandidate
from hwnas.workflows.inputs import Fix, Place
from hwnas.workflows.networks import network_facts, write_arch

if TYPE_CHECKING:
    from pydantic import JsonValue

    from hwnas.data import Data, DataOptions
    from hwnas.engines import EngineConfig
    from hwnas.search.study.from_scratch import FromScratch
    from hwnas.spaces import Space
    from hwnas.supernet import TrainConfig

ARCH, STORAGE = "arch.json", "study.journal"  # files in the folder of a study


def study(
    space: str | Space,
    data: str | Data,
    out: Place,
    *,
    budget: str | Sequence[str],
    target: str | None = None,
    data_path: Place | None = None,
    data_options: DataOptions | None = None,
    fix: Fix | None = None,
    trials: int = 50,
    training: Place | TrainConfig | None = None,
    steps: int | None = None,
    epochs: int = 9,
    sampler: str = "tpe",
    storage: str | None = None,
    name: str = "study",
    images: int | None = 2000,
    metric: str | None = None,
    positive: str | None = None,
    confidence: float | None = 0.95,
    accelerator: str = "auto",
    precision: str = "32-true",
    tables: Place | None = None,
    engine: EngineConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
    stopping: Stopping = unstoppable,
) -> StudyAnswer:
    """Train networks from scratch, each proposed by a sampler that learns from earlier ones.

    The same call resumes a killed study; a parallel call, on this or another machine, adds a worker.

    Args:
        space: search space or its name.
        data: dataset or its name.
        out: folder for the best network, its weights and the study; ``arch.json`` in it is the answer.
        budget: as in `hwnas.search`.
        target: as in `hwnas.search`, without ``*``.
        data_path: folder of a dataset that is read from disk.
        data_options: how its images are read: channels, transform, layout.
        fix: variable -> the value or values that remain.
        trials: total number of networks to train, by all workers.
        training: training config, or its TOML file.
        steps: updates per training, instead of the config's.
        epochs: equal parts of a training, after each of which it may be pruned.
        sampler: tpe, gp or random.
        storage: shared storage of the workers: a ``.log`` or ``.journal`` file, or the URL of a database; a file in
            `out` if None.
        name: name of the study in its storage.
        images: number of validation images per evaluation; all if None.
        metric: what evaluations measure and the study maximises (`hwnas.tasks.parse_metric`).
        positive: class of the metric.
        confidence: that a measured latency stays within its budget; None applies the budget to the prediction itself.
        accelerator: auto, cpu or cuda.
        precision: 32-true or bf16-mixed.
        tables: folder of latency tables; the catalog's if None.
        engine: where the trainings run, as many at the same time as it has workers; this process if None.
        seed: random seed.
        progress: callback, invoked after every update in this process, and after every network.
        stopping: creates the context in which the study can be stopped early; the best network so far is then returned.

    Raises:
        InvalidValue, UnknownName: a name or a value is unknown or invalid.
        DataError, SpecError, TableError: a file cannot be used.
        InfeasibleBudget: no network is within the budgets.
        SearchStopped: no network was trained to the end.
        KeyboardInterrupt: the study was interrupted before that.
        OutputError: a file cannot be written.
        EngineError: the engine cannot run here, or an epoch ended three of its workers.
    """
    from hwnas.engines import SERIAL, open_engine
    from hwnas.search.study.study import search_study
    from hwnas.search.study.together import search_together
    from hwnas.workflows.constraints import asked, check_one_recipe
    from hwnas.workflows.processes import ACCELERATORS
    from hwnas.workflows.training import config_of

    check_one_recipe(target, "a study is for")
    make = partial(
        _from_scratch,
        space,
        data,
        Path(out),
        data_path=data_path,
        data_options=data_options,
        fix=fix,
        config=config_of(training, steps=steps),
        epochs=epochs,
        name=name,
        images=images,
        metric=metric,
        positive=positive,
        accelerator=accelerator,
        precision=precision,
        seed=seed,
    )
    out, train = Path(out), make()
    [wanted] = asked(
        train.space,
        [budget] if isinstance(budget, str) else list(budget),
        target,
        tables=Path(tables) if tables else None,
        family=False,
        confidence=confidence,
    ).constraints.values()
    device = train.fabric.device.type
    with stopping() as stop, open_engine(engine, gpu=device == "cuda") as where:
        train = replace(train, progress=progress, stop=stop)
        if where is not SERIAL:  # `auto` could be another device there
            again = partial(make, accelerator=device) if device in ACCELERATORS else make
            train = replace(train, engine=where, again=partial(_same, again, train.settings))
        _prepare_folder(train)
        search = partial(
            search_study,
            wanted,
            train,
            trials=trials,
            sampler=sampler,
            epochs=epochs,
            storage=storage or str(out / STORAGE),
            name=name,
            settings=train.settings,
            seed=seed,
        )
        found = search_together(search, where, progress=progress, stop=stop)
    if not found.candidates:
        if found.stopped:
            raise KeyboardInterrupt
        raise SearchStopped(
            f"none of the {found.evaluations} networks of study {name} was trained to the end; if no other worker is "
            "running, run the same command with more --trials"
        )
    best, kept = found.candidates[0], train.kept
    proof = (
        "Stopped early: the" if found.stopped else "The"
    ) + f" best of {found.evaluations} networks that the study trained. Nothing is proved about other networks"
    here = kept is not None and kept.domain.make().largest == best.arch
    answer = StudyAnswer.model_validate(
        {
            **network_facts(wanted, best, best.predicted_accuracy, proof=proof, strategy=found.strategy),
            "metric": train.metric.name,
            "figures": kept.training.get("figures") if kept is not None and here else None,
            "stopped": found.stopped,
            "supernet": str(out) if here else None,
            "candidates": [
                StudyCandidate(arch=dict(c.arch), predicted=dict(c.costs), validation_accuracy=c.predicted_accuracy)
                for c in found.candidates
            ],
        }
    )
    write_arch(out / ARCH, answer)
    return answer


def _from_scratch(
    space: str | Space,
    data: str | Data,
    out: Path,
    *,
    data_path: Place | None,
    data_options: DataOptions | None,
    fix: Fix | None,
    config: TrainConfig,
    epochs: int,
    name: str,
    images: int | None,
    metric: str | None,
    positive: str | None,
    accelerator: str,
    precision: str,
    seed: int,
) -> FromScratch:
    """What trains the networks of a study, in this process or in a worker; the arguments are those of `study`."""
    from hwnas.search.study.from_scratch import FromScratch
    from hwnas.tasks import parse_metric
    from hwnas.workflows.processes import launched

    pictures, facts = inputs.data_of(data, data_path, data_options)
    return FromScratch(
        space=inputs.space_for(space, pictures, fix),
        data=pictures,
        data_facts=facts,
        config=config,
        epochs=epochs,
        images=images,
        seed=seed,
        fabric=launched(accelerator, 1, precision, alone=True),
        folder=out,
        study=name,
        metric=parse_metric(metric, pictures.classes, positive, task=pictures.task),
    )


def _same(make: Callable[[], FromScratch], settings: Mapping[str, JsonValue]) -> FromScratch:
    """What trains the networks of a study, made in a worker.

    Raises:
        DataError: the data of this host are other ones than those of the study.
    """
    train = make()
    if train.settings != settings:
        differs = ", ".join(name for name in settings if train.settings.get(name) != settings[name])
        raise DataError(
            f"on the host {platform.node()}, the study has other settings ({differs}): copy the data to it, or put "
            "them on a drive that all hosts share"
        )
    return train


def _prepare_folder(train: FromScratch) -> None:
    """Create the study's folder, and check that the best network may be written into it.

    Raises:
        OutputError: it is a file, or contains another supernet, which would be lost, or the best one by another metric.
    """
    kept = train.kept
    if kept and kept.training.get("study") == train.study:
        if (before := kept.training.get("metric", "top1")) != train.metric.identity:
            raise OutputError(
                f"{train.folder} has the best network of study {train.study} by {before}, which cannot be compared "
                f"with {train.metric.identity}. Use another folder, or the same --metric"
            )
    else:
        inputs.check_folder(train.folder, "study")
    train.folder.mkdir(parents=True, exist_ok=True)
