"""A trained network as an elastic supernet: its own weights, its widths to choose from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwnas.errors import ModelError
from hwnas.nn.segment import tensor_names
from hwnas.spaces import Space, Value
from hwnas.spaces.traced import NetworkSpec, remember
from hwnas.spaces.traced.space import space_of
from hwnas.supernet import Supernet
from hwnas.tracing.experts import is_projection
from hwnas.tracing.ranks import blank
from hwnas.tracing.trace import evaluating


def supernet_of(network: NetworkSpec, weights: Mapping[str, Tensor]) -> Supernet:
    """The supernet of a traced network, in evaluation mode.

    Args:
        network: its spec; it is made known in this process.
        weights: name in the network -> values; with those of thinner layers (`hwnas.tracing.ranks`). Projections of a
            hybrid are not in it: they have initial values.
    """
    space = space_of(remember(network))
    supernet = Supernet(space)
    state: dict[str, Tensor] = {}
    for segment, slot in zip(network.segments, space.slots, strict=True):
        stored = {supernet.name_of(segment.name, op): op for op in space.slot_ops(slot).flat if op is not None}
        for place, op in stored.items():
            known = segment.weights_of(str(op["graph"]))
            for own, local in tensor_names(supernet.elastic(segment.name, op).largest).items():
                if not is_projection(local):
                    state[f"slots.{place}.shared.{own}"] = weights[known[local]]
    supernet.load_state_dict(supernet.state_dict() | state)
    return supernet.eval()


def check_traced(module: nn.Module, network: NetworkSpec, weights: Mapping[str, Tensor]) -> None:
    """Check that the largest subnet computes what the network does, and that narrower ones run, on random images.

    Args:
        module: the network.
        network: its spec.
        weights: name in the network -> values.

    Raises:
        ModelError: they differ, or a subnet does not run: an operator of the network is not traced correctly.
    """
    supernet, name = supernet_of(network, blank(network) | dict(weights)), network.name
    space = supernet.space
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), evaluating(module):
        for images, side in ((images, side) for side in network.resolutions for images in (1, 3)):
            largest = space.arch({**space.largest, "resolution": side})  # other numbers of images than in the trace
            x = torch.randn(images, *space.input_shape(largest), generator=generator)
            expected = module(x)
            for arch in (largest, space.smallest, *space.decode(space.sample(2, seed=images))):
                try:
                    found = supernet(x, space.arch({**arch, "resolution": side}))
                except (RuntimeError, ValueError, IndexError) as error:
                    first = str(error).strip().splitlines()[0][:300]
                    raise ModelError(
                        f"{name} was traced, but does not run on {images} images as {_words(space, arch)}: {first}. An "
                        "operator of it depends on a size in a way that hwnas does not know; --keep its layers"
                    ) from error
                if arch == largest:
                    _check_close(name, found, expected)


def _check_close(name: str, found: Tensor, expected: Tensor) -> None:
    apart = (found - expected).abs().max().item()
    if not apart <= 1e-3 * max(1.0, expected.abs().max().item()):
        raise ModelError(
            f"{name} was traced, but its largest subnet differs from it by {apart:.3g}: an operator of it depends on "
            "the number of images, or on the order of channels, in a way that hwnas does not know"
        )


def _words(space: Space, arch: Mapping[str, Value]) -> str:
    if dict(arch) == dict(space.largest):
        return "the largest subnet"
    return ", ".join(f"{name} = {value}" for name, value in arch.items() if value != space.largest[name])[:200]
