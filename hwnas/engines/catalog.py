"""The engines by name."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import PositiveInt

from hwnas.affinity import allowed_cores
from hwnas.engines.base import SERIAL, Engine
from hwnas.errors import InvalidValue
from hwnas.files import Spec
from hwnas.plugins import Registry


class EngineConfig(Spec):
    """``[engine]``: where evaluations and the trainings of studies run. Results do not depend on it.

    Attributes:
        name: serial, in this process; pool, in processes of this host; ray, on a Ray cluster.
        workers: number of items that run at the same time.
        address: of a Ray cluster, HOST:PORT; without one, Ray is started on this host.
    """

    name: str = "serial"
    workers: PositiveInt | None = None
    address: str | None = None


def _serial(config: EngineConfig, gpu: bool) -> Engine:
    if config.workers not in (None, 1):
        raise InvalidValue(f"the engine serial has 1 worker, not {config.workers}; use the engine pool")
    _check_no_address(config)
    return SERIAL


def _pool(config: EngineConfig, gpu: bool) -> Engine:
    from hwnas.engines.pool import LocalWorker
    from hwnas.engines.workers import Workers, environment, threads

    _check_no_address(config)
    return Workers(
        lambda closed: LocalWorker(environment()),
        lambda: config.workers or max(2, len(allowed_cores()) // threads()),
    )


def _ray(config: EngineConfig, gpu: bool) -> Engine:
    from hwnas.engines.ray import Cluster, RayWorker, places
    from hwnas.engines.workers import Workers

    cluster = Cluster(config.address)
    return Workers(
        lambda closed: RayWorker(closed, gpu=gpu),
        lambda: config.workers or places(gpu=gpu),
        begin=cluster.connect,
        finish=cluster.disconnect,
    )


ENGINES: dict[str, Callable[[EngineConfig, bool], Engine]] = {"serial": _serial, "pool": _pool, "ray": _ray}
_KNOWN = Registry(
    "engine",
    "hwnas.engines",
    ENGINES,
    fits=callable,
    needs="a function (hwnas.engines.EngineConfig, gpu: bool) -> hwnas.engines.Engine",
)


def engine_names() -> list[str]:
    """Names of the engines: those of hwnas, then those of plugins."""
    return _KNOWN.names()


def open_engine(config: EngineConfig | None = None, *, gpu: bool = False) -> Engine:
    """An engine; its workers start when they are needed.

    Args:
        config: name and number of workers; this process if None.
        gpu: whether each worker needs a GPU.

    Raises:
        UnknownName: there is no such engine.
        InvalidValue: the engine does not take such an option.
        EngineError: it cannot run here.
    """
    config = config or EngineConfig()
    return _KNOWN[config.name](config, gpu)


def _check_no_address(config: EngineConfig) -> None:
    if config.address is not None:
        raise InvalidValue(f"the engine {config.name} takes no address ({config.address}); use the engine ray")
