"""Files that an earlier hwnas wrote still open and give the same numbers.

`tests/data/compat/` holds the files; its README says which commit wrote them. Run as a program, this file prints
what that commit recorded as `expected.json`.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas import load_model, load_supernet, open_bundle, read_job, read_table, resolve_target
from hwnas.accuracy.table import read_accuracies
from hwnas.machines import LocalMachine
from hwnas.runtimes import open_session
from hwnas.spaces import Domain, InputKind
from hwnas.supernet import extract, read_facts, read_training
from hwnas.targets import Host

pytestmark = pytest.mark.usefixtures("all_test_images")
FILES = Path(__file__).parents[1] / "data" / "compat"
FP32, INT8, IMPORTED = "compat-board/compat-fp32", "compat-board/compat-int8", "compat-phone/compat-external"
TABLES = {
    "two fits, the first": (FP32, "mobilenetv3-tiny"),
    "two fits, the second": (FP32, "darts-tiny"),
    "int8": (INT8, "mobilenetv3-tiny"),
    "imported": (IMPORTED, "mobilenetv3-tiny"),
}
SUPERNETS = ("supernet", "extracted", "finetuned", "study", "job/stages/train-*")
BUNDLES = ("bundle", f"job/bundles/{INT8}")
FRONTS = ("fronts/exact", "fronts/recipes")
# Networks whose evaluations lie in the supernet's folder.
EVALUATED = (
    *("archs/exact.json", "archs/two-budgets.json", "archs/recipes.json", "archs/imported.json", "archs/relaxed.json"),
    *(f"archs/family/{target.replace('/', '-')}.json" for target in (FP32, INT8)),
)


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def exactly(numbers):
    """What is computed in double precision: only the order of additions may differ between CPUs."""
    return pytest.approx(numbers, rel=1e-12, abs=0)


def domain_of(space: str) -> Domain:
    """The space with the restrictions that all files here share."""
    fits = read_table(resolve_target(FP32)).manifest.fits
    [domain] = [fit.domain for fit in fits if fit.domain.space == space]
    return domain


# -- figures that are recorded ---------------------------------------------------------------------------------


def predictions(target: str, name: str) -> dict[str, list[float]]:
    """Of 20 networks, which no generator of random numbers draws."""
    domain = domain_of(name)
    space = domain.make()
    every = list(itertools.product(*domain.choices.values()))
    smallest = {variable.name: variable.values[0] for variable in space.variables}
    drawn = [dict(zip(domain.choices, every[7 * i % len(every)], strict=True)) for i in range(20)]
    codes = space.encode([space.arch(smallest | values) for values in drawn])
    model = load_model(read_table(resolve_target(target)), space)
    found = {"predicted_ms": model.predict(codes), "plain_ms": model.plain(codes)}
    if target != IMPORTED:
        found["upper_ms"] = model.predict_upper(codes)
    return {what: values.tolist() for what, values in found.items()}


def logits(folder: Path) -> dict[str, list[float]]:
    """Of the smallest and the largest network of a supernet, for a fixed image."""
    net, _ = load_supernet(folder)
    space, found = net.space, {}
    for name, arch in (("smallest", space.smallest), ("largest", space.largest)):
        side = arch["resolution"]
        image = torch.sin(0.37 * torch.arange(space.in_channels * side**2)).reshape(1, space.in_channels, side, side)
        with torch.inference_mode():
            found[name] = extract(net, arch).eval()(image)[0].tolist()
    return found


def outputs(folder: Path) -> list[float]:
    """Of a bundle's program, for a fixed image."""
    bundle = open_bundle(folder)
    shape = bundle.manifest.input.shape
    image = np.sin(0.37 * np.arange(np.prod(shape))).reshape(shape).astype(np.float32)
    with open_session(bundle.compiled, bundle.manifest.recipe) as session:
        return session.run(image)[0].tolist()


def figures(home: Path) -> dict[str, object]:
    """All that is recorded."""
    return {
        "predictions": {name: predictions(*table) for name, table in TABLES.items()},
        "logits": {name: logits(the(home, name)) for name in SUPERNETS},
        "outputs": {name: outputs(home / name) for name in BUNDLES},
    }


def the(home: Path, pattern: str) -> Path:
    """The one file or folder of that pattern."""
    [found] = home.glob(pattern)
    return found


# -- tests -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected():
    return read(FILES / "expected.json")


