"""A study whose trainings run on the workers of an engine, several at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from hwnas.engines import SERIAL, Engine
from hwnas.progress import Progress, never, silent
from hwnas.search.solver import Found

_POLL_S = 0.2


def search_together(
    search: Callable[..., Found],
    engine: Engine,
    *,
    progress: Progress = silent,
    stop: Callable[[], bool] = never,
) -> Found:
    """`search_study` with as many trainings at the same time as an engine has workers.

    Each worker has a thread here, which is a worker of the study: it proposes a network, waits for its epochs, and
    writes the storage of the study, which decides what is done.

    Args:
        search: `search_study` with its arguments but the following two; the storage must not be None.
        engine: where it trains.
        progress: callback, invoked after every network.
        stop: polled regularly; when it returns True, the trainings are ended, and the best so far are returned.

    Raises:
        UnknownName, InvalidValue, InfeasibleBudget, OutputError, TableError: as in `search_study`.
        EngineError: the engine cannot run here, or an epoch ended three of its workers.
    """
    if engine is SERIAL:
        return search(progress=progress, stop=stop)
    halted, lock, most = threading.Event(), threading.Lock(), 0

    def told(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        nonlocal most
        with lock:
            most = max(most, done)  # another thread may have counted more
            progress(what, most, total, unit=unit, note=note)

    def stopped() -> bool:
        return halted.is_set() or stop()

    with ThreadPoolExecutor(engine.workers) as threads:
        workers = [threads.submit(search, progress=told, stop=stopped) for _ in range(engine.workers)]
        waiting = {*workers}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()  # raises its error
                if stop():
                    engine.close()
        finally:
            halted.set()
            while wait(workers, timeout=_POLL_S if waiting else None).not_done:
                engine.close()
    # The last one to end has seen what all of them trained.
    return max((one.result() for one in workers), key=lambda found: found.evaluations)
