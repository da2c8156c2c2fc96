"""The known spaces, and the figures of one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hwnas.errors import PluginError
from hwnas.files import Spec
from hwnas.workflows.answers import Answer

if TYPE_CHECKING:
    from hwnas.spaces import Arch, Space

log = logging.getLogger(__name__)


class NetworkSize(Spec):
    """The size of a network.

    Attributes:
        resolution: height of its images, in pixels; None for sequences.
        length: of its sequences, in tokens; None for images.
        macs: for one input.
        params: weights, biases, and scale and shift of BN and LayerNorm.
    """

    resolution: int | None = Field(default=None, exclude_if=lambda size: size is None)
    length: int | None = Field(default=None, exclude_if=lambda size: size is None)
    macs: int
    params: int


class SpaceAnswer(Answer):
    """Result of `hwnas.workflows.show_space`.

    Attributes:
        space: name of the space, with its options.
        reads: what its networks read, in words.
        in_channels, classes: of its networks; there are no channels for sequences.
        vocabulary: number of tokens, for sequences.
        networks: number of different networks.
        resolution: smallest and largest height of the images, in pixels.
        length: shortest and longest sequence, in tokens.
        aspect: their width to height, as text: ``2:1``.
        variables: name of a variable -> its values.
        options: the options that the space has, with their values; empty if it has none.
        smallest, largest: sizes of the networks with the first and with the last value of every variable (see
            `hwnas.Space.smallest`).
    """

    space: str
    reads: str
    in_channels: int
    classes: int
    vocabulary: int | None = Field(default=None, exclude_if=lambda tokens: tokens is None)
    networks: int
    resolution: tuple[int, int] | None = Field(default=None, exclude_if=lambda sizes: sizes is None)
    length: tuple[int, int] | None = Field(default=None, exclude_if=lambda sizes: sizes is None)
    aspect: str
    variables: dict[str, list[int | str]]
    options: dict[str, Any]
    smallest: NetworkSize
    largest: NetworkSize


class ListedSpace(Spec):
    """A space in `SpaceList`: name, number of networks, smallest and largest input, names of options."""

    space: str
    networks: int
    resolution: tuple[int, int] | None = Field(default=None, exclude_if=lambda sizes: sizes is None)
    length: tuple[int, int] | None = Field(default=None, exclude_if=lambda sizes: sizes is None)
    options: list[str]


class SpaceList(Answer):
    """Result of `hwnas.workflows.list_spaces`: the known spaces."""

    spaces: list[ListedSpace]


def show_space(
    name: str, *, channels: int | None = None, vocabulary: int | None = None, classes: int | None = None
) -> SpaceAnswer:
    """Variables and sizes of a space.

    Args:
        name: as in `hwnas.make_space`: a name, perhaps with options, or a TOML file.
        channels: of the images; the space's default if None.
        vocabulary: number of tokens of sequences, likewise.
        classes: likewise.

    Raises:
        UnknownName: there is no such space or option.
        SpecError: a TOML file is invalid.
        InvalidValue: an option or a number is invalid.
        PluginError: the space belongs to a plugin or a file and cannot be loaded.
    """
    from hwnas.spaces import make_space, space_options

    space = make_space(name, in_channels=channels, vocabulary=vocabulary, classes=classes)
    return SpaceAnswer(
        space=space.name,
        reads=space.reads.text,
        in_channels=space.in_channels,
        classes=space.classes,
        vocabulary=space.vocabulary,
        networks=space.size,
        **{space.reads.size: _sizes(space)},  # type: ignore[arg-type]
        aspect=space.aspect,
        variables=space.choices,
        options=space_options(name).model_dump(mode="json", exclude_none=True),
        smallest=_size(space, space.smallest),
        largest=_size(space, space.largest),
    )


def space_file(name: str) -> str:
    """A space as the text of a TOML file (`hwnas.spaces.SpaceFile`) with all its options, to start from.

    Args:
        name: as in `show_space`.

    Raises:
        UnknownName, SpecError, InvalidValue, PluginError: as `show_space`.
    """
    import tomli_w

    from hwnas.spaces import base_of, make_space, space_options

    options = space_options(name).model_dump(mode="json", exclude_none=True)
    return tomli_w.dumps({"schema": 1, "base": base_of(make_space(name).name), **options})


def list_spaces() -> SpaceList:
    """The spaces of hwnas and of plugins; one that cannot be loaded is skipped with a warning."""
    from hwnas.spaces import make_space, space_names, space_options

    found = []
    for name in space_names():
        try:
            space = make_space(name)
        except PluginError as error:
            log.warning("left out: %s", error)
            continue
        options = list(space_options(name).given)
        found.append(ListedSpace(space=name, networks=space.size, options=options, **{space.reads.size: _sizes(space)}))
    return SpaceList(spaces=found)


def _sizes(space: Space) -> tuple[int, int]:
    """Smallest and largest input."""
    sizes = [int(size) for size in space.choices[space.reads.size]]
    return sizes[0], sizes[-1]


def _size(space: Space, arch: Arch) -> NetworkSize:
    ops = [op for _, op in space.ops(arch)]
    name = space.reads.size
    return NetworkSize(**{name: int(arch[name])}, macs=sum(op.macs for op in ops), params=sum(op.params for op in ops))
