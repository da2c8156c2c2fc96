"""The page of a user's model."""

from __future__ import annotations

from hwnas.report.model_figures import ModelFigures, ModelTarget
from hwnas.report.rendering import render

PAGE = "report.html"


def model_page(figures: ModelFigures) -> str:
    """The page as HTML."""
    from hwnas.report.model_plots import recipes_plot, short_targets, target_plots

    names = short_targets(figures.targets)
    return render(
        "model.html",
        figures=figures,
        compared=recipes_plot(figures) if len(figures.targets) > 1 else None,
        stories=[
            {
                "id": f"target-{i}",
                "name": name,
                "target": target,
                "plots": plots,
                "stats": _stats(target),
                "known": _known(target),
            }
            for i, (name, target, plots) in enumerate(
                zip(names, figures.targets, target_plots(figures), strict=True), start=1
            )
        ],
    )


def _known(target: ModelTarget) -> dict[str, str]:
    """Facts about the table of kernels of a prediction."""
    if target.prediction is None:
        return {}
    found, judged = {"measured on": target.prediction.measured_on}, target.prediction.validation
    if judged is not None:
        found |= {
            "networks predicted without their own kernels": str(judged.networks),
            "MAPE": f"{judged.mape:.1%}",
            "within 10%": f"{judged.within_10pct:.0%}",
            "Kendall τ": f"{judged.kendall_tau:.3f}",
        }
    return found


def _stats(target: ModelTarget) -> list[tuple[str, str, str, str]]:
    """The figures of a target at a glance: title, figure, unit, and what is beside it."""
    from hwnas.report.plots import ms, signed, size

    found = []
    if (timing := target.timing) is not None:
        quantiles = ", ".join(
            f"{name} {ms(value)}"
            for name, value in (("p50", timing.p50_ms), ("p90", timing.p90_ms), ("p99", timing.p99_ms))
            if value is not None
        )
        found += [
            ("Measured latency", ms(timing.measured_ms), "ms", f"{quantiles}; {timing.runs:,} runs"),
            ("Throughput", f"{timing.runs_per_s:,.4g}", "runs/s", f"one stream; program of {size(timing.size_bytes)}"),
        ]
    if (prediction := target.prediction) is not None:
        bound = "no upper bound" if prediction.upper_ms is None else f"at most {ms(prediction.upper_ms)}"
        how = ", ".join(f"{share:.0%} {how}" for how, share in prediction.shares.items() if share)
        found.append(
            ("Predicted latency", ms(prediction.predicted_ms), "ms", f"{bound} at {prediction.confidence:.0%}; {how}")
        )
    if target.error is not None and target.prediction is not None and target.timing is not None:
        upper = target.prediction.upper_ms
        aside = "" if upper is None else f"{'within' if target.timing.measured_ms <= upper else 'above'} the bound"
        found.append(("Measured over predicted", f"{signed(100 * target.error, 1)}", "%", aside))
    if (close := target.closeness) is not None:
        worst = max(close.parity.outputs, key=lambda one: one.max_abs_error / (one.largest or 1.0))
        inputs = f"{close.parity.samples} {'random inputs' if close.parity.random else 'samples'}"
        if close.parity.metric is not None and close.parity.deployed is not None:
            aside = f"{close.parity.reference:.4g} in fp32, on {inputs}"
            found.append((f"{close.parity.metric}, deployed", f"{close.parity.deployed:.4g}", "", aside))
        else:
            found.append(
                ("Largest difference from fp32", f"{worst.max_abs_error:.2g}", "", f"of {worst.largest:.3g}; {inputs}")
            )
    return found
