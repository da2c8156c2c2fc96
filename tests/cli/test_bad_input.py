"""Each bad input gets one clear message and exit code 2, and nothing is lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image

from hwnas.cli.main import main
from hwnas.errors import SpecError
from hwnas.workflows.arch_files import read_arch

TARGET = "this/onnxruntime-cpu-fp32"
SMALL = (
    "--space", "mobilenetv3-tiny", "--fix", "resolution=24", "--fix", "depth_1=1", "--fix", "depth_2=1",
    "--fix", "depth_3=1", "--fix", "kernel_1_1=3", "--fix", "kernel_2_1=3", "--fix", "expansion_1_1=2",
)  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A table, a supernet, an arch and a bundle, made by the verbs that users run."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_HOME", str(folder / "home"))

        def run(*words):
            patch.setattr(sys, "argv", ["hwnas", *map(str, words)])
            with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 0
            return out.getvalue()

        _make(folder, run)
    return folder


def _make(folder, run):
    run("profile", *SMALL, "--target", TARGET, "--networks", 6, "--bound-networks", 19)
    run("train", *SMALL, "--data", "cluttered-digits", "--steps", 4, "--batch-size", 8, "--out", folder / "net")
    found = run(
        "search", "--supernet", folder / "net", "--target", TARGET, "--budget", "500%", "--out", folder / "arch.json",
        "--subnets", 10, "--images", 100, "--candidates", 2, "--json",
    )  # fmt: skip
    assert json.loads(found)["arch"]["resolution"] == 24
    run("export", folder / "arch.json", "--supernet", folder / "net", "--target", TARGET, "--out", folder / "bundle")
    timed = json.loads(run("bench", folder / "bundle", "--json"))
    assert timed["measured_ms"] > 0
    validated = json.loads(run("validate", *SMALL, "--target", TARGET, "--networks", 2, "--seed", 7, "--json"))
    assert {"networks", "mape", "noise_floor", "within_5pct", "within_10pct", "kendall_tau", "speed"} <= set(validated)


@pytest.fixture
def mine(made, tmp_path):
    """A copy of all of it, with the catalog's home at `home`, where the command line looks."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def table_of(folder):
    [path] = (folder / "home" / "latency_tables").glob("*/*.csv")
    return path


def search(folder, *words):
    return (
        "search", "--supernet", folder / "net", "--target", TARGET, "--out", folder / "found.json",
        "--subnets", 10, "--images", 100, *words,
    )  # fmt: skip


# -- names -------------------------------------------------------------------------------------------------------


def test_unknown_device(refused):
    message = refused("profile", *SMALL, "--target", "amd-epic/onnxruntime-cpu-fp32")
    assert "unknown device 'amd-epic'" in message
    assert "Did you mean 'amd-epyc" in message


def test_unknown_recipe(refused):
    message = refused("profile", *SMALL, "--target", "this/onnxruntime-cpu-fp23")
    assert "unknown recipe 'onnxruntime-cpu-fp23'" in message
    assert "Did you mean 'onnxruntime-cpu-fp32'" in message
    assert "torch-cpu-fp32" in message


def test_malformed_target(refused):
    assert "device/recipe" in refused("profile", *SMALL, "--target", "this")


def test_unknown_space(refused):
    message = refused("profile", "--space", "mobilenetv4", "--target", TARGET)
    assert "unknown space 'mobilenetv4'" in message
    assert "Did you mean 'mobilenetv3'" in message


@pytest.mark.parametrize(
    ("fix", "words"),
    [
        ("resolutoin=24", "Did you mean 'resolution'"),
        ("resolution=25", "choose from 24, 28, 32"),
        ("resolution", "variable=value"),
        ("resolution=big", "cannot be big; choose from 24, 28, 32"),
    ],
)
def test_bad_fix(refused, fix, words):
    assert words in refused("profile", "--space", "mobilenetv3-tiny", "--fix", fix, "--target", TARGET)


