from __future__ import annotations

import copy
import csv
import importlib
import re
import sys
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pydantic
import pytest
import safetensors.torch
import torch
from forks import Forks
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hwnas.data import Augmentation, ClutteredDigits
from hwnas.errors import CheckpointError, InvalidValue, OutOfMemory, TrainingDiverged
from hwnas.spaces import Arch, make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, extract, single, train
from hwnas.training import loop, memory
from hwnas.training.checkpoint import CHECKPOINT

SPACE = make_space("mobilenetv3-tiny")
PHASES = [
    Phase(name="kernels", steps=2, learning_rate=0.2, largest_of={"depth": 1, "expansion": 2}),
    Phase(name="all", steps=3, learning_rate=0.1),
]
CONFIG = TrainConfig(phases=PHASES, batch_size=8, random_subnets=1, ema_decay=0.9, checkpoint_every=2)


class Stop(Exception):
    """Stands for a kill: nothing of hwnas catches it."""


class Steps:
    """Remembers the steps it is told of, and stops the training after one of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.done: list[int] = []
        self.stop_after = stop_after

    def __call__(self, what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        assert unit == "images"
        assert re.fullmatch(r"loss \d+\.\d{3}", note)
        # Images of a phase; told here as updates of the whole training.
        before = {"kernels": 0, "all": 2}[what.removeprefix("training the supernet (").removesuffix(")")]
        assert total == CONFIG.batch_size * {0: 2, 2: 3}[before]
        self.done.append(before + done // CONFIG.batch_size)
        if self.done[-1] == self.stop_after:
            raise Stop


@pytest.fixture(scope="module")
def data() -> ClutteredDigits:
    return ClutteredDigits()


def trained(
    data: ClutteredDigits, folder: Path, *, config: TrainConfig = CONFIG, seed: int = 0, steps: Steps | None = None
) -> dict[str, Tensor]:
    supernet = Supernet(SPACE, seed=1)
    train(supernet, data, config, seed=seed, folder=folder, progress=steps or Steps())
    assert not supernet.training
    return supernet.state_dict()


@pytest.fixture(scope="module")
def uninterrupted(data: ClutteredDigits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, trained(data, folder)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_gives_the_same_bits(
    data: ClutteredDigits, uninterrupted: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    _, state = uninterrupted
    torch.manual_seed(99)  # the process's own generator must not matter
    assert equal(trained(data, tmp_path / "a"), state)
    assert not equal(trained(data, tmp_path / "b", seed=1), state)


@pytest.mark.parametrize(("stop_after", "first"), [(1, 1), (2, 3), (3, 3), (4, 5)])
def test_a_killed_run_goes_on_to_the_same_bits(
    data: ClutteredDigits,
    uninterrupted: tuple[Path, dict[str, Tensor]],
    tmp_path: Path,
    stop_after: int,
    first: int,
) -> None:
    whole, state = uninterrupted
    with pytest.raises(Stop):
        trained(data, tmp_path, steps=Steps(stop_after))
    steps = Steps()
    assert equal(trained(data, tmp_path, steps=steps), state)
    assert steps.done == list(range(first, CONFIG.steps + 1))  # finished steps are not done again
    # The optimizer's momentum too, so that a third run would go on alike.
    one, other = (safetensors.torch.load((folder / CHECKPOINT).read_bytes()) for folder in (whole, tmp_path))
    assert any(name.startswith("momentum.") for name in one)
    assert equal(one, other)


def test_a_paused_training_goes_on_to_the_same_bits(
    data: ClutteredDigits, uninterrupted: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    states = []
    for until in (1, 3, CONFIG.steps):
        supernet, steps = Supernet(SPACE, seed=1), Steps()
        train(supernet, data, CONFIG, seed=0, folder=tmp_path, until=until, progress=steps)
        assert steps.done[-1] == until
        states.append(supernet.state_dict())
    assert equal(states[-1], uninterrupted[1])
    assert not equal(states[0], states[1])
    for until in (0, CONFIG.steps + 1):
        with pytest.raises(InvalidValue, match=f"pauses behind 1 to all of them, not {until}"):
            train(Supernet(SPACE, seed=1), data, CONFIG, seed=0, folder=tmp_path, until=until)


def test_a_finished_training_is_only_read(data: ClutteredDigits, uninterrupted: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = uninterrupted
    before = (folder / CHECKPOINT).stat().st_mtime_ns
    steps = Steps()
    assert equal(trained(data, folder, steps=steps), state)
    assert steps.done == []
    assert (folder / CHECKPOINT).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "seed", "told"),
    [
        ({"phases": PHASES[1:]}, 0, "another phases"),
        ({"momentum": 0.8}, 0, r"momentum \(there 0.9, now 0.8\)"),
        ({"batch_size": 4, "ema_decay": 0.5}, 0, r"batch_size \(there 8, now 4\), ema_decay \(there 0.9, now 0.5\)"),
        ({}, 5, r"seed \(there 0, now 5\)"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    data: ClutteredDigits,
    uninterrupted: tuple[Path, dict[str, Tensor]],
    change: dict[str, float],
    seed: int,
    told: str,
) -> None:
    folder, _ = uninterrupted
    before = (folder / CHECKPOINT).read_bytes()
    with pytest.raises(CheckpointError, match=rf"was written with other settings: {told}\. .*--no-resume"):
        trained(data, folder, config=CONFIG.model_copy(update=change), seed=seed)
    assert (folder / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_of_other_data_or_another_space_is_refused(
    data: ClutteredDigits, uninterrupted: tuple[Path, dict[str, Tensor]]
) -> None:
    folder, _ = uninterrupted
    with pytest.raises(CheckpointError, match="was written with other settings: another data"):
        trained(ClutteredDigits(seed=1), folder)
    with pytest.raises(CheckpointError, match="another space"):
        train(Supernet(SPACE.fix(depth_1=[1, 2])), data, CONFIG, seed=0, folder=folder)


def test_starting_anew_keeps_the_old_checkpoint_until_there_is_another(
    data: ClutteredDigits, uninterrupted: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    old = (uninterrupted[0] / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(old)

    def stop(what: str, done: int, total: int, **_: str) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(Supernet(SPACE), data, CONFIG, seed=7, folder=tmp_path, resume=False, progress=stop)
    assert (tmp_path / CHECKPOINT).read_bytes() == old
    train(Supernet(SPACE), data, CONFIG, seed=7, folder=tmp_path, resume=False)
    assert (tmp_path / CHECKPOINT).read_bytes() != old


def test_how_often_checkpoints_are_written_may_change(
    data: ClutteredDigits, uninterrupted: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        trained(data, tmp_path, steps=Steps(stop_after=3))
    config = CONFIG.model_copy(update={"checkpoint_every": 50})
    assert equal(trained(data, tmp_path, config=config), uninterrupted[1])


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_a_broken_checkpoint(
    data: ClutteredDigits, uninterrupted: tuple[Path, dict[str, Tensor]], tmp_path: Path, keep: int
) -> None:
    (tmp_path / CHECKPOINT).write_bytes((uninterrupted[0] / CHECKPOINT).read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"is not a checkpoint.*Delete it"):
        trained(data, tmp_path)


def test_a_safetensors_file_of_someone_else(data: ClutteredDigits, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(safetensors.torch.save({"model.x": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        trained(data, tmp_path)


@pytest.mark.parametrize(
    "change", [{"phases": []}, {"batch_size": 0}, {"ema_decay": 1.0}, {"momentum": 1.0}, {"label_share": 1.5}]
)
def test_settings_that_make_no_sense(change: dict[str, float]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(change))):
        TrainConfig.model_validate(change)


# -- what training does --------------------------------------------------------------------------------------------


def test_a_step_is_the_sandwich_rule(data: ClutteredDigits, tmp_path: Path) -> None:
    share, rate = 0.25, 0.1
    config = TrainConfig(
        phases=[Phase(name="all", steps=2, learning_rate=rate, warmup=0.0)],
        batch_size=8,
        momentum=0.0,
        weight_decay=0.0,
        label_share=share,
        random_subnets=2,
    )
    supernet = Supernet(SPACE, seed=0).train()
    mine = copy.deepcopy(supernet)
    initial = copy.deepcopy(mine.state_dict())
    for number, learning_rate in enumerate((rate, rate / 2)):  # a cosine
        images, labels = data.train_batch(number, 8, 32, seed=3)
        logits = mine(images, SPACE.largest)
        loss = F.cross_entropy(logits, labels)
        taught = logits.detach().softmax(dim=1)
        *random, other = SPACE.decode(SPACE.sample(3, seed=(3, number)))
        drawn = {"resolution": other["resolution"]} if number else {}
        for arch in (SPACE.arch({**SPACE.smallest, **drawn}), *random):
            side = (arch["resolution"], arch["resolution"])
            outputs = mine(F.interpolate(images, side, mode="bilinear", antialias=True), arch).log_softmax(dim=1)
            loss = loss + (1 - share) * -(taught * outputs).sum(dim=1).mean() + share * F.nll_loss(outputs, labels)
        mine.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mine.parameters(), 5.0)
        with torch.no_grad():
            for parameter in mine.parameters():
                if parameter.grad is not None:
                    parameter.sub_(learning_rate * parameter.grad)
    assert other["resolution"] != SPACE.smallest["resolution"]
    train(supernet, data, config, seed=3, folder=tmp_path)
    moved = 0.0
    for (name, ours), theirs in zip(mine.named_parameters(), supernet.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
        moved = max(moved, (ours - initial[name]).abs().max().item())
    assert moved > 1e-2


def test_each_network_of_a_step_depends_on_its_image(
    data: ClutteredDigits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell without edges gives the same for every image: there is nothing that it could learn."""
    space = make_space("nasbench201-tiny").fix(edge_0_1=[0, 4], edge_0_2=0, edge_0_3=[0, 1], edge_1_3=[0, 1])
    trained: list[Arch] = []
    forward = Supernet.forward

    def seen(self: Supernet, x: Tensor, arch: Arch) -> Tensor:
        trained.append(arch)
        return forward(self, x, arch)

    monkeypatch.setattr(Supernet, "forward", seen)
    config = TrainConfig(phases=[Phase(name="all", steps=6, learning_rate=0.1)], batch_size=4)
    train(Supernet(space), data, config, seed=0, folder=tmp_path)
    assert len(trained) == 18
    assert all(map(space.depends_on_image, trained))
    assert trained[1] == space.smallest
    drawn = [space.decode(space.sample(2, seed=(0, step)))[0] for step in range(6)]
    assert not all(map(space.depends_on_image, drawn))  # so it is seen


