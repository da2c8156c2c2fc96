"""Read TOML files as validated values: the only place that reads TOML.

Every error names the file, the key, the value and what would be allowed.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from hwnas.errors import SpecError
from hwnas.files.untrusted import DEPTH, Location, by_depth

Model = TypeVar("Model", bound=BaseModel)


class Spec(BaseModel):
    """Base of values from files: frozen and strict. Unknown keys, numbers in quotes, inf and nan are errors.

    A field whose TOML key cannot be a Python name has an alias; pass values by that alias.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def read_spec(path: Path, model: type[Model]) -> Model:
    """The content of a TOML file as a `model`.

    Raises:
        SpecError: the file cannot be read, is not TOML, or does not fit the model; the message lists every
            mistake.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors of Windows begin a file with a byte order mark
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x})") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}, {_syntax(text, str(error))}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, tables nested as deep
        raise SpecError(f"cannot read {path}: {error}") from error
    _check_limits(path, document)
    return checked_spec(model, document, str(path))


def checked_spec(model: type[Model], document: dict[str, Any], what: str) -> Model:
    """Values as a `model`.

    Args:
        model: the model.
        document: its values, as in a TOML file.
        what: where they come from, for messages.

    Raises:
        SpecError: they do not fit the model; the message lists every mistake.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        complaints = _complaints(error, model, document)
        if len(complaints) == 1:
            raise SpecError(f"{what}: {complaints[0]}") from error
        raise SpecError(f"{what}: {len(complaints)} mistakes\n  " + "\n  ".join(complaints)) from error


def toml_text(spec: BaseModel) -> str:
    """A model as TOML, in the order of its fields, without those that are None. The inverse of `read_spec`."""
    return tomli_w.dumps(spec.model_dump(mode="json", by_alias=True, exclude_none=True))


def _check_limits(path: Path, document: dict[str, Any]) -> None:
    """Reject values that can be read but not printed: integers of thousands of hexadecimal digits, deep nesting.

    Raises:
        SpecError: an integer does not fit into 64 bits, or a value is nested deeper than `DEPTH`.
    """
    for depth, level in enumerate(by_depth(document)):
        for where, value in level:
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                bits = value.bit_length()
                raise SpecError(
                    f"{path}: {_key(where)} is an integer of {bits} bits; TOML integers lie from -2**63 to 2**63 - 1"
                )
            if depth >= DEPTH:
                raise SpecError(f"{path}: {_key(where[:3])} is nested deeper than {DEPTH} levels")


def _syntax(text: str, message: str) -> str:
    """Line number, message and text of the line of a syntax error."""
    lines = text.splitlines() or [""]
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.DOTALL)
    complaint, at = (found[1], found[2]) if found else (message, None)
    number = int(at) if at else len(lines)
    # There may be no such line: an unclosed string is reported at the end of the document.
    return f"line {number}: not TOML: {complaint}: {lines[min(number, len(lines)) - 1].strip()!r}"


def _complaints(error: ValidationError, model: type[BaseModel], document: dict[str, Any]) -> list[str]:
    """One sentence per mistake."""
    sentences: list[str] = []
    # For a value that fits no member of a union pydantic gives several reasons; it is one mistake.
    misfits: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        kind, value, where = detail["type"], detail["input"], _present(detail["loc"], document)
        if kind == "default_factory_not_called":  # it depends on a value that is complained about
            continue
        if kind == "extra_forbidden":
            near = _nearest(str(where[-1]), _fields(model, where[:-1]))
            sentences.append(f"unknown key {_key(where)!r};{near} {_allowed(model, where[:-1])}")
        elif kind == "missing":
            sentences.append(f"{_key((*where, detail['loc'][-1]))} is missing; {_allowed(model, where)}")
        elif kind == "value_error":
            # A validator of a whole table names the wrong value itself.
            shown = _key(where) if isinstance(value, dict) else f"{_key(where)} is {value!r}"
            sentences.append((f"{shown}; " if where else "") + detail["msg"].removeprefix("Value error, "))
        else:
            misfits.setdefault(f"{_key(where)} is {value!r}", []).append(_reason(detail))
    return sentences + [f"{start}; {', or '.join(reasons)}" for start, reasons in misfits.items()]


def _reason(detail: ErrorDetails) -> str:
    """What a value should be."""
    if detail["type"] == "model_type":
        return "it should be a table"
    reason = re.sub(r"^\w+ should", "it should", detail["msg"])
    if detail["type"] == "literal_error":
        near = _nearest(str(detail["input"]), re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
        return f"{reason};{near}" if near else reason
    return reason


def _present(loc: Location, document: object) -> Location:
    """The part of a location that exists in the document: pydantic adds the names of union members."""
    found: list[str | int] = []
    for part in loc:
        items = dict(enumerate(document)) if isinstance(document, list) else document
        if isinstance(items, dict) and part in items:
            document = items[part]
            found.append(part)
    return tuple(found)


def _key(loc: Location) -> str:
    """A location as TOML writes it, with the index of an array's element in brackets."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _fields(model: type[BaseModel], table: Location) -> list[str]:
    """The allowed keys of the table at a location."""
    models = [model]
    for part in table:
        fields = [f for m in models for name, f in m.model_fields.items() if part in (name, f.alias)]
        models = [m for field in fields for m in _models(field.annotation)] or models
    return list(dict.fromkeys(f.alias or name for m in models for name, f in m.model_fields.items()))


def _models(annotation: object) -> list[type[BaseModel]]:
    """The models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _allowed(model: type[BaseModel], table: Location) -> str:
    place = f"in [{_key(table)}]" if table else "at the top level"
    return f"allowed {place}: {', '.join(_fields(model, table))}"


def _nearest(name: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" did you mean {near[0]!r}?" if near else ""
