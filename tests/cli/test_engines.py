"""`--engine`: the same output as without it, and nothing stays after Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys

import pytest

from hwnas.pipeline import read_job
from hwnas.spaces import make_space
from hwnas.supernet import Supernet, save_supernet

SPACE = make_space("mobilenetv3-tiny").fix(resolution=24)


@pytest.fixture
def supernet(tmp_path):
    """A folder with a supernet that was never trained."""
    data = {"name": "cluttered-digits", "path": None}
    save_supernet(Supernet(SPACE), tmp_path / "net", data=data, classes=tuple("0123456789"), training={})
    return tmp_path / "net"


@pytest.mark.long
@pytest.mark.usefixtures("all_test_images")  # workers do not have the smaller test split of the tests
def test_the_output_is_that_of_one_process(hwnas_cli, supernet, tmp_path):
    shutil.copytree(supernet, tmp_path / "other")
    words = ("--random", 5, "--images", 100, "--calibration-images", 100, "--json")
    here = hwnas_cli("subnet", "eval", "--supernet", supernet, *words)
    pool = ("--engine", "pool", "--workers", 2)
    there = hwnas_cli("subnet", "eval", "--supernet", tmp_path / "other", *words, *pool)
    assert (here.code, there.code) == (0, 0), there.err
    assert here.out == there.out
    assert len(json.loads(there.out)) == 5
    assert "evaluating subnets: 5/5" in there.err
    again = hwnas_cli("subnet", "eval", "--supernet", tmp_path / "other", *words, *pool)
    assert again.out == here.out
    assert "evaluating subnets: 5/5" in again.err


@pytest.mark.skipif(sys.platform != "linux", reason="sessions of processes")
def test_ctrl_c_ends_all_workers(forks, supernet, tmp_path):
    words = ("--random", 5000, "--engine", "pool", "--workers", 2)
    program = "from hwnas.cli.main import main\nmain()\n"
    with forks.start(["subnet", "eval", "--supernet", supernet, *words], cwd=tmp_path, program=program) as run:
        assert run.wait_for("evaluating subnets: ")
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait() == 130
    assert "the same command resumes" in run.stderr.read_text()
    assert "Traceback" not in run.stderr.read_text()
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)  # no process of its session is left


def test_options_that_do_not_fit_are_refused(refused, supernet):
    words = ("subnet", "eval", "--supernet", supernet)
    assert "unknown engine 'poll'. Did you mean 'pool'?" in refused(*words, "--engine", "poll")
    assert "the engine serial has 1 worker, not 3; use the engine pool" in refused(*words, "--workers", 3)
    assert "the engine pool takes no address (h:1)" in refused(*words, "--engine", "pool", "--address", "h:1")
    differentiable = ("search", "--strategy", "gdas", "--budget", "50%", "--out", "a.json", "--engine", "pool")
    assert "which does not support --supernet" in refused(*differentiable)


def test_a_job_has_an_engine(tmp_path):
    job = tmp_path / "job.toml"
    head = 'schema = 1\ntargets = ["this/onnxruntime-cpu-fp32"]\nbudget = "50%"\n'
    tables = '[space]\nname = "mobilenetv3-tiny"\n[data]\nname = "cluttered-digits"\n'
    job.write_text(head + tables)
    assert read_job(job).engine.name == "serial"
    job.write_text(head + tables + '[engine]\nname = "pool"\nworkers = 2\n')
    assert read_job(job).engine.model_dump() == {"name": "pool", "workers": 2, "address": None}
