"""A supernet for other classes: its weights, with a new last layer."""

from __future__ import annotations

from torch import Tensor

from hwnas.spaces import Domain, Space
from hwnas.spaces.traced import known_network, remember, with_classes
from hwnas.spaces.traced.space import space_of
from hwnas.supernet.network import Supernet


def for_classes(supernet: Supernet, classes: int, *, seed: int) -> tuple[Supernet, list[str]]:
    """A supernet of the same networks with another number of classes.

    Its weights are those of the given one; those of its last layer are drawn.

    Args:
        supernet: the weights.
        classes: number of classes.
        seed: of the last layer's weights.

    Returns:
        the supernet, in evaluation mode, and the names of its tensors that are new.

    Raises:
        InvalidValue: the space cannot have so many classes.
    """
    made = Supernet(_space(supernet.space, classes), seed=seed)
    old, state = _renamed(supernet, made), made.state_dict()
    new = [name for name, tensor in state.items() if name not in old or old[name].shape != tensor.shape]
    if not new:  # as many classes, but others
        new = _last(list(state))
    made.load_state_dict(state | {name: tensor for name, tensor in old.items() if name not in new})
    return made.eval(), new


def _space(space: Space, classes: int) -> Space:
    """The space for other classes, with the same restrictions."""
    network = known_network(space.name)
    if network is None:
        return Domain.of(space).model_copy(update={"classes": classes}).make()
    choices = Domain.of(space).choices
    return space_of(remember(with_classes(network, classes))).fix(**choices)


def _renamed(supernet: Supernet, made: Supernet) -> dict[str, Tensor]:
    """The tensors of a supernet by their names in the one for other classes.

    The name of a stage of a hybrid has a hash of its operations, which are others in the last stage.
    """
    old = supernet.state_dict()
    if known_network(supernet.space.name) is None:
        return old
    names: dict[str, str] = {}
    for before, after in zip(supernet.space.slots, made.space.slots, strict=True):
        ops = zip(supernet.space.slot_ops(before).flat, made.space.slot_ops(after).flat, strict=True)
        names |= {supernet.name_of(before.name, a): made.name_of(after.name, b) for a, b in ops if a and b}
    parts = [(name.split(".", 2), tensor) for name, tensor in old.items()]
    return {f"slots.{names[place]}.{rest}": tensor for (_, place, rest), tensor in parts}


def _last(names: list[str]) -> list[str]:
    """The tensors of the last layer."""
    layer = names[-1].rpartition(".")[0]
    return [name for name in names if name.rpartition(".")[0] == layer]
