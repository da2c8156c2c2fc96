"""``.pt2`` files without pickles: none are written, and files are rebuilt from their safe parts before loading.

`torch.export.load` unpickles sample inputs, weights and constants if the archive requests it, evaluates symbolic
sizes as Python, and looks up operators by any dotted name. Networks need none of this: raw tensors, integers and a few
ATen operators suffice. This module writes the archive that torch loads, from the parts that passed the checks.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.utils.flop_counter import FlopCounterMode

from hwnas.errors import BundleError
from hwnas.files.untrusted import parse_json
from hwnas.lowering.operators import too_much_work

_WEIGHTS, _CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
_MODEL, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_SMALL = {"archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id"}
_ROOT = "archive/"
_ENTRIES = 20_000
_TEXT_BYTES = 64 * 2**20
_ELEMENTS = 2**30  # largest number of elements of an intermediate value
_WORD = re.compile(r"[A-Za-z0-9_.]{0,200}")
_WEIGHT = re.compile(r"weight_\d{1,5}")
_ATEN = "torch.ops.aten."
OPERATORS = frozenset(
    _ATEN + name
    for name in (
        "adaptive_avg_pool2d.default",
        "add.Tensor",
        "argmax.default",
        "argsort.default",
        "avg_pool2d.default",
        "batch_norm.default",
        "cat.default",
        "channel_shuffle.default",
        "clamp.default",
        "conv1d.default",
        "conv2d.default",
        "div.Tensor",
        "embedding.default",
        "expand.default",
        "flatten.using_ints",
        "gather.default",
        "gelu.default",
        "hardsigmoid.default",
        "hardswish.default",
        "hardtanh.default",
        "layer_norm.default",
        "linear.default",
        "matmul.default",
        "max_pool2d.default",
        "mean.dim",
        "mul.Tensor",
        "narrow.default",
        "ne.Tensor",
        "neg.default",
        "norm.ScalarOpt_dim",
        "linalg_vector_norm.default",
        "expand_as.default",
        "clamp_min.default",
        "pad.default",
        "permute.default",
        "relu.default",
        "reshape.default",
        "rsub.Scalar",
        "select.int",
        "sigmoid.default",
        "silu.default",
        "slice.Tensor",
        "softmax.int",
        "sub.Tensor",
        "sum.dim_IntList",
        "to.dtype",
        "transpose.int",
        "unsqueeze.default",
    )
)
# Allowed kinds of arguments of an operator: tensors and plain values, no expression, object, graph or function. A text
# is a word, such as the mode of a padding.
_ARGUMENTS = frozenset(
    f"as_{kind}"
    for kind in (
        "tensor",
        "tensors",
        "int",
        "ints",
        "float",
        "floats",
        "bool",
        "bools",
        "none",
        "scalar_type",
        "string",
    )
)
# A symbolic batch axis. torch evaluates the text of a symbol as Python, so that of a file is never passed on.
_SYMBOL = re.compile(r"Symbol\('s\d{1,5}', positive=True, integer=True\)")
_ANY_BATCH = {"as_expr": {"expr_str": "Symbol('s0', positive=True, integer=True)", "hint": {"as_int": 2}}}
_ANY_NUMBER = {"s0": {"min_val": 1, "max_val": None}}
_NODE: dict[str, object] = {"children_spec": [], "context": None, "type": None}
_SPECS = {
    # One image in, one tensor out.
    "in_spec": [
        1,
        {
            "type": "builtins.tuple",
            "context": "null",
            "children_spec": [
                {"type": "builtins.tuple", "context": "null", "children_spec": [_NODE]},
                {"type": "builtins.dict", "context": "[]", "children_spec": []},
            ],
        },
    ],
    "out_spec": [1, _NODE],
}


def archive_bytes(exported: torch.export.ExportedProgram) -> bytes:
    """An exported program as the content of a ``.pt2`` file without pickles.

    Raises:
        BundleError: the program has an operator that is not in `OPERATORS`.
    """
    exported._example_inputs = None  # they would be pickled, and `torch.export.load` unpickles anything there
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return cleaned(buffer.getvalue(), "the program")


def cleaned(data: bytes, name: str) -> bytes:
    """The archive rebuilt from the parts that a network needs: raw tensors and a graph of known operators.

    Args:
        data: content of a ``.pt2`` file.
        name: of the file, for messages.

    Raises:
        BundleError: it is not such an archive, or contains something else: a pickle, an expression, another operator.
    """
    try:
        parts = _parts(data)
        model = _cleaned_model(_json(parts, _MODEL))
        _check_weights(parts)
    except (KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"{name} is not a torch program that hwnas accepts: {error or type(error).__name__}"
        ) from error
    parts[_MODEL] = json.dumps(model, sort_keys=True).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for part, content in sorted(parts.items()):
            # A fixed date: the file is deterministic.
            archive.writestr(zipfile.ZipInfo(_ROOT + part, (1980, 1, 1, 0, 0, 0)), content)
    return out.getvalue()


def load_archive(path: Path, batch: int = 1) -> fx.GraphModule:
    """The module of a ``.pt2`` file, after `cleaned`.

    Args:
        path: of the file.
        batch: images of a run, if the file's batch axis is symbolic.

    Raises:
        BundleError: torch cannot load it, or a value in it is excessively large.
    """
    try:
        clean = cleaned(path.read_bytes(), path.name)
        module: fx.GraphModule = torch.export.load(io.BytesIO(clean)).module(check_guards=False)
        # A network's sizes follow from the size of its input, so nothing needs to be computed.
        inputs = {node: node.meta["val"] for node in module.graph.nodes if node.op == "placeholder"}
        counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_POOLS, _pool_flops))
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, counter as counted:
            _Sizes(module, mode).propagate(*(_empty(x, batch) for x in inputs.values()))
        for node, value in inputs.items():
            node.meta["val"] = value  # the propagation replaced a symbolic batch axis
        if mistake := too_much_work(counted.get_total_flops() // 2):
            raise ValueError(mistake)
    except Exception as error:  # torch.export has no common base class for its load errors
        raise BundleError(f"torch {torch.__version__} cannot load {path.name}: {error}") from error
    return module


def _empty(like: torch.Tensor, batch: int) -> torch.Tensor:
    """A tensor of an input's shape and type; `batch` is the size of a symbolic axis."""
    shape = [batch if isinstance(size, torch.SymInt) else size for size in like.shape]
    return torch.empty(shape, dtype=like.dtype)


