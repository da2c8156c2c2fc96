"""The differentiable search: trains both levels alternately under latency targets, and derives a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.data import Data
from hwnas.data.base import check_fits
from hwnas.errors import InvalidValue, TrainingDiverged, UnknownName
from hwnas.latency.loss import LatencyLoss
from hwnas.latency.penalties import PENALTIES, Penalty
from hwnas.progress import Progress, never, silent
from hwnas.search.differentiable.bilevel import first_order, second_order
from hwnas.search.differentiable.config import DifferentiableConfig, usual_search
from hwnas.search.differentiable.methods import METHODS, Method
from hwnas.search.differentiable.mixed import MixedNet, Paths
from hwnas.search.differentiable.repair import Repaired, check_repairable, most_probable
from hwnas.search.differentiable.sampling import fair_paths
from hwnas.search.differentiable.skips import skip_limits
from hwnas.search.problem import Constraints
from hwnas.spaces import Domain
from hwnas.supernet import Supernet
from hwnas.supernet.network import weights_hash
from hwnas.tasks import task_of
from hwnas.training.alone import Alone
from hwnas.training.checkpoint import Checkpoint
from hwnas.training.loop import Loop, Update

_ADAM = (0.5, 0.999)  # DARTS, section 3.1: the architecture's betas


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """The result of a differentiable search.

    Attributes:
        repaired: the network, and the most probable one without budgets.
        probabilities: name of a variable -> probabilities of its values.
        expected: name of an objective -> its expectation under the probabilities.
        steps: number of updates.
        ended: the reason if it ended before the last step; otherwise None.
    """

    repaired: Repaired
    probabilities: dict[str, list[float]]
    expected: dict[str, float]
    steps: int
    ended: str | None = None


def search_differentiable(
    wanted: Constraints,
    data: Data,
    strategy: str,
    config: DifferentiableConfig | None = None,
    *,
    folder: Path,
    init: Supernet | None = None,
    seed: int = 0,
    device: str = "cpu",
    resume: bool = True,
    progress: Progress = silent,
    stop: Callable[[], bool] = never,
) -> Relaxed:
    """Train a relaxed network and the probabilities of its choices, and derive a network within the budgets from them.

    Weights are trained on training images, probabilities on validation images, with a penalty that keeps the expected
    latency below its budgets. A killed search resumes from the checkpoint in its folder.

    Args:
        wanted: the space and the latency budgets; the search targets the limits that the confidence leaves of them.
        data: images or tokens that the networks read, with the space's number of classes.
        strategy: a key of `METHODS`.
        config: configuration of the training; the usual one of the space if None.
        folder: for the checkpoint.
        init: a supernet of the space, whose weights are the start; what is frozen in it stays.
        seed: of weights, images, samples.
        device: torch device.
        resume: resume from a checkpoint in the folder.
        progress: callback, invoked after every step, in images.
        stop: polled after every step; when it returns True, the network is derived from the current probabilities.

    Raises:
        UnknownName: there is no such strategy or penalty.
        InvalidValue: a budget is not a latency budget, or there is no budget; outputs of a slot's ops cannot be summed;
            the space has only one network; the data has another number of channels or classes; a part of the channels
            cannot start from the weights of all.
        InfeasibleBudget: no network is within the budgets (and, with `skip_guard`, the limits on skip connections).
        TrainingDiverged: a loss is NaN or infinite.
        CheckpointError: the folder holds a checkpoint of another search.
        OutputError: the checkpoint cannot be written.
    """
    if strategy not in METHODS:
        raise UnknownName("differentiable strategy", strategy, METHODS)
    config = config or usual_search(wanted.space)
    if config.penalty not in PENALTIES:
        raise UnknownName("penalty", config.penalty, PENALTIES)
    models = [objective.latency for objective in wanted.budgeted]
    if not models or None in models:
        raise InvalidValue(
            "a differentiable search needs budgets of latency, and no others: "
            f"{', '.join(wanted.budgets) or 'none is given'}"
        )
    check_fits(data, wanted.space, wanted.space.name)
    if wanted.space.size == 1:
        raise InvalidValue(
            f"{wanted.space.name} as it is restricted has one network, so there is nothing to search; `hwnas train` "
            "with the same --fix trains it"
        )
    check_repairable(wanted, skip_limits(wanted.space) if config.skip_guard else [])
    run = Trained(wanted, data, METHODS[strategy], config, init=init, seed=seed, device=torch.device(device))
    subject = {
        "strategy": strategy,
        "space": Domain.of(wanted.space).model_dump(),
        "budgets": dict(wanted.budgets),
        "confidence": wanted.confidence,
        "latency": wanted.fingerprint(),
        "data": data.fingerprint(),
        **config.model_dump(mode="json", exclude={"checkpoint_every"}),
        "seed": seed,
    }
    if init is not None:
        subject["initial weights"] = weights_hash(init.state_dict())
    if METHODS[strategy].edge_normalisation:
        subject["edges"] = sorted(run.net.edges)
    loop = Loop(folder, subject, resume=resume)
    run.restore(loop.found)
    batches, held_out = run.training_images(loop.done), run.validation_images(loop.done)

    def update(number: int) -> Update:
        loss = run.step(number, next(batches), next(held_out))
        what = f"{strategy}: training weights and probabilities"
        return Update(what=what, done=number + 1, total=config.steps, note=f"loss {loss:.3f}")

    def ended() -> str | None:
        if config.skip_guard and loop.done > config.warmup * config.steps and run.skips_dominate():
            return f"skip connections were about to be more than half of a cell after {loop.done} steps"
        return f"stopped after {loop.done} of {config.steps} steps" if stop() else None

    reason = loop.run(
        update,
        run.state,
        end=config.steps,
        batch_size=config.batch_size,
        checkpoint_every=config.checkpoint_every,
        processes=Alone(run.device),
        progress=progress,
        ended=ended,
    )
    return run.result(loop.done, reason)


class Trained:
    """The state of a search: its network, optimisers and penalty.

    Args:
        wanted, data, config, init, seed: as in `search_differentiable`.
        method: a value of `METHODS`.
        device: torch device.
    """

    def __init__(
        self,
        wanted: Constraints,
        data: Data,
        method: Method,
        config: DifferentiableConfig,
        *,
        seed: int,
        device: torch.device,
        init: Supernet | None = None,
    ) -> None:
        self.wanted, self.data, self.method, self.config = wanted, data, method, config
        self.seed, self.device = seed, device
        self.loss = task_of(data.task).loss()
        self.net = MixedNet(
            wanted.space, partial=method.partial, edge_normalisation=method.edge_normalisation, seed=seed, init=init
        ).to(device)
        self.latency = LatencyLoss(*(o.latency for o in wanted.budgeted if o.latency))
        self.penalty: Penalty = PENALTIES[config.penalty]([wanted.limit(o) for o in wanted.budgeted]).to(device)
        self.module = nn.ModuleDict({"net": self.net, "penalty": self.penalty})
        self.limits = skip_limits(wanted.space) if config.skip_guard else []
        trained, rate, decay = self.net.weight_parameters, config.learning_rate, config.weight_decay
        self.weights: torch.optim.Optimizer
        if config.optimizer == "adamw":
            self.weights = torch.optim.AdamW(trained, lr=rate, weight_decay=decay)
        else:
            self.weights = torch.optim.SGD(trained, lr=rate, momentum=config.momentum, weight_decay=decay)
        self.archs = torch.optim.Adam(
            self.net.arch_parameters,
            lr=config.arch_learning_rate,
            betas=_ADAM,
            weight_decay=config.arch_weight_decay,
        )

    # -- images ----------------------------------------------------------------------------------------------------

    def training_images(self, done: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Training batches for the weights, from the step `done` on."""
        resolution = self.wanted.space.input_size(self.wanted.space.largest)
        for step in range(done, self.config.steps):
            images, labels = self.data.train_batch(step, self.config.batch_size, resolution, seed=self.seed)
            yield images.to(self.device), labels.to(self.device)

    def validation_images(self, done: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches for the probabilities, from the step `done` on: the validation split, repeated endlessly."""
        resolution, size = self.wanted.space.input_size(self.wanted.space.largest), self.config.batch_size
        count = math.ceil(self.data.size("validation") / size)
        skipped = done % count
        while True:
            for number, (images, labels) in enumerate(self.data.batches("validation", resolution, batch_size=size)):
                if number >= skipped:
                    yield images.to(self.device), labels.to(self.device)
            skipped = 0

    # -- a step ----------------------------------------------------------------------------------------------------

    def step(self, number: int, training: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]) -> float:
        """Update each level once; return the loss on the training images before the update."""
        config, method = self.config, self.method
        share = number / config.steps
        high, low = method.temperatures
        temperature = high * (low / high) ** share
        rate = config.learning_rate * (1 + math.cos(math.pi * share)) / 2
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        self.net.skip_dropout = config.skip_dropout * (1 - share)
        for group in self.weights.param_groups:
            group["lr"] = rate
        learns = share >= config.warmup
        if learns and not method.together:
            paths = method.archs(self.net.alphas, temperature, generator)
            self._learn_archs(number, paths, training, validation, temperature, rate)
        loss = self._learn_weights(number, training, temperature, generator, archs=learns and method.together)
        if learns and (number + 1) % config.update_every == 0:
            self.penalty.update(self._latency())
        return loss

    def _learn_archs(
        self,
        number: int,
        paths: Paths,
        training: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor],
        temperature: float,
        rate: float,
    ) -> None:
        before = {name: logits.detach().clone() for name, logits in self.net.alphas.items()}
        parameters = self.net.arch_parameters

        def upper() -> Tensor:
            return self._finite(self._arch_loss(self._task(paths_now(), *validation), number), number)

        def paths_now() -> Paths:
            # The second order changes only weights, but each loss needs its own graph.
            return self.method.archs(self.net.alphas, temperature, _nothing()) if self.method.second_order else paths

        if self.method.second_order:
            gradients = second_order(
                lambda: self._task(paths_now(), *training), upper, self.net.weight_parameters, parameters, rate
            )
        else:
            with self.net.held_weights():
                gradients = first_order(upper, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.archs.step()
        if self.method.pairs:
            self._keep_pairs(before, paths)

    def _learn_weights(
        self,
        number: int,
        training: tuple[Tensor, Tensor],
        temperature: float,
        generator: torch.Generator,
        *,
        archs: bool,
    ) -> float:
        self.module.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        if self.method.fair:
            for paths in fair_paths(self.wanted.space, self.seed, number):
                on_device = Paths(*({k: v.to(self.device) for k, v in part.items()} for part in paths))
                losses.append(self._task(on_device, *training))
                self._finite(losses[-1], number).backward()
                losses[-1] = losses[-1].detach()
        else:
            alphas = self.net.alphas if archs else {name: a.detach() for name, a in self.net.alphas.items()}
            loss = self._task(self.method.weights(alphas, temperature, generator), *training)
            losses.append(loss.detach())
            if archs:
                loss = self._arch_loss(loss, number)
            self._finite(loss, number).backward()
        nn.utils.clip_grad_norm_(self.net.weight_parameters, self.config.clip_norm)
        self.weights.step()
        if archs:
            self.archs.step()
        return float(torch.stack(losses).mean())

    def _task(self, paths: Paths, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.net(images, paths), labels)

    def _latency(self) -> Tensor:
        expected: Tensor = self.latency(self.net.probabilities())
        return expected

    def _arch_loss(self, task: Tensor, number: int) -> Tensor:
        """The task's loss plus the penalty on latency and, if enabled, on undecided probabilities."""
        loss: Tensor = self.penalty(task, self._latency())
        probabilities = list(self.net.probabilities().values())
        share = number / self.config.steps
        if self.config.entropy:
            entropies = [-(p * p.clamp(min=1e-12).log()).sum() / math.log(len(p)) for p in probabilities]
            loss = loss + self.config.entropy * share * torch.stack(entropies).mean()
        if self.method.variance:
            variances = [p.var(unbiased=False) for p in probabilities]
            loss = loss - self.method.variance * share * torch.stack(variances).mean()
        return loss

    def _keep_pairs(self, before: dict[str, Tensor], paths: Paths) -> None:
        """Shift the two compared logits so that the others' probabilities are unchanged (ProxylessNAS, 3.2.1)."""
        with torch.no_grad():
            for name, logits in self.net.alphas.items():
                two = paths.open[name] > 0
                new = torch.where(two, logits, before[name])  # Adam's momentum moves the others as well
                shift = before[name][two].logsumexp(dim=0) - new[two].logsumexp(dim=0)
                logits.copy_(torch.where(two, new + shift, new))

    def _finite(self, loss: Tensor, number: int) -> Tensor:
        if not bool(torch.isfinite(loss)):
            raise TrainingDiverged(
                f"the loss is {float(loss.detach())} in step {number + 1}. Lower the learning rate (now "
                f"{self.config.learning_rate:g}) or, if the latency's penalty grew, that of the probabilities (now "
                f"{self.config.arch_learning_rate:g})"
            )
        return loss

    # -- result ----------------------------------------------------------------------------------------------------

    def skips_dominate(self) -> bool:
        """Whether the most probable network has a cell with more than half skip connections."""
        values = {name: int(p.argmax()) for name, p in self.net.probabilities().items()}
        space = self.wanted.space
        arch = space.arch({v.name: v.values[values.get(v.name, 0)] for v in space.variables})
        return any(float(count(space.encode([arch]))[0]) > half for count, half in self.limits)

    def result(self, done: int, ended: str | None) -> Relaxed:
        """The result, with the network that is derived from the current probabilities."""
        with torch.no_grad():
            probabilities = {n: p.double().cpu() for n, p in self.net.probabilities().items()}
            expected = self.latency(probabilities)
        probabilities = {name: p / p.sum() for name, p in probabilities.items()}
        repaired = most_probable(self.wanted, probabilities, window=self.config.window, limits=self.limits)
        return Relaxed(
            repaired=repaired,
            probabilities={name: p.tolist() for name, p in probabilities.items()},
            expected=dict(zip(self.latency.targets, expected.tolist(), strict=True)),
            steps=done,
            ended=ended,
        )

    # -- checkpoint ------------------------------------------------------------------------------------------------

    def state(self, done: int) -> Checkpoint:
        """Everything that the next step depends on."""
        kept: dict[str, Tensor] = {}
        for level, optimiser in (("weights", self.weights), ("archs", self.archs)):
            for number, values in optimiser.state_dict()["state"].items():
                kept |= {f"{level}.{number}.{n}": t for n, t in values.items() if isinstance(t, Tensor)}
        return Checkpoint(step=done, model=self.module.state_dict(), average={}, momentum=kept)

    def restore(self, found: Checkpoint | None) -> None:
        """Restore the state of a checkpoint, if there is one."""
        if found is None:
            return
        self.module.load_state_dict(found.model)
        for level, optimiser in (("weights", self.weights), ("archs", self.archs)):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in found.momentum.items():
                own, number, what = name.split(".", 2)
                if own == level:
                    state.setdefault(int(number), {})[what] = tensor
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _nothing() -> torch.Generator:
    """A generator for a relaxation that draws no samples."""
    return torch.Generator()
