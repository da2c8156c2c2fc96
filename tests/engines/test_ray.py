"""The engine ray, on a cluster of two nodes on this machine."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from engine_work import Noting, Work, all_end, noted

from hwnas.engines import SERIAL, Engine, EngineConfig, open_engine
from hwnas.errors import EngineError, UnknownName
from hwnas.files import Journal
from hwnas.spaces import Arch, Space, make_space
from hwnas.supernet import Supernet, save_supernet
from hwnas.workflows.inputs import evaluator_of

# Without it, Ray replaces 127.0.0.1 in the address of a cluster by another address of this host, where none listens.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'hwnas[ray]'")

pytestmark = pytest.mark.long

SPACE = make_space("mobilenetv3-tiny").fix(resolution=(24, 32))
SUBNETS = 300
IMAGES = 100


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores, and two nodes with one each; they listen on the loopback only, and end with the test."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Workers import the modules of the tests.
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    here = {"node_ip_address": "127.0.0.1", "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={**here, "num_cpus": 0})
    try:
        made.nodes = [made.add_node(num_cpus=1, node_ip_address="127.0.0.1") for _ in range(2)]
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def engine(cluster: Any) -> Iterator[Engine]:
    with open_engine(EngineConfig(name="ray", address=cluster.address)) as engine:
        yield engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supernet that was never trained: nothing here depends on how good it is."""
    place = tmp_path_factory.mktemp("supernet")
    data = {"name": "cluttered-digits", "path": None}
    save_supernet(Supernet(SPACE, seed=1), place, data=data, classes=tuple("0123456789"), training={})
    return place


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Arch], dict[str, float]]:
    """The subnets, and their AUC in this process."""
    archs = distinct(SPACE)
    evaluator, _ = evaluator_of(folder, images=IMAGES, calibration_images=IMAGES, metric="auc", engine=SERIAL)
    with Journal(tmp_path_factory.mktemp("serial") / "j", {}) as journal:
        evaluator.accuracies(archs, journal, what="x")
        return archs, dict(journal.entries)


def distinct(space: Space) -> list[Arch]:
    archs = list(dict.fromkeys(space.decode(space.sample(2 * SUBNETS, seed=4))))[:SUBNETS]
    assert len(archs) == SUBNETS
    return archs


def test_two_nodes_share_the_work(engine: Engine, tmp_path: Path) -> None:
    assert engine.workers == 2
    log = tmp_path / "log"
    found = dict(engine.map(partial(Work, log), Work.slow_square, list(range(20))))
    assert found == {number: number**2 for number in range(20)}
    assert len({pid for pid, _ in noted(log)}) == 2
    with pytest.raises(UnknownName, match="unknown colour 'gren'"):
        list(engine.map(partial(Work, log), Work.wrong, ["user"]))


ALONE = """
import json, os, signal, sys
from functools import partial
from pathlib import Path
from engine_work import Work, listening, noted
from hwnas.engines import EngineConfig, open_engine

log, before = Path(sys.argv[1]), signal.getsignal(signal.SIGTERM)
with open_engine(EngineConfig(name="ray", workers=2)) as engine:
    found = dict(engine.map(partial(Work, log), Work.square, [1, 2, 3]))
    import ray
    started = ray._private.worker._global_node.all_processes.values()
    servers = [info.process.pid for infos in started for info in infos]
    pids = (os.getpid(), *servers, *(pid for pid, _ in noted(log)))
    addresses = {address for pid in pids for address in listening(pid)}
    kept = signal.getsignal(signal.SIGTERM) is before
print(json.dumps([list(found.items()), servers, list(addresses), kept, ray.is_initialized()]))
"""


def test_without_an_address_ray_listens_on_the_loopback_only(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    # Otherwise Ray writes a token into the user's folder.
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    words = [sys.executable, "-c", ALONE, str(tmp_path / "log")]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found, servers, addresses, kept, connected = json.loads(ended.stdout)
    assert dict(found) == {0: 1, 1: 4, 2: 9}
    assert len(servers) >= 2
    assert addresses
    assert set(addresses) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert kept, "the handler of SIGTERM is Ray's"
    assert not connected
    assert all_end(set(servers))


def test_a_killed_worker_costs_the_item_in_hand(engine: Engine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "kills").write_text("2")
    found = dict(engine.map(partial(Work, log), Work.killed_at_3, list(range(8))))
    assert found == {number: number**2 for number in range(8)}
    begun = [text for _, text in noted(log)]
    assert {number: begun.count(str(number)) for number in range(8)} == {n: 3 if n == 3 else 1 for n in range(8)}
    (tmp_path / "kills").write_text("3")
    with pytest.raises(EngineError, match=r"^3 ended its worker 3 times"):
        list(engine.map(partial(Work, log), Work.killed_at_3, [3]))


@pytest.mark.usefixtures("all_test_images")  # workers do not have the smaller test split of the tests
def test_a_node_that_is_killed_costs_the_work_in_hand(
    cluster: Any, engine: Engine, folder: Path, expected: tuple[list[Arch], dict[str, float]], tmp_path: Path
) -> None:
    """The figures are those of this process, bit for bit, and what the journal has is not evaluated again."""
    archs, values = expected
    evaluator, _ = evaluator_of(folder, images=IMAGES, calibration_images=IMAGES, metric="auc", engine=engine)
    assert isinstance(evaluator.again, partial)
    log, killed = tmp_path / "log", list[int]()
    evaluator.again = Noting(evaluator.again, log)  # type: ignore[assignment]

    def progress(what: str, done: int, total: int, **_: str) -> None:
        if done > SUBNETS // 3 and not killed:
            killed.append(len({text for _, text in noted(log)} - {"opened"}))
            cluster.remove_node(cluster.nodes[0], allow_graceful=False)

    with Journal(tmp_path / "j", {}) as journal:
        evaluator.accuracies(archs, journal, what="x", progress=progress)
        assert journal.entries == values
    assert killed
    recorded = Counter(json.loads(line)["key"] for line in (tmp_path / "j").read_text().splitlines()[1:])
    assert len(recorded) == SUBNETS
    assert set(recorded.values()) == {1}
    begun = Counter(text for _, text in noted(log) if text != "opened")
    assert len(begun) == SUBNETS
    assert sum(begun.values()) - SUBNETS <= 16  # one group was in the hand of the killed node
    assert len({pid for pid, _ in noted(log)}) >= 2


def test_what_is_said_of_a_cluster_that_is_not_there() -> None:
    with (
        open_engine(EngineConfig(name="ray", address="127.0.0.1:1")) as engine,
        pytest.raises(EngineError, match=r"cannot connect to the Ray cluster 127\.0\.0\.1:1: .* `ray start --head`"),
    ):
        engine.workers  # noqa: B018
