"""Recipe sweep: comparison of one network under every recipe of a device.

Runtimes use process-wide settings while they are timed (threads, cores), so recipes cannot share the passes of one
measurement. Each is timed twice instead, in two rounds over all recipes in different orders: drift between the rounds
shows as their difference.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hwnas.accuracy import Evaluator
from hwnas.affinity import allowed_cores, cores_text
from hwnas.deploy.comparing import compared, short_hash
from hwnas.deploy.manifest import ParityReport
from hwnas.deploy.parity import OF_ONE_RECIPE, told
from hwnas.errors import InvalidValue, RuntimeUnavailable
from hwnas.files import Journal
from hwnas.latency import LatencyModel
from hwnas.lowering import Program
from hwnas.machines import LocalMachine, Machine
from hwnas.profiling.references import references_for
from hwnas.progress import Progress, silent
from hwnas.spaces import Arch
from hwnas.targets import Target
from hwnas.timing import Measurement
from hwnas.timing.among import Among, Reference, time_among
from hwnas.timing.protocol import Protocol, usual

ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Latency, accuracy and size of a network under one recipe.

    Attributes:
        target: device and recipe.
        speeds: of the machine in each round, relative to its speed in the profile of the recipe's table, by reference
            programs; None without a table.
        parity: outputs and accuracy compared with the torch network, on the validation images.
        refused: which limits of the recipe's ``[parity]`` the outputs exceed; None if they are within all.
        size_bytes: of the program's file.
        rounds_ms: p25 of a run in each round.
        unsteady: whether the machine was too noisy in one of the rounds.
        max_disagreement: largest accepted difference of the rounds, as a fraction.
        predicted_ms: from the target's table; None if it has none for this space.
    """

    target: Target
    parity: ParityReport
    refused: str | None
    size_bytes: int
    rounds_ms: tuple[float, ...]
    speeds: tuple[float | None, ...]
    unsteady: bool
    max_disagreement: float
    predicted_ms: float | None

    @property
    def latency_ms(self) -> float:
        """Mean of the rounds."""
        return float(np.mean(self.rounds_ms))

    @property
    def repeat(self) -> float:
        """Relative difference of the rounds: slowest minus fastest, over the mean."""
        return (max(self.rounds_ms) - min(self.rounds_ms)) / self.latency_ms

    @property
    def too_noisy(self) -> bool:
        """Whether the latency cannot be trusted: the machine was too noisy within a round, or between the rounds."""
        return self.unsteady or self.repeat > self.max_disagreement

    @property
    def lost(self) -> float:
        """Accuracy loss relative to the torch network, as a fraction; negative for a gain."""
        return self.parity.torch_accuracy - self.parity.deployed_accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A network under the recipes of a device.

    Attributes:
        recipes: the fastest first; those whose outputs differ too much (`Swept.refused`) are among them.
        left_out: target's name -> why it is left out.
        max_drop: largest accepted accuracy loss, as a fraction.
    """

    recipes: tuple[Swept, ...]
    left_out: Mapping[str, str]
    max_drop: float

    @property
    def picked(self) -> Swept | None:
        """The fastest recipe within the accepted accuracy loss that is not refused; None without one."""
        fit = (swept for swept in self.recipes if swept.refused is None and swept.lost <= self.max_drop + 1e-9)
        return next(fit, None)


def sweep(
    arch: Arch,
    evaluator: Evaluator,
    targets: Sequence[Target],
    journal: Journal,
    *,
    max_drop: float = 0.005,
    latencies: Mapping[str, LatencyModel] | None = None,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> Sweep:
    """Lower, check and time a network under several recipes of a machine.

    A latency that the machine was too noisy for is not kept: the same call measures it again.

    Args:
        arch: the network.
        evaluator: has the supernet and the data; accuracy is measured on its validation images, on its engine.
        targets: device and recipes.
        journal: of the evaluator. Results of a killed sweep are kept in a folder next to it, and the same call resumes
            from them; a finished sweep is timed again.
        max_drop: largest accepted accuracy loss, as a fraction.
        latencies: target's name -> its latency model, if there is one.
        machine: where the network is timed; the present host if None. Accuracy is measured here, and on another machine
            the outputs of some images are compared with those here.
        protocol: the timing protocol; the default for networks if None.
        progress: callback, invoked during every step.

    Raises:
        InvalidValue: `max_drop` is not from 0 to 1.
        TableError: the device is not the machine.
        RuntimeUnavailable: no recipe can run the network on the machine; the message has the reason for each.
        OutputError: a file cannot be written.
        EngineError: the engine cannot run here, or its workers are on other hosts than this one.
    """
    if not 0 <= max_drop <= 1:
        raise InvalidValue(f"the largest accuracy loss must be a fraction from 0 to 1, not {max_drop}")
    protocol, machine = protocol or usual().networks, machine or LocalMachine()
    work = _work(arch, journal, targets)
    left_out = dict[str, str]()
    files, parities = compared(arch, evaluator, targets, machine, journal, work, left_out, progress)
    evaluator.engine.close()  # workers would disturb the times
    rounds = list[dict[str, _Round]]()
    if made := [target for target in targets if target.name in parities]:
        how = {"protocol": asdict(protocol), "allowed": cores_text(allowed_cores()), "estimator": 2}
        with Journal(work / "times.jsonl", how) as times:
            timing = _Timing(machine, protocol, times, files, latencies or {}, progress)
            rounds += [timing.round(made, arch, number, left_out) for number in range(ROUNDS)]
    usable = [target for target in made if target.name not in left_out]
    if not usable:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "there is none of its kind"
        raise RuntimeUnavailable(f"no recipe can run this network on this host: {reasons}")
    found = []
    for target in usable:
        name = target.name
        model = (latencies or {}).get(name)
        one = Swept(
            target=target,
            parity=parities[name][0],
            refused=parities[name][1],
            size_bytes=files[name].stat().st_size,
            rounds_ms=tuple(times[name].p25_ms for times in rounds),
            speeds=tuple(times[name].speed for times in rounds),
            unsteady=any(times[name].too_noisy for times in rounds),
            max_disagreement=protocol.max_disagreement,
            predicted_ms=float(model.predict(model.space.encode([arch]))[0]) if model else None,
        )
        found.append(one)
    shutil.rmtree(work, ignore_errors=True)
    return Sweep(recipes=tuple(sorted(found, key=lambda swept: swept.latency_ms)), left_out=left_out, max_drop=max_drop)


def _work(arch: Arch, journal: Journal, targets: Sequence[Target]) -> Path:
    """The folder of an unfinished sweep; the journal's name identifies weights and data."""
    subject = [dict(arch), sorted({target.device.fingerprint for target in targets})]
    return journal.path.with_name(f"{journal.path.stem}-sweep-{short_hash(subject)}")


