"""Recipe sweep: one network under every recipe of a device, side by side.

A runtime holds settings of the whole process while it is timed (threads, cores), so recipes cannot share the passes of
one measurement. Each is timed twice instead, in two rounds over all recipes, each round in an order of its own: what
drifts between the rounds shows as the difference of the two, beside the figure.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from torch import nn

from hwnas.accuracy import Evaluator
from hwnas.affinity import allowed_cores, cores_text
from hwnas.deploy.exporter import lower_subnet
from hwnas.deploy.manifest import ParityReport
from hwnas.deploy.parity import OF_ONE_RECIPE, deployed_parity, told
from hwnas.errors import InvalidValue, RuntimeUnavailable
from hwnas.files import Journal
from hwnas.latency import LatencyModel
from hwnas.lowering import form_of
from hwnas.progress import Progress, silent
from hwnas.spaces import Arch
from hwnas.targets import Target
from hwnas.timing import time_programs
from hwnas.timing.host import check_host, runtime_versions
from hwnas.timing.protocol import Protocol, usual

ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a network is under one recipe.

    Attributes:
        target: device and recipe.
        parity: outputs and accuracy beside those of the torch network, on the validation images.
        size_bytes: of the program's file.
        rounds_ms: p25 of a run, measured in each round.
        unsteady: whether the machine was too noisy in one of them.
        max_disagreement: by which the rounds may differ before the latency is too noisy, as a fraction.
        predicted_ms: from the target's table; None where it has none for this space.
    """

    target: Target
    parity: ParityReport
    size_bytes: int
    rounds_ms: tuple[float, ...]
    unsteady: bool
    max_disagreement: float
    predicted_ms: float | None

    @property
    def latency_ms(self) -> float:
        """Mean of the rounds."""
        return float(np.mean(self.rounds_ms))

    @property
    def repeat(self) -> float:
        """How far apart the rounds are: the difference of the slowest and the fastest over the mean."""
        return (max(self.rounds_ms) - min(self.rounds_ms)) / self.latency_ms

    @property
    def too_noisy(self) -> bool:
        """Whether the latency cannot be trusted: the machine was too noisy within a round, or from one to the other."""
        return self.unsteady or self.repeat > self.max_disagreement

    @property
    def lost(self) -> float:
        """Accuracy lost against the torch network, as a fraction; negative where the recipe gained some."""
        return self.parity.torch_accuracy - self.parity.deployed_accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A network under the recipes of a device.

    Attributes:
        recipes: the fastest first.
        left_out: target's name -> why nothing is said of it.
        max_drop: accuracy that may be lost, as a fraction.
    """

    recipes: tuple[Swept, ...]
    left_out: Mapping[str, str]
    max_drop: float

    @property
    def picked(self) -> Swept | None:
        """The fastest that loses no more than may be lost; None where all lose more."""
        return next((swept for swept in self.recipes if swept.lost <= self.max_drop + 1e-9), None)


def sweep(
    arch: Arch,
    evaluator: Evaluator,
    targets: Sequence[Target],
    journal: Journal,
    *,
    max_drop: float = 0.005,
    latencies: Mapping[str, LatencyModel] | None = None,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> Sweep:
    """Lower, check and time a network under several recipes of this host.

    Args:
        arch: the network.
        evaluator: holds the supernet and the data; accuracy is that on its validation images.
        targets: device and recipes.
        journal: of the evaluator. What a killed sweep had made and timed lies in a folder beside it, until the same
            call has gone on to the end; a finished sweep is timed anew.
        max_drop: accuracy that may be lost, as a fraction.
        latencies: target's name -> the model that predicts it, where there is one.
        protocol: how each recipe is timed; the usual one of networks if None.
        progress: callback, invoked during every step.

    Raises:
        InvalidValue: `max_drop` is not from 0 to 1.
        TableError: the device is not this host.
        RuntimeUnavailable: no recipe can run the network here (says why, for each).
        OutputError: a file cannot be written.
    """
    if not 0 <= max_drop <= 1:
        raise InvalidValue(f"accuracy lost is a fraction from 0 to 1, not {max_drop}")
    protocol = protocol or usual().networks
    work = _work(arch, journal, targets)
    network = cache(lambda: evaluator.subnet(arch, progress=progress))
    files, parities, left_out = dict[str, Path](), dict[str, ParityReport](), dict[str, str]()
    for target in targets:
        try:
            files[target.name], parities[target.name] = _made(arch, evaluator, target, journal, network, work, progress)
        except OF_ONE_RECIPE as error:
            left_out[target.name] = told(error)
    rounds = list[dict[str, tuple[float, bool]]]()
    if made := [target for target in targets if target.name in parities]:
        how = {"protocol": asdict(protocol), "allowed": cores_text(allowed_cores())}
        with Journal(work / "times.jsonl", how) as times:
            rounds += [_timed(made, files, times, number, protocol, left_out, progress) for number in range(ROUNDS)]
    usable = [target for target in made if target.name not in left_out]
    if not usable:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "there is none of its kind"
        raise RuntimeUnavailable(f"no recipe can run this network here: {reasons}")
    found = []
    for target in usable:
        name = target.name
        model = (latencies or {}).get(name)
        one = Swept(
            target=target,
            parity=parities[name],
            size_bytes=files[name].stat().st_size,
            rounds_ms=tuple(times[name][0] for times in rounds),
            unsteady=any(times[name][1] for times in rounds),
            max_disagreement=protocol.max_disagreement,
            predicted_ms=float(model.predict(model.space.encode([arch]))[0]) if model else None,
        )
        found.append(one)
    shutil.rmtree(work, ignore_errors=True)
    return Sweep(recipes=tuple(sorted(found, key=lambda swept: swept.latency_ms)), left_out=left_out, max_drop=max_drop)


def _work(arch: Arch, journal: Journal, targets: Sequence[Target]) -> Path:
    """The folder of a sweep under way; the journal's name stands for weights and data."""
    subject = [dict(arch), sorted({target.device.fingerprint for target in targets})]
    return journal.path.with_name(f"{journal.path.stem}-sweep-{_short_hash(subject)}")


