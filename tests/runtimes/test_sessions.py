"""One suite for every recipe: what a session must do, whatever runtime is behind it."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.errors import BundleError, RuntimeInputError, RuntimeUnavailable, SpecError
from hwnas.lowering import Program, form_of
from hwnas.nn import network
from hwnas.runtimes import Session, open_session, session_class
from hwnas.runtimes.base import Array
from hwnas.spaces import make_space
from hwnas.targets import Recipe, load_recipe, recipes

SPACE = make_space("mobilenetv3-tiny", in_channels=3, classes=7)


@pytest.fixture(scope="module")
def made() -> nn.Module:
    torch.manual_seed(0)
    module = network(SPACE, SPACE.smallest)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.1)
    return module.eval()


@pytest.fixture(scope="module", params=sorted(recipes()))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    found = load_recipe(request.param)
    try:
        session_class(found)
    except RuntimeUnavailable as error:
        pytest.skip(str(error))
    return found


@pytest.fixture(scope="module")
def program(recipe: Recipe, made: nn.Module) -> Program:
    return form_of(recipe).lower(made, SPACE.ops(SPACE.smallest)[0][1].input)


@pytest.fixture(scope="module")
def file(recipe: Recipe, program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return form_of(recipe).write(program, tmp_path_factory.mktemp(recipe.name))


@pytest.fixture
def session(recipe: Recipe, program: Program) -> Session:
    return open_session(program, recipe)


def images(recipe: Recipe, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((recipe.batch, 3, 24, 24), dtype=np.float32)


def test_shapes_and_types(session: Session, recipe: Recipe) -> None:
    assert session.shape == (recipe.batch, 3, 24, 24)
    y = session.run(images(recipe))
    assert isinstance(y, np.ndarray)
    assert y.shape == (recipe.batch, 7)
    assert y.dtype == np.float32


def test_outputs_are_those_of_torch(session: Session, recipe: Recipe, made: nn.Module) -> None:
    for seed in range(3):
        x = images(recipe, seed)
        with torch.no_grad():
            expected = made(torch.from_numpy(x)).numpy()
        assert np.abs(session.run(x) - expected).max() <= recipe.parity.max_abs_error


def test_the_same_images_give_the_same_bits(session: Session, recipe: Recipe, program: Program) -> None:
    x = images(recipe)
    first = session.run(x)
    kept = first.copy()
    other = session.run(images(recipe, 1))
    assert not np.array_equal(other, kept)
    assert np.array_equal(first, kept)  # not overwritten by the run after it
    assert np.array_equal(session.run(x), kept)
    with open_session(program, recipe) as again:
        assert np.array_equal(again.run(x), kept)


def test_a_file_computes_what_the_program_computes(session: Session, recipe: Recipe, file: Path) -> None:
    x = images(recipe)
    with open_session(file, recipe) as loaded:
        assert loaded.shape == session.shape
        assert np.array_equal(loaded.run(x), session.run(x))


def test_images_however_they_lie_in_memory(session: Session, recipe: Recipe) -> None:
    x = images(recipe)
    expected = session.run(x)
    backwards = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    fixed = x.copy()
    fixed.setflags(write=False)
    for same in (np.asfortranarray(x), backwards, fixed):
        assert np.array_equal(session.run(same), expected)
        with session.threads():
            session.bind(same)()


def test_a_bound_call_runs_again_and_again(session: Session, recipe: Recipe) -> None:
    x = images(recipe)
    before, kept = session.run(x), x.copy()
    call = session.bind(x)
    with session.threads():
        for _ in range(3):
            call()
    assert np.array_equal(x, kept)
    assert np.array_equal(session.run(x), before)


def test_two_calls_can_be_bound_at_once(session: Session, recipe: Recipe) -> None:
    # As timing does: many programs are bound, then run in turn.
    calls = [session.bind(images(recipe, seed)) for seed in range(2)]
    with session.threads():
        for call in (*calls, *calls):
            call()


@pytest.mark.parametrize("shape", [(3, 24, 24), (1, 3, 28, 28), (1, 1, 24, 24), (5, 3, 24, 24)])
def test_another_shape_is_refused(session: Session, recipe: Recipe, shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    for use in (session.run, session.bind):
        with pytest.raises(RuntimeInputError, match=re.escape(f"takes float32 {session.shape}, not float32 {shape}")):
            use(x)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int64])
def test_another_type_is_refused(session: Session, dtype: type) -> None:
    x: Any = np.zeros(session.shape, dtype)
    for use in (session.run, session.bind):
        with pytest.raises(RuntimeInputError, match=f"not {np.dtype(dtype)}"):
            use(x)


def test_a_closed_session_refuses_to_run(session: Session, recipe: Recipe) -> None:
    session.close()
    for use in (session.run, session.bind):
        with pytest.raises(RuntimeInputError, match="session is closed"):
            use(images(recipe))
    session.close()  # harmless


def test_a_session_closes_where_its_block_ends(recipe: Recipe, program: Program) -> None:
    with open_session(program, recipe) as session:
        session.run(images(recipe))
    with pytest.raises(RuntimeInputError, match="closed"):
        session.run(images(recipe))
    with pytest.raises(ZeroDivisionError), open_session(program, recipe) as session:
        _ = 1 / 0
    with pytest.raises(RuntimeInputError, match="closed"):
        session.run(images(recipe))


def test_one_session_closed_leaves_another_open(session: Session, recipe: Recipe, program: Program) -> None:
    open_session(program, recipe).close()
    assert session.run(images(recipe)).shape == (recipe.batch, 7)


def test_an_option_that_the_runtime_does_not_have(recipe: Recipe, program: Program) -> None:
    wrong = recipe.model_copy(update={"options": {**recipe.options, "warp_speed": 9}})
    with pytest.raises(SpecError, match=rf"recipe {recipe.name}: \[options\] of {recipe.runtime}: warp_speed: .*not 9"):
        open_session(program, wrong)


@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_a_file_that_is_cut_off(recipe: Recipe, file: Path, tmp_path: Path, keep: float) -> None:
    content = file.read_bytes()
    part = tmp_path / file.name
    part.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else int(keep)])
    with pytest.raises(BundleError, match=f"cannot load {file.name}"):
        open_session(part, recipe)


def test_a_file_of_something_else(recipe: Recipe, file: Path, tmp_path: Path) -> None:
    path = tmp_path / file.name
    path.write_bytes(b"<html>not found</html>" * 50)
    with pytest.raises(BundleError, match=f"cannot load {file.name}"):
        open_session(path, recipe)


def test_a_file_that_is_not_there(recipe: Recipe, file: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"cannot load {file.name}"):
        open_session(tmp_path / file.name, recipe)


def test_the_version_is_that_of_the_library(recipe: Recipe) -> None:
    version = session_class(recipe).version()
    assert re.match(r"\d+\.\d+", version)
    assert importlib.metadata.version(recipe.runtime).split("+")[0] == version.split("+")[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_process_has_its_threads_back(recipe: Recipe, program: Program, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with open_session(program, recipe.model_copy(update={"threads": threads})) as session:
            session.run(images(recipe))
            assert torch.get_num_threads() == 3
            with pytest.raises(ZeroDivisionError), session.threads():
                if recipe.runtime == "torch":
                    assert torch.get_num_threads() == threads
                _ = 1 / 0
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_values_of_an_option_are_checked() -> None:
    recipe = load_recipe("onnxruntime-cpu-fp32").model_copy(update={"options": {"graph_optimization": "most"}})
    with pytest.raises(SpecError, match=r"graph_optimization: .*'none', 'basic', 'extended' or 'all', not 'most'"):
        open_session(Path("never read"), recipe)


def test_onnx_runtimes_rewriting_changes_no_output(made: nn.Module) -> None:
    recipe = load_recipe("onnxruntime-cpu-fp32")
    program = form_of(recipe).lower(made, (3, 24, 24))
    x = images(recipe)
    for level in ("none", "basic", "extended"):
        chosen = recipe.model_copy(update={"options": {"graph_optimization": level}})
        with open_session(program, chosen) as session, torch.no_grad():
            assert np.abs(session.run(x) - made(torch.from_numpy(x)).numpy()).max() <= 1e-4
