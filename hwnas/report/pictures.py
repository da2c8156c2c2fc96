"""The plots of a run as PNG files, drawn by a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import OutputError, RuntimeUnavailable
from hwnas.files import reason_of

if TYPE_CHECKING:
    from hwnas.report.plots import Plot

_WIDTH, _SCALE = 960, 2  # width of the page in pixels, and pixels of the picture per pixel of the page


def write_pngs(plots: Sequence[Plot], folder: Path) -> list[Path]:
    """Write a PNG of each plot of a page in light colours; return their paths.

    Raises:
        RuntimeUnavailable: kaleido is not installed, or finds no browser.
        OutputError: the folder cannot be written.
    """
    try:
        import kaleido
        from kaleido.errors import ChromeNotFoundError
    except ImportError as error:
        raise RuntimeUnavailable(
            "kaleido draws the pictures, but is not installed: pip install 'hwnas[png]'"
        ) from error
    pictures = []
    for plot in plots:
        plot.figure.update_layout(
            showlegend=bool(plot.legend),
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
            title={"text": plot.title, "x": 0.02, "y": 0.98, "yanchor": "top"},
            margin={"l": 16, "r": 24, "t": 110, "b": 16},
        )
        size = {"width": _WIDTH, "height": plot.figure.layout.height + 110, "scale": _SCALE}
        pictures.append(
            {"fig": plot.figure, "path": folder / f"{plot.name}.png", "opts": {"format": "png", **size}},
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kaleido.write_fig_from_object_sync(pictures, cancel_on_error=True)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {reason_of(error)}") from error
    except ChromeNotFoundError as error:
        raise RuntimeUnavailable(
            "Chromium or Chrome draws the pictures, but neither is installed. On Debian and Ubuntu: "
            "apt-get install chromium; elsewhere: kaleido_get_chrome. The page itself needs neither"
        ) from error
    return [folder / f"{plot.name}.png" for plot in plots]
