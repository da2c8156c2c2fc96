"""Workers on a Ray cluster: actors that answer requests."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.engines.requests import Server
from hwnas.engines.workers import WorkerLost, environment, threads
from hwnas.errors import EngineError
from hwnas.files import reason_of

log = logging.getLogger(__name__)

_POLL_S = 0.2
_REACHED_S = 10.0
_PATIENCE_S = 30.0  # for a place on the cluster, before a warning
# Read when Ray is imported: servers of a cluster on this host alone listen on the loopback only, and report nothing.
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# The start of an HTTP/2 connection, with an empty SETTINGS frame (RFC 9113, section 3.4); a server sends one, too.
_SETTINGS = 4
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
_PACKAGES = ("hwnas", "torch", "numpy")  # whose versions decide the last digits


class _Actor:
    """What runs in a worker process of Ray.

    Args:
        variables: of the environment; torch, which reads them when it is loaded, is loaded later.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        os.environ.update(variables)
        self._server = Server()

    def enter(self, folder: str, path: Sequence[str], versions: Mapping[str, str]) -> str | None:
        """Work in the folder of the process that sends requests; return why this host cannot.

        Args:
            folder: its current folder.
            path: where it looks for modules; appended to the path here.
            versions: there, of the packages that decide results.
        """
        ours = _versions()
        if differs := [name for name in versions if ours[name] != versions[name]]:
            there, here = (", ".join(f"{name} {of[name]}" for name in differs) for of in (versions, ours))
            return f"it has {here} instead of {there}: results would differ. Install the same versions on all nodes"
        try:
            os.chdir(folder)
        except OSError as error:
            return f"the folder {folder}: {reason_of(error)}. Start in a folder on a drive that all nodes share"
        sys.path += [each for each in path if each not in sys.path]
        return None

    def answer(self, message: bytes) -> bytes:
        """The reply to a request."""
        return self._server.answer(message)


class RayWorker:
    """An actor on a Ray cluster that answers requests.

    Args:
        closed: ends the wait for a place.
        gpu: whether it needs a GPU.

    Raises:
        WorkerLost: it ended before it was ready, or the wait was ended.
        EngineError: its node has other versions, or not the current folder.
    """

    def __init__(self, closed: threading.Event, *, gpu: bool) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            make: Any = ray.remote(_Actor).options(
                num_cpus=1, num_gpus=1 if gpu else 0, scheduling_strategy="SPREAD", max_restarts=0
            )
            self._actor = make.remote(environment())
            found = self._actor.enter.remote(str(Path.cwd()), [*map(str, sys.path)], _versions())
            warn = time.monotonic() + _PATIENCE_S
            while not ray.wait([found], timeout=_POLL_S)[0]:
                if closed.is_set():
                    self.end()
                    raise WorkerLost("it waited for a place on the cluster")
                if time.monotonic() > warn:
                    warn = float("inf")
                    log.warning(
                        "a worker waits for a free core%s of the Ray cluster; the others go on (ray status)",
                        " and a GPU" if gpu else "",
                    )
            refused = ray.get(found)
        except RayError as error:
            raise WorkerLost(_reason(error)) from error
        if refused:
            self.end()
            raise EngineError(f"a node of the Ray cluster cannot work for this host: {refused}")

    def call(self, message: bytes) -> bytes:
        """The reply to a request.

        Raises:
            WorkerLost: the actor or its node ended.
        """
        import ray
        from ray.exceptions import RayError

        try:
            reply: bytes = ray.get(self._actor.answer.remote(message))
        except RayError as error:
            self.end()  # a node that cannot be reached may still work on it
            raise WorkerLost(_reason(error)) from error
        return reply

    def end(self) -> None:
        """Kill the actor."""
        import ray
        from ray.exceptions import RayError

        with contextlib.suppress(RayError, ValueError):  # it has ended already, or the connection has
            ray.kill(self._actor)


class Cluster:
    """The connection of this process to a Ray cluster.

    Args:
        address: of the cluster's first host, HOST:PORT; without one, ``RAY_ADDRESS`` in the environment; without this,
            Ray is started on this host, on the loopback only.

    Raises:
        EngineError: Ray is not installed.
    """

    def __init__(self, address: str | None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise EngineError(
                "the engine ray needs the package ray, which is not installed: pip install 'hwnas[ray]'. The engine "
                "pool uses the cores of this host without it"
            )
        self._address, self._ours = address, False

    def connect(self) -> None:
        """Connect, unless this process is connected.

        Raises:
            EngineError: the cluster cannot be reached.
        """
        address = self._address or os.environ.get("RAY_ADDRESS")
        where: dict[str, Any] = {"address": address}
        if not address:
            os.environ |= _ALONE
            where = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
        with _own_signals():
            import ray

            if ray.is_initialized():
                return
            logging.getLogger("ray").setLevel(logging.ERROR)
            try:
                if address:
                    _knock(address)
                ray.init(**where, configure_logging=False, log_to_driver=False)
            except (RuntimeError, ValueError, OSError) as error:
                raise EngineError(
                    f"cannot connect to the Ray cluster {address or 'on this host'}: {error}. `ray start --head` on "
                    "its first host starts one, and prints its address"
                ) from error
        self._ours = True

    def disconnect(self) -> None:
        """End the connection, and Ray if it was started by `connect`; one that existed before stays."""
        import ray

        if self._ours:
            ray.shutdown()
        self._ours = False


def _knock(address: str) -> None:
    """Connect to an address, HOST:PORT, without Ray, which tries for five minutes; it must speak gRPC, as Ray does.

    Raises:
        OSError: there is no connection, or something else answers.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in host:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED_S) as connection:
            connection.sendall(_HTTP2)
            answer = connection.recv(9)
        if len(answer) < 4 or answer[3] != _SETTINGS:
            raise OSError("something else than Ray listens there")


def places(*, gpu: bool) -> int:
    """Number of workers that a cluster has room for: one per GPU, or with as many threads as this process per node.

    At least one on each node with a core.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpu:
        return max(1, int(sum(node.get("GPU", 0) for node in nodes)))
    return max(1, sum(max(1, int(node["CPU"] // threads())) for node in nodes if node.get("CPU")))


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def _reason(error: Exception) -> str:
    """The first line of Ray's message, which goes on with advice."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the signal handlers of this process: Ray replaces that of SIGTERM when it is imported."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
