"""A run that is stopped, by whatever and whenever, goes on as if nothing had been."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hwnas.deploy import open_bundle
from hwnas.pipeline.cache import Stages

KILLS = 20
# What a kill throws away, the lowering of all ops above all, is to be short; and an error bound from few networks on a
# busy machine is wide.
SMALLER = {
    "resolution = [24, 32]": "resolution = 24",
    "calibration_networks = 8": "calibration_networks = 4",
    "bound_networks = 19": "bound_networks = 2",
    "validation_networks = 6": "validation_networks = 2",
}


def compiling(forks, job_file, out):
    return forks.start(["compile", job_file, "--out", out, "--json"])


def finished_stages(out):
    """Name of each finished stage -> when and as which file its result was written."""
    stats = {path.parent.name: path.stat() for path in (out / "stages").glob("*[!l]/result.json")}
    return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}


def models(out):
    """Target -> sha256 of what is deployed."""
    found = [open_bundle(path.parent) for path in sorted((out / "bundles").glob("*/*/manifest.json"))]
    return {b.manifest.target: hashlib.sha256(b.program.read_bytes()).hexdigest() for b in found}


@pytest.mark.long
def test_killed_in_the_training_and_in_the_export(forks, job_file, finished, profiled_only):
    """One of the two targets; the test of 20 kills has both."""
    text = job_file.read_text()
    job_file.write_text(text.replace('"this/onnxruntime-cpu-fp32", ', ""))
    before = finished_stages(profiled_only)
    assert len(before) == 4
    for line in ("training: ", "checking parity: "):
        with compiling(forks, job_file, profiled_only) as process:
            assert process.wait_for(line), line
            process.send_signal(signal.SIGKILL)
        after = finished_stages(profiled_only)
        assert before.items() <= after.items(), line
        before = after
    with compiling(forks, job_file, profiled_only) as process:
        assert process.wait() == 0, process.stderr.read_text()
    report = json.loads(process.stdout.read_text())
    assert before.items() <= finished_stages(profiled_only).items()
    [[target, answer]] = report["targets"].items()
    assert [stage["name"] for stage in answer["stages"] if not stage["cached"]] == ["export", "bench"]
    assert not list(profiled_only.rglob("*.partial"))
    assert not list(profiled_only.rglob("*.tmp"))
    assert models(profiled_only) == {target: models(finished[1])[target]}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_what_is_kept_and_leaves_nothing_behind(forks, job_file, profiled_only, number, code):
    with compiling(forks, job_file, profiled_only) as process:
        assert process.wait_for("training: ")
        process.send_signal(number)
        assert process.wait() == code
    rest = process.stderr.read_text()
    assert "stopped in stage train; finished before it: profile, validate" in rest
    assert "the same command resumes" in rest
    assert "Traceback" not in rest
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no process of its session is left
    with Stages(out=profiled_only):  # nor its lock
        pass
    assert len(finished_stages(profiled_only)) == 4


@pytest.mark.long
def test_killed_at_20_random_moments_the_bundles_are_those_of_an_uninterrupted_run(forks, job_file, tmp_path):
    """The same measurements lead to the same bundles, and nothing that was finished is done again.

    Measurements differ between runs; so an uninterrupted run takes over those of the killed one, and nothing else.
    """
    text = job_file.read_text()
    for before, small in SMALLER.items():
        assert before in text
        text = text.replace(before, small)
    job_file.write_text(text)
    rng = random.Random()  # a kill may come anywhere; there is no moment that must not pass
    kills, completed, hit = 0, list[Path](), list[str]()
    out = tmp_path / "killed0"
    before = finished_stages(out)
    while kills < KILLS or not completed:
        # Some stages further on, so that kills come into all of them on a machine of any speed.
        moment = (len(before) + rng.randint(0, 1), rng.uniform(0, 4)) if kills < KILLS else None
        with compiling(forks, job_file, out) as process:
            status = end_of(process, out, moment)
        after = finished_stages(out)
        assert before.items() <= after.items()
        before = after
        if status == -signal.SIGKILL:
            kills += 1
            hit += [path.name.partition("-")[0] for path in (out / "stages").glob("*.partial")] or ["between"]
            continue
        assert status == 0, process.stderr.read_text()
        completed.append(out)
        out = tmp_path / f"killed{len(completed)}"
        before = finished_stages(out)
    print(f"\n{kills} kills in {hit}, {len(completed)} runs completed")
    assert len(set(hit)) > 2
    for folder in completed:
        assert not list(folder.rglob("*.partial"))
        assert not list(folder.rglob("*.tmp"))
        whole = measured_only(folder, tmp_path / f"whole-{folder.name}")
        with compiling(forks, job_file, whole) as process:
            assert process.wait() == 0, process.stderr.read_text()
        assert models(whole) == models(folder)
        assert len(models(whole)) == 2
        assert results(whole) == results(folder)


def end_of(process, out, moment=None):
    """The exit status of a run. With a moment, stages and seconds, it is killed that long after that many stages."""
    if moment is None:
        return process.wait()
    stages, delay = moment
    while len(finished_stages(out)) < stages and process.poll() is None:
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        return process.wait(delay)
    process.send_signal(signal.SIGKILL)
    return process.wait()


def results(out):
    """Name of each stage -> what it found, but for what was measured at the end."""
    return {
        path.parent.name: None if path.parent.name.startswith("bench-") else json.loads(path.read_text())
        for path in (out / "stages").glob("*/result.json")
    }


def measured_only(folder, copy):
    """A copy of an output folder with what was measured before the training, and no more."""
    for path in (folder / "stages").iterdir():
        if path.name.startswith(("profile-", "validate-")):
            shutil.copytree(path, copy / "stages" / path.name)
    return copy
