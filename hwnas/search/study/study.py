"""Search where one evaluation is a training: an optuna study, which may be killed and shared by several machines.

Every trial of the study is one network that its sampler drew. What a network costs is known before it is trained, so
one over its budgets is only reported to the sampler, as optuna's constraints; neither is a network trained twice. A
sampler that knows too little yet, or draws no network worth training, is given random networks within the budgets.
"""

from __future__ import annotations

import itertools
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.errors import InvalidValue, SearchStopped, UnknownName
from hwnas.progress import Progress, never, silent
from hwnas.search.exact.front import least
from hwnas.search.feasible import check_feasible, together
from hwnas.search.problem import Candidate, Constraints, Problem
from hwnas.search.solver import Found
from hwnas.search.strategies.base import mutate
from hwnas.search.study.storage import open_study, worker_number
from hwnas.spaces import Arch, Codes, Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

Train = Callable[[Arch], Iterator[float]]
"""Trains a network and yields its validation accuracy after each epoch; `SearchStopped` ends the study early."""

_START = 10  # trained networks from which a sampler goes on by itself: what those of optuna count as a start, too
_STUCK = 10  # draws in a row of which none was trained, after which a sampler is given a random network
_TRIES = 1000  # random networks among which one is looked for that was not trained yet
_AT_ONCE = 64  # random networks that are drawn together
_STEPS = 300  # changes by which a random network may come within its budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A way to choose the next network.

    Attributes:
        make: from a seed to optuna's sampler.
        conditional: it is asked only for variables that matter; otherwise for all of them.
        prunes: it learns from trainings that were cut short, so they may be.
    """

    make: Callable[[int], BaseSampler]
    conditional: bool
    prunes: bool


def _tpe(seed: int) -> BaseSampler:
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # `group`: without it, conditional variables are random
        return TPESampler(multivariate=True, group=True, n_startup_trials=_START, seed=seed)


def _gp(seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(n_startup_trials=_START, seed=seed)


def _random(seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


SAMPLERS: dict[str, Sampler] = {
    "tpe": Sampler(make=_tpe, conditional=True, prunes=True),
    "gp": Sampler(make=_gp, conditional=False, prunes=False),  # optuna's learns from completed trials of all variables
    "random": Sampler(make=_random, conditional=True, prunes=True),
}


def search_study(
    wanted: Constraints,
    train: Train,
    *,
    trials: int,
    sampler: str = "tpe",
    epochs: int,
    storage: str | None = None,
    name: str,
    settings: Mapping[str, object] = MappingProxyType({}),
    seed: int = 0,
    candidates: int = 20,
    progress: Progress = silent,
    stop: Callable[[], bool] = never,
) -> Found:
    """The best of the networks that a study trains, all within the budgets.

    Workers on several machines may call this with the same storage and name, and a worker that was killed may be
    started again: the study goes on until all of them together have trained `trials` networks. A worker ends the
    training that it is at, so W workers may train up to W - 1 more; and two that draw the same network at the same
    time may both train it.

    Args:
        wanted: the space, and what its networks may cost.
        train: trains a network from scratch; of what it yields, the accuracy after the last epoch counts.
        trials: networks to train in the whole study; those whose training was cut short count, too.
        sampler: a key of `SAMPLERS`. With ``tpe`` and ``random``, Hyperband cuts trainings short that do badly.
        epochs: of a training: accuracies that `train` yields.
        storage: a file that ends in ``.log`` or ``.journal``, which may lie on a network drive; the URL of a database,
            such as ``sqlite:///study.db`` or ``postgresql://...``; None keeps the study in memory.
        name: of the study, by which it is found again in its storage.
        settings: of the trainings, as JSON has them: a worker that trains otherwise is refused.
        seed: of what is drawn; each worker that opens the study adds a number of its own.
        candidates: at most how many networks to give.
        progress: callback, invoked after every draw with the number of trained networks.
        stop: asked between draws and between epochs; after a True the best so far are returned.

    Returns:
        The networks trained to the end, the most accurate first; ``predicted_accuracy`` is their measured accuracy.
        `Found.evaluations` counts the networks trained by all workers. No candidates if it was stopped before the
        first was trained.

    Raises:
        UnknownName: there is no such sampler.
        InvalidValue: fewer than one trial, epoch or candidate; the study in the storage is of something else;
            `train` yields fewer accuracies than epochs, or one that is NaN or infinite.
        InfeasibleBudget: no network keeps the budgets.
        OutputError: the storage cannot be opened.
        TableError: a confidence is given, but a latency model has no margin.
    """
    if sampler not in SAMPLERS:
        raise UnknownName("sampler", sampler, SAMPLERS)
    for what, number in {"trials": trials, "epochs": epochs, "candidates": candidates}.items():
        if number < 1:
            raise InvalidValue(f"a study takes at least 1 of {what}, not {number}")
    check_feasible(wanted)
    import optuna

    # Its warnings would only repeat, with a traceback, the errors that reach the caller.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen = SAMPLERS[sampler]
    study = open_study(wanted, storage, name, {"epochs": epochs, **settings}, seed)
    seed += worker_number(study)
    study.sampler = chosen.make(seed)
    if chosen.prunes and epochs > 1:
        study.pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)

    problem = Problem(
        space=wanted.space,
        objectives=wanted.objectives,
        budgets=wanted.budgets,
        confidence=wanted.confidence,
        accuracy=lambda codes: -wanted.excess(codes),  # no model: the problem is only to come within the budgets
        seed=seed,
    )
    objective = _Objective(problem=problem, train=train, epochs=epochs, conditional=chosen.conditional, stop=stop)
    draws = _random_networks(problem)
    trained, idle, stopped = _trained(study, wanted.space), 0, stop()
    while len(trained) < trials and not stopped:
        if sampler == "random" or len(trained) < _START or idle >= _STUCK:
            new = next((row for row in itertools.islice(draws, _TRIES) if row.tobytes() not in trained), None)
            if new is None:
                log.warning("study %s ends with %d networks: %d random ones were all known", name, len(trained), _TRIES)
                break
            study.enqueue_trial(objective.params(new))
        try:
            study.optimize(objective, n_trials=1)
        except SearchStopped:
            stopped = True
        before, trained = len(trained), _trained(study, wanted.space)
        idle = 0 if len(trained) > before else idle + 1
        progress("training networks", min(len(trained), trials), trials)
        stopped = stopped or stop()
    return Found(
        candidates=_best(wanted, trained)[:candidates],
        strategy=f"optuna-{sampler}",
        proved=False,
        stopped=stopped and len(trained) < trials,
        evaluations=len(trained),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Objective:
    """What optuna calls with each trial: the accuracy of the network that the trial's sampler draws."""

    problem: Problem
    train: Train
    epochs: int
    conditional: bool
    stop: Callable[[], bool]

    def __call__(self, trial: Trial) -> float:
        from optuna import TrialPruned
        from optuna.trial import TrialState

        row = self._suggest(trial)
        over = self._tell_excess(trial, row)
        trained = _trained(trial.study, self.problem.space)
        if over:
            # The Gaussian process needs some accuracy of every network: the mean says the least.
            values = [same.values[0] for same in trained.values() if same.state == TrialState.COMPLETE]
            if not values:
                raise TrialPruned
            return math.fsum(values) / len(values)
        if same := trained.get(row.tobytes()):
            trial.set_user_attr("same_network_as", same.number)
            for epoch, accuracy in same.intermediate_values.items():
                trial.report(accuracy, epoch)
            if same.state == TrialState.PRUNED:
                raise TrialPruned
            return float(same.values[0])
        trial.set_user_attr("trained", True)
        return self._train(trial, row)

    def params(self, row: Codes) -> dict[str, int]:
        """The values that a trial is given to draw this network, ``(variables,)``."""
        [arch] = self.problem.space.decode(row[None])
        return self.problem.space.describe(arch) if self.conditional else dict(arch)

    def _suggest(self, trial: Trial) -> Codes:
        """The canonical code ``(variables,)`` of the network that the sampler draws."""
        values: dict[str, int] = {}
        waiting = list(self.problem.space.variables)
        waiting.sort(key=lambda variable: variable.requires is not None)  # what others require is drawn first
        for variable in waiting:
            needed = variable.requires
            matters = not self.conditional or needed is None or values[needed[0]] >= needed[1]
            if matters and len(variable.values) > 1:
                values[variable.name] = trial.suggest_categorical(variable.name, variable.values)
            else:
                values[variable.name] = variable.values[0]
        return _row(self.problem.space, values)

    def _tell_excess(self, trial: Trial, row: Codes) -> bool:
        """Tell the sampler how much of each budget is left, and say whether one is exceeded."""
        held = self.problem.held
        shares = held(row[None])[0] / np.array(held.limits) - 1 if self.problem.budgets else np.zeros(0)
        for objective, share in zip(self.problem.budgeted, shares, strict=True):
            trial.set_constraint(objective.name, float(share))
        return bool((shares > 0).any())

    def _train(self, trial: Trial, row: Codes) -> float:
        from optuna import TrialPruned

        [arch] = self.problem.space.decode(row[None])
        epoch, accuracy = 0, math.nan
        for epoch, accuracy in zip(range(1, self.epochs + 1), self.train(arch), strict=False):
            if not math.isfinite(accuracy):
                raise InvalidValue(f"the accuracy of a network is a number, but after epoch {epoch} it is {accuracy}")
            trial.report(accuracy, epoch)
            if epoch < self.epochs and self.stop():
                raise SearchStopped("a training was stopped")
            if epoch < self.epochs and trial.should_prune():
                raise TrialPruned
        if epoch < self.epochs:
            raise InvalidValue(f"a training gives an accuracy after each of {self.epochs} epochs, but gave {epoch}")
        return accuracy


