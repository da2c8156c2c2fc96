"""Help texts that list registered names, including plugins; the lists are created when a help text is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer
from typer.core import TyperCommand


def _spaces() -> list[str]:
    from hwnas.spaces import space_names

    return space_names()


def _datasets() -> list[str]:
    from hwnas.data import dataset_names

    return dataset_names()


def _strategies() -> list[str]:
    from hwnas.search import strategy_names

    return strategy_names()


def _predictors() -> list[str]:
    from hwnas.accuracy.predictors import predictor_names

    return predictor_names()


def _formats() -> list[str]:
    from hwnas.latency.imports import format_names

    return format_names()


def _engines() -> list[str]:
    from hwnas.engines import engine_names

    return engine_names()


def _metrics() -> list[str]:
    from hwnas.tasks.metrics import metric_names

    return metric_names()


def _methods() -> list[str]:
    from hwnas.adapters import ADAPTERS

    return list(ADAPTERS)


_LISTS: dict[str, Callable[[], Sequence[str]]] = {
    "{spaces}": _spaces,
    "{datasets}": _datasets,
    "{strategies}": _strategies,
    "{predictors}": _predictors,
    "{formats}": _formats,
    "{metrics}": _metrics,
    "{methods}": _methods,
    "{engines}": _engines,
}


def filled(text: str) -> str:
    """A help text with names of registries substituted for ``{spaces}``, ``{datasets}`` and so on."""
    for mark, names in _LISTS.items():
        if mark in text:
            text = text.replace(mark, ", ".join(names()))
    return text


class Verb(TyperCommand):
    """A command whose options refer to registries in their help."""

    def get_help(self, ctx: typer.Context) -> str:  # type: ignore[override]  # typer may vendor click
        """The help text with substituted lists."""
        self._fill()
        return super().get_help(ctx)

    def format_help(self, ctx: typer.Context, formatter: object) -> None:  # type: ignore[override]
        """Write the help text with substituted lists."""
        self._fill()
        super().format_help(ctx, formatter)  # type: ignore[arg-type]

    def _fill(self) -> None:
        for parameter in self.params:
            if text := getattr(parameter, "help", None):
                parameter.help = filled(text)  # type: ignore[attr-defined]  # arguments have none, options do
