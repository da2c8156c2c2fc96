"""The files that describe a Linux machine."""

from __future__ import annotations

from hwnas.targets import linux, quota, state, topology

# Patterns below the root folder (for `glob.glob` and POSIX shells) of every file that `read_host`, `read_topology`,
# `cpu_quota`, `cpu_state` and `slowed_by` read. Copies of these files describe the machine that they come from.
SNAPSHOT = tuple(dict.fromkeys((*linux.FILES, *topology.FILES, *quota.FILES, *state.FILES)))
