"""Recipe sweep: comparison of one network under every recipe of a device.

Runtimes use process-wide settings while they are timed (threads, cores), so recipes cannot share the passes of one
measurement. Each is timed twice instead, in two rounds over all recipes in different orders: drift between the rounds
shows as their difference.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from torch import nn

from hwnas.accuracy import Evaluator
from hwnas.affinity import allowed_cores, cores_text
from hwnas.deploy.exporter import lower_subnet
from hwnas.deploy.manifest import ParityReport
from hwnas.deploy.parity import OF_ONE_RECIPE, measured_parity, parity_key, told
from hwnas.engines import SERIAL
from hwnas.errors import EngineError, HwnasError, InvalidValue, RuntimeUnavailable
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
    """Latency, accuracy and size of a network under one recipe.

    Attributes:
        target: device and recipe.
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
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> Sweep:
    """Lower, check and time a network under several recipes of this host.

    Args:
        arch: the network.
        evaluator: has the supernet and the data; accuracy is measured on its validation images, on its engine.
        targets: device and recipes.
        journal: of the evaluator. Results of a killed sweep are kept in a folder next to it, and the same call resumes
            from them; a finished sweep is timed again.
        max_drop: largest accepted accuracy loss, as a fraction.
        latencies: target's name -> its latency model, if there is one.
        protocol: the timing protocol; the default for networks if None.
        progress: callback, invoked during every step.

    Raises:
        InvalidValue: `max_drop` is not from 0 to 1.
        TableError: the device is not this host.
        RuntimeUnavailable: no recipe can run the network on this host; the message has the reason for each.
        OutputError: a file cannot be written.
        EngineError: the engine cannot run here, or its workers are other devices than this host.
    """
    if not 0 <= max_drop <= 1:
        raise InvalidValue(f"the largest accuracy loss must be a fraction from 0 to 1, not {max_drop}")
    protocol = protocol or usual().networks
    work = _work(arch, journal, targets)
    left_out = dict[str, str]()
    files, parities = _made(arch, evaluator, targets, journal, work, left_out, progress)
    evaluator.engine.close()  # workers would disturb the times
    rounds = list[dict[str, tuple[float, bool]]]()
    if made := [target for target in targets if target.name in parities]:
        how = {"protocol": asdict(protocol), "allowed": cores_text(allowed_cores())}
        with Journal(work / "times.jsonl", how) as times:
            rounds += [_timed(made, files, times, number, protocol, left_out, progress) for number in range(ROUNDS)]
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
            rounds_ms=tuple(times[name][0] for times in rounds),
            unsteady=any(times[name][1] for times in rounds),
            max_disagreement=protocol.max_disagreement,
            predicted_ms=float(model.predict(model.space.encode([arch]))[0]) if model else None,
        )
        found.append(one)
    shutil.rmtree(work, ignore_errors=True)
    return Sweep(recipes=tuple(sorted(found, key=lambda swept: swept.latency_ms)), left_out=left_out, max_drop=max_drop)


