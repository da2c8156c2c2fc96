"""The strategies by name, and their common interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwnas.accuracy.stagewise import coupled
from hwnas.errors import InfeasibleBudget, InvalidValue, SearchStopped, UnknownName
from hwnas.plugins import Registry
from hwnas.progress import Progress, never, silent
from hwnas.search.exact.best import best_networks
from hwnas.search.exact.decompose import Decomposition
from hwnas.search.exact.front import Losses, exact_front
from hwnas.search.exact.pareto import pareto
from hwnas.search.feasible import check_feasible, together
from hwnas.search.problem import Candidate, Problem
from hwnas.search.strategies.base import Outcome, Strategy, StrategyOptions
from hwnas.search.strategies.evolution import search_evolution
from hwnas.search.strategies.local import search_local
from hwnas.search.strategies.milp import search_milp
from hwnas.search.strategies.nsga2 import nsga2_front, search_nsga2
from hwnas.search.strategies.random import search_random
from hwnas.spaces import Codes, SlotSum, Space


def search_exact(problem: Problem, options: StrategyOptions) -> Outcome:
    """The networks with the highest additive accuracy, by merging fronts: see `hwnas.search.exact.best`."""
    score = problem.require_additive("exact")
    codes, proved = best_networks(
        problem.space, score, problem.held, options.candidates, progress=options.progress, stop=options.stop
    )
    return Outcome(codes=codes, proved=proved, stopped=not proved, evaluations=0)


def front_exact(problem: Problem, options: StrategyOptions) -> Outcome:
    """The whole Pareto front of accuracy and costs: see `hwnas.search.exact.front`."""
    score = problem.require_additive("exact")
    loss = SlotSum(constant=-score.constant, axes=score.axes, arrays=tuple(-array for array in score.arrays))
    functions = (*(o.total for o in problem.objectives), loss)
    losses = Losses(functions, (*(problem.limit(o) for o in problem.objectives), np.inf))
    codes = exact_front(problem.space, losses, progress=options.progress, stop=options.stop)
    nothing = np.zeros((0, len(problem.space.variables)), np.uint8)
    stopped = codes is None
    return Outcome(codes=nothing if codes is None else codes, proved=not stopped, stopped=stopped, evaluations=0)


STRATEGIES: dict[str, Strategy] = {
    "exact": search_exact,
    "milp": search_milp,
    "nsga2": search_nsga2,
    "evolution": search_evolution,
    "local": search_local,
    "random": search_random,
}
_KNOWN = Registry(
    "search strategy",
    "hwnas.strategies",
    STRATEGIES,
    fits=callable,
    needs="a function (hwnas.search.Problem, hwnas.search.strategies.base.StrategyOptions) -> Outcome",
)
FRONTS: dict[str, Strategy] = {"exact": front_exact, "nsga2": nsga2_front}


def strategy_names() -> list[str]:
    """Names of the strategies of `solve`: those of hwnas, then those of plugins."""
    return _KNOWN.names()


def check_strategy(strategy: str, space: Space) -> None:
    """Check, before long work, that a strategy can search a space by a stage-wise accuracy model and slots' latencies.

    Raises:
        UnknownName: there is no such strategy.
        InvalidValue: the space cannot be decomposed for exact search.
    """
    if strategy not in strategy_names():
        raise UnknownName("search strategy", strategy, strategy_names())
    if strategy == "exact":
        slots = [tuple(space.column[name] for name in slot.variables) for slot in space.slots]
        axes = (*coupled(space), *slots)
        shape = [tuple(len(space.variables[i].values) for i in each) for each in axes]
        Decomposition.of(space, SlotSum(constant=0.0, axes=axes, arrays=tuple(map(np.zeros, shape))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of a search.

    Attributes:
        candidates: networks within the budgets by decreasing predicted accuracy; for a front, by ascending first cost.
        strategy: strategy that found them.
        proved: whether it is proved that no other network of the space is better by the accuracy model.
        stopped: whether the search was stopped early; these are the best so far.
        evaluations: number of individually scored networks.
    """

    candidates: list[Candidate]
    strategy: str
    proved: bool
    stopped: bool
    evaluations: int


