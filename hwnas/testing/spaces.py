"""Test suite for spaces."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from hwnas.nn import build
from hwnas.spaces import Domain, Space, Value, parse_op
from hwnas.supernet import Supernet, extract

_NETWORKS = 20


def random_inputs(space: Space, arch: Mapping[str, Value], count: int, *, seed: int = 0) -> torch.Tensor:
    """Inputs of an arch's network, ``(count, *shape)``: normally distributed pixels, or tokens without padding."""
    generator, shape = torch.Generator().manual_seed(seed), (count, *space.input_shape(arch))
    if space.vocabulary is not None:
        return torch.randint(1, space.vocabulary, shape, generator=generator)
    return torch.randn(shape, generator=generator)


class SpaceSuite:
    """Tests of a space; a subclass, named Test..., provides it as a class-scoped fixture `space`."""

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> Space:
        """The space under test, unrestricted, from `hwnas.make_space`; a subclass overrides it."""
        raise NotImplementedError("a subclass of SpaceSuite must define a class-scoped fixture `space`")

    def test_its_name_makes_it_again(self, space: Space) -> None:
        again = Domain.of(space).make()
        assert (again.name, again.choices) == (space.name, space.choices)
        for arch in (space.smallest, space.largest):
            assert [op.key for _, op in again.ops(arch)] == [op.key for _, op in space.ops(arch)]

    def test_codes_and_archs_go_back_and_forth(self, space: Space) -> None:
        codes = space.sample(_NETWORKS, seed=0)
        archs = space.decode(codes)
        assert np.array_equal(space.encode(archs), codes)
        assert [space.arch(dict(arch)) for arch in archs] == archs

    def test_values_ascend(self, space: Space) -> None:
        assert space.reads.size in space.column
        for variable in space.variables:
            numbers = [value for value in variable.values if isinstance(value, int)]
            assert len(set(variable.values)) == len(variable.values)
            assert numbers in ([], sorted(variable.values, key=int))

    def test_sums_over_slots_are_sums_over_ops(self, space: Space) -> None:
        codes = space.sample(_NETWORKS, seed=1)
        ops = [[op for _, op in space.ops(arch)] for arch in space.decode(codes)]
        assert space.macs(codes).tolist() == [sum(op.macs for op in network) for network in ops]
        assert space.params(codes).tolist() == [sum(op.params for op in network) for network in ops]

    def test_ops_are_known_to_torch(self, space: Space) -> None:
        for op in space.distinct_ops:
            assert parse_op(op.key) == op
        for op in {op for _, op in space.ops(space.largest)}:
            assert sum(parameter.numel() for parameter in build(op).parameters()) == op.params

    def test_an_extracted_network_computes_what_the_supernet_does(self, space: Space) -> None:
        supernet = Supernet(space, seed=0).eval()
        for arch in (space.smallest, *space.decode(space.sample(2, seed=2))):
            x = random_inputs(space, arch, 2)
            with torch.no_grad():
                y, expected = extract(supernet, arch).eval()(x), supernet(x, arch)
            assert y.shape == (2, space.classes)
            assert torch.allclose(y, expected, atol=1e-4)
