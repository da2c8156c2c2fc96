"""Tables of kernels: measured kernels of a target, and the networks in which they were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from hwnas.errors import InvalidValue, TableCorrupt, TableError, TableMismatch
from hwnas.files import Spec, write_whole
from hwnas.files.untrusted import parse_json
from hwnas.latency.kernels.kernel import parse_kernel
from hwnas.targets import Target

SUFFIX = ".kernels.json"
Ms = Annotated[float, Field(gt=1e-9, lt=1e9)]


class KernelRow(Spec):
    """A measured kernel.

    Attributes:
        kernel: its key (`hwnas.latency.kernels.Kernel`).
        ms: latency within a network: the median over its occurrences.
        count: number of occurrences.
    """

    kernel: str
    ms: Ms
    count: PositiveInt


class KernelNetwork(Spec):
    """A network in which kernels were measured.

    Attributes:
        name: of the network.
        ms: its latency, measured as whole.
        kernels: indices of its kernels in the rows, in the order of the runtime.
    """

    name: str
    ms: Ms
    kernels: list[int] = Field(min_length=1)


class KernelValidation(Spec):
    """Predictions compared with measurements of whole networks whose kernels the prediction did not use.

    Attributes:
        networks: number of networks.
        mape: mean absolute error, as a fraction of the measured latency.
        within_10pct: share of the networks with at most that error.
        kendall_tau: rank correlation of prediction and measurement.
    """

    networks: PositiveInt
    mape: float
    within_10pct: float
    kendall_tau: float


class KernelTable(Spec):
    """``latency_tables/<device>/<recipe>.kernels.json``.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        device, recipe: names of the target's parts.
        device_fingerprint: hash of the device's match conditions.
        recipe_hash: of the recipe that the kernels were measured with.
        date: ISO date of the measurement.
        host: the measured host.
        versions: of hwnas, the runtime, Python and the operating system's kernel.
        measurement: protocol and stability.
        profiler_ms: what the runtime's profiler added to each layer; it is subtracted.
        references: name of a reference network -> its latency, which shows the machine's speed in a validation.
        rows: the kernels.
        networks: the networks.
        errors: ``measured / predicted - 1`` of the networks, each predicted without its own kernels, in their order.
        spreads: the relative errors that their kernels let expect of these networks
            (`hwnas.latency.kernels.bound.spread_of`); tables of earlier versions have none.
        kind_spreads: kind of kernels -> relative error of those that are predicted without themselves.
        unknown_factor: how much longer kernels of a kind without rows take than predicted from the other kinds, at most
            (95% quantile over the kinds of this table, each left out).
        validation: the accuracy of these predictions.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    device: str
    recipe: str
    device_fingerprint: str
    recipe_hash: str
    date: str
    host: dict[str, str | int | float | list[str]]
    versions: dict[str, str]
    measurement: dict[str, str | int | float | bool]
    profiler_ms: float = Field(ge=0)
    references: dict[str, Ms]
    rows: list[KernelRow] = Field(min_length=1)
    networks: list[KernelNetwork] = Field(min_length=1)
    errors: list[Annotated[float, Field(gt=-1)]] = Field(default=[])
    spreads: list[NonNegativeFloat] = Field(default=[])
    kind_spreads: dict[str, NonNegativeFloat] = Field(default={})
    unknown_factor: PositiveFloat = 1.0
    validation: KernelValidation | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        keys = [row.kernel for row in self.rows]
        for key in keys:
            try:
                parse_kernel(key)
            except InvalidValue as error:
                raise ValueError(str(error)) from error
        if len(set(keys)) < len(keys):
            raise ValueError("a kernel has two rows")
        if any(not 0 <= index < len(keys) for network in self.networks for index in network.kernels):
            raise ValueError("a network has a kernel without a row")
        if self.spreads and len(self.spreads) != len(self.errors):
            raise ValueError(f"it has {len(self.errors)} errors and {len(self.spreads)} spreads")
        return self


def kernel_path(tables: Path, target: Target) -> Path:
    """The file of a target's kernels in a folder of tables."""
    return tables / f"{target.name}{SUFFIX}"


def read_kernels(path: Path, target: Target) -> KernelTable:
    """Read the kernels of a target.

    Raises:
        TableError: there is no such file.
        TableMismatch: it belongs to another target, or its recipe has changed.
        TableCorrupt: it is malformed.
    """
    how = f"Measure with: hwnas profile --kernels --target {target.name}"
    if not path.is_file():
        raise TableError(f"there is no table of kernels of {target.name} at {path}. {how}")
    document = parse_json(path.read_bytes(), path, TableCorrupt)
    try:
        table = KernelTable.model_validate(document)
    except ValueError as error:
        [first, *_] = str(error).splitlines()[1:3] or [str(error)]
        raise TableCorrupt(f"{path} is not a table of kernels: {first.strip()}. Delete it. {how}") from error
    if (table.device, table.recipe) != (target.device.name, target.recipe.name):
        raise TableMismatch(f"{path} has the kernels of {table.device}/{table.recipe}, not of {target.name}")
    if table.recipe_hash != target.recipe.hash:
        raise TableMismatch(
            f"{path} was made with another recipe {target.recipe.name!r} (hash {table.recipe_hash[:12]}…, now "
            f"{target.recipe.hash[:12]}…). {how}"
        )
    return table


def write_kernels(table: KernelTable, path: Path) -> None:
    """Write a table of kernels, one row per line.

    Raises:
        OutputError: the file cannot be written.
    """
    document = table.model_dump(mode="json", by_alias=True)
    lines = []
    for name, value in document.items():
        if name in ("rows", "networks"):
            entries = ",\n".join(f"  {json.dumps(entry)}" for entry in value)
            lines.append(f'"{name}": [\n{entries}\n ]')
        else:
            lines.append(f'"{name}": {json.dumps(value)}')
    write_whole(path, "{\n " + ",\n ".join(lines) + "\n}\n")
