"""Write graphs from parts of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import GraphProto, ModelProto, NodeProto, helper

from hwnas.graphs.view import Graph, Node


def copied(model: ModelProto) -> ModelProto:
    """A copy of a model that may be modified."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def sort_nodes(graph: GraphProto) -> None:
    """Put each node of a graph after those that it reads, also within its branches; an order that is right stays.

    ONNX Runtime's own sort does not see what the branches of an `If` read.
    """
    nodes = list(graph.node)
    producers = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    order, begun = dict[int, None](), set[int]()
    for number in range(len(nodes)):
        stack = [number]
        while stack:
            at = stack[-1]
            first = [] if at in begun else [producers[name] for name in names_read(nodes[at]) if name in producers]
            begun.add(at)
            waiting = [each for each in sorted(first) if each not in begun]  # in a cycle, which the checker names
            if waiting:
                stack += reversed(waiting)
            else:
                order[stack.pop()] = None
    del graph.node[:]
    graph.node.extend(nodes[number] for number in order)


def names_read(node: NodeProto) -> set[str]:
    """The names that a node reads, and those that its branches read from outside."""
    found = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inside = {name for each in graph.node for name in each.output}
            inside |= {each.name for each in (*graph.initializer, *graph.input)}
            found |= {name for each in graph.node for name in names_read(each)} - inside
            found |= {each.name for each in graph.output} - inside
    return found - {""}


def add_node(graph: GraphProto, node: Node, inputs: Iterable[str], outputs: Iterable[str]) -> NodeProto:
    """Append a copy of a node with renamed inputs and outputs; return the copy."""
    copy: NodeProto = graph.node.add()
    copy.CopyFrom(node.proto)
    copy.input[:] = inputs
    copy.output[:] = outputs
    return copy


def model_of(graph: GraphProto, like: ModelProto) -> ModelProto:
    """A model with a given graph and the opsets and IR version of another model."""
    model = helper.make_model(graph, opset_imports=like.opset_import, producer_name="hwnas")
    model.ir_version = like.ir_version
    return model


def cut(whole: Graph, sources: Mapping[str, str], sink: str, result: str) -> ModelProto:
    """The part of a graph that computes one of its outputs, with the initializers that it reads.

    Args:
        whole: the graph.
        sources: name of an input of the graph -> its name in the part; every input that the output depends on.
        sink: name of the output.
        result: its name in the part.
    """
    nodes = whole.upstream(sink)
    used = {name for node in nodes for name in node.inputs}
    renamed = {**sources, sink: result}
    graph = GraphProto(name="input-output")
    graph.initializer.extend(tensor for name, tensor in whole.initializers.items() if name in used)
    graph.input.extend(value for value in whole.model.graph.input if value.name in sources)
    graph.output.extend(value for value in whole.model.graph.output if value.name == sink)
    for node in nodes:
        copy = add_node(
            graph,
            node,
            (renamed.get(name, name) for name in node.inputs),
            (renamed.get(name, name) for name in node.outputs),
        )
        copy.ClearField("metadata_props")  # traces of the exporting machine's source files
        copy.ClearField("doc_string")
    for value in (*graph.input, *graph.output):
        value.name = renamed[value.name]
        value.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
    return model_of(graph, whole.model)
