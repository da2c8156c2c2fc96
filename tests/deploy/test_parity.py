from __future__ import annotations

import copy
import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from hwnas.accuracy import Evaluator
from hwnas.data import Data
from hwnas.deploy.parity import check_parity
from hwnas.errors import ParityError
from hwnas.lowering import Program, form_of
from hwnas.spaces import Space
from hwnas.targets import Recipe, load_recipe

Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def batches(data: Data) -> Batches:
    """Test images in batches that no recipe's batch divides."""
    return list(data.batches("test", 24, limit=83, batch_size=50))


@pytest.fixture(scope="module")
def network(evaluator: Evaluator, space: Space) -> nn.Module:
    return evaluator.subnet(space.largest)


@pytest.fixture(scope="module")
def program(network: nn.Module, recipe: Recipe) -> Program:
    return form_of(recipe).lower(network, (1, 24, 24))


def changed(recipe: Recipe, **changes: object) -> Recipe:
    return Recipe.model_validate({**recipe.model_dump(by_alias=True), **changes})


def test_the_lowered_network_computes_the_same(
    network: nn.Module, program: Program, recipe: Recipe, batches: Batches
) -> None:
    said: list[tuple[str, int, int]] = []
    report = check_parity(network, program, recipe, iter(batches), images=83, progress=lambda *step: said.append(step))
    assert report.images == 83
    assert 0 < report.max_abs_error < 1e-4
    assert report.min_cosine > 0.9999
    assert report.top1_agreement == 1.0
    with torch.inference_mode():
        hits = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in batches)
    assert report.torch_accuracy == report.deployed_accuracy == pytest.approx(hits / 83)
    assert said == [("checking parity", len(batches[0][1]), 83), ("checking parity", 83, 83)]


def test_a_last_part_batch_is_filled_up(
    network: nn.Module, program: Program, recipe: Recipe, batches: Batches, tmp_path: Path
) -> None:
    four = changed(recipe, batch=4)
    path = form_of(four).write(form_of(four).lower(network, (1, 24, 24)), tmp_path)
    one, many = check_parity(network, program, recipe, batches), check_parity(network, path, four, batches)
    assert many.images == 83
    assert many.max_abs_error < 1e-4
    assert many.top1_agreement == 1.0
    assert many.deployed_accuracy == one.deployed_accuracy


def test_another_network_is_told(
    program: Program, recipe: Recipe, batches: Batches, evaluator: Evaluator, space: Space
) -> None:
    with pytest.raises(ParityError, match=r"on 83 images under made-up: max_abs_error .* > 0.0001; .*\[parity\]"):
        check_parity(evaluator.subnet(space.smallest), program, recipe, batches)


class Shifted(nn.Module):
    """Its input, flattened, plus a number for each class."""

    def __init__(self, *by: float) -> None:
        super().__init__()
        self.register_buffer("by", torch.tensor(by))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) + self.by


@pytest.mark.parametrize(
    ("by", "rows", "broken"),
    [
        ((0.5, 0.5, 0.5), [[10.0, 0.0, 0.0]] * 5, "max_abs_error 0.5 > 0.4"),
        ((0.0, 0.3, 0.0), [[0.4, 0.0, 0.0]] * 5, "min_cosine 0.800000 < 0.900000"),
        ((0.0, 0.2, 0.0), [[1.0, 0.9, 0.0]] * 3 + [[1.0, 0.0, 0.0]], "top1_agreement 0.2500 < 0.7500"),
        ((0.0, 0.2, 0.0), [[1.0, 0.9, 0.0]] + [[1.0, 0.0, 0.0]] * 3, None),  # at a limit is not past it
    ],
    ids=["error", "cosine", "agreement", "none"],
)
def test_each_limit_is_held(recipe: Recipe, by: tuple[float, ...], rows: list[list[float]], broken: str | None) -> None:
    limited = changed(recipe, parity={"max_abs_error": 0.4, "min_cosine": 0.9, "min_top1_agreement": 0.75})
    program = form_of(limited).lower(nn.Flatten(), (3, 1, 1))
    images = [(torch.tensor(rows).view(-1, 3, 1, 1), torch.zeros(len(rows), dtype=torch.long))]
    if broken is None:
        assert check_parity(Shifted(*by), program, limited, images).top1_agreement == 0.75
        return
    with pytest.raises(ParityError, match=rf"on {len(rows)} images under made-up: {re.escape(broken)}\. The limits"):
        check_parity(Shifted(*by), program, limited, images)


def test_outputs_that_are_not_finite(network: nn.Module, recipe: Recipe, batches: Batches) -> None:
    broken = copy.deepcopy(network)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(ParityError, match=r"on some of 50 images the outputs .* are NaN or infinite"):
        check_parity(network, form_of(recipe).lower(broken, (1, 24, 24)), recipe, islice(batches, 1))


@pytest.mark.parametrize("name", ["onnxruntime-cpu-int8", "openvino-cpu-int8"])
def test_int8_is_judged_by_its_own_limits(network: nn.Module, data: Data, batches: Batches, name: str) -> None:
    int8 = load_recipe(name)
    if int8.runtime == "openvino":
        pytest.importorskip("openvino")
    seen = torch.cat([images for images, _ in data.batches("train", 24, limit=64, batch_size=64)])
    program = form_of(int8).lower(network, (1, 24, 24), seen)
    report = check_parity(network, program, int8, batches)
    assert report.images == 83
    assert 1e-4 < report.max_abs_error < int8.parity.max_abs_error
    strict = changed(int8, parity={"max_abs_error": 1e-4, "min_cosine": 0.9999, "min_top1_agreement": 0.999})
    with pytest.raises(ParityError, match=r"max_abs_error .* > 0.0001"):
        check_parity(network, program, strict, batches)
