"""`hwnas tables`: listing, showing, comparing and importing, as users do it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.latency import load_model, read_table, write_table
from hwnas.latency.manifest import Fit, Validation
from hwnas.spaces import Domain, parse_op
from hwnas.supernet import save_supernet
from hwnas.targets import catalog

ROOT = Path(__file__).resolve().parents[2]
PHONE = "samsung-note10/note10-fp32"

ROWS = {
    "Conv-input:160x160x3-output:80x80x24": (0.5, 498),
    "expanded_conv-input:80x80x24-output:80x80x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0": (0.25, 300),
    "AvgPool2D-input:5x5x1152-output:1x1x1152": (0.01, 491),
    "Conv_2-input:1x1x1152-output:1x1x1536": (0.75, 498),
    "Logits-input:1x1x1536-output:1000": (0.65, 499),
}
STEM = "conv 3x160x160>24x80x80 act=hswish kernel=3 stride=2"


def ofa_yaml(**changes: tuple[float, int]) -> str:
    rows = {name: changes.get(name.split("-")[0], row) for name, row in ROWS.items()}
    return "".join(f"{name}:\n  count: {count}\n  mean: {mean}\n  std: 0.01\n" for name, (mean, count) in rows.items())


@pytest.fixture
def home(hwnas_cli, tmp_path):
    """The catalog's home, with the phone's device and recipe in it as the page about imports says them."""
    page = (ROOT / "docs" / "importing-tables.md").read_text()
    device, recipe = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    for path, content in (("devices/samsung-note10.toml", device), ("exporters/note10-fp32.toml", recipe)):
        (tmp_path / "home" / path).parent.mkdir(parents=True)
        (tmp_path / "home" / path).write_text(content)
    return tmp_path / "home"


@pytest.fixture
def yaml_file(tmp_path):
    path = tmp_path / "160.yaml"
    path.write_text(ofa_yaml())
    return path


@pytest.fixture
def imported(hwnas_cli, home, yaml_file):
    """The CSV of an imported table."""
    ran = hwnas_cli("tables", "import", yaml_file, "--format", "ofa-yaml", "--target", PHONE)
    assert ran.code == 0, ran
    return home / "latency_tables" / f"{PHONE}.csv"


@pytest.fixture
def measured(home, space, this, make_table):
    """The CSV of a table of this host with a fit and its validation; nobody measured it."""
    validation = Validation(
        networks=40,
        seed=7,
        mape=0.0123,
        noise_floor=0.0045,
        within_5pct=1.0,
        within_10pct=1.0,
        kendall_tau=0.95,
        kendall_tau_repeat=0.98,
        speed=0.97,
        confidence=0.95,
        below_upper=0.975,
        upper_margin=0.021,
        baselines={"plain sum": {"mape": 0.11, "kendall_tau": 0.9}, "MACs": {"mape": 0.2, "kendall_tau": 0.7}},
        spread=0.01,
        date="2026-02-03",
    )
    fit = Fit(
        domain=Domain.of(space),
        seed=1,
        calibration_ms=[1.0] * 16,
        terms={"scale": 0.9, "ms per op": 0.0012, "stage stage1": 0.1},
        held_out_mape=0.0071,
        scores=[i / 1000 for i in range(-20, 20)],
        measurement={"passes": 10},
        validation=validation,
    )
    path = home / "latency_tables" / f"{this.name}.csv"
    write_table(make_table(space, this).with_fit(fit), path)
    return path


def found(ran):
    assert ran.code == 0, ran
    return json.loads(ran.out)


# -- list --------------------------------------------------------------------------------------------------------


def test_no_table_at_all(hwnas_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "roots", lambda: [tmp_path])
    ran = hwnas_cli("tables", "list")
    assert ran.code == 0
    assert "There is no latency table" in ran.out
    assert found(hwnas_cli("tables", "list", "--json")) == []


def test_list(hwnas_cli, measured, imported, this, space):
    entries = {entry["target"]: entry for entry in found(hwnas_cli("tables", "list", "--json"))}
    phone, host = entries[PHONE], entries[this.name]
    assert (phone["usable"], phone["origin"], phone["rows"], phone["fits"]) == (True, "imported", 3, [])
    assert phone["table"] == str(imported)
    assert (host["origin"], host["rows"]) == ("measured", len(space.distinct_ops))
    assert host["fits"][0]["domain"]["space"] == "mobilenetv3-tiny"
    assert host["fits"][0]["validation"]["mape"] == 0.0123
    lines = hwnas_cli("tables", "list").out.splitlines()
    at = lines.index(this.name)
    assert lines[at + 1] == f"  measured 2026-01-31, {len(space.distinct_ops)} rows, yours"
    assert lines[at + 2].startswith("  fitted on mobilenetv3-tiny resolution=24 depth_1=1,2")
    assert lines[at + 2].endswith(": MAPE 1.23%, noise floor 0.45%, validated 2026-02-03")
    at = lines.index(PHONE)
    assert lines[at + 1].startswith("  imported ")
    assert lines[at + 1].endswith(", 3 rows, yours")
    assert lines[at + 2] == "  no fit"


def test_list_of_a_folder(hwnas_cli, refused, measured, imported, tmp_path):
    shutil.copytree(imported.parent, tmp_path / "mine" / imported.parent.name)
    [entry] = found(hwnas_cli("tables", "list", "--tables", tmp_path / "mine", "--json"))
    assert entry["target"] == PHONE
    assert "not a folder" in refused("tables", "list", "--tables", tmp_path / "none")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_text(path.read_text().replace("0.5,", "0.4,")), "was changed after it was written"),
        (lambda path: path.with_suffix(".toml").unlink(), "has no manifest"),
        (lambda path: path.with_suffix(".toml").write_text("schema = "), "not TOML"),
        (lambda path: path.rename(path.with_name("no-such-recipe.csv")), "unknown recipe 'no-such-recipe'"),
        (lambda path: path.write_bytes(b"\x00\xff"), "has the columns"),
        (lambda path: (path.unlink(), path.mkdir()), "no latency table"),
    ],
)
def test_a_damaged_table_does_not_hide_the_others(hwnas_cli, measured, imported, this, damage, reason):
    damage(imported)
    entries = {entry["target"]: entry for entry in found(hwnas_cli("tables", "list", "--json"))}
    assert entries[this.name]["usable"]
    [broken] = [entry for target, entry in entries.items() if target.startswith("samsung")]
    assert not broken["usable"]
    assert reason in broken["reason"]
    ran = hwnas_cli("tables", "list")
    assert ran.code == 0
    assert "cannot be used: " in ran.out
    assert reason in ran.out


# -- show --------------------------------------------------------------------------------------------------------


def test_show(hwnas_cli, measured, space, this):
    ran = hwnas_cli("tables", "show", "this/onnxruntime-cpu-fp32")
    assert ran.code == 0
    slowest = max(space.distinct_ops, key=lambda op: read_table(this, measured).latency_ms(op))
    for part in (
        f"{this.name}: {len(space.distinct_ops)} ops, measured",
        str(measured),
        "passes: 8",
        "16 networks, held-out error 0.71%; upper bounds from 40 more",
        "MAPE 1.23%, noise floor 0.45%, validated 2026-02-03: 40 fresh networks",
        "within 5% 100%, within 10% 100%, Kendall τ 0.950 (two measurements 0.980)",
        "terms: scale 0.9, ms per op 0.0012, stage stage1 0.1",
        "MAPE of others: plain sum 11.00%, MACs 20.00%",
    ):
        assert part in ran.out
    listed = ran.out.split("samples  op\n")[1].splitlines()
    assert listed[0].endswith(slowest.key)
    assert len(listed) == 10


def test_show_as_json(hwnas_cli, imported):
    shown = found(hwnas_cli("tables", "show", PHONE, "--json"))
    assert shown["manifest"]["origin"] == "imported"
    assert shown["manifest"]["schema"] == 1
    assert shown["table"] == str(imported)
    [row] = [row for row in shown["rows"] if row["op"] == STEM]
    assert (row["latency_ms_p25"], row["samples"], row["macs"]) == (0.5, 498, parse_op(STEM).macs)


def test_show_an_imported_table(hwnas_cli, imported, tmp_path):
    ran = hwnas_cli("tables", "show", PHONE, "--tables", tmp_path / "home" / "latency_tables")
    assert "3 ops, imported" in ran.out
    assert "statistic: mean" in ran.out
    assert ": 160.yaml" in ran.out
    assert "no context terms: predictions are the plain sum" in ran.out


def test_show_no_table(refused, home):
    assert f"there is no latency table for {PHONE}" in refused("tables", "show", PHONE)
    assert "unknown device 'samsung-note11'" in refused("tables", "show", "samsung-note11/note10-fp32")


# -- diff --------------------------------------------------------------------------------------------------------


def test_diff_of_two_days(hwnas_cli, measured, this, space, tmp_path):
    today = read_table(this, measured)
    slow = {
        key: replace(row, latency_ms_p25=row.latency_ms_p25 * 1.02, latency_ms_p50=row.latency_ms_p50 * 1.02)
        for key, row in today.rows.items()
    }
    [dropped, *_] = sorted(slow)
    del slow[dropped]
    write_table(replace(today, rows=slow), tmp_path / "before.csv")
    facts = found(hwnas_cli("tables", "diff", tmp_path / "before.csv", "this/onnxruntime-cpu-fp32", "--json"))
    assert (facts["a"], facts["b"]) == (this.name, this.name)
    assert facts["ratio_median"] == pytest.approx(1 / 1.02, rel=1e-4)
    assert facts["kendall_tau"] == pytest.approx(1)
    assert (facts["only_a"], facts["only_b"]) == ([], [dropped])
    assert len(facts["ops"]) == len(space.distinct_ops) - 1
    ran = hwnas_cli("tables", "diff", "this/onnxruntime-cpu-fp32", tmp_path / "before.csv")
    assert ran.code == 0
    assert "1.0200   (median; p5 1.0200, p95 1.0200)" in ran.out
    assert f"{tmp_path / 'before.csv'}  ({this.name})" in ran.out
    assert f"only in A\n  {dropped}" in ran.out


def test_diff_of_two_targets_without_a_common_op(refused, measured, imported):
    message = refused("tables", "diff", "this/onnxruntime-cpu-fp32", PHONE)
    assert "have no op in common" in message


def test_diff_of_a_table_that_is_not_known_here(refused, imported, home, tmp_path):
    shutil.copytree(imported.parent, tmp_path / "theirs")
    theirs = tmp_path / "theirs" / imported.name
    for folder in ("devices/samsung-note10", "exporters/note10-fp32"):
        spec = home / f"{folder}.toml"
        text = spec.read_text()
        spec.unlink()
        message = refused("tables", "diff", theirs, theirs)
        assert f"{theirs} is a table of {PHONE}, which is unknown on this host: unknown" in message
        assert "Copy devices/samsung-note10.toml and exporters/note10-fp32.toml" in message
        spec.write_text(text)
    recipe = home / "exporters" / "note10-fp32.toml"
    recipe.write_text(recipe.read_text().replace("threads = 1", "threads = 4"))
    assert "was made with another recipe 'note10-fp32'" in refused("tables", "diff", theirs, theirs)
    assert "there is no latency table at none.csv" in refused("tables", "diff", "none.csv", theirs)
    theirs.with_suffix(".toml").unlink()
    assert "has no manifest" in refused("tables", "diff", theirs, theirs)


# -- import ------------------------------------------------------------------------------------------------------


def test_import(hwnas_cli, home, yaml_file, tmp_path):
    other = tmp_path / "164.yaml"
    other.write_text(ofa_yaml(Conv=(0.6, 249)))
    facts = found(
        hwnas_cli("tables", "import", yaml_file, other, "--format", "ofa-yaml", "--target", PHONE, "--json"),
    )
    path = home / "latency_tables" / f"{PHONE}.csv"
    assert facts == {
        "target": PHONE,
        "format": "ofa-yaml",
        "files": 2,
        "ops": 3,
        "rows": 3,
        "rows_replaced": 0,
        "ops_in_several_files": 1,
        "largest_relative_difference": pytest.approx(0.2),
        "most_different_op": STEM,
        "table": str(path),
    }
    table = read_table(catalog.resolve_target(PHONE), path)
    assert table.rows[STEM].latency_ms_p25 == pytest.approx((0.5 * 498 + 0.6 * 249) / 747, rel=1e-5)
    assert table.rows[STEM].samples == 747
    [classifier] = [row for key, row in table.rows.items() if key.startswith("classifier")]
    assert classifier.latency_ms_p25 == classifier.latency_ms_p90 == pytest.approx(1.41)
    assert classifier.samples == 2 * 491


def test_import_says_what_it_averaged_and_replaced(hwnas_cli, imported, yaml_file, tmp_path):
    other = tmp_path / "164.yaml"
    other.write_text(ofa_yaml(Conv=(0.6, 249)))
    words = ("tables", "import", yaml_file, other, "--format", "ofa-yaml", "--target", PHONE)
    ran = hwnas_cli(*words)
    assert ran.code == 0
    assert "3 ops of samsung-note10/note10-fp32 from 2 files" in ran.out
    assert "1 of them have different values in several files" in ran.out
    assert f"20.0%, in {STEM}" in ran.out
    assert "3 rows of the older table were replaced" in ran.out
    ran = hwnas_cli(*words, "--replace")
    assert "replaced" not in ran.out


def test_an_older_import_is_added_to_unless_replaced(hwnas_cli, imported, tmp_path):
    only_stem = tmp_path / "stem.yaml"
    only_stem.write_text("Conv-input:164x164x3-output:82x82x24: {mean: 0.52, count: 500}\n")
    words = ("tables", "import", only_stem, "--format", "ofa-yaml", "--target", PHONE, "--json")
    assert found(hwnas_cli(*words))["rows"] == 4
    shown = found(hwnas_cli("tables", "show", PHONE, "--json"))
    assert shown["manifest"]["measurement"]["files"] == 2
    assert found(hwnas_cli(*words, "--replace"))["rows"] == 1


def test_a_measured_table_is_never_added_to(refused, measured, yaml_file):
    before = measured.read_bytes()
    message = refused("tables", "import", yaml_file, "--format", "ofa-yaml", "--target", "this/onnxruntime-cpu-fp32")
    assert "was measured; imported rows cannot be added to it" in message
    assert "--replace" in message
    assert measured.read_bytes() == before


def test_a_malformed_file_writes_nothing(refused, home, yaml_file, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(ofa_yaml(Conv_2=(-0.1, 498)))
    message = refused("tables", "import", yaml_file, bad, "--format", "ofa-yaml", "--target", PHONE)
    assert f"{bad}, line 13, row 'Conv_2-input:1x1x1152-output:1x1x1536': mean is '-0.1'" in message
    assert not (home / "latency_tables").exists()


def test_import_of_what_is_not_there(refused, home, yaml_file, tmp_path):
    words = ("tables", "import", "--target", PHONE, "--format")
    assert "unknown format" in refused(*words, "nn-meter", yaml_file)
    assert "cannot read" in refused(*words, "ofa-yaml", tmp_path / "none.yaml")
    assert "are the same file" in refused(*words, "ofa-yaml", yaml_file, yaml_file)
    message = refused("tables", "import", yaml_file, "--format", "ofa-yaml", "--target", "phone/note10-fp32")
    assert "unknown device 'phone'" in message
    assert not (home / "latency_tables").exists()


# -- searching on an imported table ------------------------------------------------------------------------------


@pytest.fixture
def phone_table(home, space, this, make_table):
    """An imported table of the small space, for the phone, where the command line finds it."""
    phone = catalog.resolve_target(PHONE)
    facts = {"device": phone.device.name, "recipe": phone.recipe.name, "recipe_hash": phone.recipe.hash}
    table = replace(make_table(space, this, origin="imported", **facts), target=phone)
    return write_table(table, home / "latency_tables" / f"{PHONE}.csv")


def test_a_confidence_or_no_margin(refused, home, tmp_path):
    message = refused(
        "search", "--supernet", tmp_path, "--target", PHONE, "--budget", "20ms", "--out", tmp_path / "a.json",
        "--confidence", "0.9", "--no-margin",
    )  # fmt: skip
    assert "use --confidence or --no-margin, not both" in message


def test_a_search_on_an_imported_table(hwnas_cli, refused, phone_table, space, supernet, evaluator, tmp_path):
    data, classes = {"name": "cluttered-digits", "path": None}, evaluator.data.classes
    save_supernet(supernet, tmp_path / "net", data=data, classes=classes, training={})
    words = (
        "search", "--supernet", tmp_path / "net", "--target", PHONE, "--budget", "95%", "--out", tmp_path / "a.json",
        "--subnets", 30, "--images", 100, "--candidates", 1,
    )  # fmt: skip
    message = refused(*words)
    assert "were imported and never calibrated on whole networks" in message
    assert "--no-margin" in message
    answer = found(hwnas_cli(*words, "--no-margin", "--json"))
    [ms] = load_model(phone_table, space).predict(space.encode([space.arch(answer["arch"])]))
    assert answer["predicted_ms"] == pytest.approx(ms, rel=1e-5)
    assert answer["predicted_ms"] <= answer["budget_ms"]


def test_only_what_runs_here_is_profiled_and_validated(refused, phone_table, space):
    fixed = [f"--fix={name}={','.join(map(str, values))}" for name, values in Domain.of(space).choices.items()]
    words = ("--space", space.name, *fixed, "--target", PHONE)
    assert "were imported and never calibrated on whole networks" in refused("validate", *words)
    assert "note10-fp32 cannot be timed (runtime external)" in refused("profile", *words)
