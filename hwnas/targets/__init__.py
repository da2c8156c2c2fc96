"""Targets: devices and recipes from TOML, and where they are found."""

from __future__ import annotations

from hwnas.targets.catalog import (
    FoundTable,
    Target,
    detected_device,
    devices,
    home,
    load_device,
    load_recipe,
    recipes,
    resolve_target,
    roots,
    table_path,
    tables,
    targets_of,
    this_device,
)
from hwnas.targets.device import Device, Hardware, Match, describe, describe_gpu
from hwnas.targets.files import only_one, write_whole
from hwnas.targets.host import Host, detect_host, usable_cores
from hwnas.targets.journal import Journal
from hwnas.targets.recipe import RUNTIMES, Parity, Quantization, Recipe
from hwnas.targets.toml import Spec, read_spec, toml_text
from hwnas.targets.weights import adds_exactly, saturates_here, with_weights

__all__ = [
    "RUNTIMES",
    "Device",
    "FoundTable",
    "Hardware",
    "Host",
    "Journal",
    "Match",
    "Parity",
    "Quantization",
    "Recipe",
    "Spec",
    "Target",
    "adds_exactly",
    "describe",
    "describe_gpu",
    "detect_host",
    "detected_device",
    "devices",
    "home",
    "load_device",
    "load_recipe",
    "only_one",
    "read_spec",
    "recipes",
    "resolve_target",
    "roots",
    "saturates_here",
    "table_path",
    "tables",
    "targets_of",
    "this_device",
    "toml_text",
    "usable_cores",
    "with_weights",
    "write_whole",
]
