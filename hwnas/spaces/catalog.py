"""The spaces by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from hwnas.errors import InvalidValue, UnknownName
from hwnas.plugins import Registry, absolute_name
from hwnas.spaces.arch import Arch
from hwnas.spaces.darts import DARTS, Darts, genotype, parse_genotype
from hwnas.spaces.fbnet import FBNETS, FBNet, fbnet_numbers, parse_fbnet
from hwnas.spaces.hybrid import HYBRIDS
from hwnas.spaces.inputs import InputKind
from hwnas.spaces.mobilenet import MOBILENETS
from hwnas.spaces.nasbench201 import NASBENCH201S, NasBench201, nasbench201_string, parse_nasbench201
from hwnas.spaces.options import SpaceOptions, base_of, options_of, read_space_file, split_name
from hwnas.spaces.resnet import RESNETS
from hwnas.spaces.sequence import SEQUENCES
from hwnas.spaces.space import Space
from hwnas.spaces.traced import NETWORK, NetworkSpec, known_network, network_named, read_network
from hwnas.spaces.traced.space import checked_space
from hwnas.spaces.vit import TRANSFORMERS


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


@runtime_checkable
class TokenFamily(Protocol):
    """A named family of spaces of sequences: makes the space for the tokens and classes of the data."""

    @property
    def vocabulary(self) -> int:
        """Default number of tokens."""

    @property
    def classes(self) -> int:
        """Default number of classes."""

    def space(self, *, vocabulary: int, classes: int) -> Space:
        """The space for sequences of these tokens, and these classes."""


@runtime_checkable
class Adjustable(Protocol):
    """A family with options."""

    @property
    def options(self) -> SpaceOptions:
        """The options that the family has, with its values; None for others."""

    def adjusted(self, options: SpaceOptions) -> Family | TokenFamily:
        """The family with these options; those that are None keep their values."""


SPACES: dict[str, Family | TokenFamily] = {
    family.name: family
    for family in (*MOBILENETS, *FBNETS, *RESNETS, *NASBENCH201S, *DARTS, *TRANSFORMERS, *HYBRIDS, *SEQUENCES)
}
_KNOWN = Registry(
    "space",
    "hwnas.spaces",
    SPACES,
    fits=lambda found: isinstance(found, Family | TokenFamily) and not isinstance(found, type),
    needs="an object with in_channels, classes and space(in_channels=..., classes=...), or vocabulary for in_channels",
    takes_files=True,
)
_MOST_CLASSES = _MOST_TOKENS = 1_000_000
_TOML = ".toml"


def space_names() -> list[str]:
    """Names of the spaces: those of hwnas, then those of plugins."""
    return _KNOWN.names()


def make_space(
    name: str,
    *,
    in_channels: int | None = None,
    vocabulary: int | None = None,
    reads: InputKind | None = None,
    classes: int | None = None,
    options: SpaceOptions | Mapping[str, object] | None = None,
    recorded: bool = False,
) -> Space:
    """A space by name.

    Args:
        name: one of `space_names`, or ``path/to/file.py:NAME`` of a family; both may have options,
            ``mobilenetv3-small+resolution=64,80,96+width=0.5``. Or a TOML file (`hwnas.spaces.options.SpaceFile`). The
            space has the name with the path made absolute and with all options (`hwnas.spaces.options`).
        in_channels: channels of the images; the space's default if None.
        vocabulary: number of tokens, of which 0 is padding, of a space of sequences; the space's default if None.
        reads: in place of both, as a dataset has it (`hwnas.Data.reads`).
        classes: number of classes; the space's default if None.
        options: e.g. ``{"resolution": [64, 80, 96], "width": 0.5}``; they take precedence over those in the name.
        recorded: whether the name was read from a file, as in `hwnas.plugins.Registry.get`.

    Raises:
        UnknownName: there is no such space or option.
        PluginError: it belongs to a plugin or a file and cannot be loaded.
        SpecError: a TOML file is invalid.
        InvalidValue: the space takes images and not tokens, or the reverse; `in_channels` is not 1 or 3, there are
            fewer than two classes or over a million, or an option is invalid or does not fit the space.
    """
    if reads is not None:
        in_channels, vocabulary = reads.in_channels or None, reads.vocabulary
    if (traced := _traced(name, recorded=recorded)) is not None:
        if options_of(options).given:
            raise InvalidValue(f"{name} is a traced network, which has no options: trace it again with hwnas elastic")
        return checked_space(traced, in_channels, classes)
    base, changes = _parts(name, options, recorded=recorded)
    family = _KNOWN.get(base, recorded=recorded)
    if changes.given:
        try:
            family, changes = _adjusted(family, base, changes)
        except InvalidValue as error:
            raise InvalidValue(f"{name}: {error}") from error
    kind = _reads(name, family, in_channels, vocabulary)
    classes = family.classes if classes is None else classes
    if not 2 <= classes <= _MOST_CLASSES:
        raise InvalidValue(f"the number of classes must be between 2 and {_MOST_CLASSES:,}, not {classes:,}")
    text = absolute_name(base) + changes.text
    if base in SPACES:  # frozen, with a hash; a file or a plugin may be changed
        return _made(family, text, kind, classes)  # type: ignore[arg-type]
    return _made.__wrapped__(family, text, kind, classes)


def _reads(name: str, family: Family | TokenFamily, in_channels: int | None, vocabulary: int | None) -> InputKind:
    """What the networks of a family read.

    Raises:
        InvalidValue: another kind of inputs is wanted, or a number is invalid.
    """
    tokens = isinstance(family, TokenFamily)
    if in_channels is not None if tokens else vocabulary is not None:
        theirs, wanted = ("tokens", "images") if tokens else ("images", "tokens")
        raise InvalidValue(f"{name} is a space of networks for {theirs}, not for {wanted}; see: hwnas spaces list")
    if isinstance(family, TokenFamily):
        vocabulary = family.vocabulary if vocabulary is None else vocabulary
        if not 2 <= vocabulary <= _MOST_TOKENS:
            raise InvalidValue(f"the number of tokens must be between 2 and {_MOST_TOKENS:,}, not {vocabulary:,}")
        return InputKind(0, vocabulary)
    in_channels = family.in_channels if in_channels is None else in_channels
    if in_channels not in (1, 3):
        raise InvalidValue(f"images have 1 or 3 channels, not {in_channels}")
    return InputKind(in_channels)


def _traced(name: str, *, recorded: bool) -> NetworkSpec | None:
    """The traced network of a space's name, or of its file; None for the space of a family.

    Raises:
        UnknownName, SpecError: this process does not know it, or its file cannot be read.
    """
    if (known := known_network(name)) is not None:
        return known
    if name.endswith(f"/{NETWORK}") and not recorded:
        return read_network(Path(name).expanduser())
    return network_named(name) if "@" in name and name not in _KNOWN and "/" not in name else None


@lru_cache(maxsize=16)
def _made(family: Family | TokenFamily, name: str, reads: InputKind, classes: int) -> Space:
    """The space of a family; those that are kept have their ops and sums ready."""
    if isinstance(family, TokenFamily):
        assert reads.vocabulary is not None
        return replace(family.space(vocabulary=reads.vocabulary, classes=classes), name=name)
    return replace(family.space(in_channels=reads.in_channels, classes=classes), name=name)


def space_name(name: str, options: SpaceOptions | Mapping[str, object] | None = None) -> str:
    """The name of a space with options, as `make_space` gives it.

    Raises:
        UnknownName, PluginError, SpecError, InvalidValue: as `make_space`.
    """
    return make_space(name, options=options).name


def space_options(name: str) -> SpaceOptions:
    """The options of a space by name, with their values; all None if it has none.

    Raises:
        UnknownName, PluginError, SpecError, InvalidValue: as `make_space`.
    """
    base, changes = _parts(name, None, recorded=False)
    family = _KNOWN.get(base)
    return changes.over(family.options) if isinstance(family, Adjustable) else changes


def absolute_space(name: str, folder: Path) -> str:
    """A name or a TOML file of a space, independent of the current folder.

    Args:
        name: see `make_space`.
        folder: base of a relative path.
    """
    base = base_of(name)
    path = str(folder.absolute() / Path(base).expanduser()) if base.endswith(_TOML) else absolute_name(base, folder)
    return path + name[len(base) :]


def _parts(
    name: str, options: SpaceOptions | Mapping[str, object] | None, *, recorded: bool
) -> tuple[str, SpaceOptions]:
    """The base of a space and its options."""
    if name in _KNOWN:  # also a plugin's name with a plus sign
        return name, options_of(options)
    base, named = split_name(name)
    changes = options_of(options).over(named)
    if base.endswith(_TOML) and not recorded:  # files record the options, never a TOML file
        base, in_file = read_space_file(Path(base).expanduser())
        changes = changes.over(in_file)
    return base, changes


def _adjusted(
    family: Family | TokenFamily, base: str, changes: SpaceOptions
) -> tuple[Family | TokenFamily, SpaceOptions]:
    """A family with options, and those of them that differ from its own values."""
    own = family.options.given if isinstance(family, Adjustable) else {}
    for option in changes.given:
        if option not in own:
            raise UnknownName(f"option of the space {base}:", option, own)
    assert isinstance(family, Adjustable)
    differing = SpaceOptions.model_construct(
        **{key: value for key, value in changes.given.items() if value != own[key]}
    )
    return (family.adjusted(differing) if differing.given else family), differing


def notation_of(arch: Arch) -> str | None:
    """The arch in the notation of the literature, for spaces of cells and FBNet's; None for others.

    Raises:
        UnknownName: its space is unknown.
    """
    if known_network(arch.space) is not None:
        return None
    family = _KNOWN.get(base_of(arch.space), recorded=True)
    if isinstance(family, NasBench201):
        return nasbench201_string(arch)
    if isinstance(family, FBNet):
        return fbnet_numbers(arch)
    return genotype(arch) if isinstance(family, Darts) else None


def parse_notation(space: Space, text: str) -> Arch:
    """The arch of a text in the notation of the literature (`notation_of`).

    Raises:
        InvalidValue: the text does not parse, or the space has no such notation.
        UnknownName: the space is unknown.
    """
    family = None if known_network(space.name) is not None else _KNOWN.get(base_of(space.name), recorded=True)
    for kind, parse in ((NasBench201, parse_nasbench201), (FBNet, parse_fbnet), (Darts, parse_genotype)):
        if isinstance(family, kind):
            return parse(space, text)
    raise InvalidValue(f"archs of {space.name} have no notation but their values, as in hwnas's JSON files")