def _row(space: Space, values: dict[str, Any]) -> Codes:
    """Values of variables, perhaps without those that do not matter, as canonical code: ``(variables,)``."""
    code = [variable.values.index(values.get(variable.name, variable.values[0])) for variable in space.variables]
    [row] = space.canonical(np.array([code], np.uint8))
    return np.asarray(row, np.uint8)


def _trained(study: Study, space: Space) -> dict[bytes, FrozenTrial]:
    """Canonical code of each network that the study has trained, to the end or in part -> its trial."""
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    trained = (trial for trial in reversed(finished) if "trained" in trial.user_attrs)
    return {_row(space, trial.params).tobytes(): trial for trial in trained}  # of two trainings, the first


def _best(wanted: Constraints, trained: dict[bytes, FrozenTrial]) -> list[Candidate]:
    """The networks that were trained to the end, the most accurate first, the one trained first among equals."""
    from optuna.trial import TrialState

    complete = [trial for trial in trained.values() if trial.state == TrialState.COMPLETE]
    complete.sort(key=lambda trial: (-trial.values[0], trial.number))
    if not complete:
        return []
    rows = np.stack([_row(wanted.space, trial.params) for trial in complete])
    names = [objective.name for objective in wanted.objectives]
    return [
        Candidate(arch=arch, predicted_accuracy=trial.values[0], costs=dict(zip(names, map(float, costs), strict=True)))
        for trial, arch, costs in zip(complete, wanted.space.decode(rows), wanted.costs(rows), strict=True)
    ]


def _random_networks(problem: Problem) -> Iterator[Codes]:
    """Random networks ``(variables,)``, changed at random until they are within the budgets; without end."""
    space = problem.space
    for number in itertools.count():
        rng = np.random.default_rng((problem.seed, 1, number))
        codes = _walked(problem, space.sample(_AT_ONCE, seed=(problem.seed, 0, number)), rng)
        if not len(codes):  # budgets that hardly any network keeps: from the cheapest ones instead
            cheapest = np.stack([least(space, objective.total)[0] for objective in problem.budgeted])
            codes = _walked(problem, np.repeat(cheapest, -(-_AT_ONCE // len(cheapest)), axis=0), rng)
        if not len(codes):
            raise together(problem)
        yield from codes


def _walked(problem: Problem, codes: Codes, rng: np.random.Generator) -> Codes:
    """Those of some networks that random changes bring within the budgets."""
    excess = problem.excess(codes)
    for _ in range(_STEPS):
        if not excess.any():
            break
        changed = problem.space.canonical(mutate(problem, codes, 1, rng))
        less = problem.excess(changed) < excess
        codes[less], excess = changed[less], np.where(less, problem.excess(changed), excess)
    within: Codes = codes[excess == 0]
    return within
