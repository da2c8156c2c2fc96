"""`hwnas search` on made-up tables: fleets, families, recipes, fronts, explanations, own accuracies, Ctrl-C."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ET

import pytest

from hwnas.latency import load_model, read_table, write_table
from hwnas.latency.manifest import Fit
from hwnas.spaces import Domain
from hwnas.supernet import save_supernet
from hwnas.targets import resolve_target

FP32, INT8, OPENVINO = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "openvino-cpu-fp32"


@pytest.fixture(scope="module")
def net(supernet, evaluator, tmp_path_factory):
    """One folder for all tests: what was evaluated is not evaluated again."""
    data, folder = {"name": "cluttered-digits", "path": None}, tmp_path_factory.mktemp("search") / "net"
    save_supernet(supernet, folder, data=data, classes=evaluator.data.classes, training={})
    return folder


@pytest.fixture(scope="module")
def tables(space, make_table, tmp_path_factory):
    """Tables of three recipes of this host, each with a scale of its own and bounds of 1%."""
    folder = tmp_path_factory.mktemp("tables")
    for recipe, scale in ((FP32, 1.0), (INT8, 0.5), (OPENVINO, 0.8)):
        target = resolve_target(f"this/{recipe}")
        fit = Fit(
            domain=Domain.of(space),
            seed=0,
            calibration_ms=[1.0] * 16,
            terms={"scale": scale},
            held_out_mape=0.0,
            scores=[0.01] * 19,
            measurement={},
        )
        write_table(make_table(space, target).with_fit(fit), folder / f"{target.name}.csv")
    return folder


@pytest.fixture
def words(net, tables, tmp_path):
    def command(*more):
        return (
            "search", "--supernet", net, "--tables", tables, "--out", tmp_path / "out.json",
            "--images", 100, "--candidates", 3, *more,
        )  # fmt: skip

    return command


def models(tables, space):
    found = {}
    for recipe in (FP32, INT8, OPENVINO):
        target = resolve_target(f"this/{recipe}")
        found[target.name] = load_model(read_table(target, tables / f"{target.name}.csv"), space)
    return found


def test_one_network_for_a_fleet_keeps_every_budget(hwnas_cli, words, tables, space):
    found = models(tables, space)
    largest = {name: float(m.predict(space.encode([space.largest]))[0]) for name, m in found.items()}
    budgets = {name: 0.9 * ms for name, ms in largest.items()}
    given = [w for name, ms in budgets.items() for w in ("--budget", f"{name}={ms:.6f}ms")]
    ran = hwnas_cli(*words(*given, "--budget", "params=100%", "--json"))
    assert ran.code == 0, ran.err
    answer = json.loads(ran.out)
    assert set(answer["budgets"]) == {*budgets, "params"}
    codes = space.encode([space.arch(answer["arch"])])
    for name, model in found.items():
        assert answer["predicted"][name] == pytest.approx(model.predict(codes)[0])
        assert model.predict_upper(codes)[0] <= answer["budgets"][name] * (1 + 1e-9)
    assert answer["predicted"]["params"] == space.params(codes)[0]
    assert answer["proof"].startswith("Proved: no other of the 18 networks")
    assert set(answer["accuracy_model"]) == {"subnets", "stagewise", "ensemble"}
    assert "budget_ms" not in answer, "of three latencies none is the one"


def test_a_family_has_a_network_for_each(hwnas_cli, words, tables, space, tmp_path):
    names = list(models(tables, space))
    given = [
        w for name, share in zip(names, ("90%", "95%", "102%"), strict=True) for w in ("--budget", f"{name}={share}")
    ]
    folder = tmp_path / "family"
    ran = hwnas_cli(*words(*given, "--family", "--out", folder, "--json"))
    assert ran.code == 0, ran.err
    answers = json.loads(ran.out)
    assert [a["target"] for a in answers] == names
    files = [folder / f"{name.replace('/', '-')}.json" for name in names]
    assert [json.loads(file.read_text()) for file in files] == answers
    assert all(a["predicted_ms"] <= a["budget_ms"] for a in answers)


@pytest.mark.long
def test_the_recipe_is_chosen_by_what_it_deploys(hwnas_cli, words, tables, space, tmp_path):
    largest = max(float(m.predict(space.encode([space.largest]))[0]) for m in models(tables, space).values())
    ran = hwnas_cli(*words("--target", "this/*", "--budget", f"{largest}ms", "--front", tmp_path / "front", "--json"))
    assert ran.code == 0, ran.err
    answer = json.loads(ran.out)
    accuracies = [recipe["deployed_accuracy"] for recipe in answer["recipes"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert answer["target"] == answer["recipes"][0]["target"]
    assert answer["arch"] == answer["recipes"][0]["arch"]
    tried = {recipe["target"] for recipe in answer["recipes"]} | set(answer["recipes_left_out"])
    assert set(models(tables, space)) <= tried
    missing = [why for name, why in answer["recipes_left_out"].items() if name.endswith("openvino-cpu-bf16")]
    assert "there is no latency table" in missing[0]
    # One picture has them all.
    svg = (tmp_path / "front" / "front.svg").read_text()
    ET.fromstring(svg)
    assert all(recipe["target"] in svg for recipe in answer["recipes"])


def test_a_recipe_whose_table_cannot_tell_so_much_confidence_is_left_out(
    hwnas_cli, refused, words, tables, space, tmp_path
):
    largest = max(float(m.predict(space.encode([space.largest]))[0]) for m in models(tables, space).values())
    asked = (
        "--target",
        "this/*",
        "--budget",
        f"{2 * largest}ms",
        "--confidence",
        0.99,
        "--tables",
        tmp_path / "tables",
    )
    shutil.copytree(tables, tmp_path / "tables")
    assert refused(*words(*asked)).count("a confidence of 0.99 requires 99 bound networks") == 3
    target = resolve_target(f"this/{FP32}")
    path = tmp_path / "tables" / f"{target.name}.csv"
    table = read_table(target, path)
    [fit] = table.manifest.fits
    write_table(table.with_fit(fit.model_copy(update={"scores": [0.01] * 99})), path)
    ran = hwnas_cli(*words(*asked, "--json"))
    assert ran.code == 0, ran.err
    answer = json.loads(ran.out)
    assert [recipe["target"] for recipe in answer["recipes"]] == [target.name]
    assert "has 19, which allow at most 0.95" in answer["recipes_left_out"][resolve_target(f"this/{INT8}").name]


def test_the_front_as_files(hwnas_cli, words, space, tmp_path):
    def run(folder):
        ran = hwnas_cli(*words("--target", f"this/{FP32}", "--budget", "96%", "--front", folder, "--json"))
        assert ran.code == 0, ran.err

    run(tmp_path / "a")
    name = resolve_target(f"this/{FP32}").name
    with (tmp_path / "a" / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    document = json.loads((tmp_path / "a" / "front.json").read_text())
    assert len(rows) == len(document["fronts"][name]) > 1
    ms = [float(row[name]) for row in rows]
    accuracies = [float(row["accuracy"]) for row in rows]
    assert ms == sorted(ms)
    assert accuracies == sorted(accuracies)
    assert all(space.arch({v.name: int(row[v.name]) for v in space.variables}) for row in rows)
    run(tmp_path / "b")
    for file in ("front.csv", "front.json", "front.svg"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_explained_to_the_slot(hwnas_cli, words, tables, space):
    ran = hwnas_cli(*words("--target", f"this/{FP32}", "--budget", "92%", "--explain", "--json"))
    answer = json.loads(ran.out)
    [explained] = answer["explained"].values()
    assert sum(explained["slots_ms"].values()) == pytest.approx(answer["predicted_ms"])
    budgets = [step["budget"] for step in explained["next"]]
    assert len(budgets) >= 1
    assert budgets == sorted(budgets)
    assert all(b > answer["predicted_ms"] for b in budgets)
    assert all(step["gain"] > 0 and step["changes"] for step in explained["next"])
    text = hwnas_cli(*words("--target", f"this/{FP32}", "--budget", "92%", "--explain")).out
    assert "stage1.block1" in text
    assert "Export it with: hwnas export" in text


def test_own_accuracies_take_the_place_of_subnets(hwnas_cli, refused, words, space, tmp_path):
    archs = space.decode(space.sample(40, seed=0))
    rows = [{**arch, "accuracy": 0.5 + 0.01 * arch["expansion_3_1"]} for arch in archs]
    path = tmp_path / "own.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    own = words("--target", f"this/{FP32}", "--budget", "100%", "--accuracy", path)
    ran = hwnas_cli(*own, "--json")
    assert ran.code == 0, ran.err
    assert "evaluating subnets" not in ran.err
    model = json.loads(ran.out)["accuracy_model"]
    assert model["subnets"] == 40
    assert "predictor" not in model, "the ensemble is the default"
    ran = hwnas_cli(*own, "--predictor", "gp", "--acquisition", "ucb")
    assert "; gp τ " in ran.out
    assert "the gp selected 3 of them" in ran.out
    path.write_text("resolution,accuracy\n24,0.5\n")
    message = refused(*words("--target", f"this/{FP32}", "--budget", "100%", "--accuracy", path))
    assert "is not a table of accuracies of mobilenetv3-tiny" in message


INTERRUPTED = """
import signal, sys
import hwnas.accuracy.ensemble
from hwnas.search import rerank
hwnas.accuracy.ensemble._STEPS = 40
real = rerank.solve
def interrupted(problem, strategy, *, stop, **how):
    signal.raise_signal(signal.SIGINT)
    assert stop()
    return real(problem, strategy, stop=stop, **how)
