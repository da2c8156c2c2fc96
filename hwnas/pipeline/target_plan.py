"""The stages of one target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from hwnas.pipeline.cache import Stage
from hwnas.pipeline.rounds import Outcome, Round
from hwnas.pipeline.stages import Context


@dataclass(frozen=True, kw_only=True)
class TargetPlan:
    """The stages of one target, in order; targets share stages with the same key.

    Attributes:
        context: common objects of the stages.
        check: the check of the images; None for data that are not an image folder.
        profile, validate, train, accuracy: the stages before the search.
        elastic: the stage that makes a supernet of the user's network; `train` is the same one if it is not trained.
        rounds: search, fine-tuning, export and benchmark; a later round is executed if the one before missed its budget
            or bound.
        taken: number of the round whose network is deployed.
    """

    context: Context
    check: Stage | None = None
    profile: Stage
    validate: Stage
    elastic: Stage | None = None
    train: Stage
    accuracy: Stage
    rounds: tuple[Round, ...]
    taken: int = 0

    @property
    def search(self) -> Stage:
        """The search of the taken round."""
        return self.rounds[self.taken].search

    @property
    def export(self) -> Stage:
        """The export of the taken round."""
        return self.rounds[self.taken].export

    @property
    def bench(self) -> Stage:
        """The benchmark of the taken round."""
        return self.rounds[self.taken].bench

    @property
    def earlier(self) -> tuple[Round, ...]:
        """The rounds before the taken one, whose measurements its latency model uses."""
        return self.rounds[: self.taken]

    @property
    def measured(self) -> tuple[Stage, ...]:
        """The stages before the training: they determine whether the data and the budget are feasible."""
        return (*([self.check] if self.check else []), self.profile, self.validate)

    @property
    def supernet(self) -> tuple[Stage, ...]:
        """The stages that make the supernet."""
        if self.elastic is None:
            return (self.train,)
        return (self.elastic,) if self.train is self.elastic else (self.elastic, self.train)

    def made(self) -> Iterator[Stage]:
        """The training and the stages after it.

        Whether there is another round depends on the finished one before, so each stage is executed before the next one
        is taken from the iterator.
        """
        yield from (*self.supernet, self.accuracy)
        for number, each in enumerate(self.rounds):
            yield each.search
            if number and each.search.is_whole() and self._is_known(number):
                return
            yield from each.stages
            if not each.bench.is_whole() or not each.outcome().missed or self._unpredicted or not self._can_refit():
                return

    def outcomes(self) -> list[Outcome]:
        """Those of all finished rounds."""
        stages = list(self.made())
        return [each.outcome() for each in self.rounds if each.bench in stages and each.bench.is_whole()]

    def why_ended(self) -> str | None:
        """Why there is no further round although the last one missed its budget or bound; None if it did not."""
        outcomes = self.outcomes()
        if not outcomes[-1].missed:
            return None
        if self._unpredicted:
            return (
                f"the program includes {' and '.join(self._unpredicted)}, whose time is not in the prediction, so a "
                "refit would take it for an error of the latency model; choose a smaller budget, or leave it out of "
                "[export] include"
            )
        if len(outcomes) == len(self.rounds):
            return f"at most {len(self.rounds) - 1} refits (`[search] refits`)"
        if not self._can_refit():
            return (
                "the table was fitted by a version of hwnas that did not store what a refit needs; "
                "`--from profile` measures it again"
            )
        if self.rounds[len(outcomes)].search.is_whole():
            return "the refitted model finds a network that was already measured"
        return "by the refitted model, no network is within the budget"

    def _is_known(self, number: int) -> bool:
        """Whether a round found a network that was already measured."""
        space = self.context.space
        return self.rounds[number].arch(space) in [each.arch(space) for each in self.rounds[:number]]

    @property
    def _unpredicted(self) -> list[str]:
        """Steps in the program that the latency model does not know."""
        return sorted(set(self.context.job.export.include))

    def _can_refit(self) -> bool:
        """Whether the table has what a refit needs, which those of older versions do not have."""
        fit = self.context.table(self.profile.folder).fit_for(self.context.space)
        return fit is not None and bool(fit.bound_ms)

    @property
    def stage_names(self) -> set[str]:
        """The names of all stages that it may execute."""
        stages = (*self.measured, *self.supernet, self.accuracy, self.search, *self.rounds[0].stages)
        return {stage.name for stage in stages}

    @property
    def name(self) -> str:
        """Name of the target, ``device/recipe``."""
        return self.context.target.name


STAGES = (
    *(field.name for field in fields(TargetPlan) if field.name not in ("context", "rounds", "taken")),
    *(field.name for field in fields(Round)),
)
