"""Profiling of kernels: the layers of random networks, timed where a runtime has cut them.

Networks of a prior (`hwnas.models.prior`) are compiled by the target's runtime, whose profiler times their layers; each
network is also timed as a whole, with the protocol of a profile. The times of its layers are scaled to sum to that, so
a row is the time of a kernel within a network, without what the profiler adds.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from hwnas.errors import BundleError, GraphError, InvalidValue, ModelError, TooNoisy
from hwnas.files import Journal, temporary_folder
from hwnas.files.atomic import write_whole
from hwnas.latency.kernels import Kernel, KernelTable, kernel_of, parse_kernel
from hwnas.latency.kernels.model import judged, unknown_factor
from hwnas.latency.kernels.table import KernelNetwork, KernelRow
from hwnas.lowering.serialized import serialized
from hwnas.machines import LocalMachine, Machine
from hwnas.models.lowered import lowered
from hwnas.models.model import Model, open_graph
from hwnas.models.prior import random_network
from hwnas.models.prior.references import reference_networks
from hwnas.models.samples import random_samples
from hwnas.progress import Progress, silent
from hwnas.runner.program import LayerRuns
from hwnas.targets import Recipe, Target
from hwnas.timing import Measurement
from hwnas.timing.protocol import Protocol, usual

log = logging.getLogger(__name__)

SEED = 20_276  # another one with each change of the prior, as a number then names another network
FIT_SHARE = 0.08  # of the time of a profile, after the measurements
_WHAT = "measuring kernels, seconds"
TOGETHER = 16  # networks of a batch, which is the unit of work that a kill costs
_RUNS = 12  # profiled runs of a network
_LEAST = 0.1  # share of a layer's measured time that remains without the cost of the profiler
_TRIES = 3  # of a batch on a noisy machine
_POLISH = 10  # rounds
_QUIET = 0.1  # quantile of the batches' slowdowns that is set to 1
_OF_ONE_NETWORK = (BundleError, GraphError, ModelError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """A network as it was measured: its latency, and the times of its layers with the cost of the profiler."""

    name: str
    ms: float
    layers: tuple[tuple[Kernel, float], ...]


def profile_kernels(
    target: Target,
    *,
    journals: Path,
    seconds: float,
    like: Sequence[Model] = (),
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> KernelTable:
    """Measure kernels on a target.

    Args:
        target: its device must be the machine.
        journals: folder for the journal; after a kill, the same call resumes from it.
        seconds: of measuring, over all calls that resume; at least one batch is measured.
        like: models that are measured, too, so that their kernels are in the table.
        machine: where networks are timed; the present host if None.
        protocol: for the latencies of networks; the default for kernels if None.
        progress: callback, invoked while networks are measured.

    Raises:
        TableError: the target's device is not the machine.
        RuntimeUnavailable: the runtime cannot run there, or does not report layers.
        InvalidValue: there is no time for a single batch.
        TooNoisy: the figures cannot be trusted.
        OutputError: the journal cannot be written.
    """
    machine, protocol = machine or LocalMachine(), protocol or usual().kernels
    if not seconds > 0:
        raise InvalidValue(f"the time for measuring must be positive, not {seconds} s")
    machine.check(target)
    versions = machine.versions(target)
    subject = {
        "target": target.name,
        "recipe": target.recipe.hash,
        "versions": versions,
        "protocol": asdict(protocol),
        "cores": machine.cores(target.recipe),
        "like": [model.sha256 for model in like],
        "seed": SEED,
    }
    with Journal(journals / "kernels.jsonl", subject) as journal:
        found, references = _measured(target, machine, protocol, journal, seconds, like, progress)
    profiler_ms = added_by_profiler(found)
    progress("fitting kernels", 0, 1)
    rows, networks = tabulated(found, profiler_ms)
    judgement = judged(rows, networks)
    return KernelTable(
        device=target.device.name,
        recipe=target.recipe.name,
        device_fingerprint=target.device.fingerprint,
        recipe_hash=target.recipe.hash,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        host=dict(machine.facts(target)),  # type: ignore[arg-type]
        versions=versions,
        measurement={**asdict(protocol), "runs": _RUNS, "seed": SEED, "cores": machine.cores(target.recipe)},
        profiler_ms=profiler_ms,
        references=references,
        rows=rows,
        networks=networks,
        errors=judgement.errors,
        spreads=judgement.spreads,
        kind_spreads=judgement.kind_spreads,
        unknown_factor=unknown_factor(rows),
        validation=judgement.validation,
    )


def _measured(
    target: Target,
    machine: Machine,
    protocol: Protocol,
    journal: Journal,
    seconds: float,
    like: Sequence[Model],
    progress: Progress,
) -> tuple[list[Profiled], dict[str, float]]:
    """The networks of all batches, and the references, both on the quiet machine."""
    batches: list[dict[str, Any]] = []
    spent = 0.0
    queue = [*like]
    # A batch that would probably end too late is not begun.
    while queue or not batches or spent * (1 + 1 / len(batches)) <= seconds:
        number = len(batches)
        own, queue = queue[:TOGETHER], queue[TOGETHER:]
        key = f"batch {number}"
        if key not in journal.entries:
            begun = monotonic()
            models = {f"like {model.name}": model for model in own} or {
                f"prior {i}": of_prior(SEED, i) for i in range(number * TOGETHER, (number + 1) * TOGETHER)
            }
            tick = partial(progress, _WHAT, int(spent), int(seconds))
            batch = _steady_batch(models, target, machine, protocol, tick)
            journal.record(key, {**batch, "seconds": monotonic() - begun})
        batches.append(journal.entries[key])
        spent += batches[-1]["seconds"]
        count = sum(len(batch["networks"]) for batch in batches)
        progress(_WHAT, min(int(spent), int(seconds)), int(seconds), note=f"{count} networks")
    slowdowns, references = _slowdowns([batch["references"] for batch in batches])
    return [
        _profiled(one, slowdown)
        for batch, slowdown in zip(batches, slowdowns, strict=True)
        for one in batch["networks"]
    ], references


def _slowdowns(measured: Sequence[Mapping[str, float]]) -> tuple[list[float], dict[str, float]]:
    """The slowdown of each batch relative to a quiet one, and the references without it.

    A reference's time in a batch is its own time multiplied by the slowdown of the batch; the two are separated by
    median polish. On a machine that other virtual machines slowed by up to 40% for minutes, the references of ten
    batches then agreed within 4%.
    """
    names = sorted({name for batch in measured for name in batch})
    logs = np.log([[batch.get(name, np.nan) for name in names] for batch in measured])
    around = np.zeros(len(logs))
    for _ in range(_POLISH):
        own = np.nanmedian(logs - around[:, None], axis=0)
        around = np.nanmedian(logs - own, axis=1)
    around -= np.quantile(around, _QUIET)
    own = np.nanmedian(logs - around[:, None], axis=0)
    return np.exp(around).tolist(), dict(zip(names, np.exp(own).tolist(), strict=True))


def _steady_batch(
    models: Mapping[str, Model], target: Target, machine: Machine, protocol: Protocol, tick: Callable[[], None]
) -> dict[str, Any]:
    """`measured_batch`, again if the machine was too noisy: other load often ends within a minute."""
    for _ in range(_TRIES - 1):
        try:
            return measured_batch(models, target, machine, protocol, tick)
        except TooNoisy as error:
            log.warning("%s. The batch is measured again", error)
    return measured_batch(models, target, machine, protocol, tick)


def measured_batch(
    models: Mapping[str, Model], target: Target, machine: Machine, protocol: Protocol, tick: Callable[[], None]
) -> dict[str, Any]:
    """Measure a batch of networks beside the references.

    Returns:
        values for a journal: ``references``, name -> latency; and ``networks``, with name, latency and layers each.
    """
    with temporary_folder("kernels") as folder:
        files = dict[str, Path]()
        references = {name: open_graph(graph, name) for name, graph in reference_networks().items()}
        for name, model in {**references, **models}.items():
            try:
                files[name] = written(model, target.recipe, folder / f"{len(files)}.onnx")
            except _OF_ONE_NETWORK as error:
                log.info("%s is left out: %s", name, error)
            tick()
        layers = _layers(machine, files, target.recipe)
        files = {name: file for name, file in files.items() if name in layers and layers[name].layers}
        measured = machine.time(files, target.recipe, protocol, what="timing networks of kernels")
        tick()
    ms = _steady_ms(measured)
    if not references.keys() & ms.keys():
        raise TooNoisy("the machine is too noisy for the reference networks: close other programs on it, and try again")
    return {
        "references": {name: ms[name] for name in ms if name in references},
        "networks": [
            {
                "name": name,
                "ms": ms[name],
                "layers": [[kernel_of(one).key, one.ms] for one in layers[name].at_speed_of(ms[name])],
            }
            for name in ms
            if name not in references
        ],
    }


def _steady_ms(measured: Measurement) -> dict[str, float]:
    """Latencies of the programs whose even and odd sessions agree.

    Raises:
        TooNoisy: fewer than half of them do.
    """
    even, odd = measured.halves_ms
    steady = np.abs(even - odd) / (even + odd) * 2 <= measured.protocol.max_disagreement
    if 2 * steady.sum() < len(steady):
        raise TooNoisy(
            f"the machine is too noisy: for {len(steady) - steady.sum()} of {len(steady)} networks, the times of even "
            f"and odd sessions differ by more than {measured.protocol.max_disagreement:.0%}. Close other programs on "
            "it; the same command resumes"
        )
    return {name: measured.p25_ms(name) for name, fine in zip(measured.samples_ms, steady, strict=True) if fine}


def speed_of(now_ms: Mapping[str, float], before_ms: Mapping[str, float]) -> float:
    """The machine's speed now relative to that before, by the references that were timed both times."""
    return float(np.exp(np.mean([np.log(before_ms[name] / ms) for name, ms in now_ms.items() if name in before_ms])))


