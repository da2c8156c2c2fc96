"""A space with its restrictions, as stored in files."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt

from hwnas.files import Spec
from hwnas.spaces.catalog import make_space
from hwnas.spaces.inputs import InputKind
from hwnas.spaces.space import Space


class Domain(Spec):
    """A space with its restrictions, as plain values.

    Attributes:
        space: name of the space.
        in_channels, classes, vocabulary: of its networks (`hwnas.spaces.Space`).
        choices: name of a restricted variable -> the values that remain.
    """

    space: str
    in_channels: NonNegativeInt
    classes: PositiveInt
    vocabulary: PositiveInt | None = Field(default=None, exclude_if=lambda tokens: tokens is None)
    choices: dict[str, list[int | str]] = Field(default={})

    @classmethod
    def of(cls, space: Space) -> Domain:
        """The domain of a space."""
        whole = make_space(space.name, reads=space.reads, classes=space.classes)
        choices = {name: values for name, values in space.choices.items() if values != whole.choices[name]}
        return cls(
            space=space.name,
            in_channels=space.in_channels,
            classes=space.classes,
            vocabulary=space.vocabulary,
            choices=choices,
        )

    @property
    def reads(self) -> InputKind:
        """The kind of the networks' inputs."""
        return InputKind(self.in_channels, self.vocabulary)

    def make(self) -> Space:
        """The space of this domain."""
        return make_space(self.space, reads=self.reads, classes=self.classes, recorded=True).fix(**self.choices)

    def covers(self, space: Space) -> bool:
        """Whether every network of `space` belongs to this domain."""
        if (self.space, self.reads, self.classes) != (space.name, space.reads, space.classes):
            return False
        return all(set(space.choices.get(name, [])) <= set(values) for name, values in self.choices.items())
