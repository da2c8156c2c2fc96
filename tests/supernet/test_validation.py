"""Validations during a training: bits of the weights, the best that is kept, early stop, and overfitting."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hwnas.accuracy import Evaluator, Validation
from hwnas.data import Augmentation, ClutteredDigits
from hwnas.data.augment import calibration_augmentation, preset
from hwnas.errors import CheckpointError, InvalidValue
from hwnas.spaces import make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, train
from hwnas.training.checkpoint import CHECKPOINT, checkpoint_subject
from hwnas.training.metrics import METRICS, Metrics
from hwnas.training.validation import History, Validated, due

SPACE = make_space("mobilenetv3-tiny").fix(
    resolution=24,
    depth_1=1,
    depth_2=1,
    depth_3=1,
    kernel_1_1=3,
    kernel_2_1=3,
    kernel_3_1=3,
    expansion_1_1=[2, 3],
    expansion_2_1=2,
    expansion_3_1=2,
)


@dataclass
class Told:
    """A validator that returns given shares of validation images, and keeps the weights that it saw."""

    shares: list[float]
    name: str = "top1"
    identity: str = "told"
    seen: list[dict[str, Tensor]] = field(default_factory=list)

    def __call__(self, network: nn.Module, resolution: int) -> tuple[float, float]:
        assert resolution == 24
        self.seen.append({name: p.detach().clone() for name, p in network.named_parameters()})
        return 0.9, self.shares[len(self.seen) - 1]


def config(steps: int = 8, **changes: object) -> TrainConfig:
    phases = [Phase(name="all", steps=steps, learning_rate=0.05)]
    return TrainConfig(phases=phases, batch_size=4, checkpoint_every=2, **changes)  # type: ignore[arg-type]


def trained(folder: Path, settings: TrainConfig, validator: Told | None, **more: object) -> tuple[Supernet, History]:
    supernet = Supernet(SPACE, seed=0)
    history = train(supernet, ClutteredDigits(), settings, seed=0, folder=folder, validator=validator, **more)  # type: ignore[arg-type]
    return supernet, history


def same(a: Supernet, b: Supernet) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_weights_do_not_depend_on_validations(tmp_path: Path, decay: float) -> None:
    plain, none = trained(tmp_path / "a", config(ema_decay=decay), None)
    validated, history = trained(tmp_path / "b", config(ema_decay=decay, validate_every=3), Told([0.5, 0.4]))
    assert same(plain, validated)
    assert none.found == ()
    assert history.found == (Validated(3, 0.9, 0.5), Validated(6, 0.9, 0.4))
    with (tmp_path / "b" / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["metric_training"], row["metric_validation"]) for row in rows if row["metric_validation"]] == [
        ("0.9", "0.5"),
        ("0.9", "0.4"),
    ]
    assert rows[2]["metric_validation"] == "0.5"


def test_a_validation_sees_the_weights_that_would_be_kept(tmp_path: Path) -> None:
    whole = Told([0.1])
    trained(tmp_path / "a", config(4, ema_decay=0.9, validate_every=4), whole)
    kept, _ = trained(tmp_path / "b", config(4, ema_decay=0.9), None)
    largest = {p.shape: p for p in kept.parameters()}
    assert any(torch.equal(p, largest[p.shape]) for p in whole.seen[0].values() if p.dim() == 4 and p.shape in largest)


def test_patience_ends_a_training_and_keeps_the_best(tmp_path: Path) -> None:
    best, _ = trained(tmp_path / "a", config(20), None, until=4)
    stopped, history = trained(
        tmp_path / "b", config(20, validate_every=2, patience=2), Told([0.3, 0.5, 0.5, 0.4, 0.9])
    )
    assert same(best, stopped)
    assert history.stopped == (
        "stopped after update 8: none of the last 2 validations was better than 50.00% after update 4, whose weights "
        "are kept"
    )
    assert [v.step for v in history.found] == [2, 4, 6, 8]
    last, whole = trained(tmp_path / "c", config(4, validate_every=2, patience=9), Told([0.8, 0.2]))
    assert whole.stopped is None
    two, _ = trained(tmp_path / "d", config(4), None, until=2)
    assert same(last, two)


@pytest.mark.parametrize("until", [3, 5, 7])
def test_a_resumed_training_stops_at_the_same_place(tmp_path: Path, until: int) -> None:
    settings, shares = config(20, validate_every=2, patience=2), [0.3, 0.5, 0.5, 0.4]
    straight, history = trained(tmp_path / "a", settings, Told(shares))
    validator = Told(shares)
    trained(tmp_path / "b", settings, validator, until=until)
    resumed, again = trained(tmp_path / "b", settings, validator)
    assert same(straight, resumed)
    assert again == history


def test_only_the_last_phase_counts() -> None:
    found = tuple(Validated(step, 0.9, share) for step, share in ((2, 0.9), (4, 0.2), (6, 0.4), (8, 0.3)))
    history = History(found, begin=3)
    assert history.best == found[2]
    assert history.stop(2) is None
    assert (history.stop(1) or "").startswith("stopped after update 8")
    assert History(found, begin=8).best is None
    assert History(found, begin=8).stop(1) is None


def test_overfitting_is_a_fall_beyond_chance() -> None:
    def history(*rows: tuple[float, float]) -> History:
        return History(tuple(Validated(number, *row) for number, row in enumerate(rows, 1)))

    fell = history((0.8, 0.8), (0.99, 0.7))
    assert "fell from 80.00% to 70.00%" in (fell.overfit(1000) or "")
    assert fell.overfit(30) is None  # two standard errors are 14.6 points
    assert history((0.8, 0.8), (0.7, 0.7)).overfit(1000) is None  # on training images, too: not overfitting
    assert history((0.8, 0.7), (0.99, 0.8)).overfit(1000) is None
    assert History().overfit(1000) is None


def test_when_a_validation_is_due() -> None:
    assert [step for step in range(1, 1101) if due(step, None, 1100)] == list(range(110, 1101, 110))
    assert [step for step in range(1, 300) if due(step, None, 300)] == [100, 200]
    assert not any(due(step, 0, 100) for step in range(1, 101))


def test_patience_needs_validations(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="patience = 3 counts validations, and this training has none"):
        trained(tmp_path, config(patience=3), None)
    with pytest.raises(ValueError, match="validate_every = 0 has none"):
        config(patience=3, validate_every=0)
    trained(tmp_path, config(validate_every=2, patience=3), Told([0.1] * 4))
    assert checkpoint_subject(tmp_path / CHECKPOINT)["validation"] == "told"
    with pytest.raises(CheckpointError, match="validation"):
        trained(tmp_path, config(validate_every=2, patience=3), Told([0.1] * 4, identity="another"))


def test_metrics_of_an_older_version_are_kept(tmp_path: Path) -> None:
    older = "step,phase,learning_rate,loss_largest,loss_smallest,loss_random,images_per_s\n1,all,0.1,2,2,2,100\n"
    (tmp_path / METRICS).write_text(older + "2,all,0.1,2,2,2,100\n3,al")
    with Metrics(tmp_path, done=1) as metrics:
        metrics.record(2, "all", loss_largest=1.5, metric_validation=0.5)
    with (tmp_path / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["images_per_s"], row["metric_validation"]) for row in rows] == [
        ("1", "100", ""),
        ("2", "", "0.5"),
    ]


def test_the_usual_validator_agrees_with_an_evaluation() -> None:
    data, supernet = ClutteredDigits(), Supernet(SPACE, seed=0)
    validation = Validation(data=data, images=200, calibration_images=250, seed=1)
    evaluator = Evaluator(supernet, data, images=200, calibration_images=250, seed=1)
    from hwnas.supernet import extract

    _, found = validation(extract(supernet, SPACE.largest), 24)
    assert found == pytest.approx(evaluator.accuracy(SPACE.largest), abs=0.011)  # its BN is folded: rounding


def test_bn_is_recalibrated_on_images_like_those_of_the_training() -> None:
    assert calibration_augmentation(Augmentation(mixup=0.2, crop_area=(0.5, 1.0))) == Augmentation()
    assert calibration_augmentation(preset("none")) == preset("none")
    whole = Augmentation(crop=False, shift=0.1, quarter_turns=True, colour=0.4, erase=0.3)
    assert calibration_augmentation(whole) == Augmentation(crop=False, shift=0.1, quarter_turns=True)
