"""The order of a network's units by importance, so that a narrower network keeps the most important ones.

A narrower network is a prefix. Three measures of importance are known from pruning, and none is best for every network
(Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017: L1 norms; Liu et al., "Learning Efficient Convolutional
Networks through Network Slimming", ICCV 2017: scales of BN; Molchanov et al., "Importance Estimation for Neural Network
Pruning", CVPR 2019: first-order Taylor expansion of the loss).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn import functional

from hwnas.spaces.traced import NetworkSpec, NodeSpec
from hwnas.spaces.traced.spec import FIXED
from hwnas.tracing.trace import evaluating

Measure: TypeAlias = Literal["l1", "bn", "taylor"]
MEASURES: tuple[Measure, ...] = ("l1", "bn", "taylor")
_NORM = "aten._native_batch_norm_legit_no_training.default"
_WORK = ("aten.conv1d.default", "aten.conv2d.default", "aten.linear.default")
Orders: TypeAlias = Mapping[int, Tensor]


@dataclass(frozen=True, slots=True)
class Use:
    """Where the units of a group are in a weight.

    Attributes:
        weight: name in the network.
        axis: of the weight.
        offset: of the first element.
        width: elements of a unit.
        makes: whether the weight of a convolution or linear layer makes the units.
        scales: whether they are the scales of a BN.
    """

    weight: str
    axis: int
    offset: int
    width: int
    makes: bool
    scales: bool


def uses_of(network: NetworkSpec) -> dict[int, list[Use]]:
    """All places of each group in the weights of a network."""
    found: dict[int, list[Use]] = {number: [] for number in range(len(network.groups))}
    for segment in network.segments:
        graph = network.graphs[segment.graph]
        # Not of a layer whose weight is computed from others.
        working = {str(w["weight"]) for n in graph.nodes if n.op in _WORK and "weight" in (w := _second(n))}
        scaling = {node.weights[0] for node in graph.nodes if node.op == _NORM and len(node.weights) == 4}
        thin = {weight for rank in graph.ranks.values() for weight in (rank.down, rank.up)}
        for local, spec in graph.weights.items():
            if local in thin:  # made from the layer's weight, once that is in order
                continue
            for axis, size in enumerate(spec.sizes):
                assert not isinstance(size, int)
                offset = 0
                for group, width in size:
                    if group == FIXED:
                        offset += width
                        continue
                    number = segment.groups[group]
                    makes = axis == 0 and local in working
                    found[number].append(
                        Use(segment.weights[local], axis, offset, width, makes, axis == 0 and local in scaling)
                    )
                    offset += width * network.groups[number].units
    return found


def _second(node: NodeSpec) -> dict[str, JsonValue]:
    """The second argument of a node, its weight."""
    found = node.args[1] if len(node.args) > 1 else None
    return found if isinstance(found, dict) else {}


def orders_of(network: NetworkSpec, importance: Mapping[str, Tensor], *, scales: bool = False) -> dict[int, Tensor]:
    """The order of each group's units, the most important first.

    Args:
        network: the spec.
        importance: name of a weight -> importance of each element, of the weight's shape.
        scales: judge by the scales of BN where a group has some.

    Returns:
        number of a group -> ``(units,)`` indices of units.
    """
    orders = {}
    for number, uses in uses_of(network).items():
        units = network.groups[number].units
        judged = [use for use in uses if use.scales] if scales else []
        judged = judged or [use for use in uses if use.makes]
        total = torch.zeros(units, dtype=torch.float64)
        for use in judged:
            values = importance[use.weight].double()
            per_element = values.movedim(use.axis, 0).flatten(1).sum(1) if values.dim() > 1 else values
            own = per_element[use.offset : use.offset + units * use.width].view(units, use.width).sum(1)
            total += own / own.mean().clamp(min=1e-30)  # each layer counts equally
        orders[number] = total.argsort(descending=True, stable=True)
    return orders


def ordered(network: NetworkSpec, weights: Mapping[str, Tensor], orders: Orders) -> dict[str, Tensor]:
    """The weights with the units of each group in another order; the whole network computes the same."""
    found = dict(weights)
    for number, uses in uses_of(network).items():
        for use in uses:
            tensor = found[use.weight]
            index = torch.arange(tensor.shape[use.axis])
            places = (orders[number][:, None] * use.width + torch.arange(use.width)).flatten()
            index[use.offset : use.offset + len(places)] = use.offset + places
            found[use.weight] = tensor.index_select(use.axis, index)
    return found


def importance_of(
    measure: Measure,
    module: nn.Module,
    weights: Mapping[str, Tensor],
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
) -> dict[str, Tensor]:
    """The importance of each element of the weights.

    Args:
        measure: l1 and bn: magnitude; taylor: of the product with the gradient of the loss.
        module: the network, for taylor.
        weights: of the network.
        batches: returns images and labels, for taylor.
    """
    if measure != "taylor":
        return {name: tensor.abs() for name, tensor in weights.items()}
    module.zero_grad()
    images = 0
    with torch.enable_grad(), evaluating(module):
        for x, y in batches():
            loss = functional.cross_entropy(module(x), y) if y.dim() == 1 else _soft(module(x), y)
            (loss * len(x)).backward()
            images += len(x)
    found = {name: tensor.abs() for name, tensor in weights.items()}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            found[name] = (parameter.detach() * parameter.grad / max(images, 1)).abs()
    module.zero_grad()
    return found


def _soft(outputs: Tensor, shares: Tensor) -> Tensor:
    """Cross entropy with shares of classes, or binary cross entropies of several labels."""
    if torch.allclose(shares.sum(1), torch.ones(len(shares))):
        return functional.cross_entropy(outputs, shares)
    return functional.binary_cross_entropy_with_logits(outputs, shares.to(outputs.dtype))
