"""The answer of a search is the best of all networks that were evaluated; of equal ones, the cheaper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from hwnas.accuracy import fit_accuracy, spread_over_cost
from hwnas.files import Journal
from hwnas.progress import Progress, silent
from hwnas.search import Objective, Problem
from hwnas.search.rerank import best_evaluated, choose
from hwnas.spaces import Arch, Space, make_space

SPACES = {
    "mobilenetv3-tiny": make_space("mobilenetv3-tiny").fix(resolution=24, depth_3=1),
    "nasbench201-tiny": make_space("nasbench201-tiny"),
}


class MadeUp:
    """Made-up accuracies in steps of half a point; they grow with the MACs and scatter by 3 points."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed
        self.known: dict[Arch, float] = {}

    def accuracy(self, arch: Arch) -> float:
        macs = self.space.macs(self.space.encode([arch, self.space.largest]))
        noise = np.random.default_rng([self.seed, *self.space.encode([arch])[0].tolist()]).normal(0, 0.03)
        return float(np.clip(np.round(200 * (0.5 + 0.3 * macs[0] / macs[1] + noise)) / 200, 0.01, 0.99))

    def accuracies(
        self, archs: Sequence[Arch], journal: Journal, *, what: str, progress: Progress = silent
    ) -> list[float]:
        self.known |= {arch: self.accuracy(arch) for arch in archs}
        return [self.known[arch] for arch in archs]

    def evaluated(self, journal: Journal) -> Mapping[Arch, float]:
        return dict(self.known)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(2))
def test_no_evaluated_network_within_the_budget_is_better(name: str, seed: int, tmp_path: Path) -> None:
    """Five budgets share an accuracy model, whose fit takes 2 seconds."""
    space = SPACES[name]
    codes = spread_over_cost(space, 60, seed=seed)
    cost = Objective(name="macs", unit="", total=space.macs)
    with Journal(tmp_path / "j", {}) as journal:
        found = MadeUp(space, seed).accuracies(space.decode(codes), journal, what="x")
        model = fit_accuracy(space, codes, np.array(found), seed=seed)
        for number, share in enumerate((0.3, 0.42, 0.54, 0.66, 0.84)):
            evaluator = MadeUp(space, seed)
            evaluator.accuracies(space.decode(codes), journal, what="x")
            budget = float(np.quantile(space.macs(codes), share))
            problem = Problem(space=space, accuracy=model, objectives=(cost,), budgets={"macs": budget}, seed=number)
            chosen = choose(problem, evaluator, journal, candidates=5)  # type: ignore[arg-type]
            best = chosen.candidates[0]
            assert best.costs["macs"] <= budget * (1 + 1e-9)
            within = [a for a in evaluator.known if space.macs(space.encode([a]))[0] <= budget * (1 + 1e-9)]
            assert chosen.accuracies[0] == max(evaluator.known[arch] for arch in within)
            ties = [arch for arch in within if evaluator.known[arch] == chosen.accuracies[0]]
            assert best.costs["macs"] == min(space.macs(space.encode(ties)))
            assert len(chosen.candidates) == len(within)
            assert f"the best of {len(within)} evaluated networks" in chosen.proof


def test_networks_above_the_budget_are_left_out() -> None:
    space = SPACES["mobilenetv3-tiny"]
    cost = Objective(name="macs", unit="", total=space.macs)
    budget = float(space.macs(space.encode([space.smallest]))[0])
    problem = Problem(space=space, accuracy=space.macs, objectives=(cost,), budgets={"macs": budget})
    candidates, accuracies = best_evaluated(problem, {space.largest: 0.9, space.smallest: 0.1})
    assert [c.arch for c in candidates] == [space.smallest]
    assert accuracies == [0.1]
