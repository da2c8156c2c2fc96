"""Machines: the places where programs are timed."""

from hwnas.machines.base import Machine
from hwnas.machines.connections import machine_of
from hwnas.machines.local import LocalMachine
from hwnas.machines.simulated import SimulatedMachine

__all__ = ["LocalMachine", "Machine", "SimulatedMachine", "machine_of"]
