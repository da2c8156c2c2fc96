from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hwnas.errors import CheckpointError, OutputError
from hwnas.nn import channels_last
from hwnas.spaces import Domain, Space, make_space
from hwnas.supernet import Supernet, load_supernet, save_supernet
from hwnas.supernet.store import FACTS, WEIGHTS

SPACE = make_space("mobilenetv3-tiny", classes=3).fix(resolution=[24, 28], depth_1=1)
DATA: dict[str, str | int | None] = {"name": "cluttered-digits", "path": None, "seed": 0}


def saved(folder: Path, space: Space = SPACE) -> Supernet:
    supernet = Supernet(space, seed=3)
    with torch.no_grad():
        for name, buffer in supernet.named_buffers():
            if not name.endswith("num_batches_tracked"):
                buffer.uniform_(0.5, 1.5)
    save_supernet(supernet, folder, data=DATA, classes=("a", "b", "c"), training={"steps": 5, "learning_rate": 0.1})
    return supernet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved(tmp_path)
    return tmp_path


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_supernet_comes_back_bit_for_bit(tmp_path: Path) -> None:
    supernet = saved(tmp_path / "new" / "folder")
    loaded, facts = load_supernet(tmp_path / "new" / "folder")
    one, other = supernet.state_dict(), loaded.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not loaded.training
    assert loaded.space.choices == SPACE.choices
    assert facts.domain == Domain.of(SPACE)
    assert facts.data == DATA
    assert facts.classes == ["a", "b", "c"]
    assert facts.training == {"steps": 5, "learning_rate": 0.1}
    x = torch.randn(1, 1, 28, 28)
    assert torch.equal(loaded(x, SPACE.largest), supernet.eval()(x, SPACE.largest))


def test_the_layout_of_the_weights_does_not_matter(tmp_path: Path) -> None:
    supernet = Supernet(make_space("mobilenetv3-tiny", in_channels=3))
    expected = {name: t.clone() for name, t in supernet.state_dict().items()}
    channels_last(supernet)
    save_supernet(supernet, tmp_path, data=DATA, classes=("a", "b"), training={})
    loaded, _ = load_supernet(tmp_path)
    assert all(torch.equal(t, expected[name]) for name, t in loaded.state_dict().items())


@pytest.mark.parametrize("name", [WEIGHTS, FACTS])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: No such file.*hwnas train` with --out"):
        load_supernet(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no supernet"):
        load_supernet(tmp_path / "nothing")


@pytest.mark.parametrize("where", [0, 100, -1])
def test_a_changed_byte(folder: Path, where: int) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[where] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{WEIGHTS} is not the file that {FACTS} describes"):
        load_supernet(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"domain": 1}'])
def test_facts_that_cannot_be_read(folder: Path, text: str) -> None:
    (folder / FACTS).write_text(text)
    with pytest.raises(CheckpointError, match=f"{FACTS} is malformed"):
        load_supernet(folder)


def test_facts_with_a_key_too_many(folder: Path) -> None:
    edit(folder / FACTS, colour="red")
    with pytest.raises(CheckpointError, match=f"(?s){FACTS} is malformed.*colour"):
        load_supernet(folder)


@pytest.mark.parametrize(
    "change", [{"classes": 4}, {"space": "mobilenetv3"}, {"space": "none"}, {"choices": {"depth_1": [2, 3]}}]
)
def test_facts_of_other_weights(folder: Path, change: dict[str, object]) -> None:
    edit(folder / FACTS, domain=Domain.of(SPACE).model_dump() | change)
    with pytest.raises(CheckpointError, match=f"does not fit the domain in {FACTS}"):
        load_supernet(folder)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        saved(tmp_path / "file")
