"""Work on several workers: one thread for each, which waits for its replies.

A worker is anything that answers requests; engines differ only in how they start one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from hwnas.engines.base import Engine, Item, Opened, Result
from hwnas.engines.requests import request, result
from hwnas.errors import EngineError
from hwnas.plugins import CODE, allowed_code

_TRIES = 3  # workers that an item may end; likewise attempts to start a worker


class WorkerLost(Exception):
    """A worker ended, or never started."""


class Worker(Protocol):
    """Answers one request at a time."""

    def call(self, message: bytes) -> bytes:
        """The reply to a request (`hwnas.engines.requests`).

        Raises:
            WorkerLost: the worker ended.
        """

    def end(self) -> None:
        """End the worker at once; a `call` in another thread then raises `WorkerLost`."""


# Starts a worker; waits for a place if there is none, until the event is set.
Start = Callable[[threading.Event], Worker]


def threads() -> int:
    """Number of torch's threads in this process."""
    import torch

    return torch.get_num_threads()


def environment() -> dict[str, str]:
    """Environment variables of workers, which are set before torch is loaded.

    A worker has as many threads as this process: sums of floats, such as the statistics of BN, depend on their number
    in the last digits. Threads of several workers share the cores, so waiting threads must not spin. The number of
    threads of a training does not follow the load (`hwnas.training.threads`), which the other workers cause.
    """
    return {
        "OMP_NUM_THREADS": str(threads()),
        "OMP_WAIT_POLICY": "passive",
        "OMP_DYNAMIC": "false",
        CODE: allowed_code(),
    }


@dataclass(slots=True, kw_only=True)
class _Job:
    """An item under way.

    Attributes:
        message: the request.
        name: of the item.
        done: called once with the reply, or with the error that ended the work on it.
        unwanted: whether nobody waits for the result any more.
        losses: number of workers that it ended.
    """

    message: bytes
    name: str
    done: Callable[[bytes | EngineError], None]
    unwanted: Callable[[], bool]
    losses: int = 0


class Workers(Engine):
    """An engine of several workers, which are started when they are needed.

    Args:
        start: starts one.
        count: returns their number; called after `begin`.
        begin: called when the engine is used; again after `finish`.
        finish: called after all have ended.
    """

    def __init__(
        self,
        start: Start,
        count: Callable[[], int],
        *,
        begin: Callable[[], None] = lambda: None,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self._start, self._count, self._begin, self._finish = start, count, begin, finish
        self._workers: int | None = None
        self._crew: _Crew | None = None
        self._lock = threading.Lock()

    @property
    def workers(self) -> int:
        """As `Engine.workers`.

        Raises:
            EngineError: the engine cannot run here.
        """
        if self._workers is None:
            self._begin()
            self._workers = self._count()
        return self._workers

    def map(
        self,
        source: Callable[[], Opened],
        run: Callable[[Opened, Item], Result],
        items: Sequence[Item],
        *,
        name: Callable[[Item], str] = str,
    ) -> Iterator[tuple[int, Result]]:
        """As `Engine.map`."""
        replies: queue.SimpleQueue[tuple[int, bytes | EngineError]] = queue.SimpleQueue()
        left = threading.Event()

        def job(index: int, item: Item) -> _Job:
            return _Job(
                message=request(source, run, item),
                name=name(item),
                done=lambda reply: replies.put((index, reply)),
                unwanted=left.is_set,
            )

        jobs = [job(index, item) for index, item in enumerate(items)]
        try:
            with self._lock:
                if jobs and self._crew is None:
                    most = self.workers
                    self._begin()
                    self._crew = _Crew(most, self._start)
                crew = self._crew
            for one in jobs:
                assert crew
                crew.put(one)
            for _ in jobs:
                index, reply = replies.get()
                if isinstance(reply, EngineError):
                    raise reply
                yield index, result(reply)
        finally:
            left.set()

    def close(self) -> None:
        """As `Engine.close`."""
        with self._lock:
            crew, self._crew = self._crew, None
        if crew:
            crew.close()
        self._finish()


class _Crew:
    """Workers from the first start to their end."""

    def __init__(self, most: int, start: Start) -> None:
        self._most, self._start = most, start
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._lock = threading.Lock()  # of the following
        self._open = 0  # jobs that are not done
        self._threads: list[threading.Thread] = []
        self._workers: set[Worker] = set()
        self._broken: EngineError | None = None

    def put(self, job: _Job) -> None:
        """Add a job; a thread with a worker is added if all have one."""
        with self._lock:
            self._open += 1
            if len(self._threads) < min(self._most, self._open):
                thread = threading.Thread(target=self._serve, name="engine worker", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._queue(job)

    def close(self) -> None:
        """End all workers and jobs."""
        self._break(EngineError("the work was ended"))
        self._closed.set()
        with self._lock:
            workers, threads = [*self._workers], [*self._threads]
        for worker in workers:
            worker.end()
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        """Work on jobs with one worker at a time, until the end."""
        worker: Worker | None = None
        while not self._closed.is_set():
            if worker is None:
                worker = self._started()
                continue
            job = self._jobs.get()
            if job is None:
                break
            if job.unwanted():
                self._end(job, None)
                continue
            try:
                reply = worker.call(job.message)
            except WorkerLost as lost:
                with self._lock:
                    self._workers.discard(worker)
                worker = None
                self._again(job, lost)
            else:
                self._end(job, reply)

    def _started(self) -> Worker | None:
        """A new worker; None if the workers end."""
        for attempt in range(_TRIES):
            try:
                worker = self._start(self._closed)
            except WorkerLost as lost:
                if attempt == _TRIES - 1:
                    self._break(EngineError(f"a worker cannot start: {lost}"))
                    self._closed.wait()
            except EngineError as error:
                self._break(error)
                self._closed.wait()
            else:
                with self._lock:
                    self._workers.add(worker)
                if self._closed.is_set():  # `close` may not have seen it
                    worker.end()
                return worker
            if self._closed.is_set():
                break
        return None

    def _again(self, job: _Job, lost: WorkerLost) -> None:
        """Give a job to another worker, unless it ended too many."""
        job.losses += 1
        if job.losses < _TRIES:
            self._queue(job)
        else:
            self._end(
                job,
                EngineError(
                    f"{job.name} ended its worker {_TRIES} times; the last time, {lost}. Finished work is kept. Run "
                    "the same command with the engine serial to see why, or with fewer workers if the memory is full"
                ),
            )

    def _queue(self, job: _Job) -> None:
        with self._lock:  # `_break` ends what is in the queue, and nothing enters it afterwards
            broken = self._broken
            if not broken:
                self._jobs.put(job)
        if broken:
            self._end(job, broken)

    def _break(self, error: EngineError) -> None:
        """End all jobs that no worker has in hand, and those to come, with an error."""
        with self._lock:
            if self._broken:
                return
            self._broken = error
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job:
                self._end(job, error)

    def _end(self, job: _Job, reply: bytes | EngineError | None) -> None:
        with self._lock:
            self._open -= 1
        if reply is not None:
            job.done(reply)
