"""What the system refuses to a verb: a message with what, where and what helps, and no traceback."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.cli import main as module
from hwnas.cli.processes import drop_ranks

REFUSED = [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x"), "/tmp/x: No space left on device; free some space"),
    (OSError(errno.EROFS, os.strerror(errno.EROFS), "/ro/x"), "/ro/x: Read-only file system; choose another folder"),
    (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files; this process may open more after `ulimit"),
    (
        BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
        "the limit of processes and threads is reached: end some",
    ),
    (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), "File too large; the file exceeds the size limit"),
    (OSError(errno.EIO, os.strerror(errno.EIO), "/x"), "/x: Input/output error; the disk is failing"),
    (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "; set TMPDIR to a writable"),
    (OSError("of no number"), "of no number"),
    (MemoryError(), "the memory is full; end other programs"),
    (RuntimeError("can't start new thread"), "can't start new thread; the limit of processes and threads is reached"),
    (
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        "can't allocate memory: you tried; end other programs, or raise the limit of memory",
    ),
]


@pytest.mark.parametrize(("error", "said"), REFUSED, ids=[said[:20] for _, said in REFUSED])
def test_what_the_system_refuses(hwnas_cli, monkeypatch, error, said):
    def refused(*_, **__):
        raise error

    monkeypatch.setattr(module, "app", refused)
    ran = hwnas_cli("verify", "bundle")
    assert ran.code == 2
    assert ran.err.startswith("error: ")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert "[Errno" not in ran.err


def test_a_current_folder_that_was_deleted(hwnas_cli, monkeypatch):
    def gone():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, "getcwd", gone)
    ran = hwnas_cli("devices", "list")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: the current folder no longer exists; `cd` to another one\n"


def test_numbers_of_processes_that_are_none():
    left = {"LOCAL_RANK": "1", "SLURM_PROCID": "0", "WORLD_SIZE": "many"}
    environment = {"RANK": "", "JSM_NAMESPACE_RANK": "x", **left}
    assert drop_ranks(environment) == "RANK='', JSM_NAMESPACE_RANK='x' is not a process number and is ignored"
    assert environment == left
    assert drop_ranks(environment) == ""


@pytest.mark.long
def test_fabric_is_imported_beside_a_rank_that_is_none(tmp_path):
    program = """
import sys
from pathlib import Path
from hwnas.cli.main import main
sys.argv[1:] = ["--version"]
try:
    main()
finally:
    import lightning_fabric
    print("imported", lightning_fabric.__name__)
"""
    environment = {**os.environ, "RANK": "", "HWNAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "imported lightning_fabric" in done.stdout
    assert "RANK='' is not a process number" in done.stderr


def test_a_mistake_of_ours_is_not_hidden(hwnas_cli, monkeypatch):
    def mistaken(*_, **__):
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(module, "app", mistaken)
    with pytest.raises(RuntimeError, match="changed size"):
        hwnas_cli("verify", "bundle")


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is of Linux")
@pytest.mark.parametrize("kib", [60_000, 250_000, 400_000])
def test_too_small_an_address_space_is_said_at_once(kib):
    """With some limits, OpenBLAS tries to allocate for ever; with others, the loader fails with a traceback."""
    hwnas = [sys.executable, "-c", "from hwnas.cli.main import main; main()", "verify", "bundle"]
    command = f"ulimit -v {kib}; exec {shlex.join(hwnas)}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done
    assert f"is limited to {kib * 1024 / 2**20:.0f} MiB" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
def test_an_error_that_cannot_be_said_keeps_its_exit_code(hwnas_command):
    command = f"{shlex.join([*hwnas_command, 'verify', 'no-such-bundle'])} 2> /dev/full"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 2
