"""Which dimensions of a network's tensors have to change together.

A dimension is a list of pieces; a piece is a group of units, each of some elements. A convolution makes a new group; an
addition ties two groups; a concatenation puts pieces side by side; heads of an attention are units of several elements.
Ties are found by unification: a group may be bound to another one, or to pieces of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

IMAGES = 11  # images of the trace: a prime that no other dimension is likely to have
FIXED = -1  # group of pieces that do not change


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a dimension: the units of a group, one after the other.

    Attributes:
        group: number of the group; `FIXED` for elements that do not change.
        width: elements of a unit; of a fixed piece, its number of elements.
    """

    group: int
    width: int


@dataclass(frozen=True, slots=True)
class Dim:
    """A dimension of a tensor.

    Attributes:
        pieces: side by side.
        batch: whether its size is a multiple of the number of images.
    """

    pieces: tuple[Piece, ...]
    batch: bool = False

    @property
    def fixed(self) -> bool:
        """Whether its size depends neither on widths nor on the number of images."""
        return not self.batch and all(piece.group == FIXED for piece in self.pieces)


Dims: TypeAlias = tuple[Dim, ...]


def constant(size: int) -> Dim:
    """A dimension that does not change."""
    return Dim((Piece(FIXED, size),))


def batch(size: int) -> Dim:
    """A dimension whose size is a multiple of the number of images; `size` in the trace."""
    return Dim((Piece(FIXED, size),), batch=True)


@dataclass(slots=True)
class Group:
    """Units that are kept or left out together.

    Attributes:
        units: their number in the whole network.
        name: of the layer that makes them; of a parameter, if no layer does.
        made: whether a layer makes them; only such groups can be narrower.
        frozen: why it cannot be narrower; None if it can.
        bound: pieces that it was found to consist of; None if it stands for itself.
    """

    units: int
    name: str
    made: bool
    frozen: str | None = None
    bound: tuple[Piece, ...] | None = None


