"""The spaces by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from hwnas.errors import InvalidValue
from hwnas.plugins import Registry, absolute_name
from hwnas.spaces.darts import DARTS, Darts, genotype
from hwnas.spaces.mobilenet import MOBILENETS
from hwnas.spaces.nasbench201 import NASBENCH201S, NasBench201, nasbench201_string
from hwnas.spaces.resnet import RESNETS
from hwnas.spaces.space import Arch, Space


@runtime_checkable
class Family(Protocol):
    """A named family of spaces: makes the space for the channels and classes of the data."""

    @property
    def in_channels(self) -> int:
        """Default number of channels of the images."""

    @property
    def classes(self) -> int:
        """Default number of classes."""

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space for images with these numbers of channels and classes."""


SPACES: dict[str, Family] = {family.name: family for family in (*MOBILENETS, *RESNETS, *NASBENCH201S, *DARTS)}
_KNOWN = Registry(
    "space",
    "hwnas.spaces",
    SPACES,
    fits=lambda found: isinstance(found, Family) and not isinstance(found, type),
    needs="an object with in_channels, classes and space(in_channels=..., classes=...)",
    takes_files=True,
)
_MOST_CLASSES = 1_000_000


def space_names() -> list[str]:
    """Names of the spaces: those of hwnas, then those of plugins."""
    return _KNOWN.names()


def make_space(
    name: str, *, in_channels: int | None = None, classes: int | None = None, recorded: bool = False
) -> Space:
    """A space by name.

    Args:
        name: one of `space_names`, or ``path/to/file.py:NAME`` of a family; the space has this name, with the path
            made absolute.
        in_channels: channels of the images; the space's default if None.
        classes: number of classes; the space's default if None.
        recorded: whether the name was read from a file, as in `hwnas.plugins.Registry.get`.

    Raises:
        UnknownName: there is no such space.
        PluginError: it belongs to a plugin or a file and cannot be loaded.
        InvalidValue: `in_channels` is not 1 or 3, or there are fewer than two classes or over a million.
    """
    family = _KNOWN.get(name, recorded=recorded)
    in_channels = family.in_channels if in_channels is None else in_channels
    classes = family.classes if classes is None else classes
    if in_channels not in (1, 3):
        raise InvalidValue(f"images have 1 or 3 channels, not {in_channels}")
    if not 2 <= classes <= _MOST_CLASSES:
        raise InvalidValue(f"the number of classes must be between 2 and {_MOST_CLASSES:,}, not {classes:,}")
    return replace(family.space(in_channels=in_channels, classes=classes), name=absolute_name(name))


def notation_of(arch: Arch) -> str | None:
    """The arch in the notation of the literature, for spaces of cells; None for others.

    Raises:
        UnknownName: its space is unknown.
    """
    family = _KNOWN.get(arch.space, recorded=True)
    if isinstance(family, NasBench201):
        return nasbench201_string(arch)
    return genotype(arch) if isinstance(family, Darts) else None
