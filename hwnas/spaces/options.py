"""Options of spaces (resolutions, width, kernels, expansions, stages, aspect) and the names of spaces made with them.

The name of a space with options contains all of them: ``mobilenetv3-small+resolution=64,80,96+width=0.5``. Every file
that stores the name of a space therefore reproduces the space. The rule, on which stored files depend:

- A name is the base, then ``+key=value`` for each option in the order of the fields of `SpaceOptions`. An option added
  in a later version comes last.
- An option that equals the base's value is left out; without options, the name is the base's.
- Numbers ascend. Four or more at equal distances are ``first:last:step``, others are separated by commas.
- A stage is ``24x1.2.3-s2-relu`` or ``24x1.2.3-s2-relu-se``: width, depths, stride, activation, squeeze-excitation.

The characters need no quotes in a shell. A base keeps its definition in later versions of hwnas.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from hwnas.errors import InvalidValue, UnknownName
from hwnas.files import Spec, read_spec
from hwnas.plugins import in_file
from hwnas.spaces.sides import LEAST_SIDE, MOST_SIDE, aspect_of

Activation = Literal["relu", "relu6", "hswish"]
_MOST_VALUES = 64  # of a list: a code's columns hold 256 choices, and every resolution is measured
_OPTION = r"[a-z]+=[^+]*"
_NAME = re.compile(rf"(?P<base>.+?)(?P<options>(\+{_OPTION})+)", re.DOTALL)
_STAGE = re.compile(r"(?P<width>\d{1,6})x(?P<depths>\d+(\.\d+)*)-s(?P<stride>\d)-(?P<act>[a-z0-9]+)(?P<se>-se)?")
_STAGE_FORM = "24x1.2.3-s2-relu or 24x1.2.3-s2-relu-se (width x depths - stride - activation - squeeze-excitation)"
_NUMBER, _FEW = re.compile(r"\d{1,9}"), 4
_LONGEST_SEQUENCE = 16_385  # tokens: the pixels of Pathfinder at 128 px, and the one that starts a sequence
_LONGEST = 4000  # characters of a name with options; twelve stages take 400


def int_values(given: object) -> tuple[int, ...]:
    """Ascending integers, from one, a list, or a text ``64,80,96`` or ``64:128:16`` (both ends included).

    Raises:
        ValueError: it has another form, a value occurs twice, or there are none or too many.
    """
    values = _from_text(given) if isinstance(given, str) else given
    values = [values] if isinstance(values, int) else values
    if not isinstance(values, list | tuple) or not all(type(value) is int for value in values):
        raise ValueError('give an integer, a list of integers, [64, 80, 96], or a range as text, "64:128:16"')
    if not 1 <= len(values) <= _MOST_VALUES:
        raise ValueError(f"there must be 1 to {_MOST_VALUES} values, not {len(values)}")
    if repeated := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"{repeated[0]} occurs twice; list each value once")
    return tuple(sorted(values))


def _from_text(text: str) -> list[int]:
    parts = text.replace(" ", "").split(":")
    numbers = parts if len(parts) > 1 else parts[0].split(",")
    if len(parts) not in (1, 3) or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise ValueError("write values as 64,80,96, or as first:last:step, 64:128:16")
    if len(parts) == 1:
        return [int(number) for number in numbers]
    first, last, step = map(int, parts)
    if not step or first >= last:
        raise ValueError("first:last:step must ascend, with a step of at least 1, as 64:128:16 does")
    if rest := (last - first) % step:
        below, above = last - rest, last - rest + step
        ends = f"{first}:{below}:{step} or {first}:{above}:{step}" if below > first else f"{first}:{above}:{step}"
        raise ValueError(f"steps of {step} from {first} do not reach {last}; use {ends}")
    if (last - first) // step >= _MOST_VALUES:
        raise ValueError(f"that is {(last - first) // step + 1} values; use a larger step, for at most {_MOST_VALUES}")
    return list(range(first, last + 1, step))


Values = Annotated[tuple[int, ...], BeforeValidator(int_values)]
Aspect = Annotated[str, BeforeValidator(aspect_of)]


def _listed(given: object) -> object:
    return tuple(given) if isinstance(given, list) else given


class StageOptions(Spec):
    """A stage of blocks: ``[[stages]]``.

    Attributes:
        width: channels of its output before the width multiplier, a multiple of 8.
        depths: choices of the number of blocks: one, a list, or a range as text.
        stride: of the first block, 1 or 2.
        act: activation: relu, relu6 or hswish.
        se: whether its blocks have a squeeze-excitation.
    """

    width: int = Field(ge=8, le=4096)
    depths: Values
    stride: Literal[1, 2]
    act: Activation
    se: bool = False

    @field_validator("width")
    @classmethod
    def _divisible(cls, width: int) -> int:
        if rest := width % 8:
            raise ValueError(f"a width must be a multiple of 8: use {width - rest} or {width - rest + 8}")
        return width

    @field_validator("depths")
    @classmethod
    def _few_blocks(cls, depths: tuple[int, ...]) -> tuple[int, ...]:
        if not 1 <= depths[0] <= depths[-1] <= 8:
            raise ValueError("a stage has 1 to 8 blocks")
        return depths


class SpaceOptions(Spec):
    """Options of a space; None where the space keeps its own value. Families of spaces have some of them.

    Attributes:
        resolution: heights of the images, in pixels: one, a list, or ``"first:last:step"`` with both ends.
        width: multiplier of all widths; it replaces that of the space.
        kernels: kernel sizes of the depthwise convolutions, odd; one, a list, or a range.
        expansions: width inside a block: a multiple of its input's in MobileNet spaces, in percent of its output's in
            ResNet spaces; one, a list, or a range.
        stages: all stages, which replace those of the space.
        aspect: width to height of the images, ``"2:1"``; resolution times aspect is their width.
        length: numbers of tokens of a sequence: one, a list, or a range.
    """

    resolution: Values | None = None
    width: float | None = Field(default=None, ge=0.1, le=4)
    kernels: Values | None = None
    expansions: Values | None = None
    stages: Annotated[tuple[StageOptions, ...], BeforeValidator(_listed)] | None = Field(
        default=None, min_length=1, max_length=12
    )
    aspect: Aspect | None = None
    length: Values | None = None

    @field_validator("length")
    @classmethod
    def _lengths(cls, lengths: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if lengths is not None and not 1 <= lengths[0] <= lengths[-1] <= _LONGEST_SEQUENCE:
            raise ValueError(f"lengths must be between 1 and {_LONGEST_SEQUENCE} tokens")
        return lengths

    @field_validator("resolution")
    @classmethod
    def _sides(cls, sides: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if sides is not None and not LEAST_SIDE <= sides[0] <= sides[-1] <= MOST_SIDE:
            raise ValueError(f"resolutions must be between {LEAST_SIDE} and {MOST_SIDE} pixels")
        return sides

    @field_validator("kernels")
    @classmethod
    def _odd(cls, kernels: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if kernels is not None and not all(k % 2 and 3 <= k <= 15 for k in kernels):
            raise ValueError("kernels must be odd and between 3 and 15: 3,5,7")
        return kernels

    @field_validator("expansions")
    @classmethod
    def _positive(cls, expansions: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if expansions is not None and not 1 <= expansions[0] <= expansions[-1] <= 400:
            raise ValueError("expansions must be between 1 and 400")
        return expansions

    @property
    def given(self) -> dict[str, Any]:
        """Name of an option -> its value, for those that are not None."""
        every = {name: getattr(self, name) for name in SpaceOptions.model_fields}
        return {name: value for name, value in every.items() if value is not None}

    def over(self, other: SpaceOptions) -> SpaceOptions:
        """These options, and those of `other` that are not given here."""
        return SpaceOptions.model_construct(**(other.given | self.given))

    @property
    def text(self) -> str:
        """The options as they stand in a name, ``+resolution=64,80,96+width=0.5``; empty without options."""
        return "".join(f"+{name}={_text(value)}" for name, value in self.given.items())


class SpaceFile(SpaceOptions):
    """A space in a TOML file, ``--space my-space.toml``.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        base: name of a space, perhaps with options; those in the file take precedence.
    """

    schema_: Literal[1] = Field(alias="schema")
    base: str


def options_of(given: SpaceOptions | Mapping[str, object] | None) -> SpaceOptions:
    """Options, from a mapping such as ``{"resolution": [64, 80, 96], "width": 0.5}`` or themselves.

    Raises:
        UnknownName: there is no such option.
        InvalidValue: a value is invalid.
    """
    if isinstance(given, SpaceOptions):
        return SpaceOptions.model_construct(**given.given)
    try:
        return SpaceOptions.model_validate(dict(given or {}))
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> InvalidValue | UnknownName:
    """One error for the first mistake of options that were not read from a file."""
    detail = error.errors(include_url=False)[0]
    if detail["type"] == "extra_forbidden":
        known = StageOptions if len(detail["loc"]) > 1 else SpaceOptions
        what = "key of a stage" if len(detail["loc"]) > 1 else "option of a space"
        return UnknownName(what, detail["loc"][-1], known.model_fields)
    words = [part for part in detail["loc"] if isinstance(part, int) or part.isidentifier()]
    place = "".join(f"[{word}]" if isinstance(word, int) else f".{word}" for word in words).removeprefix(".")
    if detail["type"] == "missing":
        return InvalidValue(f"{place} of a space is missing; a stage has {', '.join(StageOptions.model_fields)}")
    value = detail["input"]
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else repr(value)
    reason = detail["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return InvalidValue(f"{place} of a space is {shown:.200}; {reason.replace('Value should', 'it should')}")


def split_name(name: str) -> tuple[str, SpaceOptions]:
    """The base and the options of a name.

    Raises:
        UnknownName: there is no such option.
        InvalidValue: an option occurs twice, or its value is invalid.
    """
    base, texts = _split(name)
    given: dict[str, object] = {}
    for key, value in (text.split("=", 1) for text in texts):
        if key in given:
            raise InvalidValue(f"the name {name!r:.400} gives {key} twice; give it once")
        given[key] = _parsed(key, value)
    return base, options_of(given)


def base_of(name: str) -> str:
    """The name of a space without its options."""
    return _split(name)[0]


def _split(name: str) -> tuple[str, list[str]]:
    found = None if in_file(name) or len(name) > _LONGEST else _NAME.fullmatch(name)
    return (found["base"], found["options"][1:].split("+")) if found else (name, [])


def _parsed(key: str, value: str) -> object:
    """The value of an option in a name."""
    if key == "width":
        if not re.fullmatch(r"\d{1,3}(\.\d{1,20})?", value):
            raise InvalidValue(f"width of a space is {value!r:.80}; it should be a number, such as 0.5")
        return float(value)
    return [_parsed_stage(text) for text in value.split(",")] if key == "stages" else value


def _parsed_stage(text: str) -> dict[str, object]:
    found = _STAGE.fullmatch(text)
    if not found:
        raise InvalidValue(f"a stage of a space is {text!r:.80}; it should have the form {_STAGE_FORM}")
    depths = found["depths"].replace(".", ",")
    numbers = {key: int(found[key]) for key in ("width", "stride")}
    return {**numbers, "depths": depths, "act": found["act"], "se": found["se"] is not None}


def _text(value: str | float | tuple[int, ...] | tuple[StageOptions, ...]) -> str:
    """The value of an option as it stands in a name."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return str(int(value)) if value == int(value) else repr(value)
    stages = [_stage_text(item) for item in value if isinstance(item, StageOptions)]
    return ",".join(stages) if stages else values_text([item for item in value if isinstance(item, int)])


