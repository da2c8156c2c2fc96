"""The runner's loop: requests in, answers out.

Each request is a JSON object with ``do``; each gets any number of events and then one answer with ``done`` or ``error``.
Programs are files; no request contains code.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import os
import platform
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from hwnas.runner.frames import Frames, Message
from hwnas.runner.lock import Locked, hold
from hwnas.runner.memory import BadLimit
from hwnas.runner.opened import DoesNotFit, NoThreads, Opened
from hwnas.runner.program import CannotLoad, RunnerProgram, Timed
from hwnas.runner.visits import no_garbage_collection, visit

_ERRORS: Dict[type, str] = {
    DoesNotFit: "OutOfMemory",
    NoThreads: "RuntimeUnavailable",
    BadLimit: "InvalidValue",
    CannotLoad: "BundleError",
    Locked: "MachineError",
}
_LONGEST = 2**20  # bytes of a file of a snapshot


class Server:
    """Answers requests until the pipe ends.

    Args:
        frames: where they come from.
        cache: folder for programs, created when the first one comes.
        loader: module or object with the functions `load` and `in_threads`; this module if None.
    """

    def __init__(self, frames: Frames, cache: str, loader: Any = None) -> None:
        self._frames, self._cache, self._loader = frames, cache, loader or sys.modules[__name__]
        self._opened: Optional[Opened] = None
        self._calls: Dict[str, Callable[[], float]] = {}
        self._sending = threading.Lock()
        self._collected = False

    def serve(self) -> None:
        """Answer requests until the pipe ends."""
        while True:
            received = self._frames.receive()
            if received is None:
                return
            request, data = received
            try:
                answer, out = getattr(self, "do_" + str(request["do"]))(request, data) or ({}, b"")
                self._frames.send({"done": True, **answer}, out)
            except BrokenPipeError:
                return  # the driver has ended
            except Exception as error:  # every failure is an answer: the driver says it in words
                kind = _ERRORS.get(type(error)) or type(error).__name__
                self._frames.send({"error": kind, "message": str(error), "errno": getattr(error, "errno", None)})

    def do_facts(self, request: Message, data: bytes) -> Tuple[Message, bytes]:
        """Python, system and cores, and the versions of `packages`."""
        return {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "architecture": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "processor": platform.processor(),
            "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
            "cpu_count": os.cpu_count() or 1,
            "pages": _pages(),
            "user": os.environ.get("USER") or str(getattr(os, "getuid", lambda: "")()),
        }, b""

    def do_snapshot(self, request: Message, data: bytes) -> Tuple[Message, bytes]:
        """The files below ``/`` that match `patterns`: their names and sizes, and their contents."""
        names, contents = [], []
        for pattern in request["patterns"]:
            for path in sorted(glob.glob("/" + pattern)):
                try:
                    with open(path, "rb") as file:
                        content = file.read(_LONGEST)
                except OSError:  # masked in containers; EIO and ENODEV of some drivers
                    continue
                names.append([path[1:], len(content)])
                contents.append(content)
        return {"files": names}, b"".join(contents)

    def do_runtime(self, request: Message, data: bytes) -> Tuple[Message, bytes]:
        """The runtime's version, and why it cannot compute in a precision here."""
        found = _class(request["class"])
        return {"version": found.version(), "missing": found.missing(request["precision"])}, b""

    def do_have(self, request: Message, data: bytes) -> Tuple[Message, bytes]:
        """The files of those programs (by hash) that are in the cache."""
        found = {name: self._path(name) for name in request["programs"] if os.path.exists(self._path(name))}
        for path in found.values():
            os.utime(path)
        return {"paths": found}, b""

    def do_put(self, request: Message, data: bytes) -> Tuple[Message, bytes]:
        """Keep a program; its hash must be that of its bytes."""
        name = request["program"]
        if hashlib.sha256(data).hexdigest() != name.split(".", 1)[0]:
            raise CannotLoad(f"program {name} was changed on its way")
        path = self._path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = f"{path}.{os.getpid()}"
        try:
            with open(part, "wb") as file:
                file.write(data)
            os.replace(part, path)
        except OSError:
            if os.path.exists(part):
                os.unlink(part)
            raise
        return {"path": path}, b""

    def do_lock(self, request: Message, data: bytes) -> None:
        """Keep others from timing on this machine until the runner ends."""
        hold(self._cache, request["who"])

    def do_begin(self, request: Message, data: bytes) -> None:
        """Pin the process, and take the programs to be opened: name -> file, and how to load them."""
        self.do_end(request, data)
        if request["cores"]:
            os.sched_setaffinity(0, request["cores"])
        paths = dict(request["programs"])

        def load(name: str) -> Timed:
            self._event({"opening": name})
            program = self._loader.load(paths[name], request["settings"])
            self._event({"opened": name})
            return program

        self._opened = Opened(
            list(paths),
            load,
            cores=request["open_on"],
            in_threads=lambda: not request["one_by_one"] and self._loader.in_threads(request["settings"]),
            what=request["what"],
        )

    def do_open(self, request: Message, data: bytes) -> Tuple[Message, bytes]:
        """Reopen the first of `names`, as many as fit into memory."""
        assert self._opened is not None
        self._calls = {}  # it references the programs
        self._calls = self._opened.anew(request["names"], np.random.default_rng(request["seed"]))
        return {"names": list(self._calls)}, b""

    def do_visits(self, request: Message, data: bytes) -> None:
        """Visit open programs as planned; an event for the visits of every `batch_s` seconds.

        With `wait`, the runner waits after each event until the driver has handled it: on the same machine, its work
        would disturb what is timed.
        """
        collect, self._collected = not self._collected, True
        batch: List[List[Any]] = []
        sent = time.monotonic()
        with no_garbage_collection(collect=collect):
            for key, name in request["plan"]:
                batch.append([key, visit(self._calls[name], *request["visit"])])
                if time.monotonic() - sent >= request["batch_s"]:
                    self._event({"visits": batch}, wait=request["wait"])
                    batch, sent = [], time.monotonic()
        if batch:
            self._event({"visits": batch}, wait=request["wait"])

    def do_end(self, request: Message, data: bytes) -> None:
        """Close all programs."""
        self._calls = {}
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.__exit__(None, None, None)

    def do_run(self, request: Message, data: bytes) -> Tuple[Message, bytes]:
        """Run a program on one input after the other: float32 or uint8 in, float32 out."""
        if request["cores"]:
            os.sched_setaffinity(0, request["cores"])
        self._event({"opening": request["program"]})
        program = self._loader.load(request["path"], request["settings"])
        x = np.frombuffer(data, request["dtype"]).reshape(request["shape"])
        if x.shape[1:] != tuple(program.shape) or x.dtype != program.dtype:
            raise CannotLoad(f"the program takes {program.dtype} {tuple(program.shape)}, not {x.dtype} {x.shape[1:]}")
        runs = getattr(program, "run")
        outputs = [np.ascontiguousarray(runs(np.array(each)), np.float32) for each in x]
        program.close()
        return {"shape": [len(outputs), *outputs[0].shape]}, b"".join(y.tobytes() for y in outputs)

    def _event(self, event: Message, wait: bool = False) -> None:
        with self._sending:
            self._frames.send(event)
            if wait and self._frames.receive() is None:
                sys.exit(0)  # the driver has ended

    def _path(self, name: str) -> str:
        digest, _, suffix = name.partition(".")
        if not (digest.isalnum() and suffix.isalnum()):
            raise CannotLoad(f"{name!r} does not name a program")
        return os.path.join(self._cache, "programs", name)


def load(path: str, settings: Message) -> Timed:
    """Load a program's file in the runtime that the settings name."""
    return _class(settings["class"])(
        path, threads=settings["threads"], precision=settings["precision"], options=settings["options"]
    )


def in_threads(settings: Message) -> bool:
    """Whether loading several programs at once is safe and faster."""
    return _class(settings["class"]).opens_in_threads


def _class(name: str) -> "type[RunnerProgram]":
    """The class that drives a runtime: ``module:name``, of this package."""
    module, _, attribute = name.partition(":")
    if not module.startswith("hwnas.runner."):
        raise CannotLoad(f"{name!r} is not part of the runner")
    found = getattr(importlib.import_module(module), attribute)
    assert issubclass(found, RunnerProgram)
    return found


def _pages() -> Optional[List[int]]:
    try:
        return [os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")]
    except (OSError, ValueError, AttributeError):
        return None
