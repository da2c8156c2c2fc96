"""Turn a trained network into a supernet whose subnets are narrower and shorter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue, ModelError, UnknownName
from hwnas.progress import Progress, silent
from hwnas.workflows import inputs
from hwnas.workflows.answers import ElasticAnswer, WidthGroup
from hwnas.workflows.inputs import Place

if TYPE_CHECKING:
    from pydantic import JsonValue
    from torch import Tensor, nn

    from hwnas.data import Data, DataOptions
    from hwnas.spaces.traced import NetworkSpec
    from hwnas.supernet import Supernet
    from hwnas.tracing.order import Measure
    from hwnas.tracing.source import Source
    from hwnas.tracing.trace import Trace

WIDTHS = (0.25, 0.5, 0.75)
_JUDGED = 6  # subnets that judge a measure of importance
_IMAGES = 400  # of an evaluation that judges, and of a gradient


def elastic(
    network: str | nn.Module,
    data: str | Data,
    out: Place,
    *,
    data_path: Place | None = None,
    data_options: DataOptions | None = None,
    weights: Place | None = None,
    shape: Sequence[int] | None = None,
    widths: Sequence[float] = WIDTHS,
    multiple: int = 8,
    keep: Sequence[str] = (),
    blocks: bool = True,
    ranks: Sequence[float] = (),
    resolutions: Sequence[int] = (),
    importance: str = "auto",
    name: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> ElasticAnswer:
    """Write a trained network as a supernet: its widths, heads and residual blocks are the variables of a space.

    The network is traced with ``torch.export``; dimensions that have to change together are found from its operators.
    Its largest subnet is the network itself, up to the order of additions. Everything that takes a supernet takes the
    folder; its file ``network.json`` is the space.

    Args:
        network: ``timm:NAME``, ``path/to/file.py:NAME``, a ``.pt2`` file of ``torch.export.save``; or a torch module.
        data: dataset or its name; images as the network was trained on.
        out: folder for the supernet.
        data_path: folder of a dataset that is read from disk.
        data_options: how its images are read.
        weights: file of the network's weights.
        shape: of an image, ``(channels, height, width)``; that of the network's example input if None.
        widths: shares of each width that can be chosen, besides the whole.
        multiple: channels, of which widths are multiples where heads and groups allow it.
        keep: patterns of names of layers that keep their width.
        blocks: whether residual blocks can be left out.
        ranks: of linear layers and 1x1 convolutions, as shares of the smaller dimension: two thinner layers that can
            replace the layer. Their weights are those with the smallest error of its outputs on training images.
        resolutions: heights of smaller images that the network can take, too; their width is in proportion.
        importance: order of the channels: ``l1``, ``bn``, ``taylor`` (`hwnas.tracing.order`), ``none`` for that of the
            network; ``auto`` for the best of the first three, by the accuracy of some subnets on validation images.
        name: of the network; from `network` if None.
        seed: of the subnets that judge.
        progress: callback.

    Raises:
        ModelError: the network cannot be made or traced, or nothing in it can be narrower.
        InvalidValue, UnknownName: a value is invalid, or the data do not fit the network.
        DataError, SpecError: the data cannot be read.
        OutputError: the folder cannot be written, or contains a supernet.
    """
    from hwnas.tracing.order import MEASURES

    place = Path(out)
    inputs.check_folder(place, "supernet")
    if importance not in (*MEASURES, "auto", "none"):
        raise UnknownName("measure of importance", importance, (*MEASURES, "auto", "none"))
    images, facts = inputs.data_of(data, data_path, data_options)
    progress("tracing", 0, 1)
    traced = traced_of(
        network, images, weights=weights, shape=shape, widths=widths, multiple=multiple, keep=keep, blocks=blocks,
        ranks=ranks, resolutions=resolutions, name=name,
    )  # fmt: skip
    progress("tracing", 1, 1)
    supernet, importance, judged = elastic_into(
        place, traced, images, facts, importance=importance, seed=seed, progress=progress
    )
    space, spec = supernet.space, traced.spec
    return ElasticAnswer(
        space=space.name,
        networks=float(space.size),
        ops=len(space.distinct_ops),
        widths=[
            WidthGroup(name=g.name, layers=g.layers, channels=[count * g.width for count in g.choices])
            for g in spec.groups
            if not g.rank
        ],
        resolutions=spec.resolutions,
        ranks={g.name: g.choices for g in spec.groups if g.rank},
        blocks=spec.blocks,
        fixed=spec.fixed,
        kept_operators=traced.kept,
        importance=importance,
        judged=judged,
        params=int(space.params(space.encode([space.largest]))[0]),
        macs=int(space.macs(space.encode([space.largest]))[0]),
        supernet=str(place),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedNetwork:
    """A traced network with its weights.

    Attributes:
        name: of the network.
        module: the network.
        tensors: name of a weight -> values.
        spec: its widths and operations.
        kept: operators without a rule.
    """

    name: str
    module: nn.Module
    tensors: Mapping[str, Tensor]
    spec: NetworkSpec
    kept: list[str]


def traced_of(
    network: str | nn.Module,
    data: Data,
    *,
    weights: Place | None = None,
    shape: Sequence[int] | None = None,
    widths: Sequence[float] = WIDTHS,
    multiple: int = 8,
    keep: Sequence[str] = (),
    blocks: bool = True,
    ranks: Sequence[float] = (),
    resolutions: Sequence[int] = (),
    name: str | None = None,
) -> TracedNetwork:
    """Open and trace a network for some data; arguments and errors as for `elastic`."""
    from hwnas.tracing.choices import ElasticOptions
    from hwnas.tracing.network import network_of, space_name
    from hwnas.tracing.supernet import check_traced
    from hwnas.tracing.trace import trace

    for what, given in (("width", widths), ("rank", ranks)):
        if wrong := [share for share in given if not 0 < share <= 1]:
            raise InvalidValue(f"a {what} is a share of the whole, above 0% and at most 100%, not {wrong[0]:.3g}")
    source = opened(network, weights, data)
    sides = image_of(source, shape)
    found = trace(source.module, sides)
    smaller = [_smaller(source, sides, side) for side in sorted({*resolutions} - {sides[1]})]
    options = ElasticOptions(
        shares=(*widths, 1.0), multiple=multiple, keep=tuple(keep), blocks=blocks, ranks=tuple(ranks)
    )
    spec = network_of(found, space_name(name or source.name), options, smaller)
    check_fit(spec, data)
    tensors = {key: weight.tensor for key, weight in found.weights.items()}
    check_traced(source.module, spec, tensors)
    return TracedNetwork(
        name=source.name,
        module=source.module,
        tensors=tensors,
        spec=spec,
        kept=found.kept,
    )


def opened(network: str | nn.Module, weights: Place | None, data: Data, *, classes: bool = True) -> Source:
    """A network from its text or module, with the weights of a file if there is one.

    Args:
        network: as for `elastic`.
        weights: file of its weights.
        data: whose images a network of timm takes.
        classes: whether a network of timm gets an output for each class of the data; otherwise it has its own number.

    Raises:
        ModelError, PluginError: as `hwnas.tracing.source.open_network`.
    """
    from hwnas.models.torch_module import load_weights
    from hwnas.tracing.source import Source, open_network

    file = Path(weights) if weights else None
    if isinstance(network, str):
        count = len(data.classes) if classes else None
        return open_network(network, weights=file, channels=data.reads.in_channels, classes=count)
    if file is not None:
        load_weights(network, file)
    return Source(name=type(network).__name__, module=network, shape=None)


def image_of(source: Source, shape: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of an image of a network: the given one, or that of its example input.

    Raises:
        InvalidValue: it is not known.
    """
    sides = tuple(shape) if shape else source.shape
    if sides is None or len(sides) != 3:
        raise InvalidValue(
            f"the size of {source.name}'s images is not known: give it (--shape 3x224x224), or let the function return "
            "the module and a tuple of its inputs"
        )
    return sides


