"""`hwnas tables transfer`, `next` and `import --format networks`, `hwnas validate --against`, as users run them."""

from __future__ import annotations

import csv
import json

import pytest

from hwnas.cli.transfer import _print_next
from hwnas.latency import load_model, read_table
from hwnas.spaces import make_space, notation_of
from hwnas.targets import resolve_target
from hwnas.workflows import NextAnswer

SOURCES = "amd-epyc-f25m17-2c/onnxruntime*"
SPACE = ("--space", "mobilenetv3-tiny")
NEW = "phone/onnxruntime-cpu-fp32"


@pytest.fixture
def phone(hwnas_cli, tmp_path):
    """A device that nobody profiled, in the catalog's home."""
    path = tmp_path / "home" / "devices" / "phone.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        'schema = 1\nname = "phone"\nkind = "cpu"\ndescription = "made up"\n[match]\ncpu = "^phone$"\n'
        '[hardware]\nsource = "made up"\n'
    )
    return tmp_path / "home" / "latency_tables" / f"{NEW}.csv"


@pytest.fixture
def measured(tmp_path):
    """Ten networks on a phone that is three times slower than a profiled machine."""
    space = make_space("mobilenetv3-tiny")
    model = load_model(read_table(resolve_target("amd-epyc-f25m17-2c/openvino-cpu-fp32")), space)
    codes = space.sample(10, seed=5)
    path = tmp_path / "ten.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("arch", "ms"))
        for arch, ms in zip(space.decode(codes), model.predict(codes), strict=True):
            writer.writerow((json.dumps(dict(arch)), 3 * ms))
    return path


@pytest.fixture
def transferred(hwnas_cli, phone, measured):
    ran = hwnas_cli(
        "tables", "transfer", "--from", SOURCES, "--measurements", measured, "--target", NEW, *SPACE, "--json"
    )
    assert ran.code == 0, ran
    return json.loads(ran.out)


def test_a_table_is_transferred_shown_and_searched(hwnas_cli, phone, transferred, measured):
    assert transferred["networks"] == 10
    assert all(name.startswith("amd-epyc-f25m17-2c/onnxruntime") for name in transferred["sources"])
    assert transferred["methods"][0]["spearman"] >= transferred["methods"][-1]["spearman"]
    assert phone.is_file()
    shown = hwnas_cli("tables", "show", NEW)
    assert "145 ops, transferred" in shown.out
    assert "left_out_spearman" in shown.out
    compared = json.loads(hwnas_cli("validate", "--against", measured, "--target", NEW, *SPACE, "--json").out)
    assert compared["networks"] == 10
    assert compared["mape"] < 0.05
    assert (
        "10 networks of mobilenetv3-tiny" in hwnas_cli("validate", "--against", measured, "--target", NEW, *SPACE).out
    )


def test_networks_to_measure(hwnas_cli, phone, measured, tmp_path):
    ran = hwnas_cli("tables", "next", "--from", SOURCES, *SPACE, "--count", 4, "--out", tmp_path / "ask.csv")
    assert ran.code == 0, ran
    assert ran.out.count("measure ") == 4
    assert len((tmp_path / "ask.csv").read_text().splitlines()) == 5
    with_budget = ("tables", "next", "--from", SOURCES, *SPACE, "--measurements", measured, "--budget-ms", 1.0)
    found = json.loads(hwnas_cli(*with_budget, "--json").out)
    assert len(found["networks"]) <= 1
    assert 0 < found["share"] <= 1
    assert [one["budget_ms"] for one in found["found"]] == [1.0]


def test_a_decision_that_is_open_is_not_called_settled(capsys):
    answer = NextAnswer(space="darts", sources=[], networks=[], found=[], share=0.5)
    _print_next(answer)
    assert "No candidate is left to measure" in capsys.readouterr().out
    _print_next(answer.model_copy(update={"share": 0.95}))
    assert "The decision is settled" in capsys.readouterr().out


def test_whole_networks_are_imported(hwnas_cli, phone, tmp_path):
    space = make_space("nasbench201-tiny")
    codes = space.sample(60, seed=1)
    path = tmp_path / "all.csv"
    times = 1 + space.macs(codes) / 1e6
    rows = (f"{notation_of(arch)},{ms}" for arch, ms in zip(space.decode(codes), times, strict=True))
    path.write_text("arch,phone\n" + "\n".join(dict.fromkeys(rows)))
    words = ("tables", "import", path, "--format", "networks", "--target", NEW)
    ran = hwnas_cli(*words, "--space", "nasbench201-tiny")
    assert ran.code == 0, ran
    assert "their ops were fitted" in ran.out
    compared = json.loads(
        hwnas_cli("validate", "--against", path, "--target", NEW, "--space", "nasbench201-tiny", "--json").out
    )
    assert compared["mape"] < 0.05


def test_what_is_wrong_is_one_message(refused, phone, measured, tmp_path):
    words = ("tables", "transfer", "--measurements", measured, "--target", NEW, *SPACE, "--from")
    assert "matches no latency table" in refused(*words, "nobody/*")
    assert "is the only one" in refused(*words, "amd-epyc-f25m17-2c/onnxruntime-cpu-fp32")
    assert "method of transfer 'guess'" in refused(*words, SOURCES, "--method", "guess")
    measured.write_text("\n".join(measured.read_text().splitlines()[:3]))
    assert "needs at least 3" in refused(*words, SOURCES)
    assert "--few-shot needs it" in refused("profile", "--target", NEW, *SPACE, "--few-shot", 5)
    assert "these are for --format networks" in refused(
        "tables", "import", measured, "--format", "ofa-yaml", "--target", NEW, *SPACE
    )
    assert "needs --space" in refused("tables", "import", measured, "--format", "networks", "--target", NEW)
    assert "--networks and --seed are for new measurements" in refused(
        "validate", "--target", NEW, *SPACE, "--against", measured, "--seed", 1
    )
    first = ("tables", "next", "--from", SOURCES, *SPACE)
    assert "--budget-ms is for --measurements" in refused(*first, "--budget-ms", 3)
    assert "--count is for a first set" in refused(*first, "--measurements", measured, "--count", 3)
    assert "--column is for --against" in refused("validate", "--target", NEW, *SPACE, "--column", "x")
