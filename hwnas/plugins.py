"""Registries: objects by name, built in or added by installed packages under an entry-point group.

A package names its objects in its ``pyproject.toml``::

    [project.entry-points."hwnas.runtimes"]
    reference = "my_package.runtime:REFERENCE"

Names are read from the metadata of installed packages; an object is imported when it is looked up. An object that
cannot be imported, or whose name is taken, is reported and does not affect the others. In a registry that accepts
files, ``path/to/file.py:NAME`` is a name, too.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar, cast

from hwnas.errors import PluginError, UnknownName

log = logging.getLogger(__name__)

T = TypeVar("T")
CODE = "HWNAS_CODE"  # environment variable: Python files that other files may refer to, separated as in PATH
_named_by_user: set[Path] = set()  # in this process
_IN_FILE = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)")


class Registry(Generic[T]):
    """Objects of one kind by name.

    Args:
        what: the kind in messages, e.g. "space".
        group: the entry-point group, e.g. "hwnas.spaces".
        builtin: the objects that come with hwnas; the dictionary is not copied, so later additions are found.
        fits: whether an object of a plugin or a file is of this kind.
        needs: the kind in words, e.g. "a hwnas.targets.runtimes.RuntimeFacts".
        takes_files: whether ``path/to/file.py:NAME`` is a name.
    """

    def __init__(
        self,
        what: str,
        group: str,
        builtin: Mapping[str, T],
        *,
        fits: Callable[[object], bool],
        needs: str,
        takes_files: bool = False,
    ) -> None:
        self.what, self.group, self.builtin = what, group, builtin
        self._fits, self._needs, self._takes_files = fits, needs, takes_files
        self._shipped = frozenset(builtin)

    def names(self) -> list[str]:
        """Names of the objects that come with hwnas, then those of plugins; nothing is imported."""
        return [*self.builtin, *self._plugins()]

    def __contains__(self, name: object) -> bool:
        """Whether there is an object of that name; a file is not opened."""
        return isinstance(name, str) and (
            name in self.builtin or name in self._plugins() or (self._takes_files and in_file(name))
        )

    def only_here(self, name: str) -> bool:
        """Whether this process added the object to `builtin` itself, so that another process does not have it."""
        return name in self.builtin and name not in self._shipped

    def __getitem__(self, name: str) -> T:
        """As `get`, for a name that the user gives."""
        return self.get(name)

    def get(self, name: str, *, recorded: bool = False) -> T:
        """The object of that name.

        Args:
            name: of the object.
            recorded: whether the name was read from an untrusted file, such as the manifest of a bundle: the Python
                file that it names runs only if the user named the same file, or lists it in `HWNAS_CODE`.

        Raises:
            UnknownName: there is none.
            PluginError: an object of a plugin or a file cannot be loaded, is of another kind, or is registered by two
                plugins; or the user did not name the file.
        """
        if name in self.builtin:
            return self.builtin[name]
        if self._takes_files and in_file(name):
            _check_allowed(name, self.what, recorded=recorded)
            return self._checked(from_file(name, self.what), f"the {self.what} {name!r}")
        points = self._plugins().get(name)
        if points is None:
            hint = f"If it came from a plugin, install the package that registers it under {self.group}"
            files = "; path/to/file.py:NAME loads one from a file" if self._takes_files else ""
            raise UnknownName(self.what, name, self.names(), f"{hint}{files}.")
        if len(points) > 1:
            owners = " and ".join(sorted(map(_owner, points)))
            raise PluginError(f"the {self.what} {name!r} is registered by {owners}; uninstall all but one of them")
        [point] = points
        origin = f"the {self.what} {name!r} of the plugin {_owner(point)}"
        try:
            found = point.load()
        except Exception as error:  # the import of a plugin may raise anything
            raise PluginError(f"{origin} cannot be loaded from {point.value}: {_reason(error)}") from error
        return self._checked(found, origin)

    def plugins(self) -> Iterator[tuple[str, T]]:
        """Name and object of every plugin; one that cannot be loaded is skipped with a warning."""
        for name in self._plugins():
            try:
                yield name, self[name]
            except PluginError as error:
                _warn_left_out(str(error))

    def _checked(self, found: object, origin: str) -> T:
        if not self._fits(found):
            given = f"the class {found.__name__}" if isinstance(found, type) else f"of the type {type(found).__name__}"
            raise PluginError(f"{origin} is {given}; it should be {self._needs}")
        return cast("T", found)

    def _plugins(self) -> dict[str, list[importlib.metadata.EntryPoint]]:
        found: dict[str, list[importlib.metadata.EntryPoint]] = {}
        for point in _entry_points(self.group, tuple(sys.path)):
            if point.name in self.builtin:
                _warn_left_out(
                    f"the {self.what} {point.name!r} of the plugin {_owner(point)}: hwnas has a {self.what} of that "
                    "name; the plugin should use another name"
                )
            else:
                found.setdefault(point.name, []).append(point)
        return found


def in_file(name: str) -> bool:
    """Whether a name is of the form ``path/to/file.py:NAME``."""
    return _IN_FILE.fullmatch(name) is not None


def absolute_name(name: str, folder: Path | None = None) -> str:
    """A name that is independent of the current folder: the path of ``file.py:NAME`` is made absolute.

    Args:
        name: of an object.
        folder: base of a relative path; the current folder if None.
    """
    if not in_file(name):
        return name
    path, _, attribute = name.rpartition(":")
    return f"{(folder or Path()).absolute() / Path(path).expanduser()}:{attribute}"


def file_of(name: str) -> Path | None:
    """The file of ``file.py:NAME``; None for other names."""
    return Path(name.rpartition(":")[0]).expanduser().absolute() if in_file(name) else None


def load_object(path: str) -> object:
    """The object of a dotted path, ``package.module:name``.

    Raises:
        ImportError, AttributeError: there is none.
    """
    return importlib.metadata.EntryPoint(name="", value=path, group="").load()


def resource(path: str) -> Path:
    """The file or folder of a text ``package:path``, the path below the package's folder.

    Raises:
        ImportError: there is no such package.
    """
    package, _, inner = path.partition(":")
    return Path(str(importlib.resources.files(package).joinpath(inner)))


@functools.cache
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[importlib.metadata.EntryPoint, ...]:
    """The entry points of a group, cached by `sys.path`: reading the metadata of 150 packages takes 12 ms."""
    return tuple(importlib.metadata.entry_points(group=group))


def _owner(point: importlib.metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "of an unknown package"


def allowed_code() -> str:
    """The value of `HWNAS_CODE` with which another process may run the Python files that this one may run."""
    return os.pathsep.join(sorted(map(str, _named_by_user | _listed())))


def _listed() -> set[Path]:
    return {Path(each).expanduser().absolute() for each in os.environ.get(CODE, "").split(os.pathsep) if each}


def _check_allowed(name: str, what: str, *, recorded: bool) -> None:
    """Refuse to run a Python file that only another file names: opening a bundle must not run its author's code."""
    file = file_of(name)
    assert file is not None
    if not recorded:
        _named_by_user.add(file)
    if file not in _named_by_user | _listed():
        raise PluginError(
            f"the {what} {name!r} is Python code, and you did not name its file yourself. If you trust "
            f"{file}, allow it to run: {CODE}={file}"
        )


