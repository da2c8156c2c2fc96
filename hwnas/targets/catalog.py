"""Look-up of devices, recipes and tables.

A root is a folder that contains `devices/`, `exporters/` and `latency_tables/`. There are two: the user's, which
is searched first, and the one that comes with hwnas. Nothing is read at import.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from hwnas.errors import InvalidValue, OutputError, RuntimeUnavailable, SpecError, UnknownName
from hwnas.files.spec import read_spec
from hwnas.files.untrusted import require_file
from hwnas.plugins import resource
from hwnas.targets.device import Device, DeviceKind, describe, describe_gpu, former_name
from hwnas.targets.host import Host, detect_host
from hwnas.targets.recipe import Recipe
from hwnas.targets.runtimes import plugin_runtimes
from hwnas.targets.weights import with_weights

log = logging.getLogger(__name__)

Named = TypeVar("Named", Device, Recipe)
CONNECTIONS = "connections"


@dataclass(frozen=True, slots=True)
class Target:
    """A device and a recipe: a latency belongs to such a pair.

    The recipe's ``weights = "auto"`` is resolved for the device.
    """

    device: Device
    recipe: Recipe

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", with_weights(self.recipe, self.device.match.flags))

    @property
    def name(self) -> str:
        """``device/recipe``; also the path of its table below ``latency_tables/``."""
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
        InvalidValue: ``$HWNAS_HOME`` is a file, or begins with a ``~`` that cannot be expanded.
        OutputError: the user has no home folder, e.g. no entry in the password file.
    """
    given = os.environ.get("HWNAS_HOME")
    if not given:
        import platformdirs

        try:
            folder = Path(platformdirs.user_data_dir("hwnas", appauthor=False))
        except RuntimeError:  # some Python versions raise if "~" cannot be expanded, others keep it
            folder = Path("~")
        if not folder.is_absolute():
            raise OutputError(
                "there is no folder for your own devices, recipes and tables: HOME is not the path of a folder, and "
                "this user has no entry in the password file. Set HWNAS_HOME to a writable folder"
            )
        return folder
    try:
        folder = Path(given).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidValue(f"HWNAS_HOME is {given!r}, but {error}; set it to the path of a folder") from error
    if _is_file(folder):
        raise InvalidValue(f"HWNAS_HOME is {given!r}, which is a file; set it to a folder")
    return folder


def writable_home() -> Path:
    """`home`, checked to be writable before long work that writes its result there.

    Raises:
        InvalidValue, OutputError: as `home`; or the folder cannot be written.
    """
    folder = home()
    nearest = next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write into {folder}, the folder of your own devices and tables: {nearest} is not writable. Set "
            "HWNAS_HOME to a writable folder"
        )
    return folder


def _is_file(path: Path) -> bool:
    """Whether a path is a file; False in a folder without read permission."""
    try:
        return path.is_file()
    except OSError:
        return False


def shipped(package: Path) -> Path:
    """The root that comes with hwnas: the checkout around the package, or its folder `share` in an installed wheel."""
    checkout = package.parent
    is_checkout = (checkout / "pyproject.toml").is_file() and (checkout / "devices").is_dir()
    return checkout if is_checkout else package / "share"


def roots() -> list[Path]:
    """The folders that are searched; the first one that contains a name wins.

    Raises:
        InvalidValue: ``$HWNAS_HOME`` cannot be a folder.
    """
    given = shipped(Path(__file__).resolve().parents[1])
    try:
        return [home(), given]
    except OutputError:  # a user without a home folder: the shipped root only
        return [given]


def _files(folder: str, pattern: str) -> dict[str, Path]:
    """Path below a root's folder, without ``.toml`` or ``.csv`` -> file, in the order of the roots."""
    found: dict[str, Path] = {}
    for root in roots():
        base = root / folder
        try:
            paths = sorted(base.glob(pattern))
        except OSError as error:  # the home of another user
            _warn_left_out(f"{base} cannot be read: {error.strerror}")
            continue
        for path in paths:
            found.setdefault(path.relative_to(base).with_suffix("").as_posix(), path)
    return found