@pytest.fixture
def home(hwnas_cli, tmp_path, monkeypatch):
    """A copy of the files, which is the user's folder of devices, recipes and tables as well as the current one."""
    folder = shutil.copytree(FILES, tmp_path / "home", dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def answer_to(hwnas_cli, home):
    """A function that runs `hwnas` and returns what `--json` prints."""

    def run(*words: object):
        ran = hwnas_cli(*words, "--json")
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    return run


@pytest.mark.parametrize("name", TABLES)
def test_tables_predict_what_they_predicted(home, expected, name):
    found = predictions(*TABLES[name])
    assert found.keys() == expected["predictions"][name].keys()
    for what, values in found.items():
        assert values == exactly(expected["predictions"][name][what])


def test_tables_are_listed_with_their_validation(answer_to):
    listed = {entry["target"]: entry for entry in answer_to("tables", "list", "--tables", "latency_tables")}
    assert {name: (entry["origin"], entry["rows"], entry["usable"]) for name, entry in listed.items()} == {
        FP32: ("measured", 40, True),
        INT8: ("measured", 15, True),
        IMPORTED: ("imported", 15, True),
    }
    validations = [fit["validation"] for fit in listed[FP32]["fits"] if fit["validation"]]
    assert [validation["networks"] for validation in validations] == [6]
    assert len(answer_to("tables", "diff", FP32, INT8, "--tables", "latency_tables")["ops"]) == 15


@pytest.mark.parametrize("name", SUPERNETS)
def test_supernets_compute_what_they_computed(home, expected, name):
    found = logits(the(home, name))
    for network, values in expected["logits"][name].items():
        assert found[network] == pytest.approx(values, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_verify_and_compute_what_they_computed(answer_to, home, expected, name):
    verified = answer_to("verify", name)
    assert verified["not_run"] is None and verified["saturates"] is None
    manifest = open_bundle(home / name).manifest
    # Of int8 one rounding decides: another order of additions may move a logit by a step of its scale.
    accepted = 1e-4 if manifest.recipe.precision == "fp32" else manifest.example.max_abs_error
    assert outputs(home / name) == pytest.approx(expected["outputs"][name], rel=0, abs=accepted)


@pytest.mark.parametrize("name", [*EVALUATED, "study/arch.json"])
def test_archs_cost_what_their_files_say(home, name):
    answer = read(home / name)
    space = domain_of(answer["space"]).make()
    costs_as_said(space, answer["arch"], answer["predicted"])
    for other in [*answer.get("recipes", []), *answer.get("candidates", [])]:
        costs_as_said(space, other["arch"], other.get("predicted") or {other["target"]: other["predicted_ms"]})


@pytest.mark.parametrize("name", FRONTS)
def test_networks_of_fronts_cost_what_their_files_say(home, name):
    document = read(home / name / "front.json")
    space = domain_of(document["space"]).make()
    networks = [network for front in document["fronts"].values() for network in front]
    assert len(networks) > 1
    for network in networks:
        costs_as_said(space, network["arch"], network["costs"])
    with (home / name / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [network["accuracy"] for network in networks]


def costs_as_said(space, arch, costs):
    codes = space.encode([space.arch(arch)])
    for name, cost in costs.items():
        if "/" in name:
            [found] = load_model(read_table(resolve_target(name)), space).predict(codes)
        else:
            [found] = getattr(space, name)(codes)
        assert found == exactly(cost)


def test_evaluations_are_found_again(answer_to, home):
    journals = sorted((home / "supernet").glob("evaluated-*.jsonl"))
    before = [journal.read_bytes() for journal in journals]
    found = answer_to("subnet", "eval", *EVALUATED, "--supernet", "supernet", "--images", 100)
    for name, one in zip(EVALUATED, found, strict=True):
        answer = read(home / name)
        assert one["arch"] == answer["arch"]
        # A differentiable search evaluates nothing.
        assert one["validation_accuracy"] == answer.get("validation_accuracy", one["validation_accuracy"])
    # Nothing is evaluated again, but the figures that the old version did not have.
    for journal, old in zip(journals, before, strict=True):
        assert journal.read_bytes().startswith(old)
        added = journal.read_bytes()[len(old) :].splitlines()
        assert all(json.loads(line)["key"].startswith("figures ") for line in added)


def test_archs_are_trained_and_extracted(answer_to, home):
    cells = read(home / "archs/relaxed-cells.json")
    one_step = ("--steps", 1, "--batch-size", 8, "--accelerator", "cpu")
    answer_to(
        "train", "--space", cells["space"], "--data", "cluttered-digits", "--arch", "archs/relaxed-cells.json",
        *one_step, "--out", "new",
    )  # fmt: skip
    assert dict(read_facts(home / "new").domain.make().largest) == cells["arch"]
    best = answer_to(
        "subnet", "extract", "study/arch.json", "--supernet", "study", "--calibration-images", 16, "--out", "best"
    )
    assert best["arch"] == read(home / "study/arch.json")["arch"]


def test_a_differentiable_search_has_the_same_budget(answer_to, home):
    old = read(home / "archs/relaxed-cells.json")
    edges = [f"--fix={variable}=2,3" for variable in old["arch"] if variable != "resolution"]
    new = answer_to(
        "search", "--space", old["space"], *edges, "--data", "cluttered-digits", "--strategy", old["strategy"],
        "--target", old["target"], "--budget", "80%", "--no-margin", "--recipe", "relaxed.toml", "--steps", 1,
        "--accelerator", "cpu", "--out", "new.json",
    )  # fmt: skip
    assert new["budget_ms"] == exactly(old["budget_ms"])


def test_a_study_goes_on_with_what_it_trained(answer_to, home):
    old = read(home / "study/arch.json")
    fixed = [f"--fix={name}={','.join(map(str, values))}" for name, values in domain_of("darts-tiny").choices.items()]
    words = (
        "study", "--space", "darts-tiny", *fixed, "--data", "cluttered-digits", "--target", FP32, "--budget",
        f"{old['budget_ms']}ms", "--steps", 4, "--epochs", 2, "--images", 100, "--accelerator", "cpu", "--out", "study",
    )  # fmt: skip
    new = answer_to(*words, "--trials", 3)
    assert new.pop("predicted_ms") == exactly(old.pop("predicted_ms"))
    assert new["arch"] == old["arch"] and new["supernet"] == "study"
    assert new["validation_accuracy"] == old["validation_accuracy"]
    assert [c["arch"] for c in new["candidates"]] == [c["arch"] for c in old["candidates"]]
    start = "The best of 3 networks that the study trained. Nothing is proved"
    assert new["proof"].startswith(start) and old["proof"].startswith(start)  # later words were rewritten


def test_a_training_that_was_killed_goes_on(answer_to, home):
    answer_to(
        "subnet", "finetune", "--subnet", "extracted", "--recipe", "finetuning.toml", "--teacher", "extracted",
        "--accelerator", "cpu", "--out", "stopped",
    )  # fmt: skip
    assert read_facts(home / "stopped").weights_sha256 == read_facts(home / "finetuned").weights_sha256


def test_accuracies_of_a_user(home):
    codes, accuracies = read_accuracies(home / "accuracies.csv", domain_of("mobilenetv3-tiny").make())
    assert len(codes) == len(accuracies) == 24
    assert accuracies[:2].tolist() == [0.5791, 0.5344]


def test_training_configs(home):
    training, finetuning = read_training(home / "training.toml"), read_training(home / "finetuning.toml")
    assert [phase.name for phase in training.phases] == ["kernels", "all"]
    assert (training.steps, training.batch_size, training.ema_decay) == (24, 16, 0.5)
    assert (finetuning.steps, finetuning.augmentation.cutmix) == (3, 0.2)
    started_from = read_facts(home / "finetuned").training["started_from"]
    assert started_from["weights_sha256"] == read_facts(home / "extracted").weights_sha256


@pytest.mark.usefixtures("noise_counts")  # the protocols of the measurements as users have them
def test_a_finished_job_is_reused(answer_to, home, monkeypatch):
    job = read_job(home / "job.toml")
    assert (job.targets, job.budget, job.seed, job.training.steps) == ([INT8], "95%", 3, 24)
    assert job.make_space(reads=InputKind(1), classes=10).size == 64
    stages = {
        stage["name"]: stage["cached"]
        for stage in answer_to("compile", "job.toml", "--out", "job", "--dry-run")["stages"]
    }
    assert list(stages) == ["profile", "validate", "train", "accuracy", "search", "export", "bench"]

    # On the host that did it nothing is done again.
    inputs = read(the(home, "job/stages/profile-*/inputs.json"))
    facts = {name: tuple(value) if isinstance(value, list) else value for name, value in inputs["host"].items()}
    assert asdict(Host(**facts)).keys() == facts.keys()
    monkeypatch.setattr(LocalMachine, "host", lambda self: Host(**facts))
    monkeypatch.setattr(LocalMachine, "versions", lambda self, target: inputs["versions"])
    before = read(home / "job/report.json")["targets"][INT8]
    after = answer_to("compile", "job.toml", "--out", "job")["targets"][INT8]
    assert all(stage["cached"] for stage in after.pop("stages"))
    before.pop("stages")
    for name in ("largest", "best_random"):
        assert after[name].pop("difference") is None  # the outputs of the old version are not kept
    assert {name: after[name] for name in before} == before
    assert after["budgets"] == after["over_budgets"] == {}
    assert after["speed"] is None  # its bundle has no reference programs
    assert len(after["rounds"]) == 1  # its table has no times of bound networks, which a refit needs
    new = {"figures", "deployment", "accuracy_model", "budgets", "over_budgets", "speed"}
    new |= {"rounds", "taken", "rounds_ended", "finetuned"}
    assert after.keys() - before.keys() == new
    manifest = open_bundle(home / "job" / after["bundle"]).manifest
    assert (manifest.measured_ms, manifest.predicted_ms) == (before["measured_ms"], before["predicted_ms"])


def test_the_page_of_a_job_is_drawn_again(answer_to, home):
    answer_to("report", "job", "--out", "page.html")
    assert "mobilenetv3-tiny" in (home / "page.html").read_text(encoding="utf-8")


if __name__ == "__main__":
    os.environ["HWNAS_HOME"] = str(FILES)
    torch.set_num_threads(1)
    print(json.dumps(figures(FILES), indent=1))