rerank.solve = interrupted
"""


def test_ctrl_c_keeps_the_best_so_far(hwnas_alone, words, tmp_path):
    asked = words("--target", f"this/{FP32}", "--budget", "100%", "--strategy", "evolution", "--json")
    ran = hwnas_alone(INTERRUPTED, *asked)
    assert ran.code == 130, ran.err
    answer = json.loads((tmp_path / "out.json").read_text())
    assert answer["proof"].startswith("Stopped early: the best")
    assert json.loads(ran.out) == answer
    assert "Traceback" not in ran.err


def test_places_are_checked_before_long_work(refused, words, tmp_path):
    (tmp_path / "file").write_text("mine")
    asked = words("--target", f"this/{FP32}", "--budget", "100%")
    assert "is a folder; use the name of a file" in refused(*asked, "--out", tmp_path)
    assert "is a file; --family writes a folder" in refused(*asked, "--family", "--out", tmp_path / "file")
    assert "is a file; --front writes a folder" in refused(*asked, "--front", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--budget", "0.8ms"), "has no name: write device/recipe=0.8ms, or use --target"),
        (("--budget", "flops=3M"), "unknown objective 'flops'"),
        (("--budget", "nobody/onnxruntime-cpu-fp32=3ms"), "unknown device 'nobody'"),
        (("--target", f"this/{FP32}", "--budget", "90%", "--budget", "80%"), "there are two budgets for"),
        (("--budget", "=5ms"), "has no name before its '='"),
        (("--target", "this/*", "--budget", "params=3M"), "one budget in milliseconds for every recipe"),
        (("--target", "this/*", "--budget", "90%"), "a share of the largest network would differ between recipes"),
        (("--target", "/*", "--budget", "1ms"), "has no device before the '/'"),
        (
            ("--target", "this/*", "--budget", "1ms", "--family"),
            "--family finds a network for each budget; use one of them",
        ),
        (("--target", "this/*", "--budget", "0.00001ms"), "a network within 0.00001ms"),
        (("--target", f"this/{FP32}", "--budget", "3M"), "is not a budget of"),
        (("--target", f"this/{FP32}", "--budget", "0.0001ms"), "is within 0.0001 ms on"),
        (("--target", f"this/{FP32}", "--budget", "90%", "--budget", "params=10"), "is within 10 of params"),
        (("--target", f"this/{FP32}", "--budget", "90%", "--strategy", "exakt"), "unknown search strategy 'exakt'"),
        (("--target", f"this/{FP32}", "--budget", "90%", "--predictor", "gpp"), "unknown predictor 'gpp'"),
        (("--target", f"this/{FP32}", "--budget", "90%", "--predictor", "paths"), "has none; use another one"),
        (("--target", f"this/{FP32}", "--budget", "90%", "--acquisition", "ie"), "unknown acquisition 'ie'"),
        (("--strategy", "gdas", "--budget", "90%", "--predictor", "gp"), "does not support"),
        (("--target", "this/openvino-cpu-bf16", "--budget", "90%"), "there is no latency table for"),
    ],
)
def test_what_is_refused(refused, words, given, said):
    assert said in refused(*words(*given))
