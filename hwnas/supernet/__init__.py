"""Supernets: networks that hold every network of a space, their training, and extraction."""

from hwnas.supernet.network import Supernet, extract


__all__ = ["Supernet", "extract"]
