"""An ONNX graph as bytes, which protobuf limits to 2 GiB."""

from __future__ import annotations

import onnx
from google.protobuf.message import EncodeError

from hwnas.errors import GraphError

MAX_BYTES = 2**31 - 1  # protobuf's limit


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of a graph, deterministic.

    Raises:
        GraphError: they exceed protobuf's limit.
    """
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:  # which of them depends on protobuf's implementation
        raise _too_large(str(error)) from error
    if len(data) > MAX_BYTES:
        raise _too_large(f"it has {len(data)}")
    return data


def _too_large(why: str) -> GraphError:
    return GraphError(
        f"the graph does not fit into an ONNX file, which has at most {MAX_BYTES} bytes ({why}): choose a smaller "
        "network, e.g. with --budget size_bytes=1900M, or a recipe without ONNX such as torch-cpu-fp32"
    )