# -- devices and recipes -------------------------------------------------------------------------------------


def devices() -> dict[str, Path]:
    """Name -> file of every device."""
    return _files("devices", "*.toml")


def recipes() -> dict[str, Path]:
    """Name -> file of every recipe; those of plugins come last."""
    found = _files("exporters", "*.toml")
    for facts in plugin_runtimes():
        if facts.recipes is None:
            continue
        try:
            paths = sorted(resource(facts.recipes).glob("*.toml"))
        except ImportError as error:
            _warn_left_out(f"recipes of a plugin, {facts.recipes}: {error}")
            continue
        for path in paths:
            found.setdefault(path.stem, path)
    return found


def load_device(name: str) -> Device:
    """The device of that name.

    Raises:
        UnknownName: there is none.
        SpecError: its file is invalid, or the name in it differs from the file's name.
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
        SpecError: its file is invalid, or the name in it differs from the file's name.
    """
    return _load(
        "recipe",
        name,
        recipes(),
        Recipe,
        "A recipe is a file in exporters/ of the checkout or $HWNAS_HOME, or comes with a plugin's runtime.",
    )


def _load(what: str, name: str, files: dict[str, Path], model: type[Named], hint: str) -> Named:
    if name not in files:
        if what == "device" and name in connection_files():
            hint = f"{name} has a connection: describe its machine with `hwnas devices detect --on {name} --save`."
        raise UnknownName(what, name, files, hint)
    require_file(files[name], SpecError)
    spec = read_spec(files[name], model)
    if spec.name != name:
        raise SpecError(f"{files[name]}: name is {spec.name!r}; it should be the file's name, {name!r}")
    return spec


def known_devices() -> list[Device]:
    """Every device with a valid file; the others are skipped with a warning."""
    return _readable(devices(), load_device)


def known_recipes() -> list[Recipe]:
    """Every recipe with a valid file; the others are skipped with a warning."""
    return _readable(recipes(), load_recipe)


def _readable(names: Iterable[str], load: Callable[[str], Named]) -> list[Named]:
    found = []
    for name in names:
        try:
            found.append(load(name))
        except SpecError as error:
            _warn_left_out(str(error))
    return found


@functools.cache
def _warn_left_out(reason: str) -> None:
    """Warn once per reason: a command reads the folders several times."""
    log.warning("left out: %s", reason)


# -- the present host ----------------------------------------------------------------------------------------


def detected_device(host: Host, kind: DeviceKind = "cpu") -> Device:
    """A new spec for a host's CPU, or for its first GPU.

    If a known spec of another device has the same name (a virtual machine may hide some flags of the same CPU),
    the name gets a suffix, so that tables of the two devices are never confused.

    Raises:
        SpecError: the file with the same name is invalid.
        RuntimeUnavailable: the host has no GPU.
    """
    device = describe(host) if kind == "cpu" else describe_gpu(host)
    if device.name in devices() and load_device(device.name).differences(host):
        return device.model_copy(update={"name": f"{device.name}-{device.fingerprint[:6]}"})
    return device


def this_device(kind: DeviceKind = "cpu") -> Device:
    """The device that the name `this` refers to.

    Of the known devices of that kind that match this host and have no connection (they are other machines), the one
    with the most conditions; of equals, the first in the order of the roots. If none matches, the host is detected. An
    invalid file is skipped with a warning.

    Raises:
        SpecError: the file with the name of the detected device is invalid.
        RuntimeUnavailable: there is no GPU in this host.
        InvalidValue: the host reports nothing that identifies it, and no named device, or several, match it.
    """
    host = detect_host()
    others = connection_files()
    matching = [
        device
        for device in known_devices()
        if device.kind == kind and device.name not in others and not device.differences(host)
    ]
    if kind == "cpu" and not host.recognisable:
        return _named_by_the_user(host, matching)
    if matching:
        return max(matching, key=lambda device: device.match.criteria)
    return detected_device(host, kind)


