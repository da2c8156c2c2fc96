"""Machines on which a runner times programs, at the other end of a pipe."""

from __future__ import annotations

import contextlib
import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hwnas.errors import HwnasError, MachineError, ProgramCrashed, RuntimeUnavailable
from hwnas.files import Journal, temporary_folder
from hwnas.files.atomic import write_whole
from hwnas.lowering import Form, Program, form_of
from hwnas.machines.base import Machine
from hwnas.machines.runner import Died, Lost, Runner, understood
from hwnas.machines.sampler import RunnerSampler, Timing
from hwnas.progress import Progress, silent
from hwnas.runner.program import Layer, LayerRuns
from hwnas.runner.signature import Feeds, packed, unpacked
from hwnas.targets import Chosen, Recipe
from hwnas.timing import Measurement, Protocol
from hwnas.timing.timer import LONGEST_MS, require_measured, take

_RUN_S = 900.0  # longest time of one run, or of a profile of layers
Files = Mapping[str, Path]  # name of a program -> its file on this machine
Ask: TypeAlias = Callable[..., tuple[dict[str, Any], bytes]]


class PipedMachine(Machine):
    """A machine with a runner: a process that holds nothing but the runtime.

    Attributes:
        beside: whether the runner is on this machine.
    """

    beside: bool

    @abstractmethod
    def connect(self, recipe: Recipe) -> Runner:
        """Start a runner.

        Raises:
            MachineError: the machine cannot be reached or used.
            Lost: the connection ended.
        """

    def ended(self, error: Exception, program: str) -> HwnasError:
        """The error for the user if a runner ended."""
        if isinstance(error, Died):
            return ProgramCrashed(f"{program!r} ended the process that ran it: {error}", program)
        return MachineError(f"the connection was lost: {error}. Run the same command again")

    @abstractmethod
    def settings(self, recipe: Recipe) -> Mapping[str, Any]:
        """How the runner loads a recipe's programs."""

    @abstractmethod
    def chosen(self, recipe: Recipe) -> Chosen:
        """The cores of a timing.

        Raises:
            InvalidValue: the machine does not have the cores that the recipe needs.
        """

    @abstractmethod
    def allowed(self) -> frozenset[int]:
        """The logical cores that the runner may run on."""

    def cores(self, recipe: Recipe) -> str:
        """Cores that the runner is pinned to."""
        return self.chosen(recipe).text

    def form(self, recipe: Recipe) -> Form:
        """The form that the recipe's runtime loads."""
        return form_of(recipe)

    def open_on(self, held: Chosen) -> list[int]:
        """The cores on which programs of a timing may be opened.

        All if a single one is timed: with several, threads of a program stay on the cores where they were started.
        """
        if not held.cores:
            return []
        return sorted(self.allowed() if len(held.cores) == 1 else held.cores)

    @abstractmethod
    def delivered(self, runner: Runner, files: Files, progress: Progress) -> dict[str, str]:
        """Name of a program -> its file on the runner's machine; missing files are sent there.

        Raises:
            MachineError: the machine cannot keep them.
            Lost, Died: the runner ended.
        """

    def time(
        self,
        programs: Mapping[str, Program | Path],
        recipe: Recipe,
        protocol: Protocol,
        *,
        reference: str | None = None,
        journal: Journal | None = None,
        feeds: Feeds | None = None,
        what: str = "timing",
        progress: Progress = silent,
    ) -> Measurement:
        """As `hwnas.timing.time_programs`, in a runner.

        Raises:
            ProgramCrashed: programs ended the runner's process, whose message says how; the others were timed.
            MachineError: the machine cannot be reached or used.
        """
        require_measured(recipe)
        held = self.chosen(recipe)
        with as_files(programs) as files:

            def connect() -> tuple[Runner, Timing]:
                runner = self.connect(recipe)
                try:
                    paths = self.delivered(runner, files, progress)
                except BaseException:
                    runner.close()
                    raise
                return runner, Timing(
                    programs=paths,
                    settings=self.settings(recipe),
                    cores=held.cores,
                    open_on=self.open_on(held),
                    what=recipe.name,
                    feeds=feeds,
                )

            with contextlib.closing(RunnerSampler(connect, beside=self.beside)) as sampler:
                return take(
                    list(programs),
                    sampler,
                    protocol,
                    reference=reference,
                    journal=journal,
                    held=held,
                    what=what,
                    progress=progress,
                )

    def run(self, program: Path, recipe: Recipe, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """As `Machine.run`."""
        held = self.chosen(recipe)
        try:
            with self.connect(recipe) as runner:
                [path] = self.delivered(runner, {program.name: program}, silent).values()
                answer, out = runner.ask(
                    "run",
                    np.ascontiguousarray(inputs).tobytes(),
                    program=program.name,
                    path=path,
                    settings=dict(self.settings(recipe)),
                    cores=list(held.cores),
                    shape=list(inputs.shape),
                    dtype=str(inputs.dtype),
                )
        except (Lost, Died) as error:
            raise self.ended(error, program.name) from error
        with understood(self.name):
            return np.frombuffer(out, np.float32).reshape((len(inputs), *answer["shape"][1:]))

    def run_feeds(self, program: Path, recipe: Recipe, feeds: Sequence[Feeds]) -> list[Feeds]:
        """As `Machine.run_feeds`, in a runner."""
        with self._asking(recipe, {program.name: program}) as ask:
            answers = [ask("feeds", program.name, each) for each in feeds]
        with understood(self.name):
            return [unpacked(answer["arrays"], out) for answer, out in answers]

    def layers(
        self, programs: Mapping[str, Path], recipe: Recipe, feeds: Feeds | None = None, *, runs: int
    ) -> dict[str, LayerRuns]:
        """As `Machine.layers`, in one runner for all programs."""
        with self._asking(recipe, programs) as ask:
            answers = {name: ask("layers", name, feeds or {}, runs=runs)[0] for name in programs}
        with understood(self.name):
            return {name: _layer_runs(answer) for name, answer in answers.items()}

    @contextmanager
    def _asking(self, recipe: Recipe, programs: Mapping[str, Path]) -> Iterator[Ask]:
        """A runner that does something with programs and named inputs: its answer is a message and bytes."""
        if recipe.facts.runner is None:
            raise RuntimeUnavailable(
                f"{recipe.name} has the runtime {recipe.runtime}, whose programs take one image and have no times of "
                "layers. Choose a recipe of onnxruntime or openvino on the CPU"
            )
        held, asked = self.chosen(recipe), ""
        try:
            with self.connect(recipe) as runner:
                paths = self.delivered(runner, programs, silent)

                def ask(do: str, name: str, feeds: Feeds, runs: int = 1) -> tuple[dict[str, Any], bytes]:
                    nonlocal asked
                    asked = name
                    facts, data = packed(feeds)
                    return runner.ask(
                        do,
                        data,
                        program=name,
                        path=paths[name],
                        settings=dict(self.settings(recipe)),
                        cores=list(held.cores),
                        feeds=facts,
                        runs=runs,
                        timeout_s=_RUN_S,
                    )

                yield ask
        except (Lost, Died) as error:
            raise self.ended(error, asked) from error


def _layer_runs(answer: Mapping[str, Any]) -> LayerRuns:
    layers, whole_ms = [_layer(one) for one in answer["layers"]], answer["whole_ms"]
    return LayerRuns(layers, whole_ms if whole_ms is None else _possible(whole_ms, "the program"))


def _layer(one: Mapping[str, Any]) -> Layer:
    found = Layer(**{**one, "inputs": _tuples(one["inputs"]), "outputs": _tuples(one["outputs"])})
    _possible(found.ms, "a layer")
    return found


def _possible(ms: float, what: str) -> float:
    if not 0 <= ms < LONGEST_MS:
        raise ValueError(f"{what} takes {ms} ms")
    return ms


def _tuples(shapes: Iterable[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, shapes))


def driven_settings(recipe: Recipe) -> dict[str, Any] | None:
    """How the runner's own class loads a recipe's programs; None if its runtime has none.

    Raises:
        SpecError: the recipe has an option that the runtime does not know.
    """
    if recipe.facts.runner is None:
        return None
    return {
        "class": recipe.facts.runner,
        "threads": recipe.threads,
        "precision": recipe.precision,
        "options": dict(recipe.options),
        "batch": recipe.batch,
    }


@contextmanager
def as_files(programs: Mapping[str, Program | Path]) -> Iterator[Files]:
    """Programs as files: those in memory are written into a temporary folder."""
    from hwnas.runtimes.driven import source_of  # imports onnx

    found = {name: program for name, program in programs.items() if isinstance(program, Path)}
    with temporary_folder("timing") as folder:
        for name, program in programs.items():
            if isinstance(program, Path):
                continue
            data = source_of(program)
            assert isinstance(data, bytes)
            found[name] = folder / f"{hashlib.sha256(data).hexdigest()}.onnx"
            if not found[name].exists():
                write_whole(found[name], data)
        yield {name: found[name] for name in programs}
