from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from hwnas.accuracy import Evaluator, logits, recalibrate
from hwnas.data import Data
from hwnas.files import Journal
from hwnas.spaces import Space
from hwnas.supernet import Supernet, extract
from hwnas.tasks.classification import top1


def first_norm_inputs(network: nn.Module, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """What reaches the network's first BN, a batch each."""
    seen: list[torch.Tensor] = []
    norm = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    hook = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    with torch.inference_mode():
        for batch in batches:
            network(batch)
    hook.remove()
    return seen


def test_statistics_are_the_mean_over_the_batches(supernet: Supernet, space: Space, data: Data) -> None:
    network = extract(supernet, space.largest)
    batches = [data.train_batch(step, 40, 24, seed=5)[0] for step in range(3)]
    inputs = first_norm_inputs(copy.deepcopy(network).train(), batches)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:  # what was there before must not count
        layer.running_mean.fill_(100.0)  # type: ignore[union-attr]
    assert recalibrate(network, batches) is network
    assert not network.training
    assert not any(layer.training for layer in network.modules())
    assert [layer.momentum for layer in norms] == momenta
    assert all(int(layer.num_batches_tracked) == 3 for layer in norms)  # type: ignore[arg-type]
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(dim=1) for x in inputs]).mean(dim=0)
    torch.testing.assert_close(norms[0].running_mean, means)
    torch.testing.assert_close(norms[0].running_var, variances)


def test_weights_stay_and_a_second_time_changes_nothing(supernet: Supernet, space: Space, data: Data) -> None:
    network = extract(supernet, space.largest)
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    batches = [data.train_batch(0, 40, 24, seed=5)[0]]
    recalibrate(network, batches)
    once = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.named_parameters())
    recalibrate(network, batches)
    assert all(torch.equal(tensor, once[name]) for name, tensor in network.state_dict().items())


def test_logits_and_top1() -> None:
    images = [
        (torch.eye(3).view(3, 3, 1, 1), torch.tensor([0, 1, 0])),
        (torch.eye(3)[:1].view(1, 3, 1, 1), torch.tensor([0])),
    ]
    outputs, labels = logits(nn.Flatten(), images)
    assert torch.equal(outputs, torch.cat([torch.eye(3), torch.eye(3)[:1]]))
    assert labels.tolist() == [0, 1, 0, 0]
    assert top1(outputs, labels) == 0.75


def test_accuracy_is_the_same_each_time_and_for_another_evaluator(
    supernet: Supernet, space: Space, data: Data, evaluator: Evaluator
) -> None:
    state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    archs = [space.smallest, space.largest]
    first = [evaluator.accuracy(arch) for arch in archs]
    again = [evaluator.accuracy(arch) for arch in reversed(archs)][::-1]
    other = Evaluator(supernet, data, images=500, calibration_images=500, seed=1)
    assert first == again == [other.accuracy(arch) for arch in archs]
    assert all(0 <= accuracy <= 1 and (accuracy * 500) == pytest.approx(round(accuracy * 500)) for accuracy in first)
    assert all(torch.equal(tensor, state[name]) for name, tensor in supernet.state_dict().items())


def test_accuracy_is_that_of_the_recalibrated_subnet(
    supernet: Supernet, space: Space, data: Data, evaluator: Evaluator
) -> None:
    network = extract(supernet, space.largest)
    recalibrate(network, [data.train_batch(i, 250, 24, seed=1)[0] for i in range(2)])
    hits = sum(
        int((network(images).argmax(1) == labels).sum()) for images, labels in data.batches("validation", 24, limit=500)
    )
    assert evaluator.accuracy(space.largest) == pytest.approx(hits / 500, abs=0.005)


def test_what_a_journal_holds_is_not_evaluated_again(space: Space, evaluator: Evaluator, tmp_path: Path) -> None:
    archs = space.decode(space.encode([space.smallest, space.largest]))
    said: list[tuple[str, int, int]] = []
    with Journal(tmp_path / "j", {}) as journal:
        first = evaluator.accuracies(archs[:1], journal, what="x", progress=lambda *step: said.append(step))
        assert first == [evaluator.accuracy(archs[0])]
        # A value that no evaluation would give shows where it comes from.
        journal.record(next(iter(journal.entries)), 0.12345)
    with Journal(tmp_path / "j", {}) as journal:
        both = evaluator.accuracies(archs, journal, what="x", progress=lambda *step: said.append(step))
        assert both == [0.12345, evaluator.accuracy(archs[1])]
        assert len(journal.entries) == 2
    assert said == [("x", 0, 1), ("x", 1, 1), ("x", 1, 2), ("x", 2, 2)]


def test_archs_that_share_a_pass_have_the_accuracies_that_they_have_alone(
    space: Space, evaluator: Evaluator, tmp_path: Path
) -> None:
    archs = [*space.decode(space.sample(4, seed=1)), space.largest, space.largest]
    with Journal(tmp_path / "j", {}) as journal:
        together = evaluator.accuracies(archs, journal, what="x")
    assert together == [evaluator.accuracy(arch) for arch in archs]


@pytest.mark.parametrize("count", [2, 100, 251, 500])
def test_as_many_images_re_calibrate_as_are_asked_for(
    supernet: Supernet, space: Space, data: Data, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """In batches of about the same size: BN averages over batches."""
    sizes: list[int] = []

    def counted(networks: list[nn.Module], batches: Iterable[torch.Tensor]) -> None:
        sizes.extend(len(images) for images in batches)

    monkeypatch.setattr("hwnas.accuracy.evaluate.recalibrate_all", counted)
    evaluator = Evaluator(supernet, data, images=10, calibration_images=count, seed=0)
    evaluator.subnet(space.smallest)
    assert sum(sizes) == count
    monkeypatch.setattr(data, "size", lambda split: 50)
    assert Evaluator(supernet, data, images=10, seed=0).calibration_images == 50
    assert max(sizes) - min(sizes) <= 1
