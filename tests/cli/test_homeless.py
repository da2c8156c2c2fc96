"""A user without a home: HOME is not set or closed, and the password file has no entry (containers with `--user`)."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from hwnas.errors import InvalidValue, OutputError
from hwnas.targets import catalog, home, resolve_target, table_path, writable_home

pwd = pytest.importorskip("pwd", reason="the password file of POSIX systems")

READ_ONLY = [
    ["--help"],
    ["devices", "list"],
    ["devices", "show", "this"],
    ["devices", "check", "this"],
    ["devices", "detect"],
    ["tables", "list"],
    ["tables", "show", "amd-epyc-f25m17-2c/onnxruntime-cpu-fp32"],
]
WRITING = [
    ["devices", "detect", "--save"],
    ["profile", "--space", "mobilenetv3-tiny", "--target", "this/onnxruntime-cpu-fp32"],
]


@pytest.fixture
def homeless(hwnas_cli, monkeypatch):
    """`hwnas` for a user who has no home."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HWNAS_HOME", "HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    return hwnas_cli


@pytest.mark.parametrize("words", READ_ONLY, ids=" ".join)
def test_what_only_reads_works_without_a_home(homeless, words):
    ran = homeless(*words)
    assert (ran.code, "error" in ran.err) == (0, False), ran.err


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_what_writes_names_the_variable(homeless, words, tmp_path):
    ran = homeless(*words)
    assert ran.code == 2
    assert "Set HWNAS_HOME to a writable folder" in ran.err
    # The fixture made one folder; there is none that is called "~" either.
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_older_platformdirs_leave_the_tilde(homeless, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda *_, **__: "~/.local/share/hwnas")
    with pytest.raises(OutputError, match="HWNAS_HOME"):
        home()


def test_a_tilde_that_stands_for_nothing(homeless, monkeypatch):
    monkeypatch.setenv("HWNAS_HOME", "~/mine")
    with pytest.raises(InvalidValue, match="HWNAS_HOME is '~/mine'"):
        home()


def test_what_is_shipped_is_found_beside_a_closed_home(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "closed" / "hwnas"))
    usual, access = Path.glob, os.access

    def closed(path, pattern):
        if path.is_relative_to(tmp_path):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path, pattern)

    monkeypatch.setattr(Path, "glob", closed)
    assert "amd-epyc-f25m17-2c" in catalog.devices()
    assert table_path(resolve_target("amd-epyc-f25m17-2c/onnxruntime-cpu-fp32"))
    assert "cannot be read: Permission denied" in caplog.text
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK and access(path, mode))
    with pytest.raises(OutputError, match=r"Set HWNAS_HOME to a writable folder"):
        writable_home()
