"""Programs of one network under several recipes, each compared with torch."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import nn

from hwnas.accuracy import Evaluator
from hwnas.deploy.exporter import lower_subnet
from hwnas.deploy.manifest import ParityReport, tolerance
from hwnas.deploy.parity import OF_ONE_RECIPE, measured_parity, parity_key, told
from hwnas.engines import SERIAL
from hwnas.errors import EngineError, HwnasError, ParityError
from hwnas.files import Journal
from hwnas.lowering import form_of
from hwnas.machines import Machine
from hwnas.progress import Progress, silent
from hwnas.runtimes import open_session
from hwnas.spaces import Arch
from hwnas.targets import Recipe, Target, detect_host
from hwnas.timing.host import runtime_versions

Found = TypeVar("Found")


def compared(
    arch: Arch,
    evaluator: Evaluator,
    targets: Sequence[Target],
    machine: Machine,
    journal: Journal,
    work: Path,
    left_out: dict[str, str],
    progress: Progress,
) -> tuple[dict[str, Path], dict[str, tuple[ParityReport, str | None]]]:
    """Lower a network under several recipes, and compare each program with torch, on the evaluator's engine.

    In between, this process runs the programs on the machine.

    Args:
        arch: the network.
        evaluator: has the supernet, the data and the engine.
        targets: device and recipes.
        machine: where the programs will be timed.
        journal: of the evaluator: it has the parities that need not be measured again.
        work: folder of the programs; those in it are not lowered again.
        left_out: target's name -> why it is left out; recipes that cannot be used are added.
        progress: callback, invoked during every step.

    Returns:
        target's name -> file of its program; and target's name -> its parity, and why it is refused.

    Raises:
        TableError: the device is not the machine.
        MachineError: the machine cannot be reached or used.
        OutputError: the journal cannot be written.
        EngineError: the engine cannot run here, or its workers are on other hosts than this one.
    """
    todo = list[_Todo]()
    for target in targets:
        try:
            machine.check(target)
            path, key = _program(target, machine, work), parity_key(arch, evaluator.metric, target.recipe)
            todo.append(_Todo(target=target, path=path, key=key, here=_facts(target)))
        except OF_ONE_RECIPE as error:
            left_out[target.name] = told(error)
    engine, parities = evaluator.engine, dict[str, tuple[ParityReport, str | None]]()
    source: Callable[[], _Maker] = partial(_Maker, evaluator.source, arch, progress if engine is SERIAL else silent)
    if engine is SERIAL:
        source = cache(source)  # extracts the network once; a worker keeps what it has opened

    def run(what: str, step: Callable[[_Maker, _Todo], Found], items: Sequence[_Todo]) -> Iterator[tuple[_Todo, Found]]:
        for done, (index, found) in enumerate(engine.map(source, partial(_tried, step), items), 1):
            if isinstance(found, str):
                left_out[items[index].target.name] = found
            else:
                yield items[index], found
            if engine is not SERIAL:
                progress(what, done, len(items))

    for _ in run("lowering for recipes", _Maker.lower, [one for one in todo if not one.path.is_file()]):
        pass
    for one in todo:
        if one.target.name not in left_out:
            try:
                _check_there(arch, evaluator, one.target.recipe, one.path, machine)
            except OF_ONE_RECIPE as error:
                left_out[one.target.name] = told(error)
    able = [one for one in todo if one.target.name not in left_out]
    for one in able:
        if one.key in journal.entries:
            parities[one.target.name] = ParityReport.model_validate(journal.entries[one.key]), None
    waiting = [one for one in able if one.target.name not in parities]
    for one, (report, why) in run("comparing recipes with torch", _Maker.compare, waiting):
        if not why:
            journal.record(one.key, report.model_dump())
        parities[one.target.name] = report, why
    return {one.target.name: one.path for one in able if one.target.name in parities}, parities


@dataclass(frozen=True, slots=True, kw_only=True)
class _Todo:
    """A program to lower and to compare with torch.

    Attributes:
        target: device and recipe.
        path: of the program's file.
        key: of its parity in the journal.
        here: `_facts` of this host.
    """

    target: Target
    path: Path
    key: str
    here: Mapping[str, object]

    def __str__(self) -> str:
        return f"lowering or comparing under {self.target.name}"


class _Maker:
    """Lowers a network under recipes, and compares programs with torch.

    Args:
        source: returns the evaluator.
        arch: the network.
        progress: callback, invoked during every step.
    """

    def __init__(self, source: Callable[[], Evaluator], arch: Arch, progress: Progress) -> None:
        self.evaluator, self.arch, self.progress = source(), arch, progress

    @cached_property
    def network(self) -> nn.Module:
        """The extracted network, with re-calibrated BN."""
        return self.evaluator.subnet(self.arch, progress=self.progress)

    def lower(self, todo: _Todo) -> None:
        """Write the program."""
        recipe, form = todo.target.recipe, form_of(todo.target.recipe)
        self.progress(f"lowering for {recipe.name}", 0, 1)
        form.write(lower_subnet(self.network, self.evaluator, self.arch, recipe), todo.path.parent)
        self.progress(f"lowering for {recipe.name}", 1, 1)

    def compare(self, todo: _Todo) -> tuple[ParityReport, str | None]:
        """The program's parity, and why it is refused."""
        recipe = todo.target.recipe
        return measured_parity(self.arch, self.evaluator, recipe, lambda: (self.network, todo.path), self.progress)


