"""`hwnas study`: short trainings of a few networks, from the first to a bundle."""

from __future__ import annotations

import json

import pytest

from hwnas.latency.manifest import Fit
from hwnas.spaces import Domain, make_space
from hwnas.supernet import Supernet, load_supernet, save_supernet
from hwnas.targets import resolve_target

FP32 = "this/onnxruntime-cpu-fp32"
RECIPE = "batch_size = 8\n[[phases]]\nname = 'all'\nsteps = 4\nlearning_rate = 0.05\n"


@pytest.fixture(scope="module")
def tables(space, make_table, tmp_path_factory):
    folder, target = tmp_path_factory.mktemp("tables"), resolve_target(FP32)
    fit = Fit(
        domain=Domain.of(make_space("mobilenetv3-tiny")),  # the small space has too few networks for a bound
        seed=0,
        calibration_ms=[1.0] * 16,
        terms={"scale": 1.0},
        held_out_mape=0.0,
        scores=[0.01] * 19,
        measurement={},
    )
    from hwnas.latency import write_table

    write_table(make_table(space, target).with_fit(fit), folder / f"{target.name}.csv")
    return folder


@pytest.fixture
def words(space, tables, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    fixed = [w for v in space.variables for w in ("--fix", f"{v.name}={','.join(map(str, v.values))}")]

    def command(*more):
        return (
            "study", "--space", "mobilenetv3-tiny", *fixed, "--data", "cluttered-digits", "--tables", tables,
            "--target", FP32, "--budget", "100%", "--training", tmp_path / "recipe.toml", "--epochs", 2, "--trials", 3,
            "--images", 100, "--accelerator", "cpu", "--out", tmp_path / "out", *more,
        )  # fmt: skip

    return command


def test_from_the_first_training_to_a_bundle(hwnas_cli, refused, words, space, tables, tmp_path):
    ran = hwnas_cli(*words("--json"))
    assert ran.code == 0, ran.err
    answer = json.loads(ran.out)
    out, arch = tmp_path / "out", space.arch(answer["arch"])
    assert json.loads((out / "arch.json").read_text()) == answer
    assert answer["predicted_ms"] <= answer["budget_ms"] / 1.01
    accuracies = [c["validation_accuracy"] for c in answer["candidates"]]
    assert answer["validation_accuracy"] == accuracies[0] == max(accuracies)
    assert answer["proof"].startswith("The best of 3 networks that the study trained.")
    assert answer["supernet"] == str(out)
    net, facts = load_supernet(out)
    assert net.space.largest == arch
    assert facts.training["validation_accuracy"] == answer["validation_accuracy"]
    evaluated = hwnas_cli("subnet", "eval", "--supernet", out, "--images", 100, "--json")
    assert json.loads(evaluated.out)[0]["validation_accuracy"] == answer["validation_accuracy"]

    # The same command goes on; one that trains otherwise does not.
    again = hwnas_cli(*words("--json"))
    assert json.loads(again.out) == answer
    assert "training: " not in again.err
    assert "has other settings; use another name: training is" in refused(*words("--steps", 6))
    more = hwnas_cli(*words("--trials", 4, "--json"))
    assert json.loads(more.out)["proof"].startswith("The best of 4 networks")

    best = json.loads(more.out)
    bundle = ("--supernet", out, "--target", FP32, "--tables", tables, "--out", tmp_path / "bundle", "--json")
    exported = hwnas_cli("export", out / "arch.json", *bundle)
    assert exported.code == 0, exported.err
    assert json.loads(exported.out)["arch"] == best["arch"]


def test_a_metric_of_a_class_instead_of_top_1_accuracy(hwnas_cli, refused, words, tmp_path):
    asked = words("--trials", 2, "--metric", "auc", "--positive", 3)
    ran = hwnas_cli(*asked, "--json")
    assert ran.code == 0, ran.err
    answer, out = json.loads(ran.out), tmp_path / "out"
    assert (answer["metric"], answer["figures"]["metric"], answer["figures"]["positive"]) == (
        "auc of 3",
        "auc of 3",
        "3",
    )
    found = [c["validation_accuracy"] for c in answer["candidates"]]
    assert answer["validation_accuracy"] == answer["figures"]["value"] == found[0] == max(found)
    evaluate = ("subnet", "eval", "--supernet", out, "--images", 100, "--json")
    [by_auc] = json.loads(hwnas_cli(*evaluate, "--metric", "auc", "--positive", 3).out)
    [by_top1] = json.loads(hwnas_cli(*evaluate).out)
    assert by_auc["validation_accuracy"] == found[0]
    assert by_top1["validation_accuracy"] == answer["figures"]["accuracy"] != found[0]
    told = hwnas_cli(*asked).out
    assert f"{found[0]:.2%} auc of 3 on validation" in told
    assert "--metric auc --positive 3 --out bundle" in told
    for other in ((), ("--metric", "auc", "--positive", 4)):
        said = refused(*words("--trials", 2, *other))
        assert "has the best network of study study by auc of 3, which cannot be compared with" in said
        assert "Use another folder, or the same --metric" in said


def test_two_workers_at_once_in_a_relative_folder(hwnas_cli, forks, words, tmp_path):
    command = words("--out", "shared", "--trials", 4, "--json")
    with forks.start(command, cwd=tmp_path) as first, forks.start(command, cwd=tmp_path) as second:
        for worker in (first, second):
            assert worker.wait() == 0, worker.stderr.read_text()
    answers = [json.loads(worker.stdout.read_text()) for worker in (first, second)]
    trained = {json.dumps(c["arch"]): c["validation_accuracy"] for answer in answers for c in answer["candidates"]}
    _, facts = load_supernet(tmp_path / "shared")
    assert facts.training["validation_accuracy"] == max(trained.values())
    third = hwnas_cli(*words("--out", "shared", "--trials", 4, "--json"))  # it finds what both have trained
    answer = json.loads(third.out)
    assert {json.dumps(c["arch"]): c["validation_accuracy"] for c in answer["candidates"]} == trained
    assert answer["proof"].startswith(("The best of 4 networks", "The best of 5 networks"))  # each ends its training


def test_what_has_no_weights_here_is_said_to_have_none(hwnas_cli, words, tmp_path):
    asked = words("--trials", 1, "--epochs", 1, "--steps", 1)
    assert "Export it with: hwnas export" in hwnas_cli(*asked).out
    (tmp_path / "out" / "supernet.json").unlink()
    ran = hwnas_cli(*asked)
    assert ran.code == 0, ran.err
    assert "Export it with" not in ran.out
    assert "in the --out of the worker that trained it" in ran.out
    assert json.loads(hwnas_cli(*asked, "--json").out)["supernet"] is None


INTERRUPTED = """
import signal, sys
from hwnas.search.study import from_scratch
real, trainings = from_scratch.train, []
def interrupted(*given, until, **named):
    if until == 1:
        trainings.append(1)
        print("a training begins", file=sys.stderr)
        if len(trainings) == {pressed}:
            signal.raise_signal(signal.SIGINT)
    real(*given, until=until, **named)
from_scratch.train = interrupted
"""


@pytest.mark.parametrize("pressed", [1, 2])
def test_ctrl_c_keeps_the_best_so_far(hwnas_alone, words, tmp_path, pressed):
    ran = hwnas_alone(INTERRUPTED.format(pressed=pressed), *words("--epochs", 1, "--steps", 1, "--json"))
    assert ran.code == 130, ran.err
    assert "the same command resumes" in ran.err
    assert "Traceback" not in ran.err
    assert ran.err.count("a training begins") == pressed
    if pressed == 1:
        assert not (tmp_path / "out" / "arch.json").exists()
    else:
        assert json.loads(ran.out)["proof"].startswith("Stopped early: the best of 1 networks")


def test_a_folder_with_a_supernet_of_something_else_is_left_alone(refused, words, tmp_path):
    out = tmp_path / "out"
    save_supernet(
        Supernet(make_space("mobilenetv3-tiny", classes=10)), out, data={}, classes=tuple("0123456789"), training={}
    )
    before = (out / "supernet.safetensors").read_bytes()
    assert "already contains a supernet" in refused(*words())
    assert (out / "supernet.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--sampler", "tpee"), "unknown sampler 'tpee'. Did you mean 'tpe'"),
        (("--target", "this/*"), "a study is for one recipe, not for --target this/*"),
        (("--target", "this/openvino-cpu-bf16"), "there is no latency table for"),
        (("--budget", "params=10"), "is within 10 of params"),
        (("--confidence", "0.9", "--no-margin"), "use --confidence or --no-margin, not both"),
        (("--storage", "study.txt"), "a .log or .journal file or a database URL"),
        (("--epochs", "5"), "has 1 to 4 epochs, not 5; use fewer epochs, or more --steps"),
        (("--training", "none.toml"), "none.toml"),
        (("--out", "recipe.toml"), "is a file, but a study is a folder"),
        (("--metric", "f2"), "unknown metric 'f2'"),
        (("--metric", "f1", "--positive", "ten"), "unknown class 'ten'"),
    ],
)
def test_what_is_refused(refused, words, given, said):
    assert said in refused(*words(*given))
