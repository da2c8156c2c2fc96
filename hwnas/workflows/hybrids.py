"""Combine stages of several trained networks into a supernet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue, ModelError
from hwnas.files import Spec
from hwnas.progress import Progress, silent
from hwnas.workflows import inputs
from hwnas.workflows.answers import Answer
from hwnas.workflows.inputs import Place

if TYPE_CHECKING:
    from torch import nn

    from hwnas.data import Data, DataOptions
    from hwnas.tracing.source import Source


class HybridStage(Spec):
    """A stage of a hybrid.

    Attributes:
        variable: name of the variable that chooses its network.
        maps: shape of its output.
        macs, params: name of a network -> those of its stage, with projections.
    """

    variable: str
    maps: list[int]
    macs: dict[str, int]
    params: dict[str, int]


class HybridAnswer(Answer):
    """Result of `hwnas.workflows.hybrid`.

    Attributes:
        space: name of the space.
        networks: number of its networks.
        ops: number of its distinct ops, which a profile measures.
        trunk: name of the network that gives the maps between stages and the last stage, and whose weights are trained.
        experts: names of the others, whose weights are frozen.
        stages: of the networks.
        supernet: the folder.
    """

    space: str
    networks: int
    ops: int
    trunk: str
    experts: list[str]
    stages: list[HybridStage]
    supernet: str


def hybrid(
    trunk: str | nn.Module,
    experts: Sequence[str | nn.Module],
    data: str | Data,
    out: Place,
    *,
    data_path: Place | None = None,
    data_options: DataOptions | None = None,
    weights: Place | None = None,
    expert_weights: Sequence[Place] = (),
    shape: Sequence[int] | None = None,
    progress: Progress = silent,
) -> HybridAnswer:
    """Write a supernet whose stages are those of several trained networks: each place has one of them in a subnet.

    Networks are cut where their maps have a common size. A stage of an expert is frozen, between two projections to the
    channels of the trunk, which are trained. The subnet with the trunk's stages alone is the trunk itself, up to the
    order of additions. Everything that takes a supernet takes the folder; its file ``network.json`` is the space.

    Args:
        trunk: ``timm:NAME``, ``path/to/file.py:NAME``, a ``.pt2`` file of ``torch.export.save``, or a torch module,
            with as many outputs as the data have classes.
        experts: other networks, with any number of outputs.
        data: dataset or its name; images as the networks were trained on.
        out: folder for the supernet.
        data_path: folder of a dataset that is read from disk.
        data_options: how its images are read.
        weights: file of the trunk's weights.
        expert_weights: files of the experts' weights, one for each; none if they have theirs.
        shape: of an image, ``(channels, height, width)``; that of the trunk's example input if None.
        progress: callback.

    Raises:
        ModelError: a network cannot be made or traced, or they have no maps of a common size.
        InvalidValue, UnknownName: a value is invalid, or the data do not fit the trunk.
        DataError, SpecError: the data cannot be read.
        OutputError: the folder cannot be written, or contains a supernet.
    """
    from hwnas.supernet import save_supernet
    from hwnas.tracing.experts import common_sides, hybrid_of, staged
    from hwnas.tracing.supernet import check_traced, supernet_of
    from hwnas.tracing.trace import trace
    from hwnas.workflows.tracing import check_fit, image_of, opened

    place = Path(out)
    inputs.check_folder(place, "supernet")
    if isinstance(experts, str) or not isinstance(experts, Sequence):
        raise InvalidValue(f"experts are a list of networks, not {type(experts).__name__}: experts=[...]")
    if not experts:
        raise InvalidValue("a hybrid needs at least one expert, a network whose stages can replace the trunk's")
    if expert_weights and len(expert_weights) != len(experts):
        raise InvalidValue(
            f"there are {len(experts)} experts, and {len(expert_weights)} files of their weights: give one for each, "
            "or none"
        )
    images, facts = inputs.data_of(data, data_path, data_options)
    first = opened(trunk, weights, images)
    sides = image_of(first, shape)
    files: Sequence[Place | None] = expert_weights or [None] * len(experts)
    others = [opened(expert, file, images, classes=False) for expert, file in zip(experts, files, strict=True)]
    sources = _named([first, *others])
    traces = {}
    for number, (name, source) in enumerate(sources.items()):
        progress("tracing", number, len(sources))
        with _named_in_errors(name):
            traces[name] = trace(source.module, sides)
    progress("tracing", len(sources), len(sources))
    maps = common_sides(traces)
    specs = {}
    for name, found in traces.items():
        with _named_in_errors(name):
            specs[name] = staged(found, name, maps)
    tensors = {name: {key: one.tensor for key, one in found.weights.items()} for name, found in traces.items()}
    own, *names = sources
    check_fit(specs[own], images)
    for name, source in sources.items():
        with _named_in_errors(name):
            check_traced(source.module, specs[name], tensors[name])
    spec = hybrid_of(specs[own], {name: specs[name] for name in names})
    values = tensors[own] | {f"{name}:{key}": each for name in names for key, each in tensors[name].items()}
    supernet = supernet_of(spec, values)
    save_supernet(
        supernet,
        place,
        data=facts,
        classes=images.classes,
        task=images.task,
        training={"trunk": own, "experts": list(names)},
    )
    space = supernet.space
    stages = []
    for slot in space.slots[:-1]:
        ops = dict(zip(space.variable(slot.variables[0]).values, space.slot_ops(slot).flat, strict=True))
        stages.append(
            HybridStage(
                variable=slot.variables[0],
                maps=list(next(op.output for op in ops.values() if op is not None)),
                macs={str(name): op.macs for name, op in ops.items() if op is not None},
                params={str(name): op.params for name, op in ops.items() if op is not None},
            )
        )
    return HybridAnswer(
        space=space.name,
        networks=space.size,
        ops=len(space.distinct_ops),
        trunk=own,
        experts=list(names),
        stages=stages,
        supernet=str(place),
    )


@contextmanager
def _named_in_errors(name: str) -> Iterator[None]:
    """Errors of a network begin with its name: there are several."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def _named(sources: Sequence[Source]) -> Mapping[str, Source]:
    """Networks by names that differ."""
    from hwnas.tracing.network import space_name

    found: dict[str, Source] = {}
    for source in sources:
        name, number = space_name(source.name), 2
        while name in found:
            name, number = f"{space_name(source.name)}-{number}", number + 1
        found[name] = source
    return found
