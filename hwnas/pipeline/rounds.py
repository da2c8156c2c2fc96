"""The closed loop of a compilation: search, export and benchmark, repeated if the bundle misses its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hwnas.deploy.verdict import judged_ms, over_budget
from hwnas.pipeline.cache import Stage
from hwnas.spaces import Arch, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Prediction and measurement of a round's network.

    Attributes:
        predicted_ms: by the latency model of the round.
        bound_ms: the model's upper bound at the job's confidence.
        measured_ms: at the machine's speed in the profile.
        budget_ms: the budget.
        validation_accuracy: of the network with the weights that are deployed.
        too_noisy: whether the machine was too noisy for the measurement to be trusted.
    """

    predicted_ms: float
    bound_ms: float
    measured_ms: float
    budget_ms: float
    validation_accuracy: float
    too_noisy: bool

    @property
    def over_budget(self) -> float:
        """Share by which the budget is exceeded; negative or 0 within it."""
        return over_budget(self.measured_ms, self.budget_ms)

    @property
    def missed(self) -> str | None:
        """What the measurement is above, in words; None if it is within the budget and the bound, or too noisy."""
        if self.too_noisy:
            return None
        if self.over_budget > 0:
            return f"the budget of {self.budget_ms:.4g} ms"
        if self.measured_ms > self.bound_ms:
            return f"the bound of {self.bound_ms:.4g} ms"
        return None

    def facts(self) -> dict[str, object]:
        """For ``report.json``."""
        return {**asdict(self), "missed": self.missed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """Validation accuracies of a network before and after its fine-tuning; the better weights are deployed.

    Attributes:
        steps: updates.
        inherited: with the weights that it inherits from the supernet.
        finetuned: after the fine-tuning.
    """

    steps: int
    inherited: float
    finetuned: float

    @property
    def kept(self) -> bool:
        """Whether the fine-tuned weights are deployed."""
        return self.finetuned >= self.inherited

    @property
    def accuracy(self) -> float:
        """With the weights that are deployed."""
        return max(self.inherited, self.finetuned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The stages of a round. The search of a later round uses the measurements of the earlier ones.

    Attributes:
        search, export, bench: the stages.
        finetune: between search and export; None in a job without ``[finetune]``.
    """

    search: Stage
    finetune: Stage | None = None
    export: Stage
    bench: Stage

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages after the search."""
        return (*([self.finetune] if self.finetune else []), self.export, self.bench)

    @property
    def finetuned(self) -> Finetuned | None:
        """What fine-tuning the network found has changed; None without it."""
        return Finetuned(**self.finetune.result()) if self.finetune else None

    def arch(self, space: Space) -> Arch:
        """The network that was found."""
        return space.arch(self.search.result()["arch"])

    def outcome(self) -> Outcome:
        """Prediction and measurement of a finished round."""
        found, timed = self.search.result(), self.bench.result()["bundle"]
        predicted_ms, tuned = found["predicted_ms"], self.finetuned
        return Outcome(
            predicted_ms=predicted_ms,
            bound_ms=predicted_ms * found["budget_ms"] / found["limit_ms"],
            measured_ms=judged_ms(timed["measured_ms"], timed.get("speed")),  # missing in stages of older versions
            budget_ms=found["budget_ms"],
            validation_accuracy=found["validation_accuracy"] if tuned is None else tuned.accuracy,
            too_noisy=timed["too_noisy"],
        )


def timed_networks(rounds: Sequence[Round], space: Space) -> dict[Arch, float]:
    """The networks of finished rounds and their latencies at the machine's speed in the profile, in milliseconds."""
    return {each.arch(space): each.outcome().measured_ms for each in rounds}


def evaluated_networks(rounds: Sequence[Round], space: Space) -> dict[Arch, float]:
    """Validation accuracies of all networks that the searches of finished rounds evaluated."""
    results = [each.search.result() for each in rounds]
    networks = [network for found in results for network in (*found["candidates"], *found["random"])]
    return {
        space.arch(network["arch"]): network["validation_accuracy"]
        for network in networks
        if network["validation_accuracy"] is not None
    }


def best_round(outcomes: Sequence[Outcome]) -> int:
    """The round whose network is deployed: the most accurate one within the budget, the faster one at a tie.

    If none is within the budget, the one with the smallest excess.
    """

    def rank(number: int) -> tuple[bool, float, float]:
        one = outcomes[number]
        within = one.over_budget <= 0
        return not within, -one.validation_accuracy if within else one.over_budget, one.measured_ms

    return min(range(len(outcomes)), key=rank)
