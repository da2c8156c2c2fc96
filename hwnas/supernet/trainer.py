"""Training a supernet: progressive shrinking in phases, the sandwich rule, in-place distillation.

Successive phases open more choices (Cai et al., "Once for All", ICLR 2020, section 3.4). Each step trains the largest
open subnet on the labels, and the smallest and a few random subnets also on the outputs of the largest; the gradients
are summed into one update (Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models",
ECCV 2020, section 3.2). Each subnet has its own resolution, the smallest a random one in every second step.

For a space with a single network, this is ordinary training of that network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hwnas.adapters import Adapted
from hwnas.data import Data
from hwnas.data.base import check_batch, check_fits
from hwnas.errors import InvalidValue, OutOfMemory, ProcessLost, TrainingDiverged
from hwnas.nn import channels_last
from hwnas.nn.norm import at_least_single
from hwnas.progress import Progress, silent
from hwnas.spaces import Arch, Space
from hwnas.supernet.batches import Batch, on_device, resized
from hwnas.supernet.config import TrainConfig
from hwnas.supernet.network import Supernet, extract
from hwnas.supernet.optimizer import optimizer_of, state_of
from hwnas.supernet.schedule import Schedule, Step
from hwnas.supernet.sort import channel_orders, reorder
from hwnas.supernet.subject import subject_of
from hwnas.tasks import class_weights, task_of
from hwnas.training.alone import Alone
from hwnas.training.checkpoint import CHECKPOINT, Checkpoint, checkpoint_subject
from hwnas.training.loop import Loop, Update
from hwnas.training.memory import fitting_batch, is_out_of_memory
from hwnas.training.validation import History, Validated, Validator, due, history_of

if TYPE_CHECKING:
    from hwnas.training.alone import Processes


def train(
    supernet: Supernet,
    data: Data,
    config: TrainConfig,
    *,
    seed: int,
    folder: Path,
    fabric: Processes | None = None,
    teacher: nn.Module | None = None,
    validator: Validator | None = None,
    resume: bool = True,
    until: int | None = None,
    progress: Progress = silent,
) -> History:
    """Train a supernet in place, or resume an interrupted run of the same training.

    The result does not depend on interruptions, nor (up to rounding) on the number of processes: images, subnets and
    learning rate are functions of the step only.

    Args:
        supernet: with its initial weights; a checkpoint in `folder` replaces them.
        data: images with the same number of channels and classes as the space.
        config: the training config.
        seed: seed for the images and the random subnets.
        folder: for the checkpoint and the metrics.
        fabric: device, precision and processes: an `Alone` or a launched `Fabric`; if None, train in this process on
            the CPU in single precision.
        teacher: a separate teacher in evaluation mode, for images at the space's largest resolution.
        validator: evaluates the largest network every `config.validate_every` updates; no validations if None.
        resume: resume from a checkpoint in the folder; otherwise the first new checkpoint replaces it.
        until: pause after that many updates, with a checkpoint and the weights that would be kept; the same training
            can resume from there. None trains to the end.
        progress: callback, invoked after every step, in images.

    Returns:
        The validations. If the config has `patience`, the kept weights are those of the best one.

    Raises:
        InvalidValue: the config has `patience`, but there is no validator; the data does not have the space's channels
            and classes; the batch cannot be split among the processes; a phase restricts a kind of variable that the
            space does not have; `until` is not a number of updates of this training.
        CheckpointError: the folder holds a checkpoint of another training.
        TrainingDiverged: a loss or the gradient norm is NaN or infinite.
        OutOfMemory: a batch does not fit into memory.
        ProcessLost: another process of the training ended.
        OutputError: a file cannot be written.
    """
    check_fits(data, supernet.space, "the supernet")
    fabric = fabric or Alone(torch.device("cpu"))
    check_batch(config.batch_size, fabric.world_size, config.augmentation)
    if config.patience and validator is None:
        raise InvalidValue(f"patience = {config.patience} counts validations, and this training has none; remove it")
    if until is not None and not 0 < until <= config.steps:
        raise InvalidValue(f"a training of {config.steps} updates pauses behind 1 to all of them, not {until}")
    run = _Run(
        supernet,
        data,
        config,
        seed=seed,
        folder=folder,
        fabric=fabric,
        teacher=teacher,
        validator=validator,
        resume=resume,
    )
    try:
        return run.go(until or config.steps, progress)
    except RuntimeError as error:
        if fabric.world_size > 1 and re.search("gloo|nccl", str(error), re.IGNORECASE):
            raise ProcessLost(
                "another process of this training has ended (what it said stands above, if it could); "
                f"the same command goes on from the last checkpoint in {folder}"
            ) from error
        raise


class _Run:
    """The state of a running training."""

    def __init__(
        self,
        supernet: Supernet,
        data: Data,
        config: TrainConfig,
        *,
        seed: int,
        folder: Path,
        fabric: Processes,
        teacher: nn.Module | None,
        validator: Validator | None,
        resume: bool,
    ) -> None:
        self.supernet, self.data, self.config = supernet, data, config
        self.seed, self.fabric, self.teacher, self.validator = seed, fabric, teacher, validator
        self.steps = Schedule(config.phases, supernet.space)
        self.average: dict[str, Tensor] = {}
        # Before a checkpoint replaces the weights: adapters change the initial ones.
        self.adapted = Adapted(supernet, config.adapter, seed=seed)
        self.history, self.best = History(begin=config.steps - config.phases[-1].steps), dict[str, Tensor]()
        weights = class_weights(config.class_weights, data)
        if weights is not None:
            weights = fabric.to_device(weights)
        self.task = task_of(data.task)
        self.label_loss = self.task.loss(config.loss, config.focal_gamma, weights)
        images = data.split_fingerprint("train")
        saved = checkpoint_subject(folder / CHECKPOINT).get("data") if resume else None
        # Older checkpoints store the fingerprint of all splits. Compute it only for them: it lists all files.
        if saved not in (None, images) and saved == (whole := data.fingerprint()):
            images = whole
        subject = subject_of(supernet, images, config, seed, fabric, teacher)
        if config.patience and validator:
            subject["validation"] = validator.identity  # determines which weights are kept
        self.loop = Loop(folder, subject, resume=resume)

    def go(self, end: int, progress: Progress) -> History:
        """Train from the loop's checkpoint to `end` updates: the end of the training, or a pause."""
        try:
            stopped = self._updates(end, progress)
        finally:
            adapted = self.adapted.end()
        return replace(self.history, stopped=stopped, adapted=adapted)

    def _updates(self, end: int, progress: Progress) -> str | None:
        """The updates; why they stopped before the end."""
        found = self.loop.found
        if found:
            self.supernet.load_state_dict(found.model)
            self.history, self.best = history_of(found.validated, self.history.begin), dict(found.best)
        self.fabric.to_device(channels_last(self.supernet.train()))
        self.parameters = dict(self.supernet.named_parameters())
        self.adapted.start(self.fabric.device, found.adapters if found else None)
        if self.config.ema_decay:
            start = found.average if found else self.parameters
            self.average = {name: self.fabric.to_device(tensor.detach().clone()) for name, tensor in start.items()}
        self.optimizer = optimizer_of(self.adapted.trained, self.config, found.momentum if found else {})
        batches = on_device(self._load, range(self.loop.done, end), self.fabric.device)
        stopped = self.loop.run(
            lambda number: self._step(self.steps(number), batches),
            self._state,
            end=end,
            batch_size=self.config.batch_size,
            checkpoint_every=self.config.checkpoint_every,
            processes=self.fabric,
            progress=progress,
            metrics=True,
            validate=self._validate,
            ended=lambda: self.history.stop(self.config.patience) if self.config.patience else None,
        )
        if self.best and (stopped or self.loop.done == self.config.steps):
            self.supernet.load_state_dict(self.best)
        else:
            self._use(self.average)
        self.supernet.eval()
        return stopped

    def _use(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights into the parameters of the same names."""
        with torch.no_grad():
            for name, tensor in weights.items():
                self.parameters[name].copy_(tensor)

    def _validate(self, done: int) -> dict[str, float] | None:
        """Validate the largest network with the weights that would be kept; return columns of the metrics, or None."""
        if self.validator is None or not due(done, self.config.validate_every, self.config.steps):
            return None
        trained = {name: self.parameters[name].detach().clone() for name in self.average}
        self._use(self.average)
        arch, found = self.supernet.space.largest, (0.0, 0.0)
        if self.fabric.is_global_zero:
            found = self.validator(extract(self.supernet, arch), self.supernet.space.input_size(arch))
        found = self.fabric.broadcast(found)
        self.history = replace(self.history, found=(*self.history.found, Validated(done, *found)))
        if self.config.patience and self.history.best and self.history.best.step == done:
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.supernet.state_dict().items()}
        self._use(trained)
        return {"metric_training": found[0], "metric_validation": found[1]}

    def _note(self, loss: float) -> str:
        """Format the loss and the last validation for the progress output."""
        if self.validator is None or not self.history.found:
            return f"loss {loss:.3f}"
        return f"loss {loss:.3f}, validation {self.validator.name} {self.history.found[-1].validation:.2%}"

    def _step(self, step: Step, batches: Iterator[tuple[Tensor, Tensor]]) -> Update:
        """Run the update of a step; the first step of a phase also begins the phase."""
        if step.number and step.number == step.begin:
            self._begin(self.steps(step.number - 1).space)
        losses = self._attempt(step, *next(batches))
        return Update(
            what=f"training the supernet ({step.phase.name})" if len(self.config.phases) > 1 else "training",
            done=step.number - step.begin + 1,
            total=step.phase.steps,
            note=self._note(losses["loss_largest"]),
            phase=step.phase.name,
            figures={"learning_rate": step.learning_rate, **losses},
        )

    def _load(self, number: int) -> Batch:
        """Load the images and labels of this process for an update."""
        return self.data.train_batch(
            number,
            self.config.batch_size,
            self.supernet.space.input_size(self.supernet.space.largest),
            seed=self.seed,
            augmentation=self.config.augmentation,
            sampler=self.config.sampler,
            part=(self.fabric.global_rank, self.fabric.world_size),
        )

    def _begin(self, trained: Space) -> None:
        """Begin a new phase: reset the momentum, which stems from other networks, and sort the channels."""
        self.optimizer = optimizer_of(self.adapted.trained, self.config)
        if self.config.sort_channels and not self.config.adapter:  # adapters change the initial weights, in their order
            orders = channel_orders(self.supernet, trained)
            reorder(self.supernet.state_dict(), orders)
            reorder(self.average, orders)

    def _attempt(self, step: Step, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Run `_update`; convert an out-of-memory error."""
        try:
            return self._update(step, images, labels)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block, the error and its tensors are freed.
        raise self._out_of_memory(images)

    def _update(self, step: Step, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Run one update; return the mean losses of largest, smallest and random subnets over all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = step.learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        space, config = step.space, self.config
        found: dict[str, list[Tensor]] = {}
        told = None
        if self.teacher:
            with torch.no_grad(), self.fabric.autocast():
                told = self.task.probabilities(at_least_single(self.teacher(images)))
        targets: Tensor | None = None
        for kind, arch in self._archs(step):
            with self.fabric.autocast():
                logits = at_least_single(self.supernet(resized(images, space.input_shape(arch), self.data), arch))
                loss = self._loss(logits, labels, targets, told)
            self.fabric.backward(loss)
            if targets is None:
                targets = self.task.probabilities(logits.detach())
            mean = self._mean(loss.detach())
            if not torch.isfinite(mean):
                values = ", ".join(f"{name}={value}" for name, value in space.describe(arch).items())
                raise self._diverged(f"the loss of the {kind} subnet ({values}) is {float(mean)}", step)
            found.setdefault(f"loss_{kind}", []).append(mean)
        self._share_gradients()
        self.adapted.pull()
        norm = nn.utils.clip_grad_norm_(self.adapted.clipped, config.clip_norm)
        if not torch.isfinite(norm):
            raise self._diverged(f"the norm of the gradients is {float(norm)}", step)
        self.optimizer.step()
        self.adapted.push(step.learning_rate)
        decay = min(config.ema_decay, (1 + step.number) / (10 + step.number))  # the initial weights decay quickly
        with torch.no_grad():
            for name, tensor in self.average.items():
                tensor.lerp_(self.parameters[name], 1 - decay)
        return {kind: float(torch.stack(losses).mean()) for kind, losses in found.items()}

    def _diverged(self, what: str, step: Step) -> TrainingDiverged:
        path, saved = self.loop.path, self.loop.saved
        last = f"The last good checkpoint is {path}, of step {saved}" if saved else "There is no checkpoint yet"
        return TrainingDiverged(
            f"{what} in step {step.number + 1} ({step.phase.name}). {last}. "
            f"Lower the learning rate (now {step.learning_rate:.3g}), or clip_norm"
        )

    def _archs(self, step: Step) -> list[tuple[str, Arch]]:
        """Choose the subnets of a step, identical in every process."""
        space = step.space
        if space.size == 1:
            return [("largest", space.largest)]
        *random, other = space.decode(space.sample(self.config.random_subnets + 1, seed=(self.seed, step.number)))
        smallest = space.smallest
        if step.number % 2:  # otherwise narrow and shallow networks would be trained on small images only
            smallest = space.arch({**smallest, space.reads.size: other[space.reads.size]})
        # A network whose output does not depend on the image cannot learn: replace it by the smallest that does depend.
        drawn = [arch if space.depends_on_image(arch) else smallest for arch in random]
        return [("largest", space.largest), ("smallest", smallest), *(("random", arch) for arch in drawn)]

    def _loss(self, logits: Tensor, labels: Tensor, targets: Tensor | None, told: Tensor | None) -> Tensor:
        """Compute the loss of a subnet.

        Args:
            logits: ``(n, classes)``.
            labels: ``(n,)``, or class probabilities ``(n, classes)``.
            targets: the largest subnet's probabilities ``(n, classes)``; None for the largest itself.
            told: a separate teacher's probabilities ``(n, classes)``; None without a teacher.
        """
        config = self.config
        if targets is None:
            loss = self.label_loss(logits, labels, smoothing=config.label_smoothing)
        else:
            hard, soft = self.label_loss(logits, labels), self.task.distillation(logits, targets)
            loss = config.label_share * hard + (1 - config.label_share) * soft
        if told is None:
            return loss
        return (1 - config.teacher_share) * loss + config.teacher_share * self.task.distillation(logits, told)

    def _share_gradients(self) -> None:
        """Average the gradients over the processes, in one all-reduce."""
        if self.fabric.world_size == 1:
            return
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        flat = self._mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _mean(self, tensor: Tensor) -> Tensor:
        """Average a tensor over all processes."""
        mean = self.fabric.all_reduce(tensor, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def _state(self, done: int) -> Checkpoint:
        """Return the state on which the next update depends."""
        return Checkpoint(
            step=done,
            model=self.supernet.state_dict(),
            average=self.average,
            momentum=state_of(self.optimizer, self.adapted.trained),
            best=self.best,
            adapters=self.adapted.state(),
            validated=self.history.found,
        )

    def _out_of_memory(self, images: Tensor) -> OutOfMemory:
        self.optimizer.zero_grad(set_to_none=True)
        self.supernet.eval()  # BN saves the same tensors, but does not synchronise with the other processes
        fitting = fitting_batch(self._largest, images, self.parameters.values())
        # Processes on CPUs share one memory.
        total = (fitting or 0) * (1 if images.device.type == "cpu" else self.fabric.world_size)
        helps = f"set batch_size = {total}" if total else "not even one image would: restrict the space"
        if fitting is None:
            helps = f"try batch_size = {self.config.batch_size // 2}"
        return OutOfMemory(f"a batch of {self.config.batch_size} images does not fit into the memory; {helps}")

    def _largest(self, images: Tensor) -> Tensor:
        """Run the largest network, which needs the most memory, without resizing: logits ``(n, classes)``."""
        with self.fabric.autocast():
            out: Tensor = self.supernet(images, self.supernet.space.largest)
        return out
