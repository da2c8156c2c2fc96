"""Supernets: networks that contain every network of a space. Training, storage and subnet extraction."""

from hwnas.supernet.classes import for_classes
from hwnas.supernet.config import Phase, TrainConfig, read_training, usual_training
from hwnas.supernet.network import Supernet, extract, single
from hwnas.supernet.once_for_all import load_once_for_all, read_once_for_all
from hwnas.supernet.store import SupernetFacts, load_supernet, read_facts, save_supernet
from hwnas.supernet.trainer import train

__all__ = [
    "Phase",
    "Supernet",
    "SupernetFacts",
    "TrainConfig",
    "extract",
    "for_classes",
    "load_once_for_all",
    "load_supernet",
    "read_facts",
    "read_once_for_all",
    "read_training",
    "save_supernet",
    "single",
    "train",
    "usual_training",
]