def _layers(machine: Machine, files: Mapping[str, Path], recipe: Recipe) -> dict[str, LayerRuns]:
    """The layers of each network that the runtime accepts."""
    try:
        return machine.layers(files, recipe, runs=_RUNS)
    except BundleError:
        found = dict[str, LayerRuns]()
        for name, file in files.items():
            try:
                found |= machine.layers({name: file}, recipe, runs=_RUNS)
            except BundleError as error:
                log.info("%s is left out: %s", name, error)
        return found


def _profiled(entry: Mapping[str, Any], slowdown: float) -> Profiled:
    layers = tuple((parse_kernel(key), ms / slowdown) for key, ms in entry["layers"])
    return Profiled(name=entry["name"], ms=entry["ms"] / slowdown, layers=layers)


def of_prior(seed: int, number: int) -> Model:
    """A network of the prior."""
    return open_graph(random_network(seed, number), f"prior {number}")


def written(model: Model, recipe: Recipe, file: Path) -> Path:
    """Write the program of a model under a recipe; int8 is calibrated on one random input.

    Raises:
        RuntimeUnavailable, GraphError: as `hwnas.models.lowered.lowered`.
        OutputError: the file cannot be written.
    """
    graph = lowered(model, recipe, random_samples(model.signature, count=1))
    write_whole(file, serialized(graph))
    return file