# The max_pool2d of `OPERATORS` is executed as the variant with indices.
_POOLS = (torch.ops.aten.avg_pool2d, torch.ops.aten.max_pool2d_with_indices)


def _pool_flops(_: object, kernel: Sequence[int], *__: object, out_shape: Any, **___: object) -> int:  # noqa: ANN401
    """FLOPs of a pooling, which torch does not count: two per element in each window, as for a convolution."""
    made = out_shape if isinstance(out_shape, torch.Size) else out_shape[0]
    return 2 * math.prod(made) * kernel[0] * kernel[-1]  # a single number means both sides


class _Sizes(FakeTensorProp):
    """Runs a graph on tensors without values (meta tensors)."""

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - as in the base class
        """The node's result; raises if it is excessively large."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and result.numel() > _ELEMENTS:
            raise ValueError(
                f"the value {n.name!r} would have {result.numel()} elements; at most {_ELEMENTS} are accepted"
            )
        return result


def _parts(data: bytes) -> dict[str, bytes]:
    """Name below the root -> content, of an archive without compressed or unknown entries."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > _ENTRIES:
            raise ValueError(f"it has {len(entries)} entries; at most {_ENTRIES} are accepted")
        names = [entry.filename.removeprefix(_ROOT) for entry in entries]
        if len(set(names)) < len(names):
            raise ValueError("two of its entries have the same name")
        parts = {}
        for entry, name in zip(entries, names, strict=True):
            known = name in _SMALL | {_WEIGHTS, _CONSTANTS, _MODEL, _SAMPLES}
            if not known and not _WEIGHT.fullmatch(name.removeprefix("data/weights/")):
                raise ValueError(f"its entry {name[:80]!r} is not allowed")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"its entry {name[:80]!r} is compressed; torch stores entries uncompressed")
            if entry.file_size > (len(data) if name.startswith("data/weights/weight_") else _TEXT_BYTES):
                raise ValueError(f"its entry {name[:80]!r} has {entry.file_size} bytes")
            parts[name] = archive.read(entry)
    if parts[_SAMPLES]:
        raise ValueError("it contains sample inputs, which are a pickle")
    if _json(parts, _CONSTANTS) != {"config": {}}:
        raise ValueError("it contains constants, which may be pickles")
    if parts["byteorder"] != b"little" or parts["archive_format"] != b"pt2" or parts["archive_version"] != b"0":
        raise ValueError("it has another format version, or another byte order")
    parts[".data/serialization_id"] = b"0" * 40  # a hash of file positions, which torch writes but never reads
    return parts


