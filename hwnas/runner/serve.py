"""The runner's loop: requests in, answers out.

Each request is a JSON object with ``do``; it gets any number of events and then one answer with ``done`` or ``error``.
Programs are files; no request contains code.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from hwnas.runner.frames import Frames, Message
from hwnas.runner.lock import Locked, hold
from hwnas.runner.memory import BadLimit
from hwnas.runner.opened import DoesNotFit, NoThreads, Opened
from hwnas.runner.program import CannotLoad, RunnerProgram, Timed
from hwnas.runner.signature import BadFeeds, Feeds, packed, unpacked
from hwnas.runner.visits import no_garbage_collection, visit

_ERRORS: dict[type, str] = {
    DoesNotFit: "OutOfMemory",
    NoThreads: "RuntimeUnavailable",
    BadLimit: "InvalidValue",
    BadFeeds: "RuntimeInputError",
    CannotLoad: "BundleError",
    Locked: "MachineError",
}
Do = Callable[[Message, bytes], "tuple[Message, bytes] | None"]  # a request's method
_LONGEST = 2**20  # bytes of a file of a snapshot


class Loader(Protocol):
    """What loads programs: this module, or one of an environment with hwnas."""

    def load(self, path: str, settings: Message) -> Timed:
        """Load a program's file with the settings of ``begin``."""

    def in_threads(self, settings: Message) -> bool:
        """Whether loading several programs at once is safe and faster."""


