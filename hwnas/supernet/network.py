"""The supernet of a space, and the network of one arch taken out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwnas.errors import InvalidValue
from hwnas.nn import Elastic, network, plain, ready
from hwnas.nn.blocks import initialise, module_name
from hwnas.spaces import Slot, Space


class Supernet(nn.Module):
    """One set of weights for every network of a space.

    The arch is an argument, not a state: ``supernet(x, arch)``.

    Args:
        space: the space; only its choices are stored, so a restricted space makes a smaller supernet.
        seed: of the initial weights.
    """

    def __init__(self, space: Space, *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        ops = {slot.name: [op for op in space.slot_ops(slot).flat if op is not None] for slot in space.slots}
        # A slot that a restriction leaves without any op (a block beyond every depth) has no weights.
        self.slots = nn.ModuleDict(
            {module_name(slot): Elastic(found, bn_eps=space.bn_eps) for slot, found in ops.items() if found}
        )
        initialise(self, seed=seed)

    def forward(self, x: Tensor, arch: Mapping[str, int]) -> Tensor:
        """Images ``(n, in_channels, resolution, resolution)`` at the arch's resolution -> logits ``(n, classes)``.

        Raises:
            InvalidValue: the images are not of the arch's resolution, or have another number of channels; the arch is
                not of the supernet's space.
        """
        ops = self.space.ops(arch)
        if tuple(x.shape[1:]) != ops[0][1].input:
            raise InvalidValue(f"this arch takes images (n, {ops[0][1].input}), not {tuple(x.shape)}")
        for module in ready([(self.elastic(slot), op) for slot, op in ops]):
            x = module(x)
        return x

    def elastic(self, slot: Slot) -> Elastic:
        """The weights of a slot."""
        found = self.slots[module_name(slot.name)]
        assert isinstance(found, Elastic)
        return found


def extract(supernet: Supernet, arch: Mapping[str, int]) -> nn.Module:
    """The network of an arch as a plain module of torch's own layers, with its own copy of the weights.

    Its outputs equal ``supernet(x, arch)`` in evaluation mode. Running statistics of BN are the supernet's, which
    fit no subnet in particular: re-calibrate them (`hwnas.accuracy.recalibrate`) before measuring accuracy.

    Returns:
        images ``(n, in_channels, resolution, resolution)`` -> logits ``(n, classes)``, in evaluation mode.

    Raises:
        InvalidValue: the arch is not of the supernet's space.
    """
    space = supernet.space
    subnet = network(space, arch).to(next(supernet.parameters()))
    state: dict[str, Tensor] = {}
    with torch.no_grad():
        for slot, op in space.ops(arch):
            tensors = supernet.elastic(slot).state(op)
            state |= {f"{module_name(slot.name)}.{name}": tensor for name, tensor in tensors.items()}
        subnet.load_state_dict(state)
    return plain(subnet.eval())


def single(space: Space, arch: Mapping[str, int], network: nn.Module) -> Supernet:
    """An extracted network as the supernet of a space with this one arch, which can be trained and stored.

    Args:
        space: that the arch belongs to.
        arch: of the network.
        network: what `extract` returned, perhaps re-calibrated.
    """
    supernet = Supernet(space.fix(**dict(arch)))
    state = {}
    for name, tensor in network.state_dict().items():
        slot, _, rest = name.partition(".")
        state[f"slots.{slot}.shared.{rest}"] = tensor
    supernet.load_state_dict(state)
    return supernet.eval()


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """A hash of tensors, by name."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
