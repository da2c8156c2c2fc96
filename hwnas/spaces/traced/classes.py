"""A traced network for other classes."""

from __future__ import annotations

from hwnas.errors import InvalidValue
from hwnas.spaces.traced.costs import LINEAR
from hwnas.spaces.traced.spec import FIXED, NetworkSpec, SegmentGraph, Size


def with_classes(network: NetworkSpec, classes: int) -> NetworkSpec:
    """The network with another number of outputs: its last layer has other weights.

    Args:
        network: the spec.
        classes: number of outputs.

    Raises:
        InvalidValue: its last operation is not a linear layer.
    """
    segment = network.segments[-1]
    made = [_with_outputs(network, network.graphs[digest], classes) for digest in segment.graphs]
    others = {digest for each in network.segments[:-1] for digest in each.graphs}
    others |= {expert.graph for each in network.segments for expert in each.experts.values()}
    graphs = {digest: graph for digest, graph in network.graphs.items() if digest in others}
    graphs |= {graph.digest: graph for graph in made}
    *smaller, largest = (graph.digest for graph in made)
    last = segment.model_copy(update={"graph": largest, "smaller": smaller})
    changed = network.model_dump(by_alias=True) | {
        "classes": classes,
        "graphs": {digest: graph.model_dump() for digest, graph in graphs.items()},
        "segments": [each.model_dump() for each in (*network.segments[:-1], last)],
    }
    return NetworkSpec.model_validate(changed)


def _with_outputs(network: NetworkSpec, graph: SegmentGraph, classes: int) -> SegmentGraph:
    """The operations with another number of outputs of the last one."""
    last = graph.nodes[-1]
    if last.op != LINEAR or last.sizes is None or not last.weights:
        raise InvalidValue(
            f"{network.name} ends with {last.op}; only a network that ends with a linear layer can be adapted to other "
            "classes"
        )
    outputs: Size = [[FIXED, classes]]
    specs = dict(graph.weights)
    for name in last.weights:  # weight and bias
        specs[name] = specs[name].model_copy(update={"sizes": [outputs, *specs[name].sizes[1:]]})
    nodes = [*graph.nodes[:-1], last.model_copy(update={"sizes": [*last.sizes[:-1], outputs]})]
    made = graph.model_copy(update={"weights": specs, "nodes": nodes})
    # A copy keeps what was computed of the original, such as its digest.
    return SegmentGraph.model_validate(made.model_dump())
