"""Supernets: networks that hold every network of a space, their training, and extraction."""

from hwnas.supernet.network import Supernet, extract
from hwnas.supernet.store import SupernetFacts, load_supernet, save_supernet
from hwnas.supernet.train import TrainConfig, train

__all__ = ["Supernet", "SupernetFacts", "TrainConfig", "extract", "load_supernet", "save_supernet", "train"]
