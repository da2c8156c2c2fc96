"""The supernet of a space, and the extraction of the network of one arch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwnas.errors import InvalidValue
from hwnas.nn import Elastic, network, plain, ready
from hwnas.nn.blocks import initialise, module_name
from hwnas.nn.wired import run_wired
from hwnas.spaces import Op, Space, Value


class Supernet(nn.Module):
    """One set of weights for every network of a space.

    The arch is an argument, not a state: ``supernet(x, arch)``.

    Args:
        space: the space; the supernet stores weights for its choices only, so a restricted space gives a smaller one.
        seed: seed of the initial weights.
    """

    def __init__(self, space: Space, *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        slots, together = {slot.name: slot for slot in space.slots}, dict[str, list[Op]]()
        self._mixed: set[str] = set()
        for place in space.places:
            # A slot without any op after a restriction (a block beyond every depth) has no weights.
            ops = [op for op in space.slot_ops(slots[place.slot]).flat if op is not None and not op.free]
            if len({op.kind for op in ops}) > 1:
                self._mixed.add(place.name)
            for op in ops:
                together.setdefault(self.name_of(place.name, op), []).append(op)
        self.slots = nn.ModuleDict({name: Elastic(ops, bn_eps=space.bn_eps) for name, ops in together.items()})
        initialise(self, seed=seed)

    def forward(self, x: Tensor, arch: Mapping[str, Value]) -> Tensor:
        """Images ``(n, in_channels, height, width)`` or tokens ``(n, length)`` of the arch's size -> ``(n, classes)``.

        Raises:
            InvalidValue: the size or the number of channels of the images does not match the arch; the arch is
                not in the supernet's space.
        """
        shape = self.space.input_shape(arch)
        if tuple(x.shape[1:]) != shape:
            what = "images" if self.space.vocabulary is None else "tokens"
            raise InvalidValue(f"this arch takes {what} (n, {', '.join(map(str, shape))}), not {tuple(x.shape)}")
        nodes = self.space.network(arch)
        modules = ready([(self.elastic(node.name, node.op), node.op) for node in nodes])
        return run_wired(modules, [node.reads for node in nodes], x)

    def elastic(self, place: str, op: Op) -> Elastic:
        """Return the weights of an op in a place."""
        found = self.slots[self.name_of(place, op)]
        assert isinstance(found, Elastic)
        return found

    def name_of(self, place: str, op: Op) -> str:
        """Return the name of an op's weights: the name of the place, if all ops of the place share weights.

        Ops of different kinds in a place, such as a convolution and an attention, share weights with their own kind.
        """
        if self.space.shares_weights:
            return f"{module_name(place)}-{op.kind}" if place in self._mixed else module_name(place)
        return "-".join([module_name(place), op.kind, *(f"{name}{value}" for name, value in op.attributes)])


def extract(supernet: Supernet, arch: Mapping[str, Value]) -> nn.Module:
    """Return the network of an arch as a plain module of torch layers, with its own copy of the weights.

    Its outputs equal ``supernet(x, arch)`` in evaluation mode. BN's running statistics are those of the supernet, which
    match no individual subnet: re-calibrate them (`hwnas.accuracy.recalibrate`) before measuring accuracy.

    Returns:
        images ``(n, in_channels, height, width)`` -> logits ``(n, classes)``, in evaluation mode.

    Raises:
        InvalidValue: the arch is not in the supernet's space.
    """
    space = supernet.space
    subnet = network(space, arch).to(next(supernet.parameters()))
    state: dict[str, Tensor] = {}
    with torch.no_grad():
        for node in space.network(arch):
            tensors = supernet.elastic(node.name, node.op).state(node.op)
            state |= {f"{module_name(node.name)}.{name}": tensor for name, tensor in tensors.items()}
        subnet.load_state_dict(state)
    return plain(subnet.eval())


def single(space: Space, arch: Mapping[str, Value], network: nn.Module) -> Supernet:
    """Convert an extracted network to the supernet of a space with only this arch, which can be trained and stored.

    Args:
        space: the space of the arch.
        arch: the arch of the network.
        network: the result of `extract`, optionally re-calibrated.
    """
    supernet = Supernet(space.fix(**dict(arch)))
    weights = network.state_dict()
    for node in space.network(arch):
        prefix = module_name(node.name) + "."
        own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        supernet.elastic(node.name, node.op).shared.load_state_dict(own)
    return supernet.eval()


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """A hash of tensors, by name."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
