"""What pages say about the whole; their commands are run by scripts/check-docs."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hwnas

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ARCHITECTURE = DOCS / "architecture.md"
PAGES = ("docs", "devices", "latency_tables", "examples", "exporters")


def test_the_reference_has_every_public_name_once():
    shown = re.findall(r"^::: hwnas\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(hwnas.__all__)


def test_architecture_lists_the_layers_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    section = ARCHITECTURE.read_text().split("\n## Layers\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    listed = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    assert listed == [set(layer.split(" | ")) for layer in layers]


def test_architecture_names_files_that_exist_and_hold_what_it_says():
    text = ARCHITECTURE.read_text()
    paths = re.findall(r"`((?:hwnas|tests|devices|exporters|latency_tables)/[\w./]+)`", text)
    assert len(paths) > 60
    assert [path for path in paths if not (ROOT / path).exists()] == []
    held = re.findall(r"`(\w+)`\s+(?:in|of)\s+`(hwnas/[\w/]+\.py)`", text)
    assert len(held) > 15
    assert [pair for pair in held if not re.search(rf"\b{pair[0]}\b", (ROOT / pair[1]).read_text())] == []


def test_pages_use_names_that_exist():
    pages = [*ROOT.glob("*.md"), *(page for name in PAGES for page in (ROOT / name).rglob("*.md"))]
    blocks = [block for page in pages for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)]
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "hwnas"]
    ours = {(node.module, name.name) for node in imports for name in node.names}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    ours |= {("hwnas", node.attr) for node in attributes if node.value.id == "hwnas"}
    assert len(ours) > 40
    assert [pair for pair in ours if not hasattr(importlib.import_module(pair[0]), pair[1])] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("progress: told about each image", "told about"),
        ("    # a loss that is no\n    # number", "is no # number"),
        ("callback, invoked after every image", None),
    ],
)
def test_forbidden_phrases_are_found_across_lines(tmp_path, text, found):
    (tmp_path / "page.md").write_text(text)
    command = [sys.executable, ROOT / "scripts" / "check-phrases", tmp_path / "page.md"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == (1 if found else 0)
    assert ended.stdout.startswith(f"{tmp_path / 'page.md'}:1: {found!r}; write: ") if found else ended.stdout == ""