def _made(
    arch: Arch,
    evaluator: Evaluator,
    target: Target,
    journal: Journal,
    network: Callable[[], nn.Module],
    work: Path,
    progress: Progress,
) -> tuple[Path, ParityReport]:
    """The file of the network's program under a recipe, and how equal it is.

    Raises:
        InvalidValue, RuntimeUnavailable, SpecError: the recipe cannot run here.
        GraphError: there is no program of the network under it.
        BundleError: its runtime cannot load the program.
        ParityError: the program computes something else.
        OutputError, OSError: what it writes on the way cannot be written.
    """
    check_host(target)
    recipe, form = target.recipe, form_of(target.recipe)
    # The recipe's hash leaves out what changes the program but no time of its ops.
    asked = recipe.model_dump(mode="json", exclude={"schema_", "description", "parity"})
    folder = work / f"{recipe.name}-{_short_hash([asked, runtime_versions(target)])}"
    path = folder / form.filename
    if not path.is_file():
        progress(f"lowering for {recipe.name}", 0, 1)
        form.write(lower_subnet(network(), evaluator, arch, recipe), folder)
        progress(f"lowering for {recipe.name}", 1, 1)
    parity = deployed_parity(arch, evaluator, recipe, journal, lambda: (network(), path), progress)
    return path, parity


def _timed(
    targets: Sequence[Target],
    files: Mapping[str, Path],
    times: Journal,
    number: int,
    protocol: Protocol,
    left_out: dict[str, str],
    progress: Progress,
) -> dict[str, tuple[float, bool]]:
    """One round: target's name -> p25 in milliseconds, and whether it was too noisy to be trusted.

    What cannot be timed is added to those that are left out, and a later round does not try it again.
    """
    done = {}
    for i in np.random.default_rng(number).permutation(len(targets)):
        if targets[i].name in left_out:
            continue
        recipe, path = targets[i].recipe, files[targets[i].name]
        key = f"{number} {path.parent.name}"
        if key not in times.entries:
            what = f"round {number + 1} of {ROUNDS}: timing {recipe.name}"
            try:
                measured = time_programs({recipe.name: path}, recipe, protocol, what=what, progress=progress)
            except OF_ONE_RECIPE as error:
                left_out[targets[i].name] = told(error)
                continue
            times.record(key, [measured.p25_ms(recipe.name), measured.too_noisy])
        p25_ms, too_noisy = times.entries[key]
        done[targets[i].name] = (float(p25_ms), bool(too_noisy))
    return done


def _short_hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
