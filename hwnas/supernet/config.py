"""The training config of a supernet, as a typed value and as a TOML file."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt, field_validator, model_validator

from hwnas.adapters import AdapterChoice
from hwnas.data import Augmentation
from hwnas.data.augment import preset
from hwnas.data.base import Sampler
from hwnas.errors import InvalidValue
from hwnas.files import Spec, read_spec
from hwnas.spaces import Space
from hwnas.spaces.kinds import KINDS
from hwnas.tasks.losses import LossName


class Phase(Spec):
    """One phase of progressive shrinking: the open choices, the number of updates and the learning rate.

    Attributes:
        name: shown with the progress and in the metrics.
        steps: number of updates.
        learning_rate: peak, after a linear warm-up and before a cosine decay to 0.
        warmup: fraction of the steps used for the warm-up.
        largest_of: kind of variable (``kernel``, ``depth``, ``expansion``, ``width``, ``resolution``) -> number of its
            largest choices that are open; all choices of unnamed kinds are open. ``{depth = 1}`` fixes every depth at
            its largest.
    """

    name: str
    steps: int = Field(gt=0, le=10**9)
    learning_rate: float = Field(gt=0, le=1e30)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    largest_of: dict[str, PositiveInt] = Field(default={})

    def open(self, space: Space) -> Space:
        """Return the space of the networks that this phase trains.

        Raises:
            InvalidValue: the space has no variables of a named kind.
        """
        kinds = {variable.name: variable.name.partition("_")[0] for variable in space.variables}
        if unknown := self.largest_of.keys() - kinds.values():
            raise InvalidValue(
                f"phase {self.name!r} restricts {', '.join(sorted(unknown))}, but the variables of {space.name} are of "
                f"the kinds {', '.join(dict.fromkeys(kinds.values()))}"
            )
        opened = {name: self.largest_of[kind] for name, kind in kinds.items() if kind in self.largest_of}
        return space.fix(**{name: space.variable(name).values[-count:] for name, count in opened.items()})


OptimizerName = Literal["sgd", "adamw"]
_USUAL: dict[OptimizerName, tuple[float, float, float]] = {  # learning rate, share of the warm-up, weight decay
    "sgd": (0.2, 0.05, 3e-5),
    "adamw": (2e-3, 0.1, 0.05),
}


def _usual_phases(given: dict[str, Any]) -> list[Phase]:
    learning_rate, warmup, _ = _USUAL[given["optimizer"]]
    return [Phase(name="all", steps=1100, learning_rate=learning_rate, warmup=warmup)]


def _usual_decay(given: dict[str, Any]) -> float:
    return _USUAL[given["optimizer"]][2]


def finetuning_rate(optimizer: OptimizerName) -> float:
    """The usual learning rate of a fine-tuning: a twentieth of that of a training, 0.01 with SGD."""
    return _USUAL[optimizer][0] / 20


def usual_training(space: Space) -> TrainConfig:
    """The default training config of a space: AdamW for networks with attention, SGD for others."""
    attends = any(KINDS[op.kind].attends for op in space.distinct_ops)
    return TrainConfig(optimizer="adamw" if attends else "sgd")


class TrainConfig(Spec):
    """A training config.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        optimizer: "sgd" with Nesterov momentum, or "adamw" (Loshchilov and Hutter, "Decoupled Weight Decay
            Regularization", ICLR 2019). The default learning rate and weight decay depend on it.
        phases: in the order of training. Cai et al. 2020 open kernels, then depths, then expansions.
        batch_size: images per update, over all processes.
        weight_decay: weight decay of convolution and linear weights.
        momentum: of SGD.
        clip_norm: gradients are clipped to this norm.
        label_smoothing: label smoothing for the largest subnet.
        class_weights: weights of the classes in the loss on labels: "balanced", or a number for each class in the order
            of the dataset's classes. See `hwnas.tasks.class_weights`.
        sampler: "shuffled", each epoch contains every training image once; or "balanced", each class is drawn equally
            often.
        loss: loss on labels, "cross-entropy" or "focal"; of several labels per image, the mean of their binary losses.
            Distillation uses the cross entropy.
        focal_gamma: exponent of the focal loss.
        random_subnets: random subnets in each update, in addition to the largest and the smallest (the sandwich rule).
        label_share: weight of the labels in the loss of all subnets except the largest; the remaining weight is that of
            the largest subnet's outputs (in-place distillation). BigNAS uses 0; in a short training the largest
            subnet's outputs are poor at first, and a positive weight helps.
        teacher_share: weight of a separate teacher's outputs in every subnet's loss, if there is a teacher.
        ema_decay: decay of the exponential moving average of the weights, which is kept instead of the last
            weights; 0 for none.
        sort_channels: sort the channels inside blocks by importance before each phase except the first, so that smaller
            expansions inherit the most important ones. Channels between blocks keep their order.
        checkpoint_every: updates between two checkpoints.
        validate_every: updates between two validations of the largest network; 0 for none; by default a tenth of the
            training, but at least 100.
        validation_images: maximum number of images in a validation, per split (validation and training).
        patience: number of validations in the last phase without an improvement after which the training ends. The
            weights of the best validation are then kept. None: train to the end, and keep the last weights.
        adapter: a method that trains few parameters and merges them into the weights (`hwnas.adapters`), and its rank;
            None to train all weights.
        augmentation: a table, or the name of a preset (`hwnas.data.augment.PRESETS`).
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    optimizer: OptimizerName = Field(default="sgd", exclude_if=lambda optimizer: optimizer == "sgd")
    phases: list[Phase] = Field(default_factory=_usual_phases, min_length=1)
    batch_size: int = Field(default=64, gt=0, le=2**20)
    weight_decay: float = Field(default_factory=_usual_decay, ge=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    clip_norm: float = Field(default=5.0, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    # Exclude default values: stages and checkpoints of older versions lack these keys.
    class_weights: Literal["balanced"] | list[PositiveFloat] | None = Field(
        default=None, exclude_if=lambda weights: weights is None
    )
    sampler: Sampler = Field(default="shuffled", exclude_if=lambda sampler: sampler == "shuffled")
    loss: LossName = Field(default="cross-entropy", exclude_if=lambda loss: loss == "cross-entropy")
    focal_gamma: float = Field(default=2.0, ge=0, le=100, exclude_if=lambda gamma: gamma == 2.0)
    random_subnets: int = Field(default=1, ge=0)
    label_share: float = Field(default=0.5, ge=0, le=1)
    teacher_share: float = Field(default=0.5, ge=0, le=1)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    sort_channels: bool = True
    checkpoint_every: PositiveInt = 50
    validate_every: int | None = Field(default=None, ge=0, exclude_if=lambda every: every is None)
    validation_images: PositiveInt = Field(default=1000, exclude_if=lambda images: images == 1000)
    patience: PositiveInt | None = Field(default=None, exclude_if=lambda patience: patience is None)
    adapter: AdapterChoice | None = Field(default=None, exclude_if=lambda adapter: adapter is None)
    augmentation: Augmentation = Augmentation()

    @field_validator("augmentation", mode="before")
    @classmethod
    def _from_preset(cls, value: object) -> object:
        return preset(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent_classes(self) -> Self:
        if self.class_weights == "balanced" and self.sampler == "balanced":
            raise ValueError(
                'class_weights = "balanced" with sampler = "balanced" corrects for the classes twice; choose one'
            )
        if self.loss != "focal" and self.focal_gamma != 2.0:
            raise ValueError(f'focal_gamma = {self.focal_gamma:g} applies to loss = "focal" only')
        return self

    @model_validator(mode="after")
    def _patience_has_validations(self) -> Self:
        if self.patience and self.validate_every == 0:
            raise ValueError(f"patience = {self.patience} counts validations; validate_every = 0 has none")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phases have different names, not {', '.join(names)}")
        return self

    def facts(self, seed: int) -> dict[str, JsonValue]:
        """Return the config and the seed as an entry of a supernet's facts."""
        return {**self.model_dump(mode="json", by_alias=True), "seed": seed}

    def lasting(self, steps: int) -> Self:
        """Return the same config with `steps` updates in total, distributed over the phases in the current proportions.

        Raises:
            InvalidValue: there are fewer updates than phases.
        """
        count = len(self.phases)
        if steps < count:
            raise InvalidValue(f"{count} phases take at least as many steps, not {steps}")
        ends = accumulate((phase.steps for phase in self.phases), initial=0)
        # Every phase keeps at least one step, even if it is much shorter than the others.
        cuts = [min(max(i, round(end * steps / self.steps)), steps - count + i) for i, end in enumerate(ends)]
        lengths = [after - before for before, after in pairwise(cuts)]
        phases = [p.model_copy(update={"steps": n}) for p, n in zip(self.phases, lengths, strict=True)]
        return self.model_copy(update={"phases": phases})

    @property
    def steps(self) -> int:
        """Number of updates of all phases."""
        return sum(phase.steps for phase in self.phases)


def read_training(path: Path) -> TrainConfig:
    """Read a training config from its file.

    Raises:
        SpecError: the file cannot be read, is not TOML, or has a wrong or unknown key.
    """
    return read_spec(path, TrainConfig)
