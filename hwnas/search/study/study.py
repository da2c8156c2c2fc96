"""Search with one training per evaluation: an optuna study, which can be resumed and shared by several machines.

Every trial of the study is one network that its sampler proposed. The costs of a network are known before training, so
one above its budgets is only reported to the sampler, as optuna's constraints; no network is trained twice. A sampler
with too few trained networks, or that proposes none worth training, gets random networks within the budgets.
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
from hwnas.spaces import Arch, Codes, Space, Value

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

Train = Callable[[Arch], Iterator[float]]
"""Trains a network and yields its validation accuracy after each epoch; raises `SearchStopped` to end the study."""

_START = 10  # trained networks before a sampler proposes: also the default of optuna's samplers
_STUCK = 10  # consecutive untrained proposals after which a sampler gets a random network
_TRIES = 1000  # random networks to draw until one was not trained yet
_AT_ONCE = 64  # random networks per draw
_STEPS = 300  # largest number of changes that bring a random network within its budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A sampler of networks.

    Attributes:
        make: from a seed to optuna's sampler.
        conditional: whether it samples only variables with an effect; otherwise all of them.
        prunes: whether it learns from pruned trainings, so that pruning is allowed.
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
    "gp": Sampler(make=_gp, conditional=False, prunes=False),  # it learns from completed trials of all variables only
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
    """Train networks within the budgets in a study, and return the best.

    Workers on several machines may call this with the same storage and name, and a killed worker may be started again:
    the study continues until all of them together have trained `trials` networks. A worker finishes its current
    training, so W workers may train up to W - 1 more; and two that propose the same network at the same time may both
    train it.

    Args:
        wanted: the space and the budgets.
        train: trains a network from scratch; the last accuracy that it yields counts.
        trials: number of networks to train in the whole study, including pruned ones.
        sampler: a key of `SAMPLERS`. With ``tpe`` and ``random``, Hyperband prunes bad trainings.
        epochs: number of accuracies that `train` yields.
        storage: a ``.log`` or ``.journal`` file, possibly on a network drive; the URL of a database, such as
            ``sqlite:///study.db`` or ``postgresql://...``; None keeps the study in memory.
        name: name of the study in its storage.
        settings: of the trainings, as JSON values: a worker with other settings is rejected.
        seed: random seed; each worker adds its own number.
        candidates: largest number of networks to return.
        progress: callback, invoked after every proposal with the number of trained networks.
        stop: polled between proposals and between epochs; when it returns True, the best so far are returned.

    Returns:
        The completely trained networks, the most accurate first; ``predicted_accuracy`` is their measured accuracy.
        `Found.evaluations` counts the networks trained by all workers. No candidates if it was stopped before the
        first was trained.

    Raises:
        UnknownName: there is no such sampler.
        InvalidValue: fewer than one trial, epoch or candidate; the study in the storage has other settings;
            `train` yields fewer accuracies than epochs, or one that is NaN or infinite.
        InfeasibleBudget: no network is within the budgets.
        OutputError: the storage cannot be opened.
        TableError: a confidence is set, but a latency model has no margin.
    """
    if sampler not in SAMPLERS:
        raise UnknownName("sampler", sampler, SAMPLERS)
    for what, number in {"trials": trials, "epochs": epochs, "candidates": candidates}.items():
        if number < 1:
            raise InvalidValue(f"a study needs at least 1 of {what}, not {number}")
    check_feasible(wanted)
    import optuna

    # Its warnings would only repeat errors that reach the caller, with a traceback.
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
        accuracy=lambda codes: -wanted.excess(codes),  # no model: the problem is only to meet the budgets
        seed=seed,
    )
    objective = _Objective(problem=problem, train=train, epochs=epochs, conditional=chosen.conditional, stop=stop)
    draws = _random_networks(problem)
    trained, idle, stopped = _trained(study, wanted.space), 0, stop()
    while len(trained) < trials and not stopped:
        if sampler == "random" or len(trained) < _START or idle >= _STUCK:
            new = next((row for row in itertools.islice(draws, _TRIES) if row.tobytes() not in trained), None)
            if new is None:
                log.warning(
                    "study %s ends with %d networks: %d random ones were already trained", name, len(trained), _TRIES
                )
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
    """Optuna's objective: the accuracy of the network that the trial's sampler proposes."""

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
            # The Gaussian process needs an accuracy of every network; the mean is the least informative.
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

    def params(self, row: Codes) -> dict[str, Value]:
        """The values that make a trial propose this network, ``(variables,)``."""
        [arch] = self.problem.space.decode(row[None])
        return self.problem.space.describe(arch) if self.conditional else dict(arch)

    def _suggest(self, trial: Trial) -> Codes:
        """The canonical code ``(variables,)`` of the network that the sampler proposes."""
        space, values = self.problem.space, dict[str, Value]()
        for variable in space.variables:  # a variable comes after those that it depends on
            matters = not self.conditional or space.has_effect(variable.name, values)
            if matters and len(variable.values) > 1:
                chosen: Value = trial.suggest_categorical(variable.name, variable.values)  # type: ignore[assignment]
                values[variable.name] = chosen
            else:
                values[variable.name] = variable.values[0]
        return _row(space, values)

    def _tell_excess(self, trial: Trial, row: Codes) -> bool:
        """Report the constraint violations to the sampler; return whether a budget is exceeded."""
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
                raise InvalidValue(
                    f"the accuracy of a network must be finite, but after epoch {epoch} it is {accuracy}"
                )
            trial.report(accuracy, epoch)
            if epoch < self.epochs and self.stop():
                raise SearchStopped("a training was stopped")
            if epoch < self.epochs and trial.should_prune():
                raise TrialPruned
        if epoch < self.epochs:
            raise InvalidValue(f"a training must yield {self.epochs} accuracies, one per epoch, but yielded {epoch}")
        return accuracy


def _row(space: Space, values: dict[str, Any]) -> Codes:
    """Values of variables, possibly without those that have no effect, as canonical code: ``(variables,)``."""
    code = [variable.values.index(values.get(variable.name, variable.values[0])) for variable in space.variables]
    [row] = space.canonical(np.array([code], np.uint8))
    return np.asarray(row, np.uint8)


def _trained(study: Study, space: Space) -> dict[bytes, FrozenTrial]:
    """Canonical code of each completely or partly trained network of the study -> its trial."""
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    trained = (trial for trial in reversed(finished) if "trained" in trial.user_attrs)
    return {_row(space, trial.params).tobytes(): trial for trial in trained}  # the first of two trainings


def _best(wanted: Constraints, trained: dict[bytes, FrozenTrial]) -> list[Candidate]:
    """The completely trained networks, the most accurate first, the earliest first among equals."""
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
    """An endless stream of random networks ``(variables,)``, changed at random until they are within the budgets."""
    space = problem.space
    for number in itertools.count():
        rng = np.random.default_rng((problem.seed, 1, number))
        codes = _walked(problem, space.sample(_AT_ONCE, seed=(problem.seed, 0, number)), rng)
        if not len(codes):  # tight budgets: start from the cheapest networks instead
            cheapest = np.stack([least(space, objective.total)[0] for objective in problem.budgeted])
            codes = _walked(problem, np.repeat(cheapest, -(-_AT_ONCE // len(cheapest)), axis=0), rng)
        if not len(codes):
            raise together(problem)
        yield from codes


def _walked(problem: Problem, codes: Codes, rng: np.random.Generator) -> Codes:
    """The networks that random changes bring within the budgets."""
    excess = problem.excess(codes)
    for _ in range(_STEPS):
        if not excess.any():
            break
        changed = problem.space.canonical(mutate(problem, codes, 1, rng))
        less = problem.excess(changed) < excess
        codes[less], excess = changed[less], np.where(less, problem.excess(changed), excess)
    within: Codes = codes[excess == 0]
    return within