def connection_files() -> dict[str, Path]:
    """Name of each of the user's connections to another machine -> its file (`hwnas.machines.connections`)."""
    try:
        folder = home() / CONNECTIONS
    except OutputError:  # a user without a home folder
        return {}
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _named_by_the_user(host: Host, matching: list[Device]) -> Device:
    """The one known device that matches a host which is not `recognisable`.

    Raises:
        InvalidValue: none matches, or several do.
    """
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = ", ".join(device.name for device in matching)
        raise InvalidValue(
            f"{host.unrecognised}, and it may be any of {names}: name it in place of `this`, e.g. {matching[0].name}"
        )
    raise InvalidValue(
        f"{host.unrecognised}, so tables of different machines could be confused. Give it a name: hwnas devices "
        f"detect --save --name my-machine. (Tables that were measured here before are stored under "
        f"{former_name(host)}; use that name to keep them)"
    )


def _known_or_this(name: str) -> Device:
    """The device of that name; tables measured as `this` are found even if no file describes the host.

    So are tables of earlier versions, which named hosts by their CPU text or architecture (`former_name`).
    """
    if name not in devices():
        host = detect_host()
        kinds: tuple[DeviceKind, ...] = ("cpu", "gpu") if host.gpus else ("cpu",)
        for kind in kinds:
            device = detected_device(host, kind)
            if name == device.name or (kind == "cpu" and name == former_name(host)):
                return device.model_copy(update={"name": name})
    return load_device(name)


# -- targets and tables --------------------------------------------------------------------------------------


def resolve_target(text: str) -> Target:
    """The target of a text ``device/recipe``; the device `this` refers to the present host (`this_device`).

    Raises:
        InvalidValue: the text is not of that form, or the recipe is for another kind of device.
        UnknownName: no such device or recipe.
        SpecError: the file of one of them is invalid.
    """
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", text):
        raise InvalidValue(f"a target is written device/recipe, e.g. this/onnxruntime-cpu-fp32; not {text!r}")
    device_name, recipe_name = text.split("/")
    recipe = load_recipe(recipe_name)
    kind = recipe.facts.kind
    device = this_device(kind) if device_name == "this" else _known_or_this(device_name)
    if device.kind != kind:
        raise InvalidValue(
            f"{text}: the device {device.name} is a {device.kind}, but the recipe's runtime {recipe.runtime} "
            f"runs on a {kind}; `hwnas devices list` shows the kinds"
        )
    return Target(device, recipe)


def targets_of(device: str) -> list[Target]:
    """A device with each recipe of its kind that can be measured; `this` as in `resolve_target`.

    A recipe with an invalid file is skipped with a warning.

    Raises:
        UnknownName: no such device.
        SpecError: the device's file is invalid.
        InvalidValue: as `this_device`.
    """
    found: list[Target] = []
    known: dict[DeviceKind, Device | None] = {}
    for recipe in known_recipes():
        facts = recipe.facts
        if facts.measured and facts.kind not in known:
            try:
                known[facts.kind] = this_device(facts.kind) if device == "this" else _known_or_this(device)
            except RuntimeUnavailable:
                known[facts.kind] = None  # the host has no device of that kind
        resolved = known.get(facts.kind) if facts.measured else None
        if resolved is not None and resolved.kind == facts.kind:
            found.append(Target(resolved, recipe))
    return found


def tables() -> list[FoundTable]:
    """Every latency table; the first root wins if both have one of the same target."""
    found = _files("latency_tables", "*/*.csv")
    return [FoundTable(path.parent.name, path.stem, path) for path in found.values()]


def table_path(target: Target) -> Path | None:
    """The CSV file of a target's latency table in the first root that has one, or None."""
    return _files("latency_tables", "*/*.csv").get(target.name)


def kernel_table_path(target: Target) -> Path | None:
    """The file of a target's table of kernels in the first root that has one, or None."""
    return _files("latency_tables", "*/*.kernels.json").get(f"{target.name}.kernels")
