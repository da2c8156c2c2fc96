"""HTML pages from templates: self-contained files that load nothing from the internet."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: object) -> str:
    """A page as HTML. Values from files (names of classes, layers, paths) are escaped.

    Args:
        template: its file beside this module.
        values: what the template shows.
    """
    from plotly.offline import get_plotlyjs

    from hwnas.report.plots import FONT, PALETTE

    return _environment().get_template(template).render(palette=PALETTE, font=FONT, plotly=get_plotlyjs(), **values)


@cache
def _environment() -> Environment:
    import jinja2

    from hwnas.report.plots import count, ms, percent, size

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"networks": count, "ms": ms, "percent": percent, "size": size}
    return environment
