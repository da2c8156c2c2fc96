"""The spaces by name."""

from __future__ import annotations

from hwnas.errors import InvalidValue, UnknownName
from hwnas.spaces.darts import DARTS, Darts, genotype
from hwnas.spaces.mobilenet import MOBILENETS
from hwnas.spaces.nasbench201 import NASBENCH201S, NasBench201, nasbench201_string
from hwnas.spaces.resnet import RESNETS
from hwnas.spaces.space import Arch, Space

SPACES = {family.name: family for family in (*MOBILENETS, *RESNETS, *NASBENCH201S, *DARTS)}
_MOST_CLASSES = 1_000_000


def make_space(name: str, *, in_channels: int | None = None, classes: int | None = None) -> Space:
    """A space by name.

    Args:
        name: a key of `SPACES`.
        in_channels: channels of the images; the space's usual number if None.
        classes: number of classes; the space's usual number if None.

    Raises:
        UnknownName: there is no such space.
        InvalidValue: `in_channels` is not 1 or 3, or there are fewer than two classes or over a million.
    """
    if name not in SPACES:
        raise UnknownName("space", name, SPACES)
    family = SPACES[name]
    in_channels = family.in_channels if in_channels is None else in_channels
    classes = family.classes if classes is None else classes
    if in_channels not in (1, 3):
        raise InvalidValue(f"images have 1 or 3 channels, not {in_channels}")
    if not 2 <= classes <= _MOST_CLASSES:
        raise InvalidValue(f"a classifier tells 2 to {_MOST_CLASSES:,} classes apart, not {classes:,}")
    return family.space(in_channels=in_channels, classes=classes)


def notation_of(arch: Arch) -> str | None:
    """The arch in the notation of its literature, for spaces of cells; None for others.

    Raises:
        UnknownName: it is of no known space.
    """
    if arch.space not in SPACES:
        raise UnknownName("space", arch.space, SPACES)
    family = SPACES[arch.space]
    if isinstance(family, NasBench201):
        return nasbench201_string(arch)
    return genotype(arch) if isinstance(family, Darts) else None
