from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from hwnas.errors import OutputError
from hwnas.files import Journal


def filled(path: Path, *keys: str) -> None:
    with Journal(path, {"work": 1}) as journal:
        for i, key in enumerate(keys):
            journal.record(key, [i, 0.1 * i])


def test_entries_survive_reopening_in_their_exact_values(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "j.jsonl"
    values = {"0 a b": [0.1 + 0.2, 1e-300], "Grüße\n\u2028": {"x": None, "y": [True, "text"]}, "n": 3}
    with Journal(path, {"work": (1, 2), "of": "us"}) as journal:
        assert journal.entries == {}
        for key, value in values.items():
            journal.record(key, value)
            assert journal.entries[key] == value
    with Journal(path, {"of": "us", "work": [1, 2]}) as journal:
        assert journal.entries == values
        journal.record("later", 1)
    with Journal(path, {"work": [1, 2], "of": "us"}) as journal:
        assert journal.entries == {**values, "later": 1}


def test_each_record_is_on_disk_before_the_next_begins(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, {"work": 1}) as journal:
        journal.record("a", 1)
        assert json.loads(path.read_bytes().splitlines()[-1]) == {"key": "a", "value": 1}


def test_cut_at_every_byte_a_journal_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "j"
    filled(path, "a", "b", "c")
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = whole[: whole[:cut].rfind(b"\n") + 1] if cut >= header else whole[:header]
        with Journal(path, {"work": 1}) as journal:
            assert list(journal.entries) == ["a", "b", "c"][: kept.count(b"\n") - 1]
            assert path.read_bytes() == kept
            journal.record("d", 4)
        with Journal(path, {"work": 1}) as journal:
            assert list(journal.entries)[-1] == "d"
    assert [p.name for p in tmp_path.iterdir()] == ["j"]


@pytest.mark.parametrize("other", [{"work": 2}, {}, {"work": 1, "more": 1}, {"work": "1"}])
def test_other_work_begins_anew(tmp_path: Path, other: dict[str, object]) -> None:
    path = tmp_path / "j"
    filled(path, "a", "b")
    with Journal(path, other) as journal:
        assert journal.entries == {}
        journal.record("z", 0)
    with Journal(path, other) as journal:
        assert journal.entries == {"z": 0}
    with Journal(path, {"work": 1}) as journal:
        assert journal.entries == {}


def test_somebody_elses_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"\xff\x00 no journal")
    with Journal(path, {"work": 1}) as journal:
        assert journal.entries == {}


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match=r"cannot write the journal .*file/j"):
        Journal(tmp_path / "file" / "j", {})
    assert (tmp_path / "file").read_text() == "kept"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"cannot write the journal .*folder: Is a directory"):
        Journal(tmp_path / "folder", {})
    closed = tmp_path / "closed"
    closed.mkdir()
    if os.geteuid() == 0:  # root may write everywhere: let the system call say what it says to others

        def deny(*args: object, **kwargs: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "open", deny)
    else:
        closed.chmod(0o500)
    with pytest.raises(OutputError, match="closed"):
        Journal(closed / "j", {})


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_disk_that_fills_keeps_what_was_recorded(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "j"
    filled(path, "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        # Leaving the `with` closes the file, which must not replace the message by a second failure.
        with (
            pytest.raises(OutputError, match="what was recorded so far is kept, run the same command again"),
            Journal(path, {"work": 1}) as journal,
        ):
            journal.record("b", "too long for the disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Journal(path, {"work": 1}) as journal:
        assert journal.entries == {"a": [0, 0.0]}
        journal.record("b", 1)
    with Journal(path, {"work": 1}) as journal:
        assert journal.entries == {"a": [0, 0.0], "b": 1}


def test_a_damaged_line_ends_the_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl", {"of": "this"}) as journal:
        for i in range(3):
            journal.record(f"k{i}", i)
    lines = (tmp_path / "j.jsonl").read_bytes().splitlines(keepends=True)
    for damage in (b"not json\n", b'{"key": 1}\n', b"[]\n"):
        (tmp_path / "j.jsonl").write_bytes(b"".join([*lines[:2], damage, *lines[3:]]))
        with Journal(tmp_path / "j.jsonl", {"of": "this"}) as journal:
            assert journal.entries == {"k0": 0}
            journal.record("k1", 1)
        with Journal(tmp_path / "j.jsonl", {"of": "this"}) as journal:
            assert journal.entries == {"k0": 0, "k1": 1}
