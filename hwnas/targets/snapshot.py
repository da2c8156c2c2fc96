"""The files that describe a Linux machine."""

from __future__ import annotations

from hwnas.targets import linux, quota, state, topology

# Patterns below the root folder (`glob.glob`, POSIX shells) of every file that `read_host`, `read_topology`, `cpu_quota`
# and `cpu_state` read. With copies of these files in a folder, they describe the machine that the copies come from.
SNAPSHOT = tuple(dict.fromkeys((*linux.FILES, *topology.FILES, *quota.FILES, *state.FILES)))
