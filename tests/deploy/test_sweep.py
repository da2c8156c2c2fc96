"""A recipe sweep: really lowered, run and timed; killed and gone on with; what is picked and what is left out."""

from __future__ import annotations

import pytest

from hwnas.deploy import ParityReport
from hwnas.deploy import comparing as module
from hwnas.deploy.sweep import Sweep, Swept, sweep
from hwnas.errors import GraphError, InvalidValue, OutputError, ProgramCrashed, RuntimeUnavailable, TableError
from hwnas.machines import LocalMachine
from hwnas.targets import Target, resolve_target
from hwnas.timing import Measurement, Protocol
from hwnas.timing.protocol import usual

NAMES = ("onnxruntime-cpu-fp32", "torch-cpu-fp32", "onnxruntime-cpu-int8")


@pytest.fixture(scope="module")
def targets():
    return [resolve_target(f"this/{name}") for name in NAMES]


@pytest.fixture
def journal(evaluator, tmp_path):
    with evaluator.journal(tmp_path, "weights") as journal:
        yield journal


def swept(name, *, rounds_ms=(1.0, 1.0), accuracy=0.9, unsteady=False):
    parity = ParityReport(
        images=1000, max_abs_error=0, min_cosine=1, top1_agreement=1, torch_accuracy=0.9, deployed_accuracy=accuracy
    )
    return Swept(
        target=resolve_target(f"this/{name}"),
        parity=parity,
        refused=None,
        size_bytes=1,
        rounds_ms=rounds_ms,
        speeds=(None, None),
        unsteady=unsteady,
        max_disagreement=usual().networks.max_disagreement,
        predicted_ms=None,
    )


def test_every_recipe_is_run_and_timed(space, evaluator, targets, journal, this, profiled):
    from hwnas.latency import load_model

    model = load_model(profiled, space)
    found = sweep(space.largest, evaluator, targets, journal, max_drop=1.0, latencies={this.name: model})
    assert not found.left_out
    assert {one.target.recipe.name for one in found.recipes} == set(NAMES)
    times = [one.latency_ms for one in found.recipes]
    assert times == sorted(times)
    assert min(times) > 0
    assert found.picked is found.recipes[0]
    of = {one.target.recipe.name: one for one in found.recipes}
    assert of["onnxruntime-cpu-int8"].size_bytes < of["onnxruntime-cpu-fp32"].size_bytes
    assert of["onnxruntime-cpu-fp32"].predicted_ms == pytest.approx(model.predict(space.encode([space.largest]))[0])
    assert of["torch-cpu-fp32"].predicted_ms is None
    accuracy = evaluator.accuracy(space.largest)
    for one in found.recipes:
        assert one.parity.images == evaluator.images
        assert one.parity.torch_accuracy == pytest.approx(accuracy)
        assert one.lost == pytest.approx(accuracy - one.parity.deployed_accuracy)
    assert not list(journal.path.parent.glob("*sweep*"))  # nothing is under way any more


def test_a_killed_sweep_goes_on_where_it_was(space, evaluator, journal, monkeypatch):
    names = ("onnxruntime-cpu-fp32", "openvino-cpu-fp32")
    targets = [resolve_target(f"this/{name}") for name in names]
    really_timed, really_lowered = LocalMachine.time, module.lower_subnet
    timed, lowered = [], []

    def killed(machine, programs, *args, **more):
        if len(timed) == 3:
            raise KeyboardInterrupt
        timed.append(next(iter(programs)))
        return really_timed(machine, programs, *args, **more)

    def counted(*args):
        lowered.append(args)
        return really_lowered(*args)

    monkeypatch.setattr(LocalMachine, "time", killed)
    monkeypatch.setattr(module, "lower_subnet", counted)
    with pytest.raises(KeyboardInterrupt):
        sweep(space.smallest, evaluator, targets, journal)
    assert len(lowered) == 2
    before = list(timed)
    monkeypatch.setattr(
        LocalMachine, "time", lambda s, p, *a, **m: (timed.append(next(iter(p))), really_timed(s, p, *a, **m))[1]
    )
    with evaluator.journal(journal.path.parent, "weights") as again:
        found = sweep(space.smallest, evaluator, targets, again)
    assert len(lowered) == 2
    assert sorted(timed) == sorted(names * 2)
    assert timed[:3] == before
    assert len(found.recipes) == 2