def from_file(name: str, what: str) -> object:
    """The object that ``path/to/file.py:NAME`` names; the file is executed once per process.

    Args:
        name: of the object.
        what: its kind, for messages.

    Raises:
        PluginError: the file does not exist, or raises an error.
        UnknownName: it has no such object.
    """
    file, attribute = file_of(name), name.rpartition(":")[2]
    assert file is not None
    if not file.is_file():
        raise PluginError(f"the {what} {name!r} is not known: {file} does not exist; restore it, or name another one")
    try:
        module = _module(file)
    except Exception as error:  # the user's file may raise anything
        raise PluginError(f"the {what} {name!r} cannot be loaded: {file} raises {_reason(error)}") from error
    if not hasattr(module, attribute):
        public = [each for each in vars(module) if not each.startswith("_")]
        raise UnknownName(f"{what} in {file}:", attribute, public)
    return getattr(module, attribute)


@functools.cache
def _module(file: Path) -> ModuleType:
    """A file as a module, loaded once per process, so that its objects are identical everywhere."""
    spec = importlib.util.spec_from_file_location(f"hwnas_file_{file.stem}_{abs(hash(file)):x}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@functools.cache
def _warn_left_out(reason: str) -> None:
    """Warn once per reason: a command reads the registries several times."""
    log.warning("left out: %s", reason)
