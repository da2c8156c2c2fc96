"""Weights of the two thinner layers that can replace a linear layer or a 1x1 convolution.

Truncating the singular values of a weight W minimises the error of W, not of what the layer computes. With the second
moments of its inputs, ``E[x xT] = L LT``, the error of the outputs of rank r, ``E||Wx - W'x||2``, is smallest for the
first r singular values of ``W L``: if these are ``U S VT``, then ``W' = U S VT inv(L)`` (Chen et al., "DRONE", NeurIPS
2021; Yuan et al., "ASVD", 2023). The factors of a smaller rank are the first columns and rows of those of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from hwnas.nn.blocks import module_name
from hwnas.nn.segment import tensor_names
from hwnas.spaces.traced import NetworkSpec, RankSpec, SegmentSpec
from hwnas.supernet import Supernet, extract

_RIDGE = 1e-7  # least moment of a direction of the inputs, as a share of the largest: some directions never occur
_TINY = 1e-12


def ranked(network: NetworkSpec) -> list[tuple[SegmentSpec, str, RankSpec, int]]:
    """All layers with a rank: their segments, nodes, ranks, and largest ranks of the thinner layers."""
    return [
        (segment, node, rank, network.groups[segment.groups[rank.group]].choices[-2])
        for segment in network.segments
        for node, rank in network.graphs[segment.graph].ranks.items()
    ]


def blank(network: NetworkSpec) -> dict[str, Tensor]:
    """Zeros for all thinner layers: name in the network -> values."""
    found = {}
    for segment, _, rank, most in ranked(network):
        graph = network.graphs[segment.graph]
        units = [network.groups[number].units for number in segment.groups]
        units[rank.group] = most
        for name in (rank.down, rank.up):
            found[segment.weights[name]] = torch.zeros(graph.weights[name].shape(units))
    return found


def moments(supernet: Supernet, network: NetworkSpec, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Second moments of the inputs of the layers with a rank, in the whole network.

    Args:
        supernet: of the network; its thinner layers are not used.
        network: its spec.
        batches: images and labels.

    Returns:
        name of the layer's weight -> ``(in, in)``, the mean of ``x xT`` over images and positions.
    """
    space = supernet.space
    subnet = extract(supernet, space.largest)
    ops = {node.name: node.op for node in space.network(space.largest)}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    hooks = []
    for segment, _, rank, _ in ranked(network):
        name = segment.weights[rank.whole]
        own = {weight: own for own, weight in tensor_names(ops[segment.name]).items()}[rank.whole]
        layer = subnet.get_submodule(f"{module_name(segment.name)}.{own.rpartition('.')[0]}")

        def note(layer: nn.Module, given: tuple[Tensor, ...], name: str = name) -> None:
            x = given[0]
            if isinstance(layer, nn.Conv2d):
                x = x[:, :, :: layer.stride[0], :: layer.stride[1]].movedim(1, -1)
            x = x.reshape(-1, x.shape[-1])
            x = x.double()  # in single precision, sums over many positions have negative eigenvalues
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + x.T @ x
            counts[name] = counts.get(name, 0) + len(x)

        hooks.append(layer.register_forward_pre_hook(note))
    with torch.no_grad():
        for x, _ in batches:
            subnet(x)
    for hook in hooks:
        hook.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def factors(network: NetworkSpec, weights: Mapping[str, Tensor], moment: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of all thinner layers.

    Args:
        network: the spec.
        weights: name in the network -> values.
        moment: name of a layer's weight -> second moments of its inputs.

    Returns:
        name in the network -> values.
    """
    found = {}
    for segment, _, rank, most in ranked(network):
        name = segment.weights[rank.whole]
        down, up = factored(weights[name].flatten(1), moment[name], most)
        sides = weights[name].shape[2:]
        found[segment.weights[rank.down]] = down.view(*down.shape, *sides)
        found[segment.weights[rank.up]] = up.view(*up.shape, *sides)
    return found


def factored(weight: Tensor, moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``down`` of shape ``(rank, in)`` and ``up`` of shape ``(out, rank)``, whose product is close to a weight.

    Args:
        weight: ``(out, in)``.
        moment: ``(in, in)``, second moments of the inputs.
        rank: at most the smaller dimension of the weight.
    """
    squares, basis = torch.linalg.eigh(moment)  # not a Cholesky decomposition: fewer images than inputs leave zeros
    roots = squares.clamp(min=max(_RIDGE * float(squares[-1]), _TINY)).sqrt()
    left, values, right = torch.linalg.svd(weight.double() @ (basis * roots), full_matrices=False)
    scales = values[:rank].sqrt()
    down = scales[:, None] * right[:rank] / roots @ basis.T
    return down.to(weight.dtype), (left[:, :rank] * scales).to(weight.dtype)