def values_text(values: Sequence[int | str]) -> str:
    """Ascending integers as in a name: ``64,80,96``, or ``64:128:16`` for four or more at equal distances; or texts."""
    numbers = [value for value in values if isinstance(value, int)]
    steps = {b - a for a, b in itertools.pairwise(numbers)} if len(numbers) == len(values) else set()
    if len(values) >= _FEW and len(steps) == 1:
        return f"{values[0]}:{values[-1]}:{steps.pop()}"
    return ",".join(map(str, values))


def _stage_text(stage: StageOptions) -> str:
    depths = ".".join(map(str, stage.depths))
    return f"{stage.width}x{depths}-s{stage.stride}-{stage.act}{'-se' if stage.se else ''}"


def read_space_file(path: Path) -> tuple[str, SpaceOptions]:
    """The base and the options of a space in a TOML file.

    Raises:
        SpecError: the file cannot be read, is not TOML, or has a wrong or unknown key.
        InvalidValue: its base is a file.
    """
    found = read_spec(path, SpaceFile)
    base, options = split_name(found.base)
    if in_file(base) or base.endswith(".toml"):
        raise InvalidValue(
            f"{path}: base is {found.base!r}, a file; it should be the name of a space (hwnas spaces list)"
        )
    return base, options_of(found).over(options)


# -- a check that families share -----------------------------------------------------------------------------------


def scaled_channels(channels: int, width: float, *, multiple: int) -> int:
    """Channels after a width multiplier, for spaces that do not round widths.

    Args:
        channels: before it.
        width: the multiplier.
        multiple: number that divides the result.

    Raises:
        InvalidValue: the product is not a multiple of it.
    """
    scaled = channels * width
    whole = round(scaled / multiple)
    # The tolerance admits fractions such as 0.277778, which is 10 / 36.
    if whole and math.isclose(scaled / multiple, whole, rel_tol=1e-4):
        return whole * multiple
    below = max(multiple, math.floor(scaled / multiple) * multiple)
    near = " or ".join(f"{n / channels:.6g} ({n} channels)" for n in sorted({below, below + multiple}))
    raise InvalidValue(
        f"width {width:g} makes {scaled:g} of {channels} channels, which is not a multiple of {multiple}; use {near}"
    )
