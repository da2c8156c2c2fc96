"""A space with its restrictions, as stored in files."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from hwnas.files import Spec
from hwnas.spaces.catalog import make_space
from hwnas.spaces.space import Space


class Domain(Spec):
    """A space with its restrictions, as plain values.

    Attributes:
        space: name of the space.
        in_channels, classes: of its networks.
        choices: name of a restricted variable -> the values that remain.
    """

    space: str
    in_channels: PositiveInt
    classes: PositiveInt
    choices: dict[str, list[int]] = Field(default={})

    @classmethod
    def of(cls, space: Space) -> Domain:
        """The domain of a space."""
        whole = make_space(space.name, in_channels=space.in_channels, classes=space.classes)
        choices = {name: values for name, values in space.choices.items() if values != whole.choices[name]}
        return cls(space=space.name, in_channels=space.in_channels, classes=space.classes, choices=choices)

    def make(self) -> Space:
        """The space of this domain."""
        space = make_space(self.space, in_channels=self.in_channels, classes=self.classes, recorded=True)
        return space.fix(**self.choices)

    def covers(self, space: Space) -> bool:
        """Whether every network of `space` belongs to this domain."""
        if (self.space, self.in_channels, self.classes) != (space.name, space.in_channels, space.classes):
            return False
        return all(set(space.choices.get(name, [])) <= set(values) for name, values in self.choices.items())