def solve(
    problem: Problem,
    strategy: str = "exact",
    *,
    candidates: int = 20,
    evaluations: int | None = None,
    start: Codes | None = None,
    progress: Progress = silent,
    stop: Callable[[], bool] = never,
) -> Found:
    """The best networks of a problem.

    Args:
        problem: the space, the accuracy to maximise, and the budgets.
        strategy: one of `strategy_names`.
        candidates: largest number of networks to return.
        evaluations: largest number of networks that a heuristic scores; None for its default.
        start: initial networks of a heuristic, such as the exact front of an additive model,
            ``(n, variables)``.
        progress: callback, invoked during the search.
        stop: polled regularly; when it returns True, the best so far are returned.

    Raises:
        UnknownName: there is no such strategy.
        PluginError: the strategy belongs to a plugin and cannot be loaded.
        InvalidValue: fewer than one candidate or evaluation is requested; the strategy needs an additive accuracy; the
            space cannot be decomposed.
        InfeasibleBudget: no network is within the budgets, or the strategy found none.
        SearchStopped: the search was stopped before it found a network.
    """
    return _run(
        _KNOWN[strategy],
        _sorted_best,
        problem,
        strategy,
        StrategyOptions(candidates=candidates, evaluations=evaluations, start=start, progress=progress, stop=stop),
    )


def find_front(
    problem: Problem,
    strategy: str = "exact",
    *,
    evaluations: int | None = None,
    progress: Progress = silent,
    stop: Callable[[], bool] = never,
) -> Found:
    """The Pareto front of accuracy and all costs within the budgets.

    Args:
        problem: the space, accuracy and objectives; budgets limit the front.
        strategy: a key of `FRONTS`.
        evaluations: as in `solve`.
        progress: as in `solve`.
        stop: as in `solve`; an unfinished front is not returned.

    Raises:
        UnknownName, InvalidValue, InfeasibleBudget, SearchStopped: as in `solve`.
    """
    if strategy not in FRONTS:
        raise UnknownName("search strategy", strategy, FRONTS)
    return _run(
        FRONTS[strategy],
        _sorted_front,
        problem,
        strategy,
        StrategyOptions(candidates=1, evaluations=evaluations, progress=progress, stop=stop),
    )


def _run(
    search: Strategy,
    ordered: Callable[[Problem, Codes], Codes],
    problem: Problem,
    strategy: str,
    options: StrategyOptions,
) -> Found:
    if options.candidates < 1 or (options.evaluations is not None and options.evaluations < 1):
        raise InvalidValue(
            f"a search needs at least 1 candidate and 1 evaluation, not {options.candidates} and {options.evaluations}"
        )
    outcome = search(problem, options)
    if not len(outcome.codes):
        if outcome.stopped:
            raise SearchStopped(f"{strategy} search was stopped before it had found a network; run it again")
        check_feasible(problem)  # raises with the name of an infeasible budget
        raise _none(problem, strategy, outcome)
    return Found(
        candidates=problem.candidates(ordered(problem, outcome.codes)),
        strategy=strategy,
        proved=outcome.proved,
        stopped=outcome.stopped,
        evaluations=outcome.evaluations,
    )


def _none(problem: Problem, strategy: str, outcome: Outcome) -> InfeasibleBudget:
    if outcome.proved:
        return together(problem)
    return InfeasibleBudget(
        f"{strategy} search found no network within the budgets among {outcome.evaluations}, although each budget is "
        "feasible: use --strategy exact or milp",
        objectives=tuple(problem.budgets),
    )


def _sorted_best(problem: Problem, codes: Codes) -> Codes:
    return codes[np.argsort(-problem.accuracy(codes), kind="stable")]


def _sorted_front(problem: Problem, codes: Codes) -> Codes:
    return codes[pareto(np.column_stack([problem.costs(codes), -problem.accuracy(codes)]))]