def test_unknown_dataset(refused, tmp_path):
    message = refused("train", *SMALL, "--data", "clutered-digits", "--out", tmp_path / "net")
    assert "Did you mean 'cluttered-digits'" in message


def test_unknown_strategy(refused, mine):
    message = refused(*search(mine, "--budget", "150%", "--strategy", "exat"))
    assert "Did you mean 'exact'" in message
    assert "random" in message


@pytest.mark.parametrize(("option", "value"), [("--subnets", "1000001"), ("--candidates", "10001")])
def test_more_networks_than_memory_holds(hwnas_cli, option, value):
    ran = hwnas_cli("search", "--supernet", "net", "--budget", "50%", "--out", "found.json", option, value)
    assert ran.code == 2
    assert option in ran.err
    assert "Traceback" not in ran.err


def test_unknown_verb(hwnas_cli):
    ran = hwnas_cli("profil")
    assert ran.code == 2
    assert "profile" in ran.err


@pytest.mark.parametrize(("option", "value"), [("--networks", "two"), ("--networks", "1"), ("--seed", "-1")])
def test_value_of_an_option_that_is_no_value_of_it(hwnas_cli, option, value):
    ran = hwnas_cli("validate", *SMALL, "--target", TARGET, option, value)
    assert ran.code == 2
    assert option in ran.err
    assert "Traceback" not in ran.err


# -- files people write ------------------------------------------------------------------------------------------


def test_malformed_job(refused, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text("schema = 1\ntarget = \n")
    message = refused("compile", job)
    assert "job.toml, line 2" in message


def test_unknown_key_in_a_job(refused, tmp_path):
    from hwnas.pipeline import job as room

    text = (room.Path(room.__file__).with_name("quickstart.toml")).read_text()
    job = tmp_path / "job.toml"
    job.write_text(text.replace("subnets =", "subnet ="))
    message = refused("compile", job)
    assert "unknown key 'accuracy.subnet'" in message
    assert "did you mean 'subnets'" in message
    assert "calibration_images" in message


def test_missing_job(refused, tmp_path):
    assert "nowhere.toml" in refused("compile", tmp_path / "nowhere.toml")


# -- tables ------------------------------------------------------------------------------------------------------


def edited(path, change):
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")


def cell(line, column, value):
    cells = line.split(",")
    cells[column] = value
    return ",".join(cells)


def replace_cell(value):
    def change(lines):
        lines[1] = cell(lines[1], 1, value)

    return change


def faster(lines):
    lines[1] = cell(lines[1], 1, f"{float(lines[1].split(',')[1]) / 2:.6g}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (faster, "was changed after it was written"),
        (replace_cell("nan"), "must be positive, finite numbers"),
        (replace_cell("-1"), "must be positive, finite numbers"),
        (replace_cell("quick"), "line 2"),
        (lambda lines: lines.append(lines[-1]), "is a duplicate"),
        (lambda lines: lines.pop(), "was changed after it was written"),
    ],
)
def test_table_that_was_tampered_with(refused, mine, change, words):
    edited(table_of(mine), change)
    message = refused(*search(mine, "--budget", "150%"))
    assert words in message
    assert table_of(mine).name in message


def test_table_that_lacks_an_op(refused, mine):
    from hwnas.latency import read_table, write_table
    from hwnas.targets import resolve_target

    table = read_table(resolve_target(TARGET), table_of(mine))
    gone = next(key for key in table.rows if key.startswith("mbconv"))
    rows = {key: row for key, row in table.rows.items() if key != gone}
    write_table(type(table)(target=table.target, rows=rows, manifest=table.manifest), table_of(mine))
    message = refused(*search(mine, "--budget", "150%"))
    assert gone in message
    assert "hwnas profile --space mobilenetv3-tiny" in message


