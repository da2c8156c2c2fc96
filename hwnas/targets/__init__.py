"""Targets: devices and recipes from TOML, and where they are found."""

from __future__ import annotations

from hwnas.targets.catalog import (
    FoundTable,
    Target,
    detected_device,
    devices,
    home,
    known_devices,
    known_recipes,
    load_device,
    load_recipe,
    recipes,
    resolve_target,
    roots,
    table_path,
    tables,
    targets_of,
    this_device,
    writable_home,
)
from hwnas.targets.device import Device, Hardware, Match, describe, describe_gpu
from hwnas.targets.files import only_one, reason_of, system_refusals, temporary_folder, write_whole
from hwnas.targets.host import Host, detect_host, usable_cores
from hwnas.targets.journal import Journal
from hwnas.targets.quota import Quota, cpu_quota
from hwnas.targets.recipe import RUNTIMES, Parity, Quantization, Recipe
from hwnas.targets.toml import Spec, read_spec, toml_text
from hwnas.targets.topology import Chosen, Topology, choose_cores, read_topology
from hwnas.targets.weights import adds_exactly, saturates_here, with_weights

__all__ = [
    "RUNTIMES",
    "Chosen",
    "Device",
    "FoundTable",
    "Hardware",
    "Host",
    "Journal",
    "Match",
    "Parity",
    "Quantization",
    "Quota",
    "Recipe",
    "Spec",
    "Target",
    "Topology",
    "adds_exactly",
    "choose_cores",
    "cpu_quota",
    "describe",
    "describe_gpu",
    "detect_host",
    "detected_device",
    "devices",
    "home",
    "known_devices",
    "known_recipes",
    "load_device",
    "load_recipe",
    "only_one",
    "read_spec",
    "read_topology",
    "reason_of",
    "recipes",
    "resolve_target",
    "roots",
    "saturates_here",
    "system_refusals",
    "table_path",
    "tables",
    "targets_of",
    "temporary_folder",
    "this_device",
    "toml_text",
    "usable_cores",
    "with_weights",
    "writable_home",
    "write_whole",
]
