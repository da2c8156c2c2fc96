"""The differentiable search methods by name, each composed from a few common parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwnas.errors import InvalidValue
from hwnas.search.differentiable.sampling import Draw, concrete, hard_gumbel, one_path, softmax, two_paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method to train a relaxed network and its probabilities.

    Attributes:
        source: its publication.
        weights: selects the paths that run while weights are trained.
        archs: selects the paths that run while probabilities are trained.
        temperatures: of the relaxation, at the start and at the end; interpolated geometrically.
        second_order: whether the gradient of the probabilities takes the next step of the weights into account.
        together: whether one loss on the training images trains both levels.
        partial: one of this number of channels passes through a mixture.
        edge_normalisation: whether edges into a node are weighted by a softmax, if the space chooses among them.
        fair: whether each step trains every value equally often (`fair_paths`), instead of `weights`.
        pairs: whether the total probability of two compared logits is kept constant.
        variance: weight of the penalty on probabilities with a low variance.

    Raises:
        InvalidValue: a temperature is not a positive number.
    """

    source: str
    weights: Draw = softmax
    archs: Draw = softmax
    temperatures: tuple[float, float] = (1.0, 1.0)
    second_order: bool = False
    together: bool = False
    partial: int = 1
    edge_normalisation: bool = False
    fair: bool = False
    pairs: bool = False
    variance: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 < temperature < math.inf for temperature in self.temperatures):
            raise InvalidValue(
                f"temperatures are positive numbers, not {', '.join(map(str, self.temperatures))}: at 0 a relaxation "
                "has no gradient"
            )


METHODS: dict[str, Method] = {
    "darts": Method(source="Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019; first order"),
    "darts-second-order": Method(
        source="Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019; equations 6 to 8", second_order=True
    ),
    "pc-darts": Method(
        source="Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020",
        partial=4,
        edge_normalisation=True,
    ),
    "gdas": Method(
        source="Dong and Yang, Searching for a Robust Neural Architecture in Four GPU Hours, CVPR 2019",
        weights=hard_gumbel,
        archs=hard_gumbel,
        temperatures=(10.0, 0.1),
    ),
    "snas": Method(
        source="Xie et al., SNAS: Stochastic Neural Architecture Search, ICLR 2019",
        weights=concrete,
        archs=concrete,
        temperatures=(1.0, 0.03),
        together=True,
    ),
    "proxyless": Method(
        source="Cai et al., ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019",
        weights=one_path,
        archs=two_paths,
        pairs=True,
    ),
    "fbnet": Method(
        source="Wu et al., FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable NAS, CVPR 2019",
        weights=concrete,
        archs=concrete,
        temperatures=(5.0, 0.1),
    ),
    "fairnas": Method(
        source="Chu et al., FairNAS, ICCV 2021 (strict fairness); Chu et al., Fair DARTS, ECCV 2020 (equation 4)",
        fair=True,
        variance=1.0,
    ),
}
