from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwnas.accuracy import Evaluator
from hwnas.data.digits import SIZES
from hwnas.deploy import Bundle, BundleManifest, bench, export, open_bundle, verify, write_bundle
from hwnas.deploy.benchmark import bench_among, summarise
from hwnas.errors import BundleError, InvalidValue, OutputError, ParityError, TooNoisy
from hwnas.latency import LatencyTable, load_model
from hwnas.machines import LocalMachine
from hwnas.runtimes import open_session
from hwnas.spaces import Domain, Space
from hwnas.targets import Device, Recipe, Target
from hwnas.timing import Measurement, Protocol
from hwnas.timing.among import Among

Writer = Callable[..., Callable[[Path], Path]]
FILES = ["README.md", "example-input.npy", "example-output.npy", "manifest.json", "model.onnx"]


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# -- whole or not at all -----------------------------------------------------------------------------------


def test_round_trip(bundle: Bundle, manifest: BundleManifest, tmp_path: Path) -> None:
    again = open_bundle(tmp_path / "bundle")
    assert again == bundle
    assert again.manifest.program == "model.onnx"
    assert again.compiled == again.program
    assert again.form_is_known
    for name, facts in again.manifest.files.items():
        content = (bundle.folder / name).read_bytes()
        assert (facts.size_bytes, facts.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert again.manifest.model_copy(update={"program": "", "files": {}, "manifest_sha256": ""}) == manifest
    assert listing(tmp_path) == ["bundle", *(f"bundle/{name}" for name in FILES)]


def test_an_engine_is_run_in_place_of_its_graph(manifest: BundleManifest, writer: Writer, tmp_path: Path) -> None:
    def write(folder: Path) -> Path:
        (folder / "model.engine").write_bytes(b"of another runtime")
        return writer()(folder)

    made = write_bundle(tmp_path / "bundle", write, manifest)
    assert open_bundle(made.folder).compiled == made.folder / "model.engine"
    assert not made.form_is_known
    for run in (verify, lambda folder: bench(open_bundle(folder), Device.model_construct(name="board"))):
        with pytest.raises(BundleError, match=r"model\.engine"):
            run(made.folder)


def test_any_changed_byte_of_the_program(bundle: Bundle) -> None:
    whole = bundle.program.read_bytes()
    for i in range(0, len(whole), 41):
        bundle.program.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(
            BundleError, match=r"model.onnx was changed after it was written: it has .* and the sha256 .*Export"
        ):
            open_bundle(bundle.folder)
    bundle.program.write_bytes(whole + b"\n")
    with pytest.raises(BundleError, match=f"has {len(whole) + 1} bytes; at most {len(whole)}"):
        open_bundle(bundle.folder)


@pytest.mark.parametrize("flip", [0x01, 0x07, 0x20, 0x80])
def test_any_changed_byte_of_the_manifest(bundle: Bundle, flip: int) -> None:
    path = bundle.folder / "manifest.json"
    whole = path.read_bytes()
    # 0x20 turns a letter into its other case, 0x80 an ASCII character into no UTF-8.
    for i in range(0, len(whole), 17):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :])
        with pytest.raises(BundleError, match=r"manifest\.json"):
            open_bundle(bundle.folder)
    for i in [i for i, byte in enumerate(whole) if byte == 0x0A]:  # read as text, the two line ends are one
        path.write_bytes(whole[:i] + b"\r" + whole[i + 1 :])
        with pytest.raises(BundleError, match=r"manifest\.json"):
            open_bundle(bundle.folder)
    path.write_bytes(whole)
    assert open_bundle(bundle.folder) == bundle


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text + "\n", "was changed after it was written: its checksum does not match"),
        (lambda text: text.replace(": ", ":  ", 1), "was changed after it was written"),
        (lambda text: " " + text, "was changed after it was written"),
        (lambda text: text.replace("\n", "\r\n"), "was changed after it was written"),
        (lambda text: text.replace('"predicted_ms": 0.3', '"predicted_ms": 0.2'), "was changed after it was written"),
        (lambda text: text.replace('"budget_ms": 1.5', '"budget_ms": -1.5'), "is malformed: budget_ms: "),
        (lambda text: text.replace('"macs"', '"makks"'), "is malformed: "),
        (lambda text: text[:-20], "is malformed: the file: "),
        (lambda text: "", "is malformed: the file: "),
        (lambda text: "[]", "is malformed: the file: "),
    ],
)
def test_a_manifest_edited_by_hand(bundle: Bundle, change: Callable[[str], str], words: str) -> None:
    path = bundle.folder / "manifest.json"
    before = path.read_bytes().decode()
    path.write_bytes(change(before).encode())
    assert path.read_bytes().decode() != before
    with pytest.raises(BundleError, match=words):
        open_bundle(bundle.folder)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_missing_file(bundle: Bundle, name: str) -> None:
    (bundle.folder / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}.*No such file"):
        open_bundle(bundle.folder)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none is not a bundle: .*manifest.json cannot be read: No such file"):
        open_bundle(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="file is not a bundle"):
        open_bundle(tmp_path / "file")


