"""The traced networks that this process knows, and the files that they are read from."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hwnas.errors import InvalidValue, SpecError, UnknownName
from hwnas.spaces.traced.spec import NetworkSpec, SegmentGraph

NETWORK = "network.json"
_networks: dict[str, NetworkSpec] = {}
_graphs: dict[str, SegmentGraph] = {}


def remember(network: NetworkSpec) -> NetworkSpec:
    """Make a network and its segments known; the network."""
    _graphs.update(network.graphs)
    return _networks.setdefault(network.space, network)


def read_network(path: Path) -> NetworkSpec:
    """Read a network from its file, and make it known.

    Raises:
        SpecError: the file cannot be read, or is malformed.
    """
    try:
        return remember(NetworkSpec.model_validate_json(path.read_bytes()))
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SpecError(f"{path} is not a traced network: {where}: {first['msg']}") from error


def network_named(name: str) -> NetworkSpec:
    """The network of a space.

    Raises:
        UnknownName: this process has not read it.
    """
    if name not in _networks:
        raise UnknownName("traced network", name, _networks, f"Open its supernet first, or pass its file {NETWORK}.")
    return _networks[name]


def known_network(name: str) -> NetworkSpec | None:
    """The network of a space; None for the space of a family."""
    return _networks.get(name)


def graph_named(digest: str) -> SegmentGraph:
    """The operations of a segment.

    Raises:
        InvalidValue: this process has read no network with it.
    """
    if digest not in _graphs:
        raise InvalidValue(
            f"the op segment {digest} belongs to a traced network that is not open: open its supernet, or pass its "
            f"file {NETWORK} as the space"
        )
    return _graphs[digest]