def test_what_cannot_run_is_left_out_with_the_reason(space, evaluator, this, journal):
    strict = this.recipe.parity.model_copy(update={"max_abs_error": 1e-30})
    exact = this.recipe.model_copy(update={"name": "exact", "parity": strict})
    many = this.recipe.model_copy(update={"name": "many", "threads": 4096})
    wrong = this.recipe.model_copy(update={"name": "wrong", "options": {"speed": "high"}})
    guess = resolve_target("this/roofline-cpu-fp32")
    targets = [this, *(Target(this.device, recipe) for recipe in (exact, many, wrong)), guess]
    found = sweep(space.smallest, evaluator, targets, journal)
    assert {one.target.recipe.name for one in found.recipes} == {this.recipe.name, "exact"}
    [(refused, kept)] = [(one.refused, one.parity.images) for one in found.recipes if one.target.recipe.name == "exact"]
    assert kept == evaluator.images
    assert "max_abs_error" in refused
    assert found.picked.target == this
    reasons = {name.partition("/")[2]: why for name, why in found.left_out.items()}
    assert "4096 threads" in reasons["many"]
    assert "speed" in reasons["wrong"]
    assert "cannot be timed" in reasons["roofline-cpu-fp32"]
    with pytest.raises(RuntimeUnavailable, match=r"no recipe can run this network on this host: .*4096 threads"):
        sweep(space.smallest, evaluator, targets[2:3], journal)


def test_a_precision_that_the_cpu_has_no_instructions_for_is_left_out_before_any_work(
    space, evaluator, this, journal, monkeypatch
):
    """A CPU without bf16, whatever this one has; the rest of the sweep goes on."""
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    really_lowered, lowered = module.lower_subnet, []

    def counted(network, evaluator, arch, recipe):
        lowered.append(recipe)
        return really_lowered(network, evaluator, arch, recipe)

    monkeypatch.setattr(module, "lower_subnet", counted)
    found = sweep(space.smallest, evaluator, [resolve_target("this/openvino-cpu-bf16"), this], journal)
    assert [one.target for one in found.recipes] == [this]
    assert lowered == [this.recipe]
    [why] = found.left_out.values()
    assert "openvino-cpu-bf16 cannot run here: it computes in bf16, which this CPU does not support" in why


def test_a_program_that_its_runtime_cannot_load_is_left_out(space, evaluator, targets, journal, monkeypatch):
    """As OpenVINO's int8 plugin can load no network that is a constant."""
    lower = module.lower_subnet

    def broken(network, evaluator, arch, recipe):
        program = lower(network, evaluator, arch, recipe)
        if recipe.name == NAMES[2]:
            next(a for node in program.graph.node if node.op_type == "Conv" for a in node.attribute).name = "windows"
        return program

    monkeypatch.setattr(module, "lower_subnet", broken)
    found = sweep(space.smallest, evaluator, [targets[0], targets[2]], journal)
    assert [one.target for one in found.recipes] == [targets[0]]
    [(name, why)] = found.left_out.items()
    assert name == targets[2].name
    assert "windows" in why


def test_a_device_that_is_not_this_host(space, evaluator, elsewhere, journal):
    with pytest.raises(TableError, match="this host is not the device board"):
        sweep(space.smallest, evaluator, [elsewhere], journal)


@pytest.mark.parametrize("drop", [-0.1, 1.5, float("nan")])
def test_a_bound_is_a_fraction(drop, space, evaluator, this, journal):
    with pytest.raises(InvalidValue, match="fraction from 0 to 1"):
        sweep(space.smallest, evaluator, [this], journal, max_drop=drop)