# -- where it may be written ------------------------------------------------------------------------------


def test_an_older_bundle_is_replaced_whole(
    bundle: Bundle, manifest: BundleManifest, writer: Writer, tmp_path: Path
) -> None:
    def other(folder: Path) -> Path:
        return writer()(folder).rename(folder / "other.onnx")

    newer = write_bundle(bundle.folder, other, manifest.model_copy(update={"measured_ms": 0.5}))
    assert open_bundle(bundle.folder) == newer
    assert listing(tmp_path) == ["bundle", *(f"bundle/{name}".replace("model", "other") for name in FILES)]


def test_a_damaged_bundle_is_replaced(bundle: Bundle, manifest: BundleManifest, writer: Writer) -> None:
    bundle.program.write_bytes(b"changed")
    assert write_bundle(bundle.folder, writer(), manifest) == open_bundle(bundle.folder)


def test_an_empty_folder_and_new_folders_are_taken(manifest: BundleManifest, writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep"):
        assert write_bundle(folder, writer(), manifest) == open_bundle(folder)


def test_the_folder_one_stands_in(
    manifest: BundleManifest, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_bundle(Path(), writer(), manifest)
    assert open_bundle(tmp_path / "here").manifest.arch == manifest.arch


@pytest.mark.parametrize("with_manifest", [True, False])
def test_somebody_elses_folder_is_refused(
    manifest: BundleManifest, writer: Writer, tmp_path: Path, with_manifest: bool
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("kept")
    if with_manifest:  # browsers' extensions have a file of that name, too
        (folder / "manifest.json").write_text('{"manifest_version": 3}')
    before = listing(tmp_path)
    with pytest.raises(OutputError, match="is not empty, and is not a bundle only"):
        write_bundle(folder, writer(), manifest)
    assert listing(tmp_path) == before


def test_notes_beside_a_bundle_are_not_lost(bundle: Bundle, manifest: BundleManifest, writer: Writer) -> None:
    (bundle.folder / "notes.txt").write_text("kept")
    with pytest.raises(OutputError, match="is not a bundle only; choose another folder"):
        write_bundle(bundle.folder, writer(), manifest)
    assert (bundle.folder / "notes.txt").read_text() == "kept"
    (bundle.folder / "notes.txt").unlink()
    assert open_bundle(bundle.folder) == bundle


def test_a_file_in_place_of_a_folder(manifest: BundleManifest, writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="file is a file, but a bundle is a folder; choose another name"):
        write_bundle(tmp_path / "file", writer(), manifest)
    with pytest.raises(OutputError, match=r"file is a file, and the bundle .* needs a folder there"):
        write_bundle(tmp_path / "file" / "bundle", writer(), manifest)
    assert (tmp_path / "file").read_text() == "kept"
    assert listing(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_closed_folder(manifest: BundleManifest, writer: Writer, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_bundle(closed / "bundle", writer(), manifest)
    assert listing(tmp_path) == ["closed"]


def full_disk(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(b"a part of")
    raise OSError(errno.ENOSPC, "No space left on device")


def refused(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(b"a part of")
    raise OutputError("cannot write model.onnx: the disk is full")


def interrupted(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(b"a part of")
    raise KeyboardInterrupt


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize(
    ("write", "error"), [(full_disk, OutputError), (refused, OutputError), (interrupted, KeyboardInterrupt)]
)
def test_a_failure_leaves_all_as_it_was(
    manifest: BundleManifest,
    writer: Writer,
    tmp_path: Path,
    older: bool,
    write: Callable[[Path], Path],
    error: type[BaseException],
) -> None:
    folder = tmp_path / "bundle"
    before = write_bundle(folder, writer(), manifest) if older else None
    with pytest.raises(error):
        write_bundle(folder, write, manifest)
    if older:
        assert open_bundle(folder) == before
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    else:
        assert listing(tmp_path) == []


def test_an_older_bundle_returns_when_the_new_one_cannot_take_its_place(
    bundle: Bundle, manifest: BundleManifest, writer: Writer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = Path.replace

    def fails_once(self: Path, to: Path) -> Path:
        if self.name.endswith(".making"):
            raise OSError(errno.EIO, "Input/output error")
        return real(self, to)

    monkeypatch.setattr(Path, "replace", fails_once)
    with pytest.raises(OutputError, match=r"cannot write the bundle .*Input/output error"):
        write_bundle(bundle.folder, writer(2.0), manifest)
    monkeypatch.undo()
    assert open_bundle(bundle.folder) == bundle
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_a_kill_left_is_cleared_away(
    bundle: Bundle, manifest: BundleManifest, writer: Writer, tmp_path: Path
) -> None:
    for name in (".bundle.making", ".bundle.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(b"half")
    newer = write_bundle(bundle.folder, writer(2.0), manifest)
    assert open_bundle(bundle.folder) == newer
    assert listing(tmp_path) == ["bundle", *(f"bundle/{name}" for name in FILES)]


def among(samples_ms: dict[str, list[list[float]]], protocol: Protocol) -> Among:
    """A measurement without copies and references."""
    measured = Measurement(samples_ms=samples_ms, reference=next(iter(samples_ms)), protocol=protocol)
    return Among(measured=measured, copies={name: (name,) for name in samples_ms}, speed=None)


# -- a real one -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(
    space: Space, evaluator: Evaluator, this: Target, profiled: LatencyTable, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    folder = tmp_path_factory.mktemp("real") / "bundle"
    return export(space.smallest, evaluator, this, load_model(profiled, space), folder, budget_ms=2.5)


def test_the_manifest_tells_all(real: Bundle, space: Space, this: Target, profiled: LatencyTable) -> None:
    assert open_bundle(real.folder) == real
    said = json.loads((real.folder / "manifest.json").read_bytes())
    codes = space.encode([space.smallest])
    assert said["schema"] == 2
    assert said["device"]["fingerprint"] == this.device.fingerprint
    assert said["data"] == "cluttered-digits"
    assert said["target"] == this.name
    assert Recipe.model_validate(said["recipe"]) == this.recipe
    assert said["arch"] == dict(space.smallest)
    assert Domain.model_validate(said["domain"]).make().choices == space.choices
    assert said["classes"] == [str(digit) for digit in range(10)]
    assert said["input"]["shape"] == [1, 1, 24, 24]
    assert {"layout", "channels", "dtype", "resize", "mean", "std"} <= set(said["input"]["transform"])
    assert said["predicted_ms"] == float(load_model(profiled, space).predict(codes)[0])
    assert (said["measured_ms"], said["budget_ms"]) == (None, 2.5)
    assert (said["macs"], said["params"]) == (int(space.macs(codes)[0]), int(space.params(codes)[0]))
    assert set(said["versions"]) == {"hwnas", "onnxruntime", "torch", "python", "system"}
    assert sorted({*said["files"], "manifest.json"} - said["references"].keys()) == FILES
    assert sorted(said["references"]) == [name for name in sorted(said["files"]) if name.startswith("reference-")]
    assert said["parity"]["images"] == SIZES["test"]
    assert said["parity"]["max_abs_error"] <= 1e-4
    assert said["parity"]["top1_agreement"] >= 0.999
    assert said["accuracy"] == said["parity"]["deployed_accuracy"]


def test_the_program_is_the_recipes_and_runs_alone(real: Bundle, this: Target) -> None:
    model = onnx.load(real.program)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == this.recipe.opset
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    with open_session(real.program, real.manifest.recipe) as session:
        assert session.shape == tuple(real.manifest.input.shape)
        assert session.run(np.zeros(session.shape, np.float32)).shape == (1, 10)


def test_a_failed_check_writes_nothing(
    space: Space, evaluator: Evaluator, this: Target, profiled: LatencyTable, tmp_path: Path
) -> None:
    strict = this.recipe.model_copy(update={"parity": this.recipe.parity.model_copy(update={"max_abs_error": 1e-12})})
    target = Target(this.device, strict)
    with pytest.raises(ParityError, match=r"max_abs_error .* > 1e-12"):
        export(space.smallest, evaluator, target, load_model(profiled, space), tmp_path / "bundle")
    assert listing(tmp_path) == []


def test_a_bad_folder_is_found_before_the_long_work(
    space: Space, evaluator: Evaluator, this: Target, profiled: LatencyTable, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("kept")
    said: list[str] = []
    with pytest.raises(OutputError, match="is a file"):
        export(
            space.smallest,
            evaluator,
            this,
            load_model(profiled, space),
            tmp_path / "file",
            progress=lambda what, done, total: said.append(what),
        )
    assert said == []


def test_a_bench_stands_beside_its_prediction(real: Bundle, this: Target) -> None:
    found = bench(real, this.device)
    assert found.target == this.name
    assert 0 < found.measured_ms < math.inf  # without drift, unlike the other quantiles
    assert 0 < found.p50_ms <= found.p90_ms < math.inf
    assert (found.predicted_ms, found.budget_ms) == (real.manifest.predicted_ms, 2.5)
    assert found.speed is not None and found.expected_ms == found.predicted_ms / found.speed
    assert found.relative_error == found.measured_ms / found.expected_ms - 1
    assert math.isfinite(found.spread)
    assert not found.too_noisy  # the tests' protocol accepts any machine
    json.dumps(dataclasses.asdict(found))


def test_a_bundle_says_on_which_cores_it_was_timed(real: Bundle, tmp_path: Path) -> None:
    """And nothing of cores where it does not know them: what was written before there was that field stays whole."""
    assert '"cores"' not in (real.folder / "manifest.json").read_text()
    recipe = real.manifest.recipe.model_copy(update={"cores": (0,)})
    manifest = real.manifest.model_copy(update={"measured_cores": "0", "recipe": recipe})
    write_bundle(tmp_path / "timed", real.copy_program, manifest)
    again = open_bundle(tmp_path / "timed").manifest
    assert (again.measured_cores, again.recipe.cores) == ("0", (0,))


def test_the_figures_are_the_measurements_quantiles(real: Bundle, this: Target) -> None:
    samples = [[1.0, 2.0, 3.0], [4.0, 5.0]]
    measured = among({"x": samples, "y": [[9.0], [9.0]]}, Protocol(session_passes=1))
    found = summarise(real, this.device, measured, "x")
    assert (found.measured_ms, found.p50_ms, found.p90_ms) == (2.0, 3.0, pytest.approx(4.6))
    assert (found.p95_ms, found.p99_ms, found.runs, found.images_per_s) == (None, None, 5, pytest.approx(1e3 / 3))
    assert found.relative_error == 2.0 / real.manifest.predicted_ms - 1
    assert summarise(real, this.device, measured, "y").measured_ms == 9.0


@pytest.mark.parametrize(("runs", "known"), [(199, (False, False)), (200, (True, False)), (1000, (True, True))])
def test_high_quantiles_need_enough_runs(real: Bundle, this: Target, runs: int, known: tuple[bool, bool]) -> None:
    samples = [[float(i + 1) for i in passes] for passes in (range(runs // 2), range(runs // 2, runs))]
    found = summarise(real, this.device, among({"x": samples}, Protocol(session_passes=1)), "x")
    assert (found.p95_ms is not None, found.p99_ms is not None) == known
    assert found.p95_ms in (None, pytest.approx(1 + 0.95 * (runs - 1)))


def test_a_bench_adds_sessions_until_there_are_enough_runs(real: Bundle, this: Target) -> None:
    protocol = Protocol(visit_ms=0.01, min_runs=1, max_runs=3, session_passes=2, max_sessions=2, max_disagreement=9.0)
    assert bench(real, this.device, protocol=protocol).runs <= 12
    found = bench(real, this.device, protocol=protocol, runs=220)
    assert 220 <= found.runs < 700
    assert found.p95_ms is not None and found.p90_ms <= found.p95_ms
    with pytest.raises(InvalidValue, match="must be positive, not 0; p99 needs 1,000"):
        bench(real, this.device, protocol=protocol, runs=0)


@pytest.mark.parametrize(("disagreement", "too_noisy"), [(0.05, False), (0.08, True)])
def test_a_bench_says_when_the_figures_disagree(
    real: Bundle, this: Target, disagreement: float, too_noisy: bool
) -> None:
    samples = [[1.0], [1.0 + disagreement]] * 5
    measured = among({"x": samples}, Protocol(session_passes=1, max_disagreement=0.06))
    assert summarise(real, this.device, measured, "x").too_noisy is too_noisy


def test_a_bundle_carries_references_with_their_profiled_latencies(
    real: Bundle, this: Target, profiled: LatencyTable, space: Space
) -> None:
    [fit] = profiled.manifest.fits
    assert len(real.references) == 3
    for path, profiled_ms in real.references.items():
        assert profiled_ms in fit.calibration_ms
        with open_session(path, this.recipe) as session:
            assert session.shape == tuple(real.manifest.input.shape)


def test_the_machines_speed_is_that_of_the_references(real: Bundle, this: Target) -> None:
    """References that take twice as long as in the profile: the machine has half the speed, the bundle no error."""
    predicted_ms = real.manifest.predicted_ms
    assert predicted_ms is not None

    def time(programs: dict[str, Path]) -> Measurement:
        of = {str(path): 2 * ms for path, ms in real.references.items()} | {str(real.compiled): 2 * predicted_ms}
        samples = {name: [[of[str(path)]] * 4] * 4 for name, path in programs.items()}
        return Measurement(samples_ms=samples, reference="bundle", protocol=Protocol(session_passes=1))

    measured = bench_among({"bundle": real.compiled}, real, time)  # type: ignore[arg-type]
    assert len(measured.measured.samples_ms) >= 8  # so that drift can be told from the programs' times
    found = summarise(real, this.device, measured, "bundle")
    assert found.speed == pytest.approx(0.5)
    assert found.measured_ms == pytest.approx(2 * predicted_ms)
    assert found.expected_ms == pytest.approx(2 * predicted_ms)
    assert found.relative_error == pytest.approx(0)


@pytest.mark.usefixtures("noise_counts")
def test_too_noisy_a_bench_is_an_error(real: Bundle, this: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    def time(self: object, programs: dict[str, Path], *_: object, **__: object) -> Measurement:
        samples = {name: [[1.0], [1.2]] * 5 for name in programs}
        return Measurement(samples_ms=samples, reference="bundle", protocol=Protocol(session_passes=1))

    monkeypatch.setattr(LocalMachine, "time", time)
    monkeypatch.setattr(Measurement, "drift", property(lambda self: np.ones((10, len(self.samples_ms)))))
    with pytest.raises(TooNoisy, match="the machine is too noisy"):
        bench(real, this.device)
