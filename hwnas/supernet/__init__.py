"""Supernets: networks that hold every network of a space, their training, and extraction."""

from hwnas.supernet.network import Supernet, extract
from hwnas.supernet.once_for_all import load_once_for_all, read_once_for_all
from hwnas.supernet.store import SupernetFacts, load_supernet, save_supernet
from hwnas.supernet.train import TrainConfig, train

__all__ = [
    "Supernet",
    "SupernetFacts",
    "TrainConfig",
    "extract",
    "load_once_for_all",
    "load_supernet",
    "read_once_for_all",
    "save_supernet",
    "train",
]
