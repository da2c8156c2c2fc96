"""The storage of an optuna study, and the check that all its workers have the same settings."""

from __future__ import annotations

import re
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import InvalidValue, OutputError
from hwnas.search.problem import Constraints

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

_HEARTBEAT_S = 60  # after a few missed heartbeats, a worker counts as killed


def open_study(wanted: Constraints, storage: str | None, name: str, settings: Mapping[str, object], seed: int) -> Study:
    """The study of that name, new or existing.

    Raises:
        InvalidValue: the study in the storage has other settings; the message lists the differences.
        OutputError: the storage cannot be opened.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        # The sampler is replaced before it draws.
        study = optuna.create_study(
            storage=_storage(storage),
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(seed=seed),
            pruner=optuna.pruners.NopPruner(),
        )
    except (
        SQLAlchemyError,
        optuna.exceptions.OptunaError,
        OSError,
        ImportError,
        LookupError,
        RuntimeError,
        ValueError,
    ) as error:
        shown = re.sub(r"//.*@", "//", storage or "")  # without user and password
        raise OutputError(f"cannot open the storage {shown} of study {name}: {error}") from error
    asked: dict[str, Any] = {
        "space": wanted.space.name,
        "classes": wanted.space.classes,
        "input channels": wanted.space.in_channels,
        **({} if wanted.space.vocabulary is None else {"vocabulary": wanted.space.vocabulary}),
        "objectives": [objective.name for objective in wanted.objectives],
        "confidence": wanted.confidence,
        **settings,
        **{f"budget of {budget}": value for budget, value in wanted.budgets.items()},
        **{f"choices of {variable}": values for variable, values in wanted.space.choices.items()},
    }
    if not study.get_trials(deepcopy=False):
        study.set_user_attr("hwnas", asked)
    known = study.user_attrs.get("hwnas", {})
    if differs := [
        f"{what} is {known.get(what, 'none')} there, {asked.get(what, 'none')} here"
        for what in dict.fromkeys((*known, *asked))
        if known.get(what) != asked.get(what)
    ]:
        raise InvalidValue(f"study {name} has other settings; use another name: {'; '.join(differs)}")
    return study


def worker_number(study: Study) -> int:
    """A number that no other worker of the study has; 0 for the first of a new study."""
    from optuna.trial import TrialState, create_trial

    # A trial's number is unique, even for workers that start together.
    mark = uuid.uuid4().hex
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"worker": mark}))
    trials = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return next(trial.number for trial in trials if trial.user_attrs.get("worker") == mark)


def _storage(storage: str | None) -> BaseStorage | None:
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import JournalStorage, RDBStorage

    if storage is None:
        return None
    if "://" in storage:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # the heartbeat
            return RDBStorage(storage, heartbeat_interval=_HEARTBEAT_S, grace_period=5 * _HEARTBEAT_S)
    if storage.endswith((".log", ".journal")):
        from hwnas.search.study.lock import journal_backend

        return JournalStorage(journal_backend(Path(storage)))
    raise InvalidValue(f"the storage must be a .log or .journal file or a database URL (sqlite:///...), not {storage}")
