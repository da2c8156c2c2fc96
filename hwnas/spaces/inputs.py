"""What the networks of a space read: images, or sequences of tokens."""

from __future__ import annotations

from typing import NamedTuple

RESOLUTION, LENGTH = "resolution", "length"  # the variables of the size of an input


class InputKind(NamedTuple):
    """The kind of the inputs of a space or a dataset.

    Attributes:
        in_channels: channels of images; 0 for tokens.
        vocabulary: number of tokens, of which 0 is padding; None for images.
    """

    in_channels: int
    vocabulary: int | None = None

    @property
    def size(self) -> str:
        """Name of the variable of their size: height of images, length of sequences."""
        return RESOLUTION if self.vocabulary is None else LENGTH

    @property
    def text(self) -> str:
        """In words: ``images of 3 channels``."""
        if self.vocabulary is not None:
            return f"sequences of {self.vocabulary} tokens"
        return "images of 1 channel" if self.in_channels == 1 else f"images of {self.in_channels} channels"