def _json(parts: dict[str, bytes], part: str) -> Any:  # noqa: ANN401 - any JSON value; callers check it
    return parse_json(parts[part], part, BundleError)


def _check_weights(parts: dict[str, bytes]) -> None:
    for name, facts in _json(parts, _WEIGHTS)["config"].items():
        meta = facts["tensor_meta"]
        if facts["use_pickle"] is not False or not _WEIGHT.fullmatch(facts["path_name"]):
            raise ValueError(f"the weight {name[:80]!r} is a pickle")
        sizes = [_integer(size["as_int"]) for size in meta["sizes"]]
        strides = [_integer(stride["as_int"]) for stride in meta["strides"]]
        stored = len(parts["data/weights/" + facts["path_name"]])
        if min(sizes, default=1) < 1 or math.prod(sizes) > stored or sum(strides) > stored * max(1, len(strides)):
            raise ValueError(f"the weight {name[:80]!r} has the size {sizes[:8]}, but {stored} stored bytes")
        if not _WORD.fullmatch(name) or meta["device"]["type"] != "cpu":
            raise ValueError(f"the weight {name[:80]!r} has an invalid name or device")


def _integer(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise ValueError(f"{value!r} is not a size")
    return value


def _without_symbol(model: dict[str, Any]) -> list[str]:
    """Replace the symbolic batch axis of values, in place, by a number; the names of these values.

    Only a first axis that is a symbol alone is replaced; the caller rejects any other expression. What the file says
    about the symbol is dropped.
    """
    found = []
    for name, facts in model["graph_module"]["graph"]["tensor_values"].items():
        first = facts["sizes"][:1]
        if first and set(first[0]) == {"as_expr"} and _SYMBOL.fullmatch(first[0]["as_expr"]["expr_str"]):
            first[0].clear()
            first[0]["as_int"] = 1
            found.append(name)
    if found:
        model["range_constraints"], model["guards_code"] = {}, []
    return found


def _with_symbol(model: dict[str, Any], names: Sequence[str]) -> None:
    """Give values a symbolic batch axis, in place: always the same symbol, in hwnas's own words."""
    for name in names:
        model["graph_module"]["graph"]["tensor_values"][name]["sizes"][0] = _ANY_BATCH
    model["range_constraints"] = _ANY_NUMBER


def _cleaned_model(model: dict[str, Any]) -> dict[str, Any]:
    """The graph without metadata about its origin, after checking that the rest is harmless."""
    symbolic = _without_symbol(model)
    module = model["graph_module"]
    graph = module["graph"]
    for node in graph["nodes"]:
        if node["target"] not in OPERATORS:
            raise ValueError(f"its operator {str(node['target'])[:80]!r} is not one of {', '.join(sorted(OPERATORS))}")
        node["metadata"] = {}
    empty = (
        *(graph[f"{kind}_values"] for kind in ("sym_int", "sym_bool", "sym_float", "custom_obj")),
        model["range_constraints"],
        model["guards_code"],
        module["metadata"],
        module["treespec_namedtuple_fields"],
    )
    if any(empty):
        raise ValueError("it has sizes that are expressions, or objects; a network needs neither")
    [whole] = [entry for entry in module["module_call_graph"] if entry["fqn"] == ""]
    for spec, expected in _SPECS.items():
        if parse_json(whole["signature"][spec].encode(), spec, BundleError) != expected:
            raise ValueError("its input and its output must be one tensor each")
        whole["signature"][spec] = json.dumps(expected)
    module["module_call_graph"] = [whole]
    version = model["torch_version"]
    rest = {**model, "torch_version": version.split("+")[0]}
    for text in _texts(
        {**rest, "graph_module": {**module, "module_call_graph": [whole["signature"]["forward_arg_names"]]}}
    ):
        if not _WORD.fullmatch(text):
            raise ValueError(f"it contains the text {text[:80]!r}, which is not a name")
    if symbolic:
        _with_symbol(rest, symbolic)
    return rest


def _texts(value: object) -> Iterator[str]:
    """All names and texts in a value; raises for arguments that are not plain values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key.startswith("as_") and key not in _ARGUMENTS:
                raise ValueError(f"an argument has the kind {key[:80]!r}; only plain values and tensors are allowed")
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value
