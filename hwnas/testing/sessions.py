"""Test suite for sessions of any runtime, by recipe."""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.errors import BundleError, InvalidValue, RuntimeInputError, SpecError
from hwnas.lowering import Program, form_of
from hwnas.runtimes import Session, open_session, session_class
from hwnas.runtimes.base import Array
from hwnas.targets import Recipe
from hwnas.testing.networks import CLASSES, SHAPE, pictures, trained_network
from hwnas.timing import Protocol, time_programs

QUICK = Protocol(visit_ms=0.05, max_runs=5, session_passes=1, max_sessions=2, tolerance=1e9)


def images(recipe: Recipe, seed: int = 0) -> Array:
    """The images of a run, ``(batch, 3, 24, 24)``."""
    return np.random.default_rng(seed).standard_normal((recipe.batch, *SHAPE), dtype=np.float32)


def _compiles(recipe: Recipe) -> bool:
    return bool(recipe.options.get("compile"))


class SessionSuite:
    """Tests of a recipe's sessions; a subclass, named Test..., provides the recipe.

    ::

        class TestMySessions(SessionSuite):
            @pytest.fixture(scope="class", params=["my-cpu-fp32"])
            @classmethod
            def recipe(cls, request):
                return load_recipe(request.param)
    """

    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls) -> Recipe:
        """The recipe whose sessions are tested; a subclass overrides it."""
        raise NotImplementedError("a subclass of SessionSuite must define a class-scoped fixture `recipe`")

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, recipe: Recipe) -> nn.Module:
        """The network; a small one if compiling takes seconds."""
        return trained_network(tiny=_compiles(recipe))

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls, recipe: Recipe, made: nn.Module) -> Program:
        """The network, lowered."""
        return form_of(recipe).lower(made, SHAPE, pictures(64, 1))

    @pytest.fixture(scope="class")
    @classmethod
    def file(cls, recipe: Recipe, program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The program's file."""
        return form_of(recipe).write(program, tmp_path_factory.mktemp(recipe.name))

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, recipe: Recipe, program: Program) -> Iterator[Session]:
        """A session for many tests; tests that close a session open their own."""
        with open_session(program, recipe) as opened:
            yield opened

    @pytest.fixture
    def can_be_timed(self, recipe: Recipe) -> None:
        """Skip a runtime that only estimates."""
        if not recipe.facts.measured:
            pytest.skip(f"{recipe.runtime} only estimates")

    @pytest.fixture
    def opens_fast(self, recipe: Recipe) -> None:
        """Skip a recipe that takes seconds to open and is covered by another recipe."""
        if _compiles(recipe) and recipe.threads > 1:
            pytest.skip("opening takes seconds, and the recipe with one thread covers it")

    @pytest.fixture
    def takes_any_batch(self, recipe: Recipe) -> None:
        """Skip a runtime whose programs take a fixed number of images."""
        if not session_class(recipe).takes_any_batch:
            pytest.skip(f"programs of {recipe.runtime} take a fixed number of images")

    def test_shapes_and_types(self, session: Session, recipe: Recipe) -> None:
        assert session.shape == (recipe.batch, 3, 24, 24)
        y = session.run(images(recipe))
        assert isinstance(y, np.ndarray)
        assert y.shape == (recipe.batch, CLASSES)
        assert y.dtype == np.float32

    def test_outputs_are_those_of_torch(self, session: Session, recipe: Recipe, made: nn.Module) -> None:
        x = pictures(70, 2)
        with torch.no_grad():
            expected = made(x)
        assert expected.std(0).min() > 0.3  # they depend on the image
        assert len(expected.argmax(1).unique()) == expected.shape[1]
        got = torch.from_numpy(np.concatenate([session.run(part.numpy()) for part in x.split(recipe.batch)]))
        assert (got - expected).abs().max() <= recipe.parity.max_abs_error
        assert torch.cosine_similarity(got, expected).min() >= recipe.parity.min_cosine
        assert (got.argmax(1) == expected.argmax(1)).double().mean() >= recipe.parity.min_top1_agreement
        if recipe.precision != "fp32":
            assert (got - expected).abs().max() > 1e-3  # it really computes in less

    def test_each_program_has_its_own_weights(
        self, session: Session, recipe: Recipe, made: nn.Module, opens_fast: None
    ) -> None:
        # A runtime's cache must not confuse two programs of the same form.
        other = copy.deepcopy(made)
        with torch.no_grad():
            [layer for layer in other.modules() if isinstance(layer, nn.Linear)][-1].weight.neg_()
        x = pictures(1, 3)
        with torch.no_grad():
            expected, another = made(x).numpy(), other(x).numpy()
        assert np.abs(expected - another).max() > 5
        with open_session(form_of(recipe).lower(other, SHAPE, pictures(16, 1)), recipe) as opened:
            assert np.abs(opened.run(x.numpy()) - another).max() < 2
        assert np.abs(session.run(x.numpy()) - expected).max() < 2

    def test_the_same_images_give_the_same_bits(
        self, session: Session, recipe: Recipe, program: Program, opens_fast: None
    ) -> None:
        x = images(recipe)
        first = session.run(x)
        kept = first.copy()
        other = session.run(images(recipe, 1))
        assert not np.array_equal(other, kept)
        assert np.array_equal(first, kept)  # not overwritten by the next run
        assert np.array_equal(session.run(x), kept)
        with open_session(program, recipe) as again:
            assert np.array_equal(again.run(x), kept)

    def test_opened_again_it_is_the_same_program(self, recipe: Recipe, program: Program, opens_fast: None) -> None:
        x = images(recipe)
        with open_session(program, recipe) as first:
            expected = first.run(x)
            other = first.again()
            assert np.array_equal(other.run(x), expected)
            with other.again() as third:  # of a session that was itself reopened
                other.close()
                assert np.array_equal(third.run(x), expected)
            assert np.array_equal(first.run(x), expected)  # closing one leaves the others open
        assert other.shape == first.shape
        with pytest.raises(RuntimeInputError, match="closed"):
            first.again()

    def test_a_file_computes_what_the_program_computes(
        self, session: Session, recipe: Recipe, file: Path, opens_fast: None
    ) -> None:
        x = images(recipe)
        with open_session(file, recipe) as loaded:
            assert loaded.shape == session.shape
            assert np.array_equal(loaded.run(x), session.run(x))

    def test_any_number_of_images(
        self,
        session: Session,
        recipe: Recipe,
        program: Program,
        tmp_path: Path,
        takes_any_batch: None,
        opens_fast: None,
    ) -> None:
        form, x = form_of(recipe), pictures(5, 4).numpy()
        file = form.write(form.any_batch(program), tmp_path)
        one_by_one = np.concatenate([session.run(part[None]) for part in x]) if recipe.batch == 1 else None
        with open_session(file, recipe, any_batch=True) as opened:
            assert opened.any_batch
            assert opened.shape == session.shape
            for count in (1, 2, 5, 1):
                y = opened.run(x[:count])
                assert y.shape == (count, CLASSES)
                if one_by_one is not None:
                    assert np.abs(y - one_by_one[:count]).max() <= recipe.parity.max_abs_error
            with opened.again() as other:
                assert other.run(x).shape == (5, CLASSES)
            for wrong in (x[:0], x[0], x[:, :, :-1]):
                with pytest.raises(RuntimeInputError, match=r"takes float32 \(any number, 3, 24, 24\), not"):
                    opened.run(wrong)
        with pytest.raises(BundleError, match="takes a fixed number of images in a run"):
            open_session(program, recipe, any_batch=True)

    def test_a_symbolic_batch_is_fixed_to_that_of_the_recipe(
        self, session: Session, recipe: Recipe, program: Program, takes_any_batch: None, opens_fast: None
    ) -> None:
        x = images(recipe)
        with open_session(form_of(recipe).any_batch(program), recipe) as opened:
            assert opened.shape == session.shape
            assert np.array_equal(opened.run(x), session.run(x))  # the same kernels as without the symbol
            with opened.threads():
                opened.bind(x)()
            with pytest.raises(RuntimeInputError, match=re.escape(f"takes float32 {session.shape}")):
                opened.run(np.concatenate([x, x]))

    def test_any_number_of_images_is_refused_where_the_batch_is_fixed(self, recipe: Recipe, program: Program) -> None:
        if session_class(recipe).takes_any_batch:
            pytest.skip("its programs take any number of images")
        with pytest.raises(InvalidValue, match=f"{recipe.name} cannot have a dynamic batch"):
            open_session(program, recipe, any_batch=True)

    def test_images_however_they_lie_in_memory(self, session: Session, recipe: Recipe) -> None:
        x = images(recipe)
        expected = session.run(x)
        backwards = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
        fixed = x.copy()
        fixed.setflags(write=False)
        for same in (np.asfortranarray(x), backwards, fixed):
            assert np.array_equal(session.run(same), expected)

    def test_bound_images_however_they_lie_in_memory(
        self, session: Session, recipe: Recipe, can_be_timed: None
    ) -> None:
        x = images(recipe)
        fixed = x.copy()
        fixed.setflags(write=False)
        with session.threads():
            for same in (np.asfortranarray(x), x[..., ::-1], fixed):
                session.bind(same)()

    def test_a_bound_call_runs_again_and_again(self, session: Session, recipe: Recipe, can_be_timed: None) -> None:
        x = images(recipe)
        before, kept = session.run(x), x.copy()
        call = session.bind(x)
        with session.threads():
            for _ in range(3):
                call()
        assert np.array_equal(x, kept)
        assert np.array_equal(session.run(x), before)

    def test_two_calls_can_be_bound_at_once(self, session: Session, recipe: Recipe, can_be_timed: None) -> None:
        # As in timing: many programs are bound, then run alternately.
        calls = [session.bind(images(recipe, seed)) for seed in range(2)]
        with session.threads():
            for call in (*calls, *calls):
                call()

    def test_times_are_positive_and_finite(
        self, recipe: Recipe, program: Program, can_be_timed: None, opens_fast: None
    ) -> None:
        if hasattr(os, "sched_getaffinity") and recipe.threads > len(os.sched_getaffinity(0)):
            with pytest.raises(InvalidValue, match=f"uses {recipe.threads} threads"):
                time_programs({"a": program}, recipe, QUICK)
            pytest.skip(f"{recipe.threads} threads need as many cores")
        measured = time_programs({"a": program}, recipe, QUICK)
        samples = [ms for passes in measured.samples_ms["a"] for ms in passes]
        assert len(samples) >= 2 * QUICK.min_runs
        assert all(math.isfinite(ms) and ms > 0 for ms in samples)

    @pytest.mark.parametrize("shape", [(3, 24, 24), (1, 3, 28, 28), (1, 1, 24, 24), (5, 3, 24, 24)])
    def test_another_shape_is_refused(self, session: Session, recipe: Recipe, shape: tuple[int, ...]) -> None:
        x = np.zeros(shape, np.float32)
        for use in (session.run, session.bind):
            with pytest.raises(
                RuntimeInputError, match=re.escape(f"takes float32 {session.shape}, not float32 {shape}")
            ):
                use(x)

    @pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int64])
    def test_another_type_is_refused(self, session: Session, dtype: type) -> None:
        x: Any = np.zeros(session.shape, dtype)
        for use in (session.run, session.bind):
            with pytest.raises(RuntimeInputError, match=f"not {np.dtype(dtype)}"):
                use(x)

    def test_a_closed_session_refuses_to_run(self, recipe: Recipe, program: Program, opens_fast: None) -> None:
        session = open_session(program, recipe)
        session.close()  # without any run
        for use in (session.run, session.bind):
            with pytest.raises(RuntimeInputError, match="session is closed"):
                use(images(recipe))
        session.close()  # harmless

    def test_a_session_closes_where_its_block_ends(self, recipe: Recipe, program: Program, opens_fast: None) -> None:
        with open_session(program, recipe) as session:
            session.run(images(recipe))
        with pytest.raises(RuntimeInputError, match="closed"):
            session.run(images(recipe))
        with pytest.raises(ZeroDivisionError), open_session(program, recipe) as session:
            _ = 1 / 0
        with pytest.raises(RuntimeInputError, match="closed"):
            session.run(images(recipe))

    def test_one_session_closed_leaves_another_open(
        self, session: Session, recipe: Recipe, program: Program, opens_fast: None
    ) -> None:
        open_session(program, recipe).close()
        assert session.run(images(recipe)).shape == (recipe.batch, CLASSES)

    def test_an_option_that_the_runtime_does_not_have(self, recipe: Recipe, program: Program) -> None:
        wrong = recipe.model_copy(update={"options": {**recipe.options, "warp_speed": 9}})
        with pytest.raises(
            SpecError, match=rf"recipe {recipe.name}: \[options\] of {recipe.runtime}: warp_speed: .*not 9"
        ):
            open_session(program, wrong)

    @pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
    def test_a_file_that_is_cut_off(self, recipe: Recipe, file: Path, tmp_path: Path, keep: float) -> None:
        content = file.read_bytes()
        part = tmp_path / file.name
        part.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else int(keep)])
        with pytest.raises(BundleError, match=f"cannot load {file.name}"):
            open_session(part, recipe)

    def test_a_file_of_something_else(self, recipe: Recipe, file: Path, tmp_path: Path) -> None:
        path = tmp_path / file.name
        path.write_bytes(b"<html>not found</html>" * 50)
        with pytest.raises(BundleError, match=f"cannot load {file.name}"):
            open_session(path, recipe)

    def test_a_file_that_is_not_there(self, recipe: Recipe, file: Path, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=f"cannot load {file.name}"):
            open_session(tmp_path / file.name, recipe)

    @pytest.mark.parametrize("threads", [1, 2])
    def test_the_process_has_its_threads_back(
        self, recipe: Recipe, program: Program, threads: int, opens_fast: None
    ) -> None:
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            with open_session(program, recipe.model_copy(update={"threads": threads})) as session:
                session.run(images(recipe))
                assert torch.get_num_threads() == 3
                with pytest.raises(ZeroDivisionError), session.threads():
                    if recipe.facts.form == "torch" and recipe.facts.kind == "cpu":
                        assert torch.get_num_threads() == threads
                    _ = 1 / 0
                assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)
