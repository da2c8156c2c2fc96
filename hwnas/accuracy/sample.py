"""Choice of networks to evaluate: spread over cost, so that an accuracy model covers the whole front."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from hwnas.errors import InvalidValue
from hwnas.spaces import Codes, Space

_DRAWN = 50  # networks drawn per chosen one
_TILT = 3.0  # strongest preference for small or large values


def spread_over_cost(space: Space, networks: int, *, seed: int) -> Codes:
    """Distinct random networks whose MACs are spread evenly over the range of the space.

    If every variable is drawn uniformly (`Space.sample`), all networks have a medium cost; budgets are elsewhere. Here
    every network has a random tilt toward small or large values, and one network is chosen at random from each interval
    of costs. The smallest and the largest network are always included; a network whose output does not depend on the
    image, such as a cell without edges, only if there are not enough others.

    Args:
        space: the space.
        networks: number of networks, at most the size of the space.
        seed: of the draw.

    Returns:
        ``(networks, variables)``, distinct, by ascending MACs.

    Raises:
        InvalidValue: fewer than 2 networks, or more than the space has.
    """
    if not 2 <= networks <= space.size:
        raise InvalidValue(f"the number of networks of {space.name} must be from 2 to {space.size}, not {networks}")
    rng = np.random.default_rng((seed, 7))
    codes = space.encode([space.smallest, space.largest])
    while len(codes) < networks:  # a small space may need several rounds until all networks were drawn
        codes = np.unique(np.concatenate([codes, _tilted(space, _DRAWN * networks, rng)]), axis=0)
    codes = codes[np.argsort(space.macs(codes), kind="stable")]
    values = space.macs(codes)
    places = np.searchsorted(values, np.linspace(values[0], values[-1], networks + 1)[1:-1])
    stretches = np.split(np.arange(len(codes)), places)

    @cache
    def useful(i: int) -> bool:
        """Whether the output of the i-th network depends on the image."""
        return space.depends_on_image(space.decode(codes[i : i + 1])[0])

    chosen = [next(filter(useful, range(len(codes))), 0), len(codes) - 1]
    for left in stretches:
        stretch = left
        while len(stretch):
            drawn = int(rng.choice(stretch))
            if useful(drawn):
                chosen.append(drawn)
                break
            stretch = stretch[stretch != drawn]
    unique = list(dict.fromkeys(chosen))[:networks]
    # For empty intervals: any other networks.
    rest = rng.permutation(np.setdiff1d(np.arange(len(codes)), unique)).tolist()
    others = itertools.chain(filter(useful, rest), itertools.filterfalse(useful, rest))
    unique += itertools.islice(others, networks - len(unique))
    return codes[sorted(unique)]


def _tilted(space: Space, count: int, rng: np.random.Generator) -> Codes:
    tilt = rng.uniform(-_TILT, _TILT, (count, 1))
    columns = []
    for variable in space.variables:
        weights = np.exp(tilt * np.linspace(-0.5, 0.5, len(variable.values)))
        ends = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
        columns.append((rng.random((count, 1)) > ends[:, :-1]).sum(axis=1).astype(np.uint8))
    return space.canonical(np.stack(columns, axis=1))