def _work(arch: Arch, journal: Journal, targets: Sequence[Target]) -> Path:
    """The folder of an unfinished sweep; the journal's name identifies weights and data."""
    subject = [dict(arch), sorted({target.device.fingerprint for target in targets})]
    return journal.path.with_name(f"{journal.path.stem}-sweep-{_short_hash(subject)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Todo:
    """A program to lower, or to compare with torch, or both.

    Attributes:
        target: device and recipe.
        path: of the program's file.
        key: of its parity in the journal.
        compared: whether the journal has the parity.
    """

    target: Target
    path: Path
    key: str
    compared: bool

    def __str__(self) -> str:
        return f"lowering and comparing under {self.target.name}"


class _Maker:
    """Lowers a network under recipes, and compares each program with torch.

    Args:
        source: returns the evaluator.
        arch: the network.
        work: folder of the programs.
        progress: callback, invoked during every step.
    """

    def __init__(self, source: Callable[[], Evaluator], arch: Arch, work: Path, progress: Progress) -> None:
        self.evaluator, self.arch, self.work, self.progress = source(), arch, work, progress

    @cached_property
    def network(self) -> nn.Module:
        """The extracted network, with re-calibrated BN."""
        return self.evaluator.subnet(self.arch, progress=self.progress)

    def make(self, todo: _Todo) -> tuple[ParityReport | None, str | None] | str:
        """Write the program, if there is none, and compare it.

        Returns:
            its parity, None if the journal has it, and why it is refused; or the error with which the recipe is left
            out.

        Raises:
            EngineError: this host is another device, or has other versions of the runtime.
        """
        _check_same_host(todo, self.work)
        recipe, form = todo.target.recipe, form_of(todo.target.recipe)
        try:
            if not todo.path.is_file():
                self.progress(f"lowering for {recipe.name}", 0, 1)
                form.write(lower_subnet(self.network, self.evaluator, self.arch, recipe), todo.path.parent)
                self.progress(f"lowering for {recipe.name}", 1, 1)
            if todo.compared:
                return None, None
            return measured_parity(self.arch, self.evaluator, recipe, lambda: (self.network, todo.path), self.progress)
        except OF_ONE_RECIPE as error:
            return told(error)


def _made(
    arch: Arch,
    evaluator: Evaluator,
    targets: Sequence[Target],
    journal: Journal,
    work: Path,
    left_out: dict[str, str],
    progress: Progress,
) -> tuple[dict[str, Path], dict[str, tuple[ParityReport, str | None]]]:
    """Target's name -> file of the network's program; and -> its parity, and why it is refused.

    Recipes that cannot be used are added to `left_out`.

    Raises:
        OutputError: the journal cannot be written.
        EngineError: the engine cannot run here, or its workers are other devices than this host.
    """
    todo = list[_Todo]()
    for target in targets:
        try:
            check_host(target)
            path, key = _program(target, work), parity_key(arch, evaluator.metric, target.recipe)
        except OF_ONE_RECIPE as error:
            left_out[target.name] = told(error)
        else:
            todo.append(_Todo(target=target, path=path, key=key, compared=key in journal.entries))
    engine, parities = evaluator.engine, dict[str, tuple[ParityReport, str | None]]()
    source = partial(_Maker, evaluator.source, arch, work, progress if engine is SERIAL else silent)
    for done, (index, found) in enumerate(engine.map(source, _Maker.make, todo), 1):
        one = todo[index]
        if isinstance(found, str):
            left_out[one.target.name] = found
        else:
            report, why = found
            if report and not why:
                journal.record(one.key, report.model_dump())
            parities[one.target.name] = report or ParityReport.model_validate(journal.entries[one.key]), why
        if engine is not SERIAL:
            progress("comparing recipes with torch", done, len(todo))
    return {one.target.name: one.path for one in todo if one.target.name in parities}, parities


def _program(target: Target, work: Path) -> Path:
    """The file of a target's program.

    Raises:
        RuntimeUnavailable: its runtime cannot run on this host.
    """
    # The recipe's hash excludes settings that change the program but not the times of its ops.
    asked = target.recipe.model_dump(mode="json", exclude={"schema_", "description", "parity"})
    folder = work / f"{target.recipe.name}-{_short_hash([asked, runtime_versions(target)])}"
    return folder / form_of(target.recipe).filename


def _check_same_host(todo: _Todo, work: Path) -> None:
    """Check that the host of a worker is the swept device, with the same versions of the runtime.

    Raises:
        EngineError: it is not.
    """
    try:
        check_host(todo.target)
        same = _program(todo.target, work) == todo.path
        reason = "it has other versions of the runtime"
    except HwnasError as error:
        same, reason = False, str(error)
    if not same:
        raise EngineError(
            f"a worker on the host {platform.node()} cannot stand for {todo.target.name}: {reason}. The engine pool "
            "sweeps on this host"
        )


def _timed(
    targets: Sequence[Target],
    files: Mapping[str, Path],
    times: Journal,
    number: int,
    protocol: Protocol,
    left_out: dict[str, str],
    progress: Progress,
) -> dict[str, tuple[float, bool]]:
    """One round: target's name -> p25 in milliseconds, and whether the machine was too noisy.

    Targets that cannot be timed are added to `left_out`; a later round does not retry them.
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
