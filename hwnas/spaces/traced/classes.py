"""A traced network for other classes."""

from __future__ import annotations

from hwnas.errors import InvalidValue
from hwnas.spaces.traced.costs import LINEAR
from hwnas.spaces.traced.spec import FIXED, NetworkSpec, Size


def with_classes(network: NetworkSpec, classes: int) -> NetworkSpec:
    """The network with another number of outputs: its last layer has other weights.

    Args:
        network: the spec.
        classes: number of outputs.

    Raises:
        InvalidValue: its last operation is not a linear layer.
    """
    segment = network.segments[-1]
    graph = network.graphs[segment.graph]
    last = graph.nodes[-1]
    weights = last.weights
    if last.op != LINEAR or last.sizes is None or last.name in graph.ranks or not weights:
        raise InvalidValue(
            f"{network.name} ends with {last.op}; only a network that ends with a linear layer can be adapted to other "
            "classes"
        )
    outputs: Size = [[FIXED, classes]]
    specs = dict(graph.weights)
    for name in weights:  # weight and bias
        specs[name] = specs[name].model_copy(update={"sizes": [outputs, *specs[name].sizes[1:]]})
    made = graph.model_copy(
        update={
            "weights": specs,
            "nodes": [*graph.nodes[:-1], last.model_copy(update={"sizes": [*last.sizes[:-1], outputs]})],
        }
    )
    # A copy keeps what was computed of the original, such as its digest.
    made = type(graph).model_validate(made.model_dump())
    graphs = {name: each for name, each in network.graphs.items() if name != segment.graph} | {made.digest: made}
    segments = [*network.segments[:-1], segment.model_copy(update={"graph": made.digest})]
    changed = network.model_dump(by_alias=True) | {
        "classes": classes,
        "graphs": {name: each.model_dump() for name, each in graphs.items()},
        "segments": [each.model_dump() for each in segments],
    }
    return NetworkSpec.model_validate(changed)