@dataclass(slots=True)
class Groups:
    """All groups of a network, and what is known of them."""

    every: list[Group] = field(default_factory=list)

    def new(self, units: int, name: str, *, made: bool) -> Dim:
        """A dimension of a new group."""
        self.every.append(Group(units, name, made))
        return Dim((Piece(len(self.every) - 1, 1),))

    def found(self, dim: Dim) -> Dim:
        """The dimension in terms of unbound groups; adjacent fixed pieces are one."""
        pieces: list[Piece] = []
        for piece in dim.pieces:
            self._resolve(piece, pieces)
        return Dim(tuple(pieces), dim.batch)

    def _resolve(self, piece: Piece, into: list[Piece]) -> None:
        bound = None if piece.group == FIXED else self.every[piece.group].bound
        if bound is not None:
            # A group with several pieces is bound only where its units have one element.
            for each in bound:
                self._resolve(Piece(each.group, each.width * piece.width), into)
        elif piece.group == FIXED and into and into[-1].group == FIXED:
            into[-1] = Piece(FIXED, into[-1].width + piece.width)
        else:
            into.append(piece)

    def size(self, dim: Dim) -> int:
        """Number of elements in the whole network."""
        return sum(self.elements(piece) for piece in dim.pieces)

    def elements(self, piece: Piece) -> int:
        """Number of elements of a piece in the whole network."""
        return piece.width if piece.group == FIXED else piece.width * self.every[piece.group].units

    def freeze(self, dims: Iterable[Dim], why: str) -> None:
        """Note that the groups of dimensions cannot be narrower."""
        for dim in dims:
            for piece in self.found(dim).pieces:
                if piece.group != FIXED and self.every[piece.group].frozen is None:
                    self.every[piece.group].frozen = why

    def bind(self, group: int, pieces: Sequence[Piece]) -> None:
        """Replace a group by pieces of the same number of elements, at one element for each unit."""
        own = self.every[group]
        assert own.bound is None
        assert sum(map(self.elements, pieces)) == own.units
        for piece in pieces:
            if piece.group != FIXED:
                other = self.every[piece.group]
                other.made |= own.made
                other.frozen = other.frozen or own.frozen
                if own.made and not other.name:
                    other.name = own.name
        if own.frozen is None and own.made and all(piece.group == FIXED for piece in pieces):
            own.frozen = "it meets a dimension that does not change"
        own.bound = tuple(pieces)

    def unify(self, one: Dim, other: Dim, why: str) -> Dim:
        """Tie two dimensions; what cannot be tied is frozen.

        Args:
            one: a dimension.
            other: another one, of the same size in the whole network.
            why: what ties them.
        """
        first, second = list(self.found(one).pieces), list(self.found(other).pieces)
        at = 0
        while at < min(len(first), len(second)):
            a, b = first[at], second[at]
            if a == b:
                at += 1
            elif self._tied(a, b, first[at:], second[at:]):
                first, second = list(self.found(one).pieces), list(self.found(other).pieces)
            else:
                self.freeze((one, other), why)
                break
        return Dim(self.found(one).pieces, one.batch or other.batch)

    def _tied(self, a: Piece, b: Piece, rest: Sequence[Piece], other: Sequence[Piece]) -> bool:
        """Whether two pieces that differ could be made equal."""
        if FIXED in (a.group, b.group):  # elements that do not change
            self.freeze([Dim((a, b))], "it meets a dimension that does not change")
            return False
        if self.elements(a) != self.elements(b):
            return self._joined(a, other) or self._joined(b, rest)
        if a.group == b.group or (a.width != b.width and 1 not in (a.width, b.width)):
            return False
        if a.width == b.width:
            self._merge(a.group, b.group)
        else:
            fine, coarse = (a, b) if a.width == 1 else (b, a)
            self.bind(fine.group, [coarse])
        return True

    def _joined(self, piece: Piece, pieces: Sequence[Piece]) -> bool:
        """Whether a piece could be bound to the concatenation of the first of some pieces."""
        taken: list[Piece] = []
        for each in pieces:
            if sum(map(self.elements, taken)) >= self.elements(piece):
                break
            taken.append(each)
        fits = sum(map(self.elements, taken)) == self.elements(piece) and len(taken) > 1 and piece.width == 1
        if not fits or any(each.group == piece.group for each in taken):
            return False
        self.bind(piece.group, taken)
        return True

    def _merge(self, one: int, other: int) -> None:
        """Tie two groups of equal units."""
        if self.every[one].made or not self.every[other].made:
            one, other = other, one  # the layer's name stays
        self.bind(one, [Piece(other, 1)])

    def split(self, dim: Dim, sizes: Sequence[int], unit: int | None = None) -> list[Dim] | None:
        """The dimensions of a view that splits one dimension; None if it cannot be narrower in this form.

        Args:
            dim: a dimension of ``prod(sizes)`` elements.
            sizes: of the view, the outermost first.
            unit: place in `sizes` of the units; by default what the pieces imply, or for heads the last but one.
        """
        found = self.found(dim)
        if found.batch:  # such as windows of images: one of the sizes is a multiple of the number of images
            place = next((i for i, size in enumerate(sizes) if size % IMAGES == 0), None)
            return None if place is None else [batch(n) if i == place else constant(n) for i, n in enumerate(sizes)]
        if found.fixed:
            return [constant(size) for size in sizes]
        first = found.pieces[0]
        if first.group == FIXED or any(piece != first for piece in found.pieces):
            return None
        copies, units, width = len(found.pieces), self.every[first.group].units, first.width
        for place, size in enumerate(sizes):
            outer, inner = prod(sizes[:place]), prod(sizes[place + 1 :])
            if (outer, size, inner) == (copies, units, width):
                return _placed(sizes, place, Piece(first.group, 1))
        if copies > 1 or width > 1 or len(sizes) < 2:
            return None
        place = len(sizes) - 2 if unit is None else unit
        outer, inner = prod(sizes[:place]), prod(sizes[place + 1 :])
        piece = self.new(sizes[place], self.every[first.group].name, made=False).pieces[0]
        self.bind(first.group, [Piece(piece.group, inner)] * outer)
        return _placed(sizes, place, piece)

    def merge(self, dims: Sequence[Dim]) -> Dim | None:
        """The dimension of a view that joins several; None if it cannot be narrower in this form."""
        known = [self.found(dim) for dim in dims]
        moving = [i for i, dim in enumerate(known) if not dim.fixed]
        if not moving:
            return constant(prod(map(self.size, known)))
        if all(known[i].batch for i in moving):
            return batch(prod(map(self.size, known)))
        if known[moving[0]].batch:  # windows of images and channels: the channels stay as they are
            self.freeze((known[i] for i in moving[1:]), "a view joins it with the images")
            return batch(prod(map(self.size, known)))
        if len(moving) > 1:
            return None
        place = moving[0]
        outer, inner = prod(map(self.size, known[:place])), prod(map(self.size, known[place + 1 :]))
        pieces = [Piece(piece.group, piece.width * inner) for piece in known[place].pieces]
        return Dim(tuple(pieces * outer))


def _placed(sizes: Sequence[int], place: int, piece: Piece) -> list[Dim]:
    """Fixed dimensions, but for one."""
    return [Dim((piece,)) if i == place else constant(size) for i, size in enumerate(sizes)]