@pytest.mark.parametrize(
    ("max_drop", "picked"), [(0.02, NAMES[0]), (0.01, NAMES[0]), (0.005, NAMES[1]), (0.001, NAMES[2]), (0.0, None)]
)
def test_the_fastest_within_the_bound_is_picked(max_drop, picked):
    recipes = tuple(swept(name, accuracy=a) for name, a in zip(NAMES, (0.89, 0.896, 0.8995), strict=True))
    found = Sweep(recipes=recipes, left_out={}, max_drop=max_drop).picked
    assert (found.target.recipe.name if found else None) == picked


def test_rounds_that_disagree_are_noise():
    one = swept(NAMES[0], rounds_ms=(1.0, 1.1))
    assert one.latency_ms == pytest.approx(1.05)
    assert one.repeat == pytest.approx(0.1 / 1.05)
    assert one.too_noisy is False  # tests accept any machine; see below for one that is not
    assert swept(NAMES[0], unsteady=True).too_noisy


@pytest.mark.usefixtures("noise_counts")
def test_outside_of_tests_they_count():
    assert swept(NAMES[0], rounds_ms=(1.0, 1.1)).too_noisy
    assert not swept(NAMES[0], rounds_ms=(1.0, 1.05)).too_noisy


# -- what is the matter with one recipe ------------------------------------------------------------------


def timed_at_once(machine, programs, recipe, *_, **__):
    """A measurement of programs that all take a millisecond."""
    samples = {name: [[1.0] * 4] * 4 for name in programs}
    return Measurement(samples_ms=samples, reference=next(iter(programs)), protocol=Protocol(session_passes=1))


@pytest.fixture
def made_of_nothing(monkeypatch):
    """A sweep whose programs are empty files that are equal to torch and timed at once."""

    def lower(maker, todo):
        todo.path.parent.mkdir(parents=True)
        todo.path.write_bytes(b"")

    monkeypatch.setattr(module._Maker, "lower", lower)
    monkeypatch.setattr(module._Maker, "compare", lambda maker, todo: (swept(NAMES[0]).parity, None))
    monkeypatch.setattr(module, "_check_there", lambda *_: None)
    monkeypatch.setattr(LocalMachine, "time", timed_at_once)


PARTS = {
    "lower": (module._Maker, "lower"),
    "check": (module, "_check_there"),
    "compare": (module._Maker, "compare"),
    "time": (LocalMachine, "time"),
}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/tmp/x"), "No space left on device; free some space"),
        (OutputError("cannot write the temporary files of int8 calibration"), "temporary files of int8 calibration"),
        (GraphError("the graph does not fit into an ONNX file"), "does not fit into an ONNX file"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "the limit of processes and threads is reached"),
        (ProgramCrashed("'model.onnx' ended the process that ran it", "model.onnx"), "ended the process"),
    ],
)
@pytest.mark.parametrize("part", PARTS)
def test_one_recipe_that_fails_ends_no_sweep(
    space, evaluator, targets, journal, made_of_nothing, monkeypatch, error, said, part
):
    where, name = PARTS[part]
    usual, calls = getattr(where, name), []

    def recipe_of(arg):
        return getattr(getattr(arg, "target", arg), "recipe", arg)

    def fails_for_one(*args, **kwargs):
        if any(getattr(recipe_of(arg), "name", "") == NAMES[1] for arg in args):
            calls.append(1)
            raise error
        return usual(*args, **kwargs)

    monkeypatch.setattr(where, name, fails_for_one)
    found = sweep(space.largest, evaluator, targets, journal)
    assert {one.target.recipe.name for one in found.recipes} == {NAMES[0], NAMES[2]}
    [(left, why)] = found.left_out.items()
    assert left.endswith(NAMES[1])
    assert said in why
    assert len(calls) == 1  # a later step, or a second round, does not try it again


def test_a_sweep_of_which_nothing_is_left_says_why(space, evaluator, this, journal, made_of_nothing, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalMachine, "time", full)
    with pytest.raises(
        RuntimeUnavailable, match=r"no recipe can run this network on this host: .*No space left on device"
    ):
        sweep(space.largest, evaluator, [this], journal)