def write_recipe(folder, name, before, after):
    """A recipe of one's own: the usual one with some words replaced."""
    from hwnas.targets import recipes

    text = recipes()["onnxruntime-cpu-fp32"].read_text()
    assert before in text
    (folder / "home" / "exporters").mkdir()
    (folder / "home" / "exporters" / f"{name}.toml").write_text(text.replace(before, after))


def test_table_of_another_recipe(refused, mine):
    write_recipe(mine, "onnxruntime-cpu-fp32", "batch = 1", "batch = 2")
    message = refused(*search(mine, "--budget", "150%"))
    assert "another recipe" in message
    assert "hwnas profile" in message


def test_no_table(refused, mine):
    # Tables of the usual recipes are shipped for some hosts; a recipe of one's own has none.
    write_recipe(mine, "own-cpu-fp32", "onnxruntime-cpu-fp32", "own-cpu-fp32")
    message = refused(*search(mine, "--budget", "150%", "--target", "this/own-cpu-fp32"))
    assert "hwnas profile" in message
    assert "/own-cpu-fp32" in message


# -- budgets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", ["0", "-0.1", "0ms", "-5%", "fast", "nan", "inf", ""])
def test_budget_that_is_none(refused, mine, budget):
    message = refused(*search(mine, f"--budget={budget}"))
    assert repr(budget) in message
    assert "positive" in message
    assert not (mine / "found.json").exists()


def test_budget_below_the_fastest_network(refused, mine):
    message = refused(*search(mine, "--budget", "0.000001ms"))
    assert "The fastest" in message
    assert "resolution=24" in message
    assert not (mine / "found.json").exists()