class Server:
    """Answers requests until the pipe ends.

    Args:
        frames: where they come from.
        cache: folder for programs, created when the first one comes.
        loader: loads programs; this module if None.
    """

    def __init__(self, frames: Frames, cache: Path, loader: Loader | None = None) -> None:
        self._frames, self._cache = frames, cache
        self._loader = loader or cast("Loader", sys.modules[__name__])
        self._opened: Opened | None = None
        self._held: tuple[list[Any], RunnerProgram] | None = None
        self._calls: dict[str, Callable[[], float]] = {}
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
                do: Do = getattr(self, "do_" + str(request["do"]))
                answered = do(request, data)
                answer, out = answered if answered is not None else ({}, b"")
                self._frames.send({**answer, "done": True}, out)
            except BrokenPipeError:
                return  # the driver has ended
            except Exception as error:  # every failure is an answer: the driver says it in words
                kind = _ERRORS.get(type(error)) or type(error).__name__
                self._frames.send({"error": kind, "message": str(error), "errno": getattr(error, "errno", None)})

    def do_facts(self, request: Message, data: bytes) -> tuple[Message, bytes]:
        """Python, architecture and system, and the cores that this process may run on."""
        return {
            "python": platform.python_version(),
            "architecture": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        }, b""

    def do_snapshot(self, request: Message, data: bytes) -> tuple[Message, bytes]:
        """The files below ``/`` that match `patterns`: their names and sizes, and their contents."""
        names, contents = [], []
        for pattern in request["patterns"]:
            for path in sorted(Path("/").glob(pattern)):
                try:
                    with path.open("rb") as file:
                        content = file.read(_LONGEST)
                except OSError:  # masked in containers; EIO and ENODEV of some drivers
                    continue
                names.append([path.relative_to("/").as_posix(), len(content)])
                contents.append(content)
        return {"files": names}, b"".join(contents)

    def do_runtime(self, request: Message, data: bytes) -> tuple[Message, bytes]:
        """The runtime's version, and why it cannot compute in a precision here."""
        found = _class(request["program"])
        return {"version": found.version(), "missing": found.missing(request["precision"])}, b""

    def do_have(self, request: Message, data: bytes) -> tuple[Message, bytes]:
        """The files of those programs (by hash) that are in the cache."""
        found = {name: self._path(name) for name in request["programs"] if self._path(name).exists()}
        for path in found.values():
            os.utime(path)
        return {"paths": {name: str(path) for name, path in found.items()}}, b""

    def do_put(self, request: Message, data: bytes) -> tuple[Message, bytes]:
        """Keep a program; its hash must be that of its bytes."""
        name = request["program"]
        if hashlib.sha256(data).hexdigest() != name.split(".", 1)[0]:
            raise CannotLoad(f"program {name} was changed on its way")
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            if part.exists():
                part.unlink()
            raise
        return {"path": str(path)}, b""

    def do_lock(self, request: Message, data: bytes) -> None:
        """Keep others from timing on this machine until the runner ends."""
        hold(self._cache, request["who"])

    def do_begin(self, request: Message, data: bytes) -> None:
        """Pin the process, and take the programs to be opened: name -> file, how to load them, and their inputs.

        The inputs are arrays (`hwnas.runner.signature.packed`), their facts in `feeds`; random ones without `feeds`.
        """
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
            feeds=unpacked(request["feeds"], data) if request.get("feeds") else None,
        )

    def do_open(self, request: Message, data: bytes) -> tuple[Message, bytes]:
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
        batch: list[list[Any]] = []
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

    def do_run(self, request: Message, data: bytes) -> tuple[Message, bytes]:
        """Run a program on one input after the other: float32 or uint8 in, float32 out."""
        if request["cores"]:
            os.sched_setaffinity(0, request["cores"])
        self._event({"opening": request["program"]})
        program = cast("RunnerProgram", self._loader.load(request["path"], request["settings"]))
        x = np.frombuffer(data, request["dtype"]).reshape(request["shape"])
        if x.shape[1:] != tuple(program.shape) or x.dtype != program.dtype:
            raise CannotLoad(f"the program takes {program.dtype} {tuple(program.shape)}, not {x.dtype} {x.shape[1:]}")
        try:
            outputs = [np.ascontiguousarray(program.run(np.array(each)), np.float32) for each in x]
        except Exception as error:  # runtimes have no common base class for errors during runs
            raise CannotLoad(f"cannot run {request['program']}: {str(error).strip()[:400]}") from error
        program.close()
        return {"shape": [len(outputs), *outputs[0].shape]}, b"".join(y.tobytes() for y in outputs)

    def do_feeds(self, request: Message, data: bytes) -> tuple[Message, bytes]:
        """Run a program on named inputs: arrays in and out (`hwnas.runner.signature.packed`)."""
        program, feeds = self._loaded(request, data)
        try:
            facts, out = packed(program.run_feeds(feeds))
        except Exception as error:  # runtimes have no common base class for errors during runs
            raise CannotLoad(f"cannot run {request['program']}: {str(error).strip()[:400]}") from error
        return {"arrays": facts}, out

    def do_layers(self, request: Message, data: bytes) -> tuple[Message, bytes]:
        """Times of a program's layers, in milliseconds (`RunnerProgram.layers`)."""
        program, feeds = self._loaded(request, data)
        return asdict(program.layers(feeds, request["runs"])), b""

    def _loaded(self, request: Message, data: bytes) -> tuple[RunnerProgram, Feeds]:
        """The program of a request, and its inputs: random ones if the request has none.

        The program stays open for further requests of the same one.
        """
        if request["cores"]:
            os.sched_setaffinity(0, request["cores"])
        key = [request["path"], request["settings"]]
        if self._held is None or self._held[0] != key:
            self._event({"opening": request["program"]})
            self._held = key, cast("RunnerProgram", self._loader.load(request["path"], request["settings"]))
        program = self._held[1]
        if request.get("feeds"):
            return program, program.signature.checked(unpacked(request["feeds"], data))
        return program, program.signature.noise(np.random.default_rng(0))

    def _event(self, event: Message, wait: bool = False) -> None:
        with self._sending:
            self._frames.send(event)
            if wait and self._frames.receive() is None:
                sys.exit(0)  # the driver has ended

    def _path(self, name: str) -> Path:
        digest, _, suffix = name.partition(".")
        if not (digest.isalnum() and suffix.isalnum()):
            raise CannotLoad(f"{name!r} does not name a program")
        return self._cache / "programs" / name


def load(path: str, settings: Message) -> Timed:
    """Load a program's file in the runtime that the settings name."""
    return _class(settings["class"])(
        path,
        threads=settings["threads"],
        precision=settings["precision"],
        options=settings["options"],
        batch=settings["batch"],
    )


def in_threads(settings: Message) -> bool:
    """Whether loading several programs at once is safe and faster."""
    return _class(settings["class"]).opens_in_threads


def _class(name: str) -> type[RunnerProgram]:
    """The class that drives a runtime: ``module:name``, of this package."""
    module, _, attribute = name.partition(":")
    if not module.startswith("hwnas.runner."):
        raise CannotLoad(f"{name!r} is not part of the runner")
    return cast("type[RunnerProgram]", getattr(importlib.import_module(module), attribute))
