"""Joint search for an architecture and the recipe to deploy it with on a device.

Every recipe has its own latencies, and its accuracy loss (int8, bf16) is measured on networks in its runtime. A recipe
that fails the parity check, or whose table has no bound at the requested confidence, is left out and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from hwnas.accuracy import Evaluator
from hwnas.deploy.exporter import lower_subnet
from hwnas.deploy.parity import OF_ONE_RECIPE, deployed_parity, told
from hwnas.errors import InfeasibleBudget, InvalidValue, ParityError, TableError
from hwnas.files import Journal
from hwnas.lowering import Program
from hwnas.progress import Progress, never, silent
from hwnas.search.problem import Candidate, Problem
from hwnas.search.rerank import Chosen, choose
from hwnas.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeChoice:
    """The result of one recipe.

    Attributes:
        target: device and recipe.
        chosen: networks by their accuracy in torch.
        deployed: accuracy of the first ones in the recipe's runtime, on the validation images.
        change: average change of accuracy by the recipe over the deployed networks, as a fraction.
    """

    target: Target
    chosen: Chosen
    deployed: tuple[float, ...]
    change: float

    @property
    def best(self) -> int:
        """Index of the most accurate deployed network."""
        return int(np.argmax(self.deployed))


def choose_recipe(
    problems: Mapping[str, Problem],
    targets: Mapping[str, Target],
    evaluator: Evaluator,
    journal: Journal,
    *,
    strategy: str = "exact",
    candidates: int = 20,
    acquisition: str = "mean",
    deployed: int = 3,
    progress: Progress = silent,
    stop: Callable[[], bool] = never,
) -> tuple[list[RecipeChoice], dict[str, str]]:
    """Search with each recipe, deploy the best networks of each, and compare.

    Args:
        problems: target's name -> the problem with that target's latency and budget.
        targets: target's name -> the target.
        evaluator: as in `hwnas.search.rerank.choose`, like journal, strategy, candidates, acquisition and stop.
        journal: record of evaluations.
        strategy: of the search.
        candidates: number of networks to evaluate in torch.
        acquisition: which of them are evaluated first.
        deployed: number of networks of each recipe to lower and run on the validation images.
        progress: callback, invoked during the work.
        stop: polled regularly; when it returns True, every recipe's search ends early.

    Returns:
        the recipes by decreasing accuracy of their best deployed network; and target's name -> why it is left out.

    Raises:
        InfeasibleBudget: no recipe has a network that is within the budget and passes the parity check.
    """
    found, left_out = [], dict[str, str]()
    for name, problem in problems.items():
        try:
            for objective in problem.budgeted:
                objective.margin(problem.confidence)
        except (InvalidValue, TableError) as error:
            left_out[name] = str(error)
            continue
        try:
            chosen = choose(
                problem,
                evaluator,
                journal,
                strategy=strategy,
                candidates=candidates,
                acquisition=acquisition,
                progress=progress,
                stop=stop,
            )
            tried = chosen.candidates[:deployed]
            accuracies = tuple(_accuracy(c, evaluator, targets[name], journal, progress) for c in tried)
        except (InfeasibleBudget, *OF_ONE_RECIPE) as error:
            left_out[name] = told(error)
            continue
        change = float(np.mean(np.array(accuracies) - np.array(chosen.accuracies[: len(tried)])))
        found.append(RecipeChoice(target=targets[name], chosen=chosen, deployed=accuracies, change=change))
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InfeasibleBudget(f"no recipe has a network that can be deployed: {reasons}", objectives=tuple(problems))
    return sorted(found, key=lambda choice: -max(choice.deployed)), left_out


def _accuracy(
    candidate: Candidate, evaluator: Evaluator, target: Target, journal: Journal, progress: Progress
) -> float:
    """Accuracy of a network in the recipe's runtime on the validation images.

    Raises:
        ParityError: its outputs differ.
    """
    arch, recipe = candidate.arch, target.recipe

    def lowered() -> tuple[nn.Module, Program]:
        network = evaluator.subnet(arch, progress=progress)
        return network, lower_subnet(network, evaluator, arch, recipe)

    parity, refused = deployed_parity(arch, evaluator, recipe, journal, lowered, progress)
    if refused:
        raise ParityError(refused)
    return parity.deployed_accuracy