def added_by_profiler(found: Sequence[Profiled]) -> float:
    """The time that the profiler adds to each layer, by least squares of relative errors over networks; at least 0."""
    ms = np.array([one.ms for one in found])
    over = np.array([sum(t for _, t in one.layers) for one in found]) - ms
    counts = np.array([len(one.layers) for one in found])
    return max(0.0, float(((over / ms) @ (counts / ms)) / ((counts / ms) @ (counts / ms))))


def tabulated(found: Sequence[Profiled], profiler_ms: float) -> tuple[list[KernelRow], list[KernelNetwork]]:
    """Rows of kernels, and networks.

    The times of a network's layers are scaled to sum to its latency.
    """
    times: dict[Kernel, list[float]] = {}
    for one in found:
        own = [max(ms - profiler_ms, _LEAST * ms, 1e-6) for _, ms in one.layers]
        scale = one.ms / sum(own)
        for (kernel, _), ms in zip(one.layers, own, strict=True):
            times.setdefault(kernel, []).append(ms * scale)
    rows = [
        KernelRow(kernel=kernel.key, ms=round(float(np.median(own)), 7), count=len(own))
        for kernel, own in times.items()
    ]
    place = {kernel: index for index, kernel in enumerate(times)}
    networks = [
        KernelNetwork(name=one.name, ms=one.ms, kernels=[place[kernel] for kernel, _ in one.layers]) for one in found
    ]
    return rows, networks
