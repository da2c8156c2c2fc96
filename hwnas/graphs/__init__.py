"""ONNX graphs: readers use a typed view; writers start from its protobuf messages."""

from hwnas.graphs.view import Graph, Node, is_static
from hwnas.graphs.write import add_node, copied, cut, model_of, names_read, sort_nodes

__all__ = ["Graph", "Node", "add_node", "copied", "cut", "is_static", "model_of", "names_read", "sort_nodes"]