# -- bundles and outputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "README.md", "example-input.npy"])
@pytest.mark.parametrize("place", [0, 0.3, 0.7, 1])
def test_bundle_with_a_changed_byte(refused, mine, name, place):
    path = mine / "bundle" / name
    content = bytearray(path.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    assert name in refused("bench", mine / "bundle")
    assert name in refused("verify", mine / "bundle")


def test_no_bundle(refused, tmp_path):
    assert "is not a bundle" in refused("bench", tmp_path)
    assert "is not a bundle" in refused("verify", tmp_path)
    assert "the folder of a bundle is missing" in refused("verify")


def test_bundle_of_a_newer_schema_or_with_a_link(refused, mine):
    path = mine / "bundle" / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 4', 1))
    assert "schema 4, of a newer hwnas" in refused("verify", mine / "bundle")
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert "is a symbolic link" in refused("verify", mine / "bundle")


def test_bundle_that_is_whole(hwnas_cli, mine):
    ran = hwnas_cli("verify", mine / "bundle", "--json")
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    references = json.loads((mine / "bundle" / "manifest.json").read_text(encoding="utf-8"))["references"]
    assert (found["files"], found["program_form"], found["not_run"]) == (4 + len(references), True, None)
    assert found["max_abs_error"] <= found["accepted_error"]
    assert "as recorded" in hwnas_cli("verify", mine / "bundle").out
    assert json.loads(hwnas_cli("verify", "--schema").out)["title"] == "BundleManifest"


def test_output_that_is_a_file(refused, mine):
    (mine / "file").write_text("mine")
    export = ("export", mine / "arch.json", "--supernet", mine / "net", "--target", TARGET)
    assert "is a file" in refused(*export, "--out", mine / "file")
    assert "is a file" in refused("train", *SMALL, "--data", "cluttered-digits", "--out", mine / "file")
    assert "is a file" in refused("quickstart", "--out", mine / "file")
    assert "cannot write" in refused(*search(mine)[:5], "--budget", "500%", "--subnets", 10,
                                     "--images", 100, "--out", mine / "file" / "arch.json")  # fmt: skip
    assert (mine / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk")
def test_output_on_a_full_disk(refused, mine):
    disk = mine / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        train = ("train", *SMALL, "--data", "cluttered-digits", "--steps", 2, "--batch-size", 8)
        assert "disk is full" in refused(*train, "--out", disk / "net")
        # No part of a checkpoint; metrics of the steps that were done are whole rows.
        assert {path.name for path in (disk / "net").iterdir()} <= {".lock", "metrics.csv", "tensorboard"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_output_that_is_not_writable(refused, mine):
    """`/proc` refuses every new folder, to root too."""
    train = ("train", *SMALL, "--data", "cluttered-digits", "--steps", 1, "--batch-size", 8)
    assert "cannot write" in refused(*train, "--out", "/proc/hwnas")
    assert "cannot write" in refused("quickstart", "--out", "/proc/hwnas")


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_supernet_that_is_not_what_was_trained(refused, mine, damage):
    weights = mine / "net" / "supernet.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert "supernet.safetensors" in refused(*search(mine, "--budget", "150%"))


def test_arch_that_is_none(refused, mine):
    (mine / "arch.json").write_text('{"arch": {"resolution": 24}}')
    export = ("export", mine / "arch.json", "--supernet", mine / "net", "--target", TARGET, "--out", mine / "b")
    assert "missing" in refused(*export)
    for text in ("[]", '{"arch": 24}', '{"arch": "resolution"}', '{"arch": [["resolution", 24]]}'):
        (mine / "arch.json").write_text(text)
        assert 'does not contain an architecture: it has no key "arch" with a value for each variable' in refused(
            *export
        )
    assert not (mine / "b").exists()


@pytest.mark.parametrize("budget", ["true", "1" + "0" * 400, "1e400", "-1", '"1"', "[]"])
def test_the_budget_of_an_arch_that_is_none(budget, tmp_path):
    path = tmp_path / "arch.json"
    path.write_text(f'{{"arch": {{"resolution": 24}}, "budget_ms": {budget}}}')
    with pytest.raises(
        SpecError,
        match=r"arch\.json does not contain an architecture: budget_ms is .{2,40}; it should be a positive number",
    ):
        read_arch(path)


# -- images ------------------------------------------------------------------------------------------------------


def images(folder, classes, broken=False):
    for split in ("train", "val"):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (40, 40), (i * 40, 10, 10)).save(folder / split / name / f"{i}.png")
    if broken:
        for path in folder.glob("train/*/*.png"):
            path.write_bytes(path.read_bytes()[:30])


def test_folder_of_images_that_is_none(refused, tmp_path):
    train = ("train", *SMALL, "--data", "images", "--out", tmp_path / "net", "--steps", 1, "--batch-size", 4)
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused(*train, "--data-path", tmp_path / "empty")
    images(tmp_path / "one", ["cat"])
    assert "cat" in refused(*train, "--data-path", tmp_path / "one")
    images(tmp_path / "broken", ["cat", "dog"], broken=True)
    assert ".png" in refused(*train, "--data-path", tmp_path / "broken")
    assert "path" in refused(*train)


def test_a_variable_fixed_twice(refused):
    fixes = ("--fix", "resolution=24", "--fix", "resolution=28")
    assert "given twice" in refused("profile", "--space", "mobilenetv3-tiny", *fixes, "--target", TARGET)


def test_a_training_recipe_that_makes_no_sense(refused, tmp_path):
    recipe = tmp_path / "recipe.toml"
    train = ("train", *SMALL, "--data", "cluttered-digits", "--out", tmp_path / "net", "--training", recipe)
    assert "cannot read" in refused(*train)
    for rate in ("nan", "inf", "0", "-1"):
        recipe.write_text(f"[[phases]]\nname = 'all'\nsteps = 1\nlearning_rate = {rate}\n")
        assert "phases[0].learning_rate is" in refused(*train)
    recipe.write_text("[[phases]]\nname = 'all'\nsteps = 1\nlearning_rate = 1.0\nlargest_of = { width = 1 }\n")
    assert "restricts width, but the variables of mobilenetv3-tiny are of the kinds resolution" in refused(*train)
    recipe.write_text("[augmentation]\nflip = 0.1\n")
    assert "are for photographs" in refused(*train)


def test_a_supernet_from_elsewhere(refused, mine, tmp_path):
    import_ = ("supernet", "import", tmp_path / "file", "--out", tmp_path / "imported")
    assert "No such file" in refused(*import_)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "file")
    assert "no parameter of once-for-all's supernets" in refused(*import_)
    assert "missing: blocks.0" in refused(*import_, "--space", "mobilenetv3")
    assert "unknown format 'onnx'" in refused(*import_, "--format", "onnx")
    assert "unknown space of a published supernet" in refused(*import_, "--space", "mobilenetv3-tiny")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hook": Path("x")}, tmp_path / "file")
    assert "cannot read" in refused(*import_)
    assert not (tmp_path / "imported").exists()


def test_subnets(refused, mine, tmp_path):
    (tmp_path / "text").write_text("{}")
    extract = ("subnet", "extract", mine / "arch.json", "--supernet", mine / "net", "--out")
    assert "is a file" in refused(*extract, tmp_path / "text")
    assert "does not contain an architecture" in refused(
        "subnet", "eval", tmp_path / "text", "--supernet", mine / "net"
    )
    assert "networks; extract one" in refused("subnet", "finetune", "--subnet", mine / "net", "--out", tmp_path / "f")
    assert "holds no supernet" in refused("subnet", "finetune", "--subnet", tmp_path / "no", "--out", tmp_path / "f")


def test_devices_that_are_not_there(refused, tmp_path):
    train = ("train", *SMALL, "--data", "cluttered-digits", "--steps", 1, "--out", tmp_path / "net")
    assert "unknown accelerator 'tpu'" in refused(*train, "--accelerator", "tpu")
    assert "unknown precision '8'" in refused(*train, "--precision", "8")
    if not torch.cuda.is_available():
        assert "cannot train on 1 devices of cuda" in refused(*train, "--accelerator", "cuda")


def test_more_devices_than_there_are(refused, tmp_path, monkeypatch):
    """Lightning's exception for GPUs that are not there is of no usual kind."""

    def missing(**_):
        raise MisconfigurationException("You requested gpu: [0, 1, 2, 3] But your machine only has: [0]")

    monkeypatch.setattr("hwnas.training.processes.Fabric", missing)
    train = ("train", *SMALL, "--data", "cluttered-digits", "--steps", 1, "--out", tmp_path / "net")
    assert "cannot train on 4 devices of cuda: You requested" in refused(
        *train, "--accelerator", "cuda", "--devices", 4
    )


def test_an_arch_file_with_an_impossible_budget(refused, mine):
    answer = json.loads((mine / "arch.json").read_text())
    (mine / "arch.json").write_text(json.dumps({**answer, "budget_ms": -1}))
    export = ("export", mine / "arch.json", "--supernet", mine / "net", "--target", TARGET, "--out", mine / "b")
    assert "budget_ms is -1" in refused(*export)


def test_a_table_that_another_process_measures(refused, mine):
    from hwnas.files import only_one
    from hwnas.latency.table import table_lock

    with only_one(table_lock(table_of(mine)), "the table"):
        assert "another hwnas process is working on" in refused("profile", *SMALL, "--target", TARGET)


def test_data_whose_classes_changed_after_training(mine):
    images(mine / "pets", ["cat", "dog"])
    from hwnas.errors import DataError
    from hwnas.supernet import SupernetFacts
    from hwnas.workflows.inputs import reopen_data

    facts = json.loads((mine / "net" / "supernet.json").read_text())
    facts["data"] = {"name": "images", "path": str(mine / "pets")}
    with pytest.raises(DataError, match="cat, dog"):
        reopen_data(SupernetFacts.model_validate(facts))


def test_the_version(hwnas_cli):
    from importlib.metadata import version

    assert hwnas_cli("--version").out.strip() == version("hwnas")


def test_as_a_module():
    ran = subprocess.run([sys.executable, "-m", "hwnas", "--version"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert ran.stdout.strip()
