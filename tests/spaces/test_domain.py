from __future__ import annotations

import pydantic
import pytest

from hwnas.errors import InvalidValue, UnknownName
from hwnas.spaces import SPACES, Domain, make_space

TINY = make_space("mobilenetv3-tiny")


@pytest.mark.parametrize("name", SPACES)
def test_a_domain_makes_its_space_again(name: str) -> None:
    whole = make_space(name)
    first, second = list(whole.column)[1:3]
    for space in (
        whole,
        whole.fix(**{whole.reads.size: whole.choices[whole.reads.size][0], first: whole.choices[first][::2]}),
        make_space(name, classes=4, **({"in_channels": 3} if whole.vocabulary is None else {"vocabulary": 30})).fix(
            **{second: whole.choices[second][-1]}
        ),
    ):
        domain = Domain.model_validate_json(Domain.of(space).model_dump_json())
        made = domain.make()
        assert made.choices == space.choices
        assert (made.name, made.reads, made.classes) == (space.name, space.reads, space.classes)
        assert made.distinct_ops == space.distinct_ops


def test_a_domain_says_only_what_is_restricted() -> None:
    assert Domain.of(TINY).choices == {}
    # All values of a variable are no restriction.
    assert Domain.of(TINY.fix(depth_1=[1, 2, 3], resolution=[32, 24])).choices == {"resolution": [24, 32]}


def test_what_a_domain_covers() -> None:
    part = TINY.fix(resolution=[24, 28])
    assert Domain.of(TINY).covers(TINY)
    assert Domain.of(TINY).covers(part)
    assert Domain.of(part).covers(part.fix(resolution=24, depth_1=1))
    assert not Domain.of(part).covers(TINY)
    assert not Domain.of(part).covers(TINY.fix(resolution=[28, 32]))


@pytest.mark.parametrize("other", [{"classes": 9}, {"in_channels": 3}])
def test_networks_of_other_images_are_not_covered(other: dict[str, int]) -> None:
    space = make_space("mobilenetv3-tiny", **other)
    assert not Domain.of(TINY).covers(space)
    assert not Domain.of(space).covers(TINY)


def test_the_other_width_is_not_covered() -> None:
    assert not Domain.of(make_space("mobilenetv3")).covers(make_space("mobilenetv3-w1.2"))


def test_a_domain_that_cannot_be_made() -> None:
    facts = {"space": "mobilenetv3-tiny", "in_channels": 1, "classes": 10}
    with pytest.raises(UnknownName, match="unknown space"):
        Domain.model_validate(facts | {"space": "x"}).make()
    with pytest.raises(UnknownName, match="unknown variable"):
        Domain.model_validate(facts | {"choices": {"deepth_1": [1]}}).make()
    with pytest.raises(InvalidValue, match="resolution of mobilenetv3-tiny cannot be 40"):
        Domain.model_validate(facts | {"choices": {"resolution": [40]}}).make()
    with pytest.raises(pydantic.ValidationError):
        Domain.model_validate(facts | {"colours": 1})
