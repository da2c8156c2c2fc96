"""Names of a package that are loaded when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType


def lazily(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """The ``__getattr__`` of a package (PEP 562).

    Args:
        package: its ``__name__``.
        modules: module below it -> the names that it has.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load


def callable_as(package: str, module: str, name: str) -> None:
    """Let a package be called as a function that is loaded at the first call.

    A package hides a function of its own name: Python sets it as an attribute of the package above it.

    Args:
        package: its ``__name__``.
        module: that has the function; it may build on the package.
        name: of the function.
    """

    class CallablePackage(ModuleType):
        def __call__(self, *args: object, **options: object) -> object:
            return getattr(importlib.import_module(module), name)(*args, **options)

    sys.modules[package].__class__ = CallablePackage