class OneBatch(ClutteredDigits):
    """The same images in every step: enough to see, in seconds, whether the loss that is trained goes down."""

    def _train_batch(self, places: range, resolution: int, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
        return super()._train_batch(range(len(places)), resolution, how, seed)


def losses(supernet: Supernet, data: ClutteredDigits, archs: list[Arch]) -> list[float]:
    """With the batch's own statistics: running ones need more steps than a test has."""
    frozen = copy.deepcopy(supernet).train()
    found = []
    with torch.no_grad():
        for arch in archs:
            x, y = data.train_batch(0, 16, arch["resolution"], seed=0)
            found.append(F.cross_entropy(frozen(x, arch), y).item())
    return found


def test_every_size_of_network_learns(tmp_path: Path) -> None:
    # Without a share of the labels all but the largest learn from its outputs alone.
    config = TrainConfig(
        phases=[Phase(name="all", steps=25, learning_rate=0.05)], batch_size=16, label_share=0.0, random_subnets=3
    )
    data, supernet = OneBatch(), Supernet(SPACE, seed=0)
    archs = [SPACE.smallest, SPACE.largest, *SPACE.decode(SPACE.sample(2, seed=9))]
    before = losses(supernet, data, archs)
    initial = copy.deepcopy(supernet.state_dict())
    train(supernet, data, config, seed=0, folder=tmp_path)
    fallen = [old - new for old, new in zip(before, losses(supernet, data, archs), strict=True)]
    assert min(fallen[:2]) > 0.15, fallen
    assert min(fallen[2:]) > 0.05, fallen
    # The matrices that make small kernels of large ones are trained with the rest.
    state = supernet.state_dict()
    assert all(not torch.equal(state[name], initial[name]) for name in state if "transforms" in name)


def small(**changes: object) -> TrainConfig:
    return TrainConfig(phases=[Phase(name="all", steps=2, learning_rate=0.05)], batch_size=8, **changes)  # type: ignore[arg-type]


# -- phases, averages, teachers ------------------------------------------------------------------------------------


def test_a_phase_trains_what_is_open(data: ClutteredDigits, tmp_path: Path) -> None:
    phase = Phase(name="kernels", steps=2, learning_rate=0.05, largest_of={"depth": 1, "expansion": 1})
    opened = phase.open(SPACE)
    assert {tuple(opened.choices[f"depth_{s}"]) for s in (1, 2, 3)} == {(3,)}
    assert opened.choices["expansion_1_1"] == [4]
    assert opened.choices["kernel_1_1"] == [3, 5, 7]
    assert opened.choices["resolution"] == SPACE.choices["resolution"]
    with pytest.raises(InvalidValue, match=r"restricts width, but .* resolution, depth, kernel, expansion"):
        Phase(name="x", steps=1, learning_rate=1.0, largest_of={"width": 1}).open(SPACE)


def test_the_learning_rate_warms_up_and_falls_in_each_phase(data: ClutteredDigits, tmp_path: Path) -> None:
    phases = [Phase(name=name, steps=8, learning_rate=0.1, warmup=0.25) for name in "ab"]
    train(Supernet(SPACE), data, TrainConfig(phases=phases, batch_size=4), seed=0, folder=tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates[:8] == rates[8:]
    assert rates[:2] == pytest.approx([0.05, 0.1])
    assert rates[2] == pytest.approx(0.1)
    assert rates[2:8] == sorted(rates[2:8], reverse=True)
    assert rates[7] < 0.01


def test_the_moving_average_is_what_is_kept(data: ClutteredDigits, tmp_path: Path) -> None:
    start = dict(Supernet(SPACE, seed=0).named_parameters())
    raw, kept = Supernet(SPACE, seed=0), Supernet(SPACE, seed=0)
    config = TrainConfig(phases=[Phase(name="all", steps=1, learning_rate=0.1)], batch_size=8)
    train(raw, data, config, seed=0, folder=tmp_path / "raw")
    train(kept, data, config.model_copy(update={"ema_decay": 0.9}), seed=0, folder=tmp_path / "kept")
    trained = dict(raw.named_parameters())
    for name, parameter in kept.named_parameters():
        # In the first update the average keeps a tenth of the initial weights, whatever its decay.
        torch.testing.assert_close(parameter, 0.1 * start[name] + 0.9 * trained[name], rtol=1e-5, atol=1e-6)


def test_a_teacher_teaches(data: ClutteredDigits, tmp_path: Path) -> None:
    teacher = extract(Supernet(SPACE, seed=7), SPACE.largest)
    alone, taught, wholly = (Supernet(SPACE, seed=0) for _ in range(3))
    train(alone, data, small(), seed=0, folder=tmp_path / "a")
    train(taught, data, small(), seed=0, folder=tmp_path / "b", teacher=teacher)
    train(wholly, data, small(teacher_share=0.0), seed=0, folder=tmp_path / "c", teacher=teacher)
    assert equal(alone.state_dict(), wholly.state_dict())
    assert not equal(alone.state_dict(), taught.state_dict())
    with pytest.raises(CheckpointError, match="another teacher"):
        train(Supernet(SPACE, seed=0), data, small(), seed=0, folder=tmp_path / "b")


def test_labels_are_smoothed_for_the_largest(data: ClutteredDigits, tmp_path: Path) -> None:
    supernet = Supernet(SPACE, seed=0)
    images, labels = data.train_batch(0, 8, 32, seed=0)
    outputs = copy.deepcopy(supernet).train()(images, SPACE.largest)
    train(supernet, data, small(label_smoothing=0.2), seed=0, folder=tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        found = float(next(csv.DictReader(file))["loss_largest"])
    even = -outputs.log_softmax(dim=1).mean(dim=1)
    assert found == pytest.approx((0.8 * F.cross_entropy(outputs, labels) + 0.2 * even.mean()).item(), rel=1e-4)


@pytest.mark.parametrize("sort", [True, False])
def test_channels_are_sorted_between_phases(data: ClutteredDigits, tmp_path: Path, sort: bool) -> None:
    """Those of the average, too, which is what is kept."""
    phases = [
        Phase(name="kernels", steps=2, learning_rate=1e-6, largest_of={"depth": 1, "expansion": 1}),
        Phase(name="all", steps=2, learning_rate=1e-6),
    ]
    supernet = Supernet(SPACE, seed=0)
    before = [channels.clone() for channels in importances(supernet)]
    config = TrainConfig(phases=phases, batch_size=8, ema_decay=0.5, sort_channels=sort)
    train(supernet, data, config, seed=0, folder=tmp_path)
    for old, new in zip(before, importances(supernet), strict=True):
        torch.testing.assert_close(new, old.sort(descending=True).values if sort else old, rtol=1e-3, atol=1e-4)


def importances(supernet: Supernet) -> list[Tensor]:
    """L1 norms of what reads the channels inside each elastic block."""
    state = supernet.state_dict()
    names = [name for name in state if "project.conv" in name and name.replace("project", "expand") in state]
    assert len(names) == 9
    return [state[name].abs().sum(dim=(0, 2, 3)) for name in names]


def test_a_space_of_one_network_is_trained_as_usual(data: ClutteredDigits, tmp_path: Path) -> None:
    [arch] = SPACE.decode(SPACE.sample(1, seed=2))
    supernet = Supernet(SPACE, seed=0)
    alone = single(SPACE, arch, extract(supernet, arch))
    x, _ = data.train_batch(0, 4, arch["resolution"], seed=0)
    torch.testing.assert_close(alone(x, arch), supernet.eval()(x, arch))
    train(alone, data, small(), seed=0, folder=tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["loss_smallest"] + row["loss_random"] for row in rows] == ["", ""]


@pytest.mark.parametrize(
    ("steps", "total", "expected"),
    [([600, 1800], 8, [2, 6]), ([100, 1], 2, [1, 1]), ([1, 1, 100], 3, [1, 1, 1]), ([1, 2, 3], 600, [100, 200, 300])],
)
def test_a_recipe_of_another_length(steps: list[int], total: int, expected: list[int]) -> None:
    phases = [Phase(name=str(i), steps=n, learning_rate=0.1) for i, n in enumerate(steps)]
    recipe = TrainConfig(phases=phases).lasting(total)
    assert [phase.steps for phase in recipe.phases] == expected
    with pytest.raises(InvalidValue, match="phases take at least as many steps, not 1"):
        TrainConfig(phases=phases).lasting(1)


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number(data: ClutteredDigits, tmp_path: Path) -> None:
    phases = [Phase(name="all", steps=9, learning_rate=1e30, warmup=0.0)]
    config = TrainConfig(phases=phases, batch_size=8, checkpoint_every=1, clip_norm=1e30)
    with pytest.raises(TrainingDiverged, match=r"subnet \(resolution=.*\) is nan in step \d+ \(all\)") as caught:
        train(Supernet(SPACE), data, config, seed=0, folder=tmp_path)
    assert f"The last good checkpoint is {tmp_path / CHECKPOINT}, of step" in str(caught.value)
    assert "Lower the learning rate" in str(caught.value)


def test_gradients_that_are_no_numbers_do_not_reach_the_weights(data: ClutteredDigits, tmp_path: Path) -> None:
    supernet = Supernet(SPACE)

    def overflow(gradient: Tensor) -> Tensor:
        counted.append(1)
        return gradient * (float("inf") if len(counted) > 6 else 1)  # each of 3 subnets a step

    counted: list[int] = []
    next(p for name, p in supernet.named_parameters() if "classifier" in name).register_hook(overflow)
    config = small(checkpoint_every=1).lasting(5)
    with pytest.raises(TrainingDiverged, match=r"the norm of the gradients is (inf|nan) in step 3 \(all\)") as caught:
        train(supernet, data, config, seed=0, folder=tmp_path)
    assert "of step 2" in str(caught.value)
    kept = safetensors.torch.load((tmp_path / CHECKPOINT).read_bytes())
    assert all(tensor.isfinite().all() for tensor in (*kept.values(), *supernet.state_dict().values()))


def test_data_of_another_form_is_refused(data: ClutteredDigits, tmp_path: Path) -> None:
    for space in (make_space("mobilenetv3-tiny", classes=7), make_space("mobilenetv3-tiny", in_channels=3)):
        with pytest.raises(InvalidValue, match="images of 1 channel in 10 classes; the supernet takes"):
            train(Supernet(space), data, CONFIG, seed=0, folder=tmp_path)


def test_metrics_of_steps_that_are_done_again_are_dropped(data: ClutteredDigits, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        trained(data, tmp_path, steps=Steps(stop_after=3))  # the checkpoint is that of step 2
    trained(data, tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, CONFIG.steps + 1))


def test_metrics_of_a_phase_with_a_comma_outlast_a_kill(data: ClutteredDigits, tmp_path: Path) -> None:
    config = TrainConfig(
        phases=[Phase(name='kernels, "all" of them', steps=5, learning_rate=0.1)], batch_size=8, checkpoint_every=2
    )

    def stop(what: str, done: int, total: int, **_: str) -> None:
        if done == 3 * config.batch_size:
            raise Stop

    with pytest.raises(Stop):
        train(Supernet(SPACE), data, config, seed=0, folder=tmp_path, progress=stop)
    train(Supernet(SPACE), data, config, seed=0, folder=tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [(row["step"], row["phase"]) for row in csv.DictReader(file)]
    assert rows == [(str(step), 'kernels, "all" of them') for step in range(1, 6)]


def test_tensorboard_shows_each_step(data: ClutteredDigits, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(Stop):
        trained(data, tmp_path, steps=Steps(stop_after=3))
    trained(data, tmp_path)
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = {event.step: event.value for event in board.Scalars("loss_largest")}
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = {int(row["step"]): float(row["loss_largest"]) for row in csv.DictReader(file)}
    assert shown == pytest.approx(rows, rel=1e-5)


def test_images_a_second_are_those_of_each_step(
    data: ClutteredDigits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the steps' durations add up to the training's, however often it was killed."""
    durations = [0.5, 1.0, 2.0, 4.0, 8.0]

    def clock(seconds: list[float]) -> None:
        ticks = accumulate(seconds, initial=100.0)
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks)))

    clock(durations)
    with pytest.raises(Stop):
        trained(data, tmp_path, steps=Steps(stop_after=3))  # the checkpoint is that of step 2
    clock(durations[2:])
    trained(data, tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        seconds = [CONFIG.batch_size / float(row["images_per_s"]) for row in csv.DictReader(file)]
    assert seconds == pytest.approx(durations)


def test_an_accelerator_is_handed_batches_made_ahead() -> None:
    made: list[int] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(4):
            made.append(number)
            yield torch.tensor(number), torch.tensor(-number)

    ahead = importlib.import_module("hwnas.supernet.batches")._one_ahead(batches())
    taken = [next(ahead)]
    for _ in range(100):  # the next one is made without being asked for
        if len(made) == 2:
            break
        time.sleep(0.05)
    assert made == [0, 1]
    taken += ahead
    assert [(int(x), int(y)) for x, y in taken] == [(n, -n) for n in range(4)]


# A training step with a batch of a size, in 800 MB more than the imports take.
OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from hwnas.data import ClutteredDigits
from hwnas.errors import OutOfMemory
from hwnas.spaces import make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, train
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 800_000_000,) * 2)
config = TrainConfig(phases=[Phase(name="all", steps=1, learning_rate=0.1)], batch_size=int(sys.argv[1]))
try:
    train(Supernet(make_space("mobilenetv3-tiny")), ClutteredDigits(), config, seed=0, folder=Path("."))
    print("fitted")
except OutOfMemory as error:
    print(error)
"""


def test_out_of_memory_where_the_system_does_not_tell_how_much_there_is(
    data: ClutteredDigits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Supernet, "forward", full)
    monkeypatch.setattr(memory, "free_bytes", lambda _: None)
    with pytest.raises(OutOfMemory, match="a batch of 8 images does not fit into the memory; try batch_size = 4"):
        train(Supernet(SPACE), data, small(), seed=0, folder=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on the memory of a process is Linux's")
def test_out_of_memory_says_what_fits(forks: Forks) -> None:
    def tried(size: int) -> str:
        with forks.start([size], program=OUT_OF_MEMORY) as process:
            assert process.wait() == 0, process.stderr.read_text()
        return process.stdout.read_text().strip()

    message = tried(4096)
    found = re.search(r"a batch of 4096 images does not fit into the memory; set batch_size = (\d+)$", message)
    assert found, message
    assert int(found[1]) < 4096
    assert tried(int(found[1])) == "fitted"
    # A power of two, of four fifths of what the failed attempt left free.
    assert "does not fit" in tried(4 * int(found[1]))
