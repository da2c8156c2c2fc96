"""Differentiable search: trains a relaxed network together with the probabilities of its choices."""

from hwnas.search.differentiable.config import DifferentiableConfig, usual_search
from hwnas.search.differentiable.methods import METHODS, Method
from hwnas.search.differentiable.repair import Repaired, most_probable
from hwnas.search.differentiable.run import Relaxed, search_differentiable

__all__ = [
    "METHODS",
    "DifferentiableConfig",
    "Method",
    "Relaxed",
    "Repaired",
    "most_probable",
    "search_differentiable",
    "usual_search",
]