@dataclass(frozen=True, slots=True)
class _Round:
    """A recipe's latency in one round, in milliseconds, and the machine's state."""

    p25_ms: float
    too_noisy: bool
    speed: float | None


@dataclass(frozen=True, slots=True)
class _Timing:
    """What is timed, and where: see `sweep`."""

    machine: Machine
    protocol: Protocol
    times: Journal
    files: Mapping[str, Path]
    latencies: Mapping[str, LatencyModel]
    progress: Progress

    def round(self, targets: Sequence[Target], arch: Arch, number: int, left_out: dict[str, str]) -> dict[str, _Round]:
        """One round: target's name -> latency. Rounds that were too noisy are not recorded.

        Targets that cannot be timed are added to `left_out`; a later round does not retry them.
        """
        done = {}
        for i in np.random.default_rng(number).permutation(len(targets)):
            target = targets[i]
            if target.name in left_out:
                continue
            key = f"{number} {self.files[target.name].parent.name}"
            if key not in self.times.entries:
                try:
                    found = self._among(target, arch, f"round {number + 1} of {ROUNDS}: timing {target.recipe.name}")
                except OF_ONE_RECIPE as error:
                    left_out[target.name] = told(error)
                    continue
                now = _Round(found.p25_ms(target.recipe.name), found.measured.too_noisy, found.speed)
                if now.too_noisy:
                    done[target.name] = now
                    continue
                self.times.record(key, [now.p25_ms, now.speed])
            p25_ms, speed = self.times.entries[key]
            done[target.name] = _Round(float(p25_ms), False, speed)
        return done

    def _among(self, target: Target, arch: Arch, what: str) -> Among:
        """Time the recipe's program among references of its table, if there is one."""
        recipe, model = target.recipe, self.latencies.get(target.name)
        references: Mapping[str, Reference] = {}
        if model:
            predicted_ms = float(model.predict(model.space.encode([arch]))[0])
            folder = self.files[target.name].parent / "references"
            references = references_for(model, predicted_ms, self.machine.form(recipe), folder, self.progress)

        def time(programs: Mapping[str, Program | Path]) -> Measurement:
            return self.machine.time(programs, recipe, self.protocol, what=what, progress=self.progress)

        return time_among({recipe.name: self.files[target.name]}, references, time)
