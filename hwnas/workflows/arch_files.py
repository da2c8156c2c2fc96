"""Architectures from files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hwnas.deploy.manifest import MANIFEST
from hwnas.errors import HwnasError, InvalidValue, SpecError
from hwnas.files import reason_of
from hwnas.files.untrusted import parse_json
from hwnas.targets import resolve_target
from hwnas.workflows.inputs import Place

if TYPE_CHECKING:
    from hwnas.spaces import Arch, Space, Value


def arch_of(arch: Place | Mapping[str, Value], target: str | None = None) -> tuple[Mapping[str, Value], float | None]:
    """The values of an arch, from its file or themselves, and the latency budget in the file, in milliseconds.

    `target` is the target to take from a report with several (`read_arch`).

    Raises:
        SpecError: the file cannot be read, or does not contain an arch.
    """
    return read_arch(Path(arch), target)[:2] if isinstance(arch, str | Path) else (arch, None)


def chosen_arch(
    space: Space, arch: Place | Mapping[str, Value], target: str | None = None
) -> tuple[Arch, float | None]:
    """An arch of a space, from its file or values, and the latency budget in the file, in milliseconds.

    Args:
        space: the space.
        arch: the file, or the values.
        target: as for `arch_of`.

    Raises:
        SpecError: the file cannot be read, or does not contain an arch.
        InvalidValue: it is of another space.
    """
    if not isinstance(arch, str | Path):
        return space.arch(arch), None
    found = read_arch(Path(arch), target)
    if found.space is not None and found.space != space.name and _differs(found, space):
        raise InvalidValue(
            f"{arch} has a network of the space {found.space}, but the supernet is of {space.name}: the same values "
            "would be another network"
        )
    return space.arch(found.values), found.budget_ms


def _differs(found: ArchInFile, space: Space) -> bool:
    """Whether the values of a file are another network in its own space than in this one.

    Spaces that differ in their choices only, such as the resolutions, have the same networks.
    """
    from hwnas.spaces import make_space

    assert found.space is not None
    try:
        own = make_space(found.space, reads=space.reads, classes=space.classes, recorded=True)
        here, there = ([(slot.name, op) for slot, op in s.ops(s.arch(found.values))] for s in (space, own))
    except InvalidValue:
        return False  # `Space.arch` says which values this space does not have
    except HwnasError:  # a traced network that is not open here, or a file that was moved
        traced = [("@" in name and "/" not in name) for name in (found.space, space.name)]
        return any(traced) or found.space.rpartition("/")[2] != space.name.rpartition("/")[2]
    return here != there


class ArchInFile(NamedTuple):
    """What a file says of an arch.

    Attributes:
        values: variable -> value.
        budget_ms: latency budget, if any.
        space: name of its space, if the file has it.
    """

    values: dict[str, Value]
    budget_ms: float | None
    space: str | None


def read_arch(path: Path, target: str | None = None) -> ArchInFile:
    """The arch in a file, and its budget and space, if any.

    The file is one of a search (`hwnas.workflows.ArchFile`), the ``report.json`` of a compilation, or the
    ``manifest.json`` of a bundle. Of a report with several targets, ``report.json:device/recipe`` names one. Only
    ``arch``, ``budget_ms`` and ``space`` are read; a file without a ``schema`` has version 1.

    Args:
        path: the file.
        target: the target to take from a report with several if `path` names none.

    Raises:
        SpecError: the file cannot be read, does not contain an arch or this target, or has a later version.
    """
    path, named = _named_target(path)
    try:
        document = parse_json(path.read_bytes(), "its JSON", SpecError)
        if not isinstance(document, dict):
            raise ValueError(_NO_ARCH)
        if isinstance(document.get("targets"), dict):
            answer, read = _of_target(path, document["targets"], named, target), 1
        elif named:
            raise ValueError(f"it has no targets, so {named!r} cannot be one of them; leave :{named} out")
        else:
            answer, read = document, 2 if "manifest_sha256" in document else 1
        if not isinstance(answer, dict) or not isinstance(answer.get("arch"), dict):
            raise ValueError(_NO_ARCH)
        if (schema := document.get("schema", 1)) not in range(1, read + 1) or isinstance(schema, bool):
            raise ValueError(f"its schema is {schema!r:.40}; this version of hwnas reads {read}")
        values, budget_ms = answer["arch"], answer.get("budget_ms")
        # Reject JSON's true, which equals 1 in Python, and integers beyond the range of floats.
        number = isinstance(budget_ms, int | float) and not isinstance(budget_ms, bool)
        if budget_ms is not None and not (number and 0 < budget_ms <= sys.float_info.max):
            raise ValueError(f"budget_ms is {budget_ms!r:.40}; it should be a positive number of milliseconds")
    except (OSError, ValueError, SpecError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        if path.is_dir() and (path / MANIFEST).is_file():
            raise SpecError(
                f"{path} is a folder; the architecture of the bundle in it is in {path / MANIFEST}"
            ) from error
        raise SpecError(
            f"{path} does not contain an architecture: {reason}. `hwnas search` with --out writes one; report.json of "
            "a compilation and manifest.json of a bundle have one, too."
        ) from error
    domain = answer.get("domain")
    space = answer.get("space") or (domain.get("space") if isinstance(domain, dict) else None)
    return ArchInFile(values, budget_ms, space if isinstance(space, str) else None)


_NO_ARCH = 'it has no key "arch" with a value for each variable of the space'


def _named_target(path: Path) -> tuple[Path, str | None]:
    """The file and the target in ``file.json:device/recipe``; the path itself if there is such a file."""
    file, colon, target = str(path).rpartition(".json:")
    return (path, None) if not colon or path.is_file() else (Path(f"{file}.json"), target)


def _of_target(path: Path, answers: Mapping[str, object], named: str | None, target: str | None) -> object:
    """The answer of a target in a report: the named one, else the wanted one, else the only one.

    Raises:
        ValueError: there is no such target, or it is not clear which one is meant.
    """
    if named and named.startswith("this/") and named not in answers:
        named = resolve_target(named).name
    wanted = named if named else target if target in answers else None
    if not answers:
        raise ValueError("it has no targets")
    if wanted is None and len(answers) == 1:
        return next(iter(answers.values()))
    if wanted is None or wanted not in answers:
        problem = f"it has no target {wanted!r}" if wanted else f"it has {len(answers)} targets"
        raise ValueError(f"{problem}; name one: {' or '.join(f'{path}:{name}' for name in list(answers)[:8])}")
    return answers[wanted]
