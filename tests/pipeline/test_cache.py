"""Stages are done once, go on where they were stopped, and never outlive what they were built on."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from hwnas.errors import OutputError
from hwnas.pipeline.cache import Stage, Stages, last_seconds


@pytest.fixture
def log():
    """The names of the stages that were worked on."""
    return []


@pytest.fixture
def make(tmp_path, log):
    """A function that makes a stage whose work writes a file and counts its tries in it."""

    def make(name, needs=(), work=None, **inputs):
        def write(folder):
            log.append(name)
            tries = folder / "tries"
            tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
            if work:
                work(folder)
            return {"tries": len(tries.read_text())}

        return Stage(name=name, inputs=inputs, needs=tuple(needs), place=tmp_path / "out" / "stages", work=write)

    return make


@pytest.fixture
def chain(make):
    first = make("first", seed=0)
    second = make("second", [first], budget="50%")
    return first, second, make("third", [second])


def run(out, stages, again=None):
    with Stages(out=out, again=again) as held:
        return [held.run(stage) for stage in stages]


def folders(out):
    return {path.name for path in (out / "stages").iterdir()}


def stopped(_folder):
    raise KeyboardInterrupt


def broken(_folder):
    raise ZeroDivisionError


def test_a_stage_is_done_once(tmp_path, chain, log):
    assert [r.cached for r in run(tmp_path / "out", chain)] == [False] * 3
    assert [r.cached for r in run(tmp_path / "out", chain)] == [True] * 3
    assert log == ["first", "second", "third"]
    assert chain[1].result() == {"tries": 1}


def test_a_key_changes_with_all_that_comes_before(make, chain):
    other = make("first", seed=1)
    assert len({other.key, chain[0].key, make("other", seed=0).key}) == 3
    assert make("second", [other], budget="50%").key != chain[1].key
    assert make("second", [chain[0]], budget="50%").key == chain[1].key
    assert make("second", [chain[0]], budget="40%").key != chain[1].key


def test_two_targets_share_a_stage_within_a_run(tmp_path, make, log):
    shared = make("train", seed=0)
    assert [r.cached for r in run(tmp_path / "out", [shared, make("train", seed=0)], again="train")] == [False, True]
    assert log == ["train"]


def test_what_was_stopped_goes_on_and_says_where_it_was(tmp_path, make, log):
    first = make("first", seed=0)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(tmp_path / "out", [first, make("second", [first], stopped)])
    assert caught.value.__notes__ == ["stopped in stage second; finished before it: first"]
    with pytest.raises(KeyboardInterrupt) as caught:
        run(tmp_path / "out", [first, make("second", [first], stopped)], again="first")
    assert caught.value.__notes__[0].endswith("omit --from first to resume")
    second = make("second", [first])
    assert [r.cached for r in run(tmp_path / "out", [first, second])] == [True, False]
    assert second.result() == {"tries": 2}  # the first try was built on the first stage as it was before
    assert folders(tmp_path / "out") == {first.folder.name, second.folder.name}


def test_all_that_builds_on_a_stage_goes_when_it_is_done_again(tmp_path, make, chain, log):
    out = tmp_path / "out"
    first = chain[0]
    other = make("second", [first], budget="40%")  # of another job in the same folder
    apart = make("train", seed=0)
    run(out, [*chain, other, apart])
    with pytest.raises(KeyboardInterrupt):
        run(out, [make("third", [other], stopped)])
    assert len(folders(out)) == 6
    log.clear()
    assert [r.cached for r in run(out, [first], again="first")] == [False]
    assert folders(out) == {first.folder.name, apart.folder.name}
    assert [r.cached for r in run(out, chain)] == [True, False, False]
    assert log == ["first", "second", "third"]


def test_until_it_is_done_again_the_old_stage_stays(tmp_path, make, chain, log):
    out = tmp_path / "out"
    run(out, chain)
    with pytest.raises(ZeroDivisionError):
        run(out, [make("first", (), broken, seed=0)], again="first")
    assert [r.cached for r in run(out, chain)] == [True] * 3
    run(out, chain, again="first")
    assert chain[0].result() == {"tries": 2}  # it went on from what the failed try had left


def test_a_changed_file_counts_as_not_done(tmp_path, chain):
    out = tmp_path / "out"
    run(out, chain)
    (chain[0].folder / "tries").write_text("y")
    assert [r.cached for r in run(out, chain)] == [False] * 3
    (chain[2].folder / "more").write_text("y")
    (chain[2].folder / "files.json").write_text("{")
    assert [r.cached for r in run(out, chain)] == [True, True, False]


def test_a_file_that_a_stage_did_not_list_does_not_count(tmp_path, chain):
    out = tmp_path / "out"
    run(out, chain)
    for name in (".sweep.lock", "evaluated-0123.jsonl", "evaluated-0123-sweep-4567/program.onnx"):
        (chain[0].folder / name).parent.mkdir(exist_ok=True)
        (chain[0].folder / name).write_text("a look at it")
    assert [r.cached for r in run(out, chain)] == [True] * 3
    (chain[0].folder / "tries").unlink()
    assert [r.cached for r in run(out, chain)] == [False] * 3


def test_the_seconds_of_a_stage_are_kept_with_it(tmp_path, make, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("hwnas.pipeline.cache.time.perf_counter", lambda: clock[0])

    def work(seconds, end=None):
        def do(_folder):
            clock[0] += seconds
            if end:
                raise end

        return do

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(out, [make("first", (), work(3, KeyboardInterrupt()), target="a/b")])
    stage = make("first", (), work(4), target="a/b")
    [done] = run(out, [stage])
    [reused] = run(out, [stage])
    assert (done.took_s, done.seconds, reused.took_s, reused.seconds) == (7, 4, 7, 0)
    assert last_seconds(make("first", target="a/b", seed=1)) == (7, "a/b")
    assert last_seconds(make("first", target="a/c")) == (7, "a/b")
    assert last_seconds(make("second", target="a/b")) is None
    for garbage in ("{", "[]", '{"seconds": "x"}', '{"seconds": NaN}'):
        (stage.folder / "seconds.json").write_text(garbage)
        [reused] = run(out, [stage])
        assert (reused.cached, reused.took_s) == (True, None)


def test_an_unsettled_stage_is_used_by_its_run_and_done_again_by_the_next(tmp_path, make):
    out = tmp_path / "out"
    noisy = replace(make("bench"), unsettled=lambda result: "too noisy" if result["tries"] == 1 else None)
    first, same = run(out, [noisy, noisy])
    assert (first.cached, same.cached) == (False, True)
    noisy = replace(noisy, work=lambda folder: {"tries": 2})
    assert [r.cached for r in run(out, [noisy])] == [False]
    assert [r.cached for r in run(out, [noisy])] == [True]


@pytest.mark.parametrize("name", ["files.json", "inputs.json", "result.json"])
def test_garbage_counts_as_not_done(tmp_path, chain, name):
    out = tmp_path / "out"
    run(out, chain)
    for garbage in (b"[" * 200_000, b"\xff\xfe", b"", b"null", b"9" * 5000):
        (chain[2].folder / name).write_bytes(garbage)
        assert [r.cached for r in run(out, chain)] == [True, True, False]
    (chain[2].folder / name).unlink()
    (chain[2].folder / name).mkdir()
    assert [r.cached for r in run(out, chain)] == [True, True, False]


def test_a_stage_that_lies_elsewhere_is_replaced_and_what_it_leads_to_stays(tmp_path, chain):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    run(out, chain)
    chain[1].folder.rename(elsewhere)
    chain[1].folder.symlink_to(elsewhere)
    assert [r.cached for r in run(out, chain)] == [True] * 3
    assert [r.cached for r in run(out, chain, again=chain[1].name)] == [True, False, False]
    assert not chain[1].folder.is_symlink()
    assert (elsewhere / "result.json").is_file()


def test_a_file_in_place_of_a_stage_is_replaced(tmp_path, chain):
    out = tmp_path / "out"
    run(out, chain)
    shutil.rmtree(chain[2].folder)
    chain[2].folder.write_text("not a stage")
    assert [r.cached for r in run(out, chain)] == [True, True, False]
    assert chain[2].is_whole()


def test_a_kill_just_before_the_new_name_costs_nothing(tmp_path, chain, log):
    out = tmp_path / "out"
    run(out, chain)
    log.clear()
    shutil.move(chain[2].folder, chain[2].unfinished)
    run(out, chain)
    assert log == []
    assert chain[2].is_whole()


def test_files_that_a_kill_came_into_are_swept(tmp_path, make):
    out = tmp_path / "out"
    stage = make("first", seed=0)
    for folder in (out, stage.unfinished):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".hwnas-0123456789abcdef.tmp").write_text("half")
    run(out, [stage])
    assert not list(out.rglob("*.tmp"))


def test_one_process_at_a_time(tmp_path):
    out = tmp_path / "out"
    with Stages(out=out), pytest.raises(OutputError, match="another hwnas process is working on"), Stages(out=out):
        pass
    with Stages(out=out):
        pass


def test_a_disk_that_is_full_keeps_what_is_finished(tmp_path, make):
    first = make("first", seed=0)

    def full(_folder):
        raise OSError(28, "No space left on device", "weights")

    with pytest.raises(
        OutputError, match="cannot write weights: No space left on device; free some space; finished stages are kept"
    ):
        run(tmp_path / "out", [first, make("second", [first], full)])
    assert first.is_whole()
