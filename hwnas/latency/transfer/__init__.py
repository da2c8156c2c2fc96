"""A new target's latencies from those of other targets and a few whole networks that were timed on it."""

from hwnas.latency.transfer.choice import Choice, Trial, choose_method, judges, spearman
from hwnas.latency.transfer.design import DESIGN, DESIGNS, choose
from hwnas.latency.transfer.fitting import Posterior, Prior, Scales, fit
from hwnas.latency.transfer.known import Known, Measured, Source, fit_costs
from hwnas.latency.transfer.methods import METHODS, Method

__all__ = [
    "DESIGN",
    "DESIGNS",
    "METHODS",
    "Choice",
    "Known",
    "Measured",
    "Method",
    "Posterior",
    "Prior",
    "Scales",
    "Source",
    "Trial",
    "choose",
    "choose_method",
    "fit",
    "fit_costs",
    "judges",
    "spearman",
]
