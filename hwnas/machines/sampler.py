"""Samples of programs that a runner times."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.errors import MachineError, ProgramCrashed
from hwnas.machines.runner import Died, Lost, Runner, understood
from hwnas.runner.frames import Message
from hwnas.runner.signature import Feeds, packed
from hwnas.timing.protocol import Protocol
from hwnas.timing.sampler import Sampler

log = logging.getLogger(__name__)

_OPEN_S = 900.0  # longest time to open one program: TensorRT compiles for minutes
_VISIT_S = 300.0  # longest time of one visit
_BATCH_S = 0.1  # seconds of visits in one message: to write and read it takes less than a thousandth of that
_MOST_FAILURES = 4  # in a row, without a visit between them
_PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)  # before a lost connection is tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What a runner has to know to time programs.

    Attributes:
        programs: name -> the file on the runner's machine.
        settings: how they are loaded (`hwnas.runner.serve.load`, `hwnas.machines.child.load`).
        cores: cores of the timing; empty if they cannot be chosen.
        open_on: cores on which programs may be opened.
        what: of the programs, for messages.
        feeds: name of an input -> array, for every program; random inputs if None.
    """

    programs: Mapping[str, str]
    settings: Mapping[str, Any]
    cores: Sequence[int]
    open_on: Sequence[int]
    what: str
    feeds: Feeds | None = None


class RunnerSampler(Sampler):
    """Samples from a runner, which is started again if it ends.

    A runner that ends from outside costs the visits in hand. One that ends because of a program is started again, and
    programs are then opened and visited one at a time; if it ends again, the program in hand is reported
    (`ProgramCrashed`), and the next call goes on without it.

    Args:
        connect: starts a runner and returns it with what to time.
        beside: whether the runner is on this machine. It then waits while its samples are recorded.
        pauses_s: before each further attempt to connect, in seconds.
    """

    def __init__(
        self,
        connect: Callable[[], tuple[Runner, Timing]],
        *,
        beside: bool,
        pauses_s: Sequence[float] = _PAUSES_S,
    ) -> None:
        self._connect, self._beside, self._pauses_s = connect, beside, pauses_s
        self._runner: Runner | None = None
        self._seed = (0, 0)
        self._careful = False  # one program at a time, so that the next end tells which
        self._failures = 0
        self._was_connected = False

    def reopen(self, names: Sequence[str], seed: tuple[int, int]) -> Collection[str]:
        """As `Sampler.reopen`.

        Raises:
            MachineError: the machine cannot be reached again.
        """
        self._seed = seed
        while True:
            opening: list[str] = []

            def event(message: Message, opening: list[str] = opening) -> None:
                if "opening" in message:
                    opening.append(str(message["opening"]))
                if message.get("opened") in opening:
                    opening.remove(str(message["opened"]))

            try:
                answer, _ = self._ready().ask(
                    "open", names=list(names), seed=list(seed), timeout_s=_OPEN_S, event=event
                )
            except (Lost, Died) as error:
                self._failed(error, "opening", opening)
            else:
                with understood("the runner"):
                    found = [str(name) for name in answer["names"]]
                if not found or set(found) - set(names):
                    raise MachineError(f"the runner opened {len(found)} programs, not those that it was asked for")
                return found

    def visits(self, plan: Sequence[tuple[str, str]], protocol: Protocol) -> Iterator[tuple[str, list[float]]]:
        """As `Sampler.visits`.

        Raises:
            MachineError: the machine cannot be reached again.
        """
        left = list(plan)
        opened = {name for _, name in plan}
        try:
            while left:
                if self._runner is None:
                    opened = set(self.reopen(list(dict.fromkeys(name for _, name in left)), self._seed))
                now = [entry for entry in left if entry[1] in opened]
                try:
                    asked = len(now)
                    for key, samples in self._stream(now, protocol):
                        if not now or key != now[0][0]:
                            raise MachineError(f"the runner answers {key[:100]!r}, a visit that is not due")
                        yield key, samples
                        left.remove(now.pop(0))
                        self._failures = 0
                    if asked and len(now) == asked:
                        self._failed(Lost("it answered without a visit"), "running", [])
                        continue
                except (Lost, Died) as error:
                    self._failed(error, "running", [now[0][1]] if self._careful else [])
                else:
                    if left:  # what did not fit beside the others
                        opened = set(self.reopen(list(dict.fromkeys(name for _, name in left)), self._seed))
        except GeneratorExit:
            self.close()  # it is in the middle of its visits
            raise

    def close(self) -> None:
        """End the runner."""
        runner, self._runner = self._runner, None
        if runner:
            runner.close()

    def _ready(self) -> Runner:
        """The runner; it is started, and told what to time, if there is none."""
        if self._runner:
            return self._runner
        runner, timing = self._connected()
        self._runner = runner
        facts, data = packed(timing.feeds or {})
        runner.ask(
            "begin",
            data,
            feeds=facts,
            programs=dict(timing.programs),
            settings=dict(timing.settings),
            cores=list(timing.cores),
            open_on=list(timing.open_on),
            what=timing.what,
            one_by_one=self._careful,
        )
        return runner

    def _connected(self) -> tuple[Runner, Timing]:
        """Connect; after a first success, errors of the machine may pass, such as a reboot."""
        last: Exception | None = None
        for pause_s in self._pauses_s:
            if pause_s:
                log.warning("the machine does not answer (%s); trying again in %.0f s", last, pause_s)
            time.sleep(pause_s)
            try:
                found = self._connect()
            except (Lost, MachineError) as error:
                if isinstance(error, MachineError) and not self._was_connected:
                    raise
                last = error
            else:
                self._was_connected = True
                return found
        raise MachineError(f"the machine cannot be reached again: {last}. Run the same command later to resume")

    def _stream(self, plan: Sequence[tuple[str, str]], protocol: Protocol) -> Iterator[tuple[str, list[float]]]:
        assert self._runner is not None
        for message, _ in self._runner.stream(
            "visits",
            plan=[list(entry) for entry in plan],
            visit=list(protocol.of_visit),
            batch_s=0.0 if self._careful else _BATCH_S,
            wait=self._beside,
            timeout_s=_VISIT_S,
        ):
            with understood("the runner"):
                visits = [(str(key), [float(ms) for ms in samples]) for key, samples in message.get("visits", ())]
            yield from visits
            if "visits" in message and self._beside:
                self._runner.go_on()

    def _failed(self, error: Exception, doing: str, in_hand: Sequence[str]) -> None:
        """Drop the runner.

        Raises:
            ProgramCrashed: the second end in a row came from the one program in hand.
            MachineError: the runner ended too often.
        """
        self.close()
        self._failures += 1
        if isinstance(error, Died) and self._careful and len(in_hand) == 1:
            self._careful, self._failures = False, 0
            raise ProgramCrashed(f"{doing} {in_hand[0]!r} ended its process twice: {error}", in_hand[0])
        self._careful = self._careful or isinstance(error, Died)
        if self._failures >= _MOST_FAILURES:
            named = f" while {doing} {in_hand[0]!r}" if len(in_hand) == 1 else ""
            raise MachineError(
                f"the process that times programs ended {self._failures} times in a row{named}: {error}. "
                "It may lack memory; close other programs, and run the same command again to resume"
            )
