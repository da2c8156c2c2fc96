"""Lazy imports: names of a package that are loaded when first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType


def lazily(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """The ``__getattr__`` of a package (PEP 562).

    Args:
        package: its ``__name__``.
        modules: submodule -> the names that it defines; ``.other.module`` is a module of the parent package.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f".{module_of[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    return load


def callable_as(package: str, module: str, name: str) -> None:
    """Make a package callable: a call runs a function that is loaded at the first call.

    A package hides a function of the same name: Python sets it as an attribute of the parent package.

    Args:
        package: its ``__name__``.
        module: module of the function; it may import the package.
        name: of the function.
    """

    class CallablePackage(ModuleType):
        def __call__(self, *args: object, **options: object) -> object:
            return getattr(importlib.import_module(module), name)(*args, **options)

    sys.modules[package].__class__ = CallablePackage
