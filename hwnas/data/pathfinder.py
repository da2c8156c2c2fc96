"""Pathfinder: are two circles at the ends of the same dashed path? Images with distractors.

Source: Linsley et al., "Learning long-range spatial dependencies with horizontal gated recurrent units", NeurIPS 2018;
the task as sequences of pixels from Tay et al., "Long Range Arena", ICLR 2021, section 2.5. The drawing is our own: two
long paths and some short ones, none of which touch, with a circle at an end of a long path; if the circles are
connected, the other one is at its other end, else at an end of the other long path.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from hwnas.data.base import stable_seed
from hwnas.data.sequences import START, GeneratedTokens, Tokens
from hwnas.errors import InvalidValue

LEAST_SIDE, MOST_SIDE = 32, 128
STEP = 4.0  # pixels from the start of a dash to that of the next one
DASH = 0.55  # drawn part of a step
TURN = 0.35  # standard deviation of the change of direction between dashes, in radians
THICK = 0.7  # half the width of a dash, in pixels
CIRCLE = 2.0  # radius, in pixels
ROOM = 3.0  # least distance between two paths, in pixels
MARGIN = 3.0  # from the edge
LONG = 0.22  # dashes of a long path, per pixel of the side
SHORT = 3  # dashes of a distractor
DISTRACTORS = (2, 5)  # at 32 pixels; in proportion to the area
_CANDIDATES = 64
LEVELS = 256
REVISION = 1
Floats = npt.NDArray[np.float64]


class Pathfinder(GeneratedTokens):
    """Pixels of images, row by row, as tokens; two classes.

    A token is the gray level plus 2, behind the token that starts a sequence.

    Args:
        seed: of the fixed images.
        side: of an image in pixels, 32 to 128: sequences of 1,025 to 16,385 tokens.

    Raises:
        InvalidValue: the side is impossible.
    """

    name = "pathfinder"
    classes = ("apart", "connected")
    vocabulary = 2 + LEVELS

    def __init__(self, *, seed: int = 0, side: int = LEAST_SIDE) -> None:
        if not LEAST_SIDE <= side <= MOST_SIDE:
            raise InvalidValue(f"pathfinder draws images of {LEAST_SIDE} to {MOST_SIDE} pixels, not {side}")
        super().__init__(seed)
        self.side, self.resolution = side, 1 + side * side

    def fingerprint(self) -> str:
        """A hash of everything that determines the images."""
        drawing = (STEP, DASH, TURN, THICK, CIRCLE, ROOM, MARGIN, LONG, SHORT, DISTRACTORS, _CANDIDATES)
        rules = (self.name, REVISION, self._seed, self.side, drawing, self.sizes)
        return hashlib.blake2b(repr(rules).encode(), digest_size=16).hexdigest()

    def recorded_options(self) -> dict[str, JsonValue]:
        """The side of the images."""
        return {"side": self.side}

    def tokenizer(self) -> dict[str, JsonValue]:
        """Tokens are gray levels of an image."""
        return {"kind": "pixels", "side": self.side, "first": 2}

    def image(self, *seed: object) -> tuple[npt.NDArray[np.uint8], int]:
        """The image of a seed, ``(side, side)``, and its label."""
        rng = np.random.default_rng(stable_seed(self.name, *seed))
        label = int(rng.integers(2))
        while (paths := _paths(rng, self.side)) is None:
            pass
        first, second, *_ = paths
        ends = [first[0], first[-1] if label else second[int(rng.integers(2)) - 1]]
        return _drawn(paths, ends, self.side), label

    def _generated(self, *seed: object) -> tuple[Tokens, int]:
        image, label = self.image(*seed)
        return np.concatenate([[START], image.reshape(-1).astype(np.int64) + 2]), label


def _paths(rng: np.random.Generator, side: int) -> list[Floats] | None:
    """Points of paths that do not touch: first the two long ones, then the rest. None if there is no room."""
    distractors = rng.integers(*DISTRACTORS, endpoint=True) * side * side // LEAST_SIDE**2
    found: list[Floats] = []
    for dashes in [max(4, round(LONG * side))] * 2 + [SHORT] * int(distractors):
        candidates = _candidates(rng, dashes, side)
        path = next((one for one in candidates if _fits(one, found)), None)
        if path is None:
            if len(found) < 2:
                return None
            continue  # a distractor less
        found.append(path)
    return found


def _candidates(rng: np.random.Generator, dashes: int, side: int) -> Floats:
    """Random paths inside an image, ``(n, dashes + 1, 2)``, that do not come near themselves."""
    turns = rng.normal(0, TURN, (_CANDIDATES, dashes)).cumsum(axis=1)
    headings = rng.uniform(-math.pi, math.pi, (_CANDIDATES, 1)) + turns
    steps = STEP * np.stack([np.cos(headings), np.sin(headings)], axis=2)
    start = rng.uniform(MARGIN, side - MARGIN, (_CANDIDATES, 1, 2))
    points = np.concatenate([start, start + steps.cumsum(axis=1)], axis=1)
    inside = ((points > MARGIN) & (points < side - MARGIN)).all(axis=(1, 2))
    gaps = np.linalg.norm(points[:, :, None] - points[:, None], axis=3)
    far = np.abs(np.subtract.outer(np.arange(dashes + 1), np.arange(dashes + 1))) >= 2
    apart = np.where(far, gaps, np.inf).min(axis=(1, 2)) > STEP
    found: Floats = points[inside & apart]
    return found


def _fits(path: Floats, others: list[Floats]) -> bool:
    """Whether a path keeps its distance from all others, at its dashes and between them."""
    own = _dense(path)
    return all(np.linalg.norm(own[:, None] - _dense(other)[None], axis=2).min() > ROOM for other in others)


def _dense(path: Floats) -> Floats:
    """Points of a path, four for each dash."""
    shares = np.arange(4)[None, :, None] / 4
    between = path[:-1, None] * (1 - shares) + path[1:, None] * shares
    return np.concatenate([between.reshape(-1, 2), path[-1:]])


def _drawn(paths: list[Floats], circles: list[Floats], side: int) -> npt.NDArray[np.uint8]:
    """An image ``(side, side)`` with smooth edges."""
    starts = np.concatenate([path[:-1] for path in paths])
    along = DASH * (np.concatenate([path[1:] for path in paths]) - starts)
    pixels = np.stack(np.meshgrid(*[np.arange(side) + 0.5] * 2, indexing="xy"), axis=2).reshape(-1, 1, 2)
    offset = pixels - starts[None]
    share = ((offset * along).sum(axis=2) / (along * along).sum(axis=1)).clip(0, 1)
    distance = np.linalg.norm(offset - share[:, :, None] * along, axis=2).min(axis=1) - THICK
    for centre in circles:
        distance = np.minimum(distance, np.linalg.norm(pixels[:, 0] - centre, axis=1) - CIRCLE)
    light = (0.5 - distance).clip(0, 1)
    return np.asarray((light * 255).round().reshape(side, side), np.uint8)
