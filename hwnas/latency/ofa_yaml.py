"""Reader of once-for-all's latency tables: YAML files, one per resolution.

A row is called ``<kind>-input:HxWxC-output:HxWxC``, for an inverted residual followed by
``-expand:MID-kernel:K-stride:S-idskip:0|1-se:0|1-hs:0|1``, where MID is the number of channels in the middle. It holds
``mean`` and ``std`` in milliseconds and ``count``, the number of timings.

Source: Cai et al., "Once for All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020; the tables
are those that come with its code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from hwnas.errors import TableCorrupt
from hwnas.latency.table import TIMES_MS
from hwnas.spaces import Op
from hwnas.spaces.ops import Shape, make_op

_SIZE = "[1-9][0-9]{0,5}"
_ROW = re.compile(
    rf"(?P<kind>\w+)-input:(?P<input>{_SIZE}x{_SIZE}x{_SIZE})-output:(?P<output>{_SIZE}(?:x{_SIZE}x{_SIZE})?)"
    "(?P<attributes>(?:-[a-z]+:[0-9]{1,6})*)"
)
_COUNT = re.compile("[1-9][0-9]{0,11}")

_ATTRIBUTES = {
    "Conv": (),
    "expanded_conv": ("expand", "kernel", "stride", "idskip", "se", "hs"),
    "Conv_1": (),
    "AvgPool2D": (),
    "Conv_2": (),
    "Logits": (),
}
_CLASSIFIER = ("AvgPool2D", "Conv_2", "Logits")  # three rows, which are one op in hwnas


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean time of an op in milliseconds over `samples` timings."""

    latency_ms: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row of the file, with shapes in hwnas's order: ``(channels, height, width)`` or ``(features,)``."""

    where: str
    kind: str
    input: Shape
    output: Shape
    attributes: dict[str, int]
    mean: Mean

    def require(self, holds: bool, rule: str) -> None:
        if not holds:
            raise TableCorrupt(f"{self.where}: impossible: {rule}")


def parse_ofa_yaml(content: bytes, source: str) -> dict[Op, Mean]:
    """The ops of one of once-for-all's tables.

    The rows ``AvgPool2D``, ``Conv_2`` and ``Logits`` form one classifier: its time is the sum of their means, its
    number of samples the smallest of theirs.

    Args:
        content: of the file.
        source: name of the file, for messages.

    Raises:
        TableCorrupt: not YAML, no rows, a duplicate row, an unknown kind, impossible shapes, a mean or count that is
            not positive, or an incomplete classifier; the message names the file and the row.
    """
    ops: dict[Op, Mean] = {}
    parts: dict[str, list[_Row]] = {kind: [] for kind in _CLASSIFIER}
    for row in _rows(content, source):
        _check_sides(row)
        if row.kind in parts:
            parts[row.kind].append(row)
        else:
            ops[_block(row) if row.kind == "expanded_conv" else _conv(row)] = row.mean
    return ops | _classifiers(parts)


# -- ops -----------------------------------------------------------------------------------------------------


