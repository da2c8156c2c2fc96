from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from hwnas.errors import InvalidValue, OutputError
from hwnas.files import system_refusals, temporary_folder, write_whole


def test_writes_text_and_bytes_and_creates_folders(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "c.txt", "Grüße\n")
    write_whole(tmp_path / "a" / "b" / "c.bin", b"\x00\xff")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "Grüße\n".encode()
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"\x00\xff"
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["c.bin", "c.txt"]


def test_replaces_the_old_file_and_keeps_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_whole(path, "old")
    write_whole(path, "new")
    (tmp_path / "plain").write_text("")
    assert path.read_text() == "new"
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"cannot write {tmp_path}: it is a folder; name a file"):
        write_whole(tmp_path, "x")


@pytest.mark.parametrize("below", ["out.txt", "deep/er/out.txt"])
def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match=f"{tmp_path / 'file'} is a file, not a folder"):
        write_whole(tmp_path / "file" / below, "x")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("below", ["out.txt", "deep/er/out.txt"])
def test_a_closed_folder_is_refused(tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    if os.geteuid() == 0:  # root may write everywhere: let the system calls say what they say to others

        def deny(*args: object, **kwargs: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", deny)
    else:
        closed.chmod(0o500)
    with pytest.raises(OutputError, match=f"the folder {closed} is not writable; choose another one"):
        write_whole(closed / below, "x")


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "x", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full; nothing was changed; free some space"):
        write_whole(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_ctrl_c_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "x", "new")
    assert list(tmp_path.iterdir()) == []


def test_any_other_reason_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long; nothing was changed"):
        write_whole(tmp_path / ("x" * 300), "x")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EFBIG])
def test_temporary_files_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        pytest.raises(OutputError, match=r"temporary files of a test .*x: .*Set TMPDIR to a writable folder") as caught,
        temporary_folder("a test") as folder,
    ):
        raise OSError(code, os.strerror(code), str(folder / "x"))
    assert os.strerror(code) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/hwnas", None])
def test_no_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch, place: str | None) -> None:
    def nowhere() -> list[str]:
        return ["/proc/hwnas"]

    monkeypatch.setattr(tempfile, "tempdir", place)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", nowhere)
    with pytest.raises(OutputError, match=r"temporary files of a test.*[Ss]et TMPDIR"), temporary_folder("a test"):
        pass


def test_errors_of_hwnas_pass_through_a_temporary_folder() -> None:
    with pytest.raises(InvalidValue, match="mine"), temporary_folder("a test") as folder:
        (folder / "x").mkdir()
        raise InvalidValue("mine")
    assert not folder.exists()


def test_a_library_that_wraps_what_the_system_refuses() -> None:
    def library(number: int) -> None:
        try:
            raise OSError(number, os.strerror(number), "/tmp/graph")
        except OSError as error:
            raise RuntimeError("Modify the model code to succeed") from error

    with (
        pytest.raises(OutputError, match="an export fails: /tmp/graph: No space left on device; free some space"),
        system_refusals("an export"),
    ):
        library(errno.ENOSPC)
    with pytest.raises(RuntimeError, match="Modify the model"), system_refusals("an export"):
        library(errno.ENOENT)  # a mistake of the library
    with pytest.raises(InvalidValue, match="mine"), system_refusals("an export"):
        raise InvalidValue("mine") from OSError(errno.ENOSPC, "full")
