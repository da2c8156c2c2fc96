"""What was measured and predicted of a model, in a folder with a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import EVIL, browser, check_plots, needs_chromium

from hwnas import workflows
from hwnas.deploy.model_bench import LayerTime, Roofline
from hwnas.errors import InvalidValue, OutputError, SpecError
from hwnas.latency.kernels.table import KernelValidation
from hwnas.models import Model, open_model
from hwnas.report.figures import MODEL_FIGURES
from hwnas.report.model_figures import (
    ModelFigures,
    ModelTarget,
    PredictedKernel,
    Prediction,
    read_model_figures,
)
from hwnas.report.model_page import PAGE, model_page
from hwnas.report.runs import page_and_plots
from hwnas.timing import Protocol

FP32 = "this/onnxruntime-cpu-fp32"


@pytest.fixture(scope="module")
def model(picture: Any) -> Model:
    return open_model(picture, shapes={"input": (1, 3, 16, 16)})


@pytest.fixture
def run(model: Model, quick: Protocol, tmp_path: Path) -> Path:
    """A folder with a benchmark and a sweep."""
    folder = tmp_path / "run"
    workflows.bench_model(model, FP32, protocol=quick, out=folder)
    workflows.sweep_model(model, recipes=["onnxruntime-cpu-fp32", "openvino-cpu-fp32"], protocol=quick, out=folder)
    return folder


def predicted(target: ModelTarget) -> Prediction:
    """A prediction with the layers of a measurement, each 10% less; one in three is an estimate."""
    assert target.timing is not None
    kernels = [
        PredictedKernel(
            name=one.name,
            kernel=f"{one.kind} 1x3x16x16 > 1x8x8x8",
            ms=one.ms * 0.9,
            share=one.share,
            how="estimated" if i % 3 else "measured",
        )
        for i, one in enumerate(target.timing.layers)
    ]
    return Prediction(
        target=target.target,
        predicted_ms=target.timing.measured_ms * 0.9,
        upper_ms=target.timing.measured_ms * 1.2,
        confidence=0.95,
        shares={"measured": 0.4, "estimated": 0.6, "unknown": 0.0},
        between_ms=0.0,
        kernels=kernels,
        validation=KernelValidation(networks=40, mape=0.05, within_10pct=0.9, kendall_tau=0.97),
        measured_on="2026-11-01",
    )


def test_the_commands_of_a_model_share_a_folder(run: Path) -> None:
    figures = read_model_figures(run / MODEL_FIGURES)
    assert [one.target.partition("/")[2] for one in figures.targets] == ["onnxruntime-cpu-fp32", "openvino-cpu-fp32"]
    for one in figures.targets:
        assert one.timing is not None
        assert one.timing.layers
        assert one.closeness is not None
        assert one.closeness.refused is None
        assert one.prediction is None
    assert figures.picked in [one.target for one in figures.targets]
    assert f"{figures.targets[0].timing.measured_ms:.3g}"[:3] in (run / PAGE).read_text()
    assert page_and_plots(run)[0]() == (run / PAGE).read_text()


def test_another_kind_of_figures_keeps_the_others(run: Path) -> None:
    figures = read_model_figures(run / MODEL_FIGURES)
    [first, second] = figures.targets
    added = figures.with_targets([ModelTarget(target=first.target, prediction=predicted(first))])
    assert added.targets[0].timing == first.timing
    assert added.targets[0].closeness == first.closeness
    assert added.targets[0].error == pytest.approx(1 / 0.9 - 1)
    assert added.targets[1] == second
    assert added.picked == figures.picked
    without = figures.with_targets([], left_out={first.target: "no", "other/recipe": "it lacks bf16"})
    assert without.left_out == {"other/recipe": "it lacks bf16"}


def test_a_folder_of_another_model_or_of_other_things_is_refused_at_once(
    run: Path, picture: Any, quick: Protocol, tmp_path: Path
) -> None:
    other = open_model(picture, shapes={"input": (1, 3, 24, 24)})
    with pytest.raises(InvalidValue, match=r"run has the figures of Sequential .*16, 16.*, not of this .*24, 24"):
        workflows.bench_model(other, FP32, protocol=quick, out=run)
    with pytest.raises(OutputError, match=r"is not empty, and has no model.json"):
        workflows.bench_model(other, FP32, protocol=quick, out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file is a file, but --out is a folder"):
        workflows.sweep_model(other, protocol=quick, out=tmp_path / "file")
    (run / MODEL_FIGURES).write_text('{"schema": 1, "model": 3}')
    with pytest.raises(SpecError, match=r"model.json is malformed: model: .*hwnas bench MODEL --out"):
        workflows.bench_model(other, FP32, protocol=quick, out=run)


def test_the_share_of_the_roofline() -> None:
    roofline = Roofline(gmacs_per_s=100.0, gb_per_s=10.0)

    def layer(macs: int | None, moved: int | None) -> LayerTime:
        return LayerTime(name="", kind="Conv", detail="", ms=1.0, share=1.0, macs=macs, bytes=moved)

    assert roofline.reached(layer(50_000_000, 1000)) == pytest.approx(0.5)  # 50 of 100 GMAC/s
    assert roofline.reached(layer(1000, 2_000_000)) == pytest.approx(0.2)  # 2 of 10 GB/s
    assert roofline.reached(layer(None, 1_000_000)) == pytest.approx(0.1)
    assert roofline.reached(layer(None, None)) is None


def test_the_command(run: Path, tmp_path: Path, hwnas_cli: Callable[..., Any]) -> None:
    ran = hwnas_cli("report", run, "--out", tmp_path / "again.html", "--json")
    assert json.loads(ran.out) == {"page": str(tmp_path / "again.html"), "pictures": []}
    assert (tmp_path / "again.html").read_text() == (run / PAGE).read_text()
    (run / MODEL_FIGURES).unlink()
    assert hwnas_cli("report", run).code == 2


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens the page of figures."""
    with browser() as open_page:

        def opened(figures: ModelFigures, **settings: Any) -> Any:
            path = tmp_path_factory.mktemp("page") / PAGE
            path.write_text(model_page(figures))
            return open_page(path, **settings)

        yield opened


@needs_chromium
def test_everything_is_drawn(run: Path, opened: Callable[..., Any]) -> None:
    figures = read_model_figures(run / MODEL_FIGURES)
    [first, second] = figures.targets
    only = ModelTarget(target="pi5/onnxruntime-cpu-fp32", prediction=predicted(second))
    figures = figures.with_targets(
        [ModelTarget(target=first.target, prediction=predicted(first)), only], left_out={"a/b": EVIL}
    )
    assert first.timing is not None
    roofline = Roofline(gmacs_per_s=100.0, gb_per_s=24.0)
    known = figures.targets[0].model_copy(update={"timing": first.timing.model_copy(update={"roofline": roofline})})
    figures = figures.model_copy(
        update={"targets": [known, *figures.targets[1:]], "model": figures.model.model_copy(update={"name": EVIL})}
    )
    (run / MODEL_FIGURES).write_text(figures.json_text())
    plots = page_and_plots(run)[1]()
    assert [plot.name for plot in plots] == [
        "recipes", "1-layers", "1-roofline", "1-predicted", "2-layers", "2-roofline", "3-kernels",
    ]  # fmt: skip
    shown = opened(figures)
    check_plots(shown, plots)
    assert EVIL in shown.locator("h1").inner_text()
    assert shown.locator("main img").count() == 0
    assert "11.1" in shown.locator("#glance").inner_text()  # measured over predicted, 1 / 0.9
    narrow = opened(figures, viewport={"width": 390, "height": 800})
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 390
