"""A run of the tests ends by itself, whatever becomes of its workers: with the options of `pyproject.toml`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
PASSES = "def test_passes():\n    pass\n"
# Each is the third file of four: its worker has finished another file before, and the other worker has its last one.
ENDS = {
    "is killed": "import os, signal\ndef test_ends():\n    os.kill(os.getpid(), signal.SIGKILL)\n",
    "leaves": "import os\ndef test_ends():\n    os._exit(0)\n",
    "hangs": "import threading\ndef test_ends():\n    threading.Event().wait()\n",
}


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL and process groups")
@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[] if how == "is killed" else [pytest.mark.long]) for how in ENDS]
)
def test_a_worker_that_dies_ends_the_run(tmp_path: Path, how: str) -> None:
    for name, content in zip("abcd", (PASSES, PASSES, ENDS[how], PASSES), strict=True):
        (tmp_path / f"test_{name}.py").write_text(content)
    words = [sys.executable, "-m", "pytest", "-c", PYPROJECT, "--rootdir", tmp_path, "-p", "no:cacheprovider"]
    words += ["-n", "2", "--dist", "loadfile", *(["-o", "faulthandler_timeout=1"] if how == "hangs" else []), tmp_path]
    with subprocess.Popen(
        [str(word) for word in words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, _ = process.communicate(timeout=300)  # a run that hangs; one that ends takes seconds
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1, out
    assert "crashed while running 'test_c.py::test_ends'" in out
    assert "1 failed, 3 passed" in out
