"""Pages in a browser: what the tests of several pages share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hwnas.report.plots import Plot

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
EVIL = '<script>document.title = "stolen"</script><img src=x onerror=alert(1)>'


@contextmanager
def browser() -> Iterator[Callable[..., Any]]:
    """Opens files with some settings of a context; whatever the console says or asks for fails at the end."""
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def opened(page: Path, **settings: Any) -> Any:
            shown = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings}).new_page()
            shown.on("console", lambda message: complaints.append(message.text))
            shown.on("pageerror", lambda error: complaints.append(str(error)))
            shown.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
            shown.goto(page.as_uri())
            assert not complaints, complaints
            return shown

        yield opened
        chromium.close()
    assert not complaints, complaints


def check_plots(shown: Any, plots: Sequence[Plot]) -> None:
    """Each plot of a page is drawn, is told in words, and has its data as a table; the page is well formed."""
    assert shown.locator(".plot").count() == len(plots) > 0
    for plot in plots:
        box = shown.locator(f"[id='{plot.name}']")
        assert box.locator(".main-svg").count() > 0, plot.name
        assert box.locator(".scatterlayer path, .hm image, .bars path").count() > 0, plot.name
        assert plot.summary in box.get_attribute("aria-label")
        rows = shown.locator(f"figure:has([id='{plot.name}']) details tbody tr").count()
        assert rows == len(plot.rows) > 0
    assert shown.locator("h1").count() == 1
    levels = shown.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = shown.evaluate("[...document.querySelectorAll('[id]:not(.plot *)')].map(e => e.id)")
    assert len(set(ids)) == len(ids)
