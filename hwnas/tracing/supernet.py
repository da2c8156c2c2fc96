"""A trained network as an elastic supernet: its own weights, its widths to choose from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwnas.nn.blocks import module_name
from hwnas.nn.segment import tensor_names
from hwnas.spaces.traced import NetworkSpec, remember
from hwnas.spaces.traced.space import space_of
from hwnas.supernet import Supernet


def supernet_of(network: NetworkSpec, weights: Mapping[str, Tensor]) -> Supernet:
    """The supernet of a traced network, in evaluation mode.

    Args:
        network: its spec; it is made known in this process.
        weights: name in the network -> values.
    """
    space = space_of(remember(network))
    supernet = Supernet(space)
    largest = space.largest
    state: dict[str, Tensor] = {}
    slots = {slot.name: slot for slot in space.slots}
    for segment in network.segments:
        slot = slots[segment.name]
        op = slot.op(*(largest[name] for name in slot.variables))
        assert op is not None  # the largest network has every block
        for own, local in tensor_names(op).items():
            state[f"slots.{module_name(segment.name)}.shared.{own}"] = weights[segment.weights[local]]
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            if name in state:
                tensor.copy_(state[name])
    return supernet.eval()


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters, buffers and constants of a module, by the names that a trace gives them."""
    return {name: tensor.detach() for name, tensor in module.state_dict(keep_vars=True).items()}