def _check_sides(row: _Row) -> None:
    stride = {"Conv": 2, "expanded_conv": row.attributes.get("stride")}.get(row.kind, 1)
    if row.kind == "Logits":
        row.require(len(row.output) == 1, "the output of Logits must be a number of classes")
    else:
        row.require(len(row.output) == 3, f"the output of {row.kind} must be an image, HxWxC")
    if row.kind in ("Conv_2", "Logits"):
        row.require(row.input[1:] == (1, 1), f"{row.kind} comes after the pooling: its input must be 1x1xC")
    if row.kind == "AvgPool2D":
        row.require(row.output == (row.input[0], 1, 1), f"the output of its pooling must be 1x1x{row.input[0]}")
    elif row.kind != "Logits":
        row.require(bool(stride), "the stride is 0")
        assert stride
        height, width = ((side - 1) // stride + 1 for side in row.input[1:])
        row.require(row.output[1:] == (height, width), f"with stride {stride} the output must be {height}x{width}")


def _conv(row: _Row) -> Op:
    """The first convolution of a network, or the one before the pooling."""
    kernel, stride = (3, 2) if row.kind == "Conv" else (1, 1)
    return make_op("conv", row.input, row.output, kernel=kernel, stride=stride, act="hswish")


def _block(row: _Row) -> Op:
    given = row.attributes
    row.require(given["expand"] > 0, "expand, the number of channels in the middle, is 0")
    row.require(given["kernel"] % 2 == 1, f"kernel is {given['kernel']}; it should be odd")
    for name in ("idskip", "se", "hs"):
        row.require(given[name] in (0, 1), f"{name} is {given[name]}; it should be 0 or 1")
    row.require(
        not given["idskip"] or row.input == row.output, "idskip is 1, but input and output are of different shapes"
    )
    return make_op(
        "mbconv",
        row.input,
        row.output,
        mid=given["expand"],
        kernel=given["kernel"],
        stride=given["stride"],
        act="hswish" if given["hs"] else "relu",
        # once-for-all omits the first 1x1 convolution in a block without expansion.
        expand=int(given["expand"] != row.input[0]),
        se=given["se"],
        skip=given["idskip"],
    )


def _classifiers(parts: dict[str, list[_Row]]) -> dict[Op, Mean]:
    """One op for each sequence of pooling, hidden layer and output layer."""
    ops: dict[Op, Mean] = {}
    used: set[str] = set()
    for pool in parts["AvgPool2D"]:
        for hidden in (row for row in parts["Conv_2"] if row.input == pool.output):
            for logits in (row for row in parts["Logits"] if row.input == hidden.output):
                rows = (pool, hidden, logits)
                op = make_op("classifier", pool.input, logits.output, hidden=hidden.output[0], act="hswish")
                ops[op] = Mean(
                    latency_ms=math.fsum(row.mean.latency_ms for row in rows),
                    samples=min(row.mean.samples for row in rows),
                )
                used.update(row.where for row in rows)
    for row in (row for kind in _CLASSIFIER for row in parts[kind]):
        others = " and ".join(kind for kind in _CLASSIFIER if kind != row.kind)
        row.require(row.where in used, f"it is a part of a classifier, but the file has no matching {others}")
    return ops


# -- rows ----------------------------------------------------------------------------------------------------


def _rows(content: bytes, source: str) -> Iterator[_Row]:
    # The tree of nodes, not the values: a dictionary would keep only the last of two rows with the same name.
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise TableCorrupt(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise TableCorrupt(
            f"{source} has no rows; a table of once-for-all has rows such as 'Conv-input:160x160x3-output:80x80x24:' "
            "with mean, std and count below each"
        )
    seen: set[str] = set()
    for key, value in root.value:
        name = _text(key)
        where = f"{source}, line {key.start_mark.line + 1}, row {name!r}"
        if name in seen:
            raise TableCorrupt(f"{where} is a duplicate")
        seen.add(name)
        yield _row(name, value, where)


def _row(name: str, value: yaml.Node, where: str) -> _Row:
    match = _ROW.fullmatch(name)
    kind = match["kind"] if match else name.partition("-")[0]
    if kind not in _ATTRIBUTES:
        raise TableCorrupt(f"{where}: unknown kind of row {kind!r}; known: {', '.join(_ATTRIBUTES)}")
    if match is None:
        raise TableCorrupt(
            f"{where}: a row must be called {kind}-input:HxWxC-output:HxWxC"
            + "".join(f"-{name}:N" for name in _ATTRIBUTES[kind])
            + ", with numbers from 1 to 999999 for H, W and C, and whole numbers for N"
        )
    pairs = [pair.split(":") for pair in match["attributes"].split("-")[1:]]
    if tuple(key for key, _ in pairs) != _ATTRIBUTES[kind]:
        raise TableCorrupt(
            f"{where}: the attributes of {kind} must be, in this order: {', '.join(_ATTRIBUTES[kind]) or 'none'}"
        )
    return _Row(
        where=where,
        kind=kind,
        input=_shape(match["input"]),
        output=_shape(match["output"]),
        attributes={key: int(value) for key, value in pairs},
        mean=_mean(value, where),
    )


def _shape(text: str) -> Shape:
    """``HxWxC`` -> ``(channels, height, width)``; ``N`` -> ``(features,)``."""
    *sides, channels = map(int, text.split("x"))
    return (channels, *sides)


def _mean(node: yaml.Node, where: str) -> Mean:
    fields: dict[str, str] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if _text(key) in fields:
            raise TableCorrupt(f"{where}: {_text(key)} is given twice")
        fields[_text(key)] = _text(value)
    missing = sorted({"mean", "count"} - set(fields))
    unknown = sorted(set(fields) - {"mean", "std", "count"})
    if missing or unknown:
        wrong = [f"{', '.join(missing)} missing"] * bool(missing) + [f"{', '.join(unknown)} unknown"] * bool(unknown)
        raise TableCorrupt(f"{where}: {'; '.join(wrong)}; a row has mean, std and count")
    mean = _number(fields["mean"])
    if not TIMES_MS[0] < mean < TIMES_MS[1]:
        raise TableCorrupt(f"{where}: mean is {fields['mean']!r}; it should be a positive number of milliseconds")
    if "std" in fields and not 0 <= _number(fields["std"]) < TIMES_MS[1]:
        raise TableCorrupt(f"{where}: std is {fields['std']!r}; it should be a number of milliseconds, 0 or more")
    if not _COUNT.fullmatch(fields["count"]):
        raise TableCorrupt(f"{where}: count is {fields['count']!r}; it should be a whole number of timings, 1 or more")
    return Mean(latency_ms=mean, samples=int(fields["count"]))


def _number(text: str) -> float:
    """The number, or NaN, which fails every range check."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _text(node: yaml.Node) -> str:
    """The text of a scalar; for other nodes their kind."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) else f"({node.id})"
