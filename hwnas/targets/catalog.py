"""Where devices, recipes and tables are found.

A root is a folder with `devices/`, `exporters/` and `latency_tables/` in it. There are two: the user's, which
comes first, and the one that is shipped. Nothing is read at import.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from hwnas.errors import InvalidValue, RuntimeUnavailable, SpecError, UnknownName
from hwnas.targets.device import Device, Kind, describe, describe_gpu
from hwnas.targets.host import Host, detect_host
from hwnas.targets.recipe import RUNTIMES, Recipe
from hwnas.targets.toml import read_spec
from hwnas.targets.weights import with_weights

Named = TypeVar("Named", Device, Recipe)


@dataclass(frozen=True, slots=True)
class Target:
    """A device and a recipe together: what a latency belongs to.

    The recipe's ``weights = "auto"`` is decided for the device.
    """

    device: Device
    recipe: Recipe

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", with_weights(self.recipe, self.device.match.flags))

    @property
    def name(self) -> str:
        """``device/recipe``, also the path of its table below ``latency_tables/``."""
        return f"{self.device.name}/{self.recipe.name}"


class FoundTable(NamedTuple):
    """A latency table on disk: the names of its device and recipe, and the CSV file."""

    device: str
    recipe: str
    path: Path


# -- roots ---------------------------------------------------------------------------------------------------


def home() -> Path:
    """The folder that new files are written to: ``$HWNAS_HOME``, else the user's data folder.

    Raises:
        InvalidValue: ``$HWNAS_HOME`` is a file.
    """
    given = os.environ.get("HWNAS_HOME")
    if not given:
        import platformdirs

        return Path(platformdirs.user_data_dir("hwnas", appauthor=False))
    folder = Path(given).expanduser().absolute()
    if folder.is_file():
        raise InvalidValue(f"HWNAS_HOME is {given!r}, which is a file; set it to a folder")
    return folder


def shipped(package: Path) -> Path:
    """What comes with hwnas: the checkout around the package, or its folder `share` in an installed wheel."""
    checkout = package.parent
    is_checkout = (checkout / "pyproject.toml").is_file() and (checkout / "devices").is_dir()
    return checkout if is_checkout else package / "share"


def roots() -> list[Path]:
    """The folders that are searched; the first one that has a name wins."""
    return [home(), shipped(Path(__file__).resolve().parents[1])]


def _files(folder: str, pattern: str) -> dict[str, Path]:
    """Path below a root's folder, without ``.toml`` or ``.csv`` -> file, in the order of the roots."""
    found: dict[str, Path] = {}
    for root in roots():
        base = root / folder
        for path in sorted(base.glob(pattern)):
            found.setdefault(path.relative_to(base).with_suffix("").as_posix(), path)
    return found


# -- devices and recipes -------------------------------------------------------------------------------------


def devices() -> dict[str, Path]:
    """Name -> file of every device."""
    return _files("devices", "*.toml")


def recipes() -> dict[str, Path]:
    """Name -> file of every recipe."""
    return _files("exporters", "*.toml")


def load_device(name: str) -> Device:
    """The device of that name.

    Raises:
        UnknownName: there is none.
        SpecError: its file is wrong, or says another name than the file has.
    """
    return _load(
        "device",
        name,
        devices(),
        Device,
        "`hwnas devices detect --save` adds this host; 'this' is this host.",
    )


def load_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnknownName: there is none.
        SpecError: its file is wrong, or says another name than the file has.
    """
    return _load("recipe", name, recipes(), Recipe, "A recipe is a file in exporters/ of the checkout or $HWNAS_HOME.")


def _load(what: str, name: str, files: dict[str, Path], model: type[Named], hint: str) -> Named:
    if name not in files:
        raise UnknownName(what, name, files, hint)
    spec = read_spec(files[name], model)
    if spec.name != name:
        raise SpecError(f"{files[name]}: name is {spec.name!r}; it should be the file's name, {name!r}")
    return spec


# -- the present host ----------------------------------------------------------------------------------------


def detected_device(host: Host, kind: Kind = "cpu") -> Device:
    """A new spec of a host's CPU, or of its first GPU.

    Where a known spec has that name but is another device (a virtual machine may hide some flags of the same
    CPU), the name is lengthened, so that the tables of one are never taken for the other's.

    Raises:
        SpecError: the file with the same name is wrong.
        RuntimeUnavailable: the host has no GPU.
    """
    device = describe(host) if kind == "cpu" else describe_gpu(host)
    if device.name in devices() and load_device(device.name).differences(host):
        return device.model_copy(update={"name": f"{device.name}-{device.fingerprint[:6]}"})
    return device


def this_device(kind: Kind = "cpu") -> Device:
    """The device that the name `this` stands for.

    Of the known devices of that kind that this host is, the one that asks for most; of equals the first in
    the order of the roots. If there is none, it is detected.

    Raises:
        SpecError: a device's file is wrong.
        RuntimeUnavailable: there is no GPU in this host.
    """
    host = detect_host()
    known = [load_device(name) for name in devices()]
    matching = [device for device in known if device.kind == kind and not device.differences(host)]
    if matching:
        return max(matching, key=lambda device: device.match.criteria)
    return detected_device(host, kind)


def _known_or_this(name: str) -> Device:
    """The device of that name; a table that was measured as `this` is also found where no file describes the host."""
    if name not in devices():
        host = detect_host()
        kinds: tuple[Kind, ...] = ("cpu", "gpu") if host.gpus else ("cpu",)
        for kind in kinds:
            detected = detected_device(host, kind)
            if detected.name == name:
                return detected
    return load_device(name)


# -- targets and tables --------------------------------------------------------------------------------------


def resolve_target(text: str) -> Target:
    """The target of a text ``device/recipe``; the device `this` stands for the present host (`this_device`).

    Raises:
        InvalidValue: the text is not of that form, or the recipe is for another kind of device.
        UnknownName: no such device or recipe.
        SpecError: the file of one of them is wrong.
    """
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", text):
        raise InvalidValue(f"a target is written device/recipe, e.g. this/onnxruntime-cpu-fp32; not {text!r}")
    device_name, recipe_name = text.split("/")
    recipe = load_recipe(recipe_name)
    kind = RUNTIMES[recipe.runtime].kind
    device = this_device(kind) if device_name == "this" else _known_or_this(device_name)
    if device.kind != kind:
        raise InvalidValue(
            f"{text}: the device {device.name} is a {device.kind}, but the recipe's runtime {recipe.runtime} "
            f"runs on a {kind}; `hwnas devices list` shows the kinds"
        )
    return Target(device, recipe)


def targets_of(device: str) -> list[Target]:
    """A device with each recipe of its kind under which something can be measured; `this` as in `resolve_target`.

    Raises:
        UnknownName: no such device.
        SpecError: a file is wrong.
    """
    found = []
    for name in recipes():
        facts = RUNTIMES[load_recipe(name).runtime]
        if not facts.measured:
            continue
        try:
            known = this_device(facts.kind) if device == "this" else _known_or_this(device)
        except RuntimeUnavailable:
            continue  # this host has no device of that kind
        if known.kind == facts.kind:
            found.append(resolve_target(f"{device}/{name}"))
    return found


def tables() -> list[FoundTable]:
    """Every latency table; of two for one target, the one in the first root."""
    found = _files("latency_tables", "*/*.csv")
    return [FoundTable(path.parent.name, path.stem, path) for path in found.values()]


def table_path(target: Target) -> Path | None:
    """The CSV file of a target's latency table in the first root that has one, or None."""
    return _files("latency_tables", "*/*.csv").get(target.name)
