"""What pages say about the whole; their commands are run by scripts/check-docs."""

from __future__ import annotations

import re
from pathlib import Path

import hwnas

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_reference_has_every_public_name_once():
    shown = re.findall(r"^::: hwnas\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(hwnas.__all__)