def _smaller(source: Source, shape: Sequence[int], side: int) -> Trace:
    """The trace of a network with smaller images.

    Raises:
        InvalidValue: the height is not below that of the network's images, or gives no whole width.
        ModelError: the network takes images of one size only.
    """
    from hwnas.tracing.trace import trace

    channels, height, width = shape
    if not 0 < side < height or side * width % height:
        raise InvalidValue(
            f"a resolution is a height below {height} that gives a whole width ({width} to {height}), not {side}"
        )
    try:
        return trace(source.module, (channels, side, side * width // height))
    except ModelError as error:
        raise ModelError(f"{source.name} does not take images of {side} pixels: {error}") from error


def elastic_into(
    folder: Path,
    traced: TracedNetwork,
    data: Data,
    facts: Mapping[str, JsonValue],
    *,
    importance: str,
    seed: int,
    progress: Progress = silent,
) -> tuple[Supernet, str, dict[str, float]]:
    """Write the supernet of a traced network into a folder.

    Args:
        folder: for the supernet.
        traced: the network.
        data: its images.
        facts: to open them again.
        importance: as for `elastic`.
        seed: of the subnets that judge.
        progress: callback.

    Returns:
        the supernet, the measure that was taken, and the mean accuracy of some subnets with each measure that was
        tried.
    """
    from hwnas.supernet import save_supernet
    from hwnas.tracing.supernet import check_traced, supernet_of

    judged: dict[str, float] = {}
    if importance == "auto":
        judged = _judged(traced.spec, traced.module, traced.tensors, data, seed, progress)
        importance = max(judged, key=judged.__getitem__)
    tensors = _ordered(importance, traced.spec, traced.module, traced.tensors, data)
    if importance != "none":
        check_traced(traced.module, traced.spec, tensors)
    supernet = supernet_of(traced.spec, tensors)
    save_supernet(
        supernet,
        folder,
        data=facts,
        classes=data.classes,
        task=data.task,
        training={"traced": traced.name, "importance": importance},
    )
    return supernet, importance, judged


def check_fit(spec: NetworkSpec, data: Data) -> None:
    """Check that a traced network takes the images of some data, and has an output for each class.

    Raises:
        InvalidValue: it does not.
    """
    if data.reads != (spec.input[0], None):
        raise InvalidValue(
            f"{spec.name} takes images of {spec.input[0]} channels, {data.name} has {data.reads.text}: see --channels"
        )
    if spec.classes != len(data.classes):
        raise InvalidValue(
            f"{spec.name} has {spec.classes} outputs, but {data.name} has {len(data.classes)} classes: replace its "
            "last layer by one for these classes, and train it first"
        )


def _ordered(
    importance: str, spec: NetworkSpec, module: nn.Module, tensors: Mapping[str, Tensor], data: Data
) -> dict[str, Tensor]:
    """The weights in the order of a measure, with those of thinner layers."""
    from hwnas.tracing.order import importance_of, ordered, orders_of
    from hwnas.tracing.ranks import blank, factors, moments
    from hwnas.tracing.supernet import supernet_of

    sides = spec.input[1] if spec.input[1] == spec.input[2] else (spec.input[1], spec.input[2])

    def batches() -> Iterable[tuple[Tensor, Tensor]]:
        return data.batches("train", sides, limit=_IMAGES, batch_size=32)

    found = dict(tensors)
    if importance != "none":
        measure: Measure = importance  # type: ignore[assignment]
        values = importance_of(measure, module, tensors, batches)
        found = ordered(spec, tensors, orders_of(spec, values, scales=measure == "bn"))
    if thin := blank(spec):
        found |= factors(spec, found, moments(supernet_of(spec, found | thin), spec, batches()))
    return found


def _judged(
    spec: NetworkSpec, module: nn.Module, tensors: Mapping[str, Tensor], data: Data, seed: int, progress: Progress
) -> dict[str, float]:
    """Measure of importance -> mean accuracy of some subnets on validation images."""
    from hwnas.accuracy import Evaluator
    from hwnas.tracing.order import MEASURES
    from hwnas.tracing.supernet import supernet_of

    found: dict[str, float] = {}
    for number, measure in enumerate(MEASURES):
        progress("judging the order of channels", number, len(MEASURES))
        supernet = supernet_of(spec, _ordered(measure, spec, module, tensors, data))
        evaluator = Evaluator(supernet, data, images=_IMAGES, calibration_images=_IMAGES, seed=seed + 1)
        archs = supernet.space.decode(supernet.space.sample(_JUDGED, seed=seed))
        found[measure] = sum(evaluator.accuracy(arch) for arch in archs) / len(archs)
    progress("judging the order of channels", len(MEASURES), len(MEASURES))
    return found
