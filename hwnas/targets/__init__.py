"""Targets: devices and recipes from TOML files, and the folders that are searched for them."""

from __future__ import annotations

from hwnas.targets.catalog import (
    FoundTable,
    Target,
    detected_device,
    devices,
    home,
    kernel_table_path,
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
from hwnas.targets.host import Host, detect_host, read_host, usable_cores
from hwnas.targets.quota import Quota, cpu_quota
from hwnas.targets.recipe import Parity, Quantization, Recipe
from hwnas.targets.runtimes import RUNTIMES, RuntimeFacts
from hwnas.targets.snapshot import SNAPSHOT
from hwnas.targets.state import cpu_state, slowed_by
from hwnas.targets.topology import Chosen, Topology, choose_cores, read_topology
from hwnas.targets.weights import adds_exactly, saturates_here, with_weights

__all__ = [
    "RUNTIMES",
    "SNAPSHOT",
    "Chosen",
    "Device",
    "FoundTable",
    "Hardware",
    "Host",
    "Match",
    "Parity",
    "Quantization",
    "Quota",
    "Recipe",
    "RuntimeFacts",
    "Target",
    "Topology",
    "adds_exactly",
    "choose_cores",
    "cpu_quota",
    "cpu_state",
    "describe",
    "describe_gpu",
    "detect_host",
    "detected_device",
    "devices",
    "home",
    "kernel_table_path",
    "known_devices",
    "known_recipes",
    "load_device",
    "load_recipe",
    "read_host",
    "read_topology",
    "recipes",
    "resolve_target",
    "roots",
    "saturates_here",
    "slowed_by",
    "table_path",
    "tables",
    "targets_of",
    "this_device",
    "usable_cores",
    "with_weights",
    "writable_home",
]