def _tried(step: Callable[[_Maker, _Todo], Found], maker: _Maker, todo: _Todo) -> Found | str:
    """The result of a step, or the error with which its recipe is left out.

    Raises:
        EngineError: this host is another one than that of the sweep.
    """
    _check_same_host(todo)
    try:
        return step(maker, todo)
    except OF_ONE_RECIPE as error:
        return told(error)


def _program(target: Target, machine: Machine, work: Path) -> Path:
    """The file of a target's program.

    Raises:
        RuntimeUnavailable: its runtime cannot run on the machine.
    """
    # The recipe's hash excludes settings that change the program but not the times of its ops.
    asked = target.recipe.model_dump(mode="json", exclude={"schema_", "description", "parity"})
    folder = work / f"{target.recipe.name}-{short_hash([asked, machine.versions(target)])}"
    return folder / form_of(target.recipe).filename


def _facts(target: Target) -> dict[str, object]:
    """What programs and their outputs depend on, of the present host.

    Raises:
        RuntimeUnavailable: the target's runtime cannot run on it.
    """
    host = detect_host()
    return {**runtime_versions(target), "CPU": host.cpu, "CPU flags": host.flags, "GPUs": host.gpus}


def _check_same_host(todo: _Todo) -> None:
    """Check that a worker is on a host like the one of the sweep, with the same versions of the runtime.

    Raises:
        EngineError: it is not.
    """
    try:
        there = _facts(todo.target)
    except HwnasError as error:
        reason = str(error)
    else:
        differs = [name for name, value in todo.here.items() if there.get(name) != value]
        if not differs:
            return
        reason = f"it differs from the host of the sweep in {', '.join(differs)}"
    raise EngineError(
        f"a worker on the host {platform.node()} cannot measure accuracies under {todo.target.recipe.name}: {reason}. "
        "The engine pool sweeps on this host"
    )


def _check_there(arch: Arch, evaluator: Evaluator, recipe: Recipe, path: Path, machine: Machine) -> None:
    """Run the program on the machine, in a process of its own, and compare with its outputs here.

    A runtime that aborts on a program would else end this process during the parity check.

    Raises:
        ProgramCrashed: it ends the process that runs it.
        ParityError: the outputs differ.
    """
    x = evaluator.training_images(evaluator.supernet.space.input_size(arch), recipe.batch).numpy()[None]
    there = machine.run(path, recipe, x)[0]
    with open_session(path, recipe) as session:
        here = session.run(x[0])
    difference, accepted = float(np.abs(here - there).max()), tolerance(recipe.precision, float(np.abs(here).max()))
    if not difference <= accepted:
        raise ParityError(
            f"its outputs on the machine differ by {difference:.3g} from those on this host; at most {accepted:.3g} is "
            "accepted"
        )


def short_hash(content: object) -> str:
    """A hash of JSON values, for names of folders."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
