"""`hwnas devices`: the known devices, and the device of this host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from hwnas.affinity import allowed_cores, cores_text
from hwnas.cli import connections, options, output
from hwnas.errors import InvalidValue, OutputError, SpecError
from hwnas.files.atomic import write_whole
from hwnas.files.spec import read_spec, toml_text
from hwnas.targets import catalog
from hwnas.targets.device import Device, DeviceKind, Hardware, checked_name
from hwnas.targets.host import Host, detect_host
from hwnas.targets.quota import cpu_quota
from hwnas.targets.state import cpu_state
from hwnas.targets.topology import choose_cores, read_topology

app = typer.Typer(help="List, show, detect and check devices, and connect to them.", no_args_is_help=True)
app.command()(connections.connect)
app.command()(connections.connections)
app.command()(connections.disconnect)

Name = Annotated[str, typer.Argument(help="Name of a device; 'this' is the present host.", metavar="NAME")]

_PEAKS = {"peak_fp32_gflops", "peak_memory_gb_per_s", "source"}

# Facts of `cpu_state` -> words; the clock is that of the core for one thread.
_STATE = {
    "scaling_governor": "governor",
    "scaling_cur_freq": "clock in kHz",
    "scaling_max_freq": "highest clock by the governor in kHz",
    "cpuinfo_max_freq": "highest clock of the hardware in kHz",
    "temperatures_c": "temperatures in °C",
    "throttling": "throttling",
}


@app.command("list")
def list_devices(as_json: options.AsJson = False) -> None:
    """List the known devices and mark those that match this host."""
    host, files = detect_host(), catalog.devices()
    known = [(device, not device.differences(host)) for device in catalog.known_devices()]
    if as_json:
        output.print_json(
            [
                {
                    "name": device.name,
                    "kind": device.kind,
                    "description": device.description,
                    "file": str(files[device.name]),
                    "this_host": is_host,
                }
                for device, is_host in known
            ]
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "kind", "description", "this host")
    for device, is_host in known:
        table.add_row(device.name, device.kind, device.description, "yes" if is_host else "")
    Console().print(table)
    if not any(is_host for _, is_host in known):
        typer.echo("None of them is this host; `hwnas devices detect --save` adds it.")


@app.command()
def show(name: Name, as_json: options.AsJson = False) -> None:
    """Print a device's spec; for `this`, also the cores of the host and those available to this process."""
    device = _device(name)
    here = _host_document() if name == "this" else {}
    if as_json:
        output.print_json(_document(device) | here)
        return
    typer.echo(toml_text(device), nl=False)
    for line in _host_lines(here["host"]) if here else ():
        typer.echo(f"# {line}")  # a comment: the output is a valid device file


@app.command()
def detect(
    save: Annotated[bool, typer.Option("--save", help="Write it to $HWNAS_HOME, where hwnas finds it.")] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the device, such as my-mac; by default derived from its facts.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write it to this .toml file; the device is named after it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file with another content.")] = False,
    kind: Annotated[str, typer.Option(help="cpu, or gpu for the first NVIDIA GPU.")] = "cpu",
    measure_peaks: Annotated[
        bool,
        typer.Option("--measure-peaks", help="Measure the CPU's peak figures for roofline estimates."),
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(help="Name of a connection (hwnas devices connect): detect that machine, and name it so."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Print a spec of the present host, or of a machine at the end of a connection."""
    if kind not in get_args(DeviceKind):
        raise InvalidValue(f"--kind is {kind!r}; it should be one of: {', '.join(get_args(DeviceKind))}")
    if measure_peaks and kind != "cpu":
        raise InvalidValue(f"--measure-peaks measures the CPU, but --kind is {kind!r}; omit one of them")
    if on and (measure_peaks or kind != "cpu"):
        raise InvalidValue("--on detects the CPU of another machine: omit --measure-peaks and --kind")
    if on and save and name not in (None, on):
        raise InvalidValue(f"the device of a connection has its name: omit --name {name}, or connect it as {name}")
    host = _host(on)
    name = name or (None if out else on)
    nameless = kind == "cpu" and not host.recognisable and not (name or out)
    if nameless and save:
        raise InvalidValue(f"{host.unrecognised}: give it a name, e.g. --save --name my-machine")
    device = _named(catalog.detected_device(host, cast(DeviceKind, kind)), name, out, save=save)
    path = catalog.writable_home() / "devices" / f"{device.name}.toml" if save else out
    same = path is not None and _same_but_for_peaks(path, device)
    device = _with_peaks(device, path if same else None, measure=measure_peaks)
    text = toml_text(device)
    if path:
        if path.is_file() and path.read_bytes() != text.encode() and not (force or same):
            raise OutputError(f"{path} exists with another content; --force overwrites it, another --out keeps both")
        write_whole(path, text)
    if as_json:
        output.print_json({"device": _document(device), "file": str(path) if path else None})
    else:
        typer.echo(text, nl=False)
        if path:
            typer.echo(f"wrote {path}", err=True)
    if nameless:
        typer.echo(
            f"warning: {host.unrecognised}; to use it as `this`, save it under a name: "
            "hwnas devices detect --save --name my-machine",
            err=True,
        )


@app.command()
def check(name: Name, as_json: options.AsJson = False) -> None:
    """Check whether this host is that device, and list differences; exit code 1 if it is not."""
    device = _device(name)
    differences = device.differences(detect_host())
    if as_json:
        output.print_json({"device": device.name, "this_host": not differences, "differences": differences})
    elif differences:
        typer.echo(f"This host is not {device.name}:")
        for difference in differences:
            typer.echo(f"  {difference}")
    else:
        typer.echo(f"This host is {device.name}.")
    if differences:
        raise typer.Exit(1)


def _host(on: str | None) -> Host:
    """This host, or the machine at the end of a connection.

    Raises:
        UnknownName: there is no such connection.
        MachineError: the machine cannot be reached.
    """
    if on is None:
        return detect_host()
    from hwnas.machines.connections import machine_named

    return machine_named(on).host()


def _named(device: Device, name: str | None, out: Path | None, *, save: bool) -> Device:
    """A detected device with the name from ``--name`` or from the file of ``--out``.

    Raises:
        InvalidValue: the name is invalid, or the options conflict.
    """
    if out and (save or name):
        other = "--save" if save else "--name"
        raise InvalidValue(f"use {other} or --out, not both (--out is {str(out)!r})")
    if out and out.suffix != ".toml":
        raise InvalidValue(f"--out is {str(out)!r}; it should be a file that ends in .toml, e.g. {device.name}.toml")
    if not (name or out):
        return device
    option, chosen = ("--out", out.stem) if out else ("--name", name or "")
    try:
        return device.model_copy(update={"name": checked_name(chosen)})
    except ValueError as error:
        raise InvalidValue(f"{option} is {str(out or name)!r}; {error}") from error


def _device(name: str) -> Device:
    return catalog.this_device() if name == "this" else catalog.load_device(name)


def _host_document() -> dict[str, Any]:
    """Topology, affinity, quota and state of the CPU as the system reports them now."""
    topology, allowed, quota = read_topology(), allowed_cores(), cpu_quota()
    chosen = [choose_cores(topology, allowed, threads) for threads in (1, 2) if threads <= len(allowed)]
    fastest = max((core for c in chosen[:1] for core in c.cores), default=0)
    return {
        "host": {
            "topology": topology.document(),
            "allowed": cores_text(allowed),
            "quota_cores": round(quota.cores, 3) if quota else None,
            "quota_source": quota.source if quota else None,
            "timed_on": [{"threads": len(c.cores), "cores": c.text, "note": c.note} for c in chosen],
            "state": cpu_state(core=fastest),
        }
    }


def _host_lines(host: dict[str, Any]) -> Iterator[str]:
    """The same as text."""
    topology = host["topology"]
    if not topology["online"]:
        yield "topology: not reported by this system"
    else:
        yield (
            f"topology: {len(topology['packages'])} package(s), {len(topology['physical_cores'])} physical cores, "
            f"logical cores {topology['online']}"
        )
        yield f"logical cores of each physical core: {' | '.join(topology['physical_cores'])}"
        for kind in topology["kinds"]:
            yield f"kind of core: {kind['kind']}: {kind['cores']}"
        yield f"last-level caches: {' | '.join(topology['cache_domains']) or 'not reported by this system'}"
    yield f"affinity: this process may run on {host['allowed'] or 'all cores; this system cannot pin'}"
    yield (
        "quota of CPU time: none"
        if host["quota_cores"] is None
        else f"quota of CPU time: {host['quota_cores']:g} cores ({host['quota_source']})"
    )
    for chosen in host["timed_on"]:
        note = f" ({chosen['note']})" if chosen["note"] else ""
        yield f"{chosen['threads']} thread(s) are timed on {chosen['cores']}{note}"
    yield from (f"{words}: {host['state'][name]}" for name, words in _STATE.items() if name in host["state"])


def _same_but_for_peaks(path: Path, device: Device) -> bool:
    """Whether a file describes the device as detected, ignoring its peaks; False for an invalid file."""
    if not path.is_file():
        return False
    try:
        found = read_spec(path, Device)
    except SpecError:
        return False
    blank = Hardware(source="-").model_dump(include=_PEAKS)
    return found.model_copy(update={"hardware": found.hardware.model_copy(update=blank)}) == device.model_copy(
        update={"hardware": device.hardware.model_copy(update=blank)}
    )


def _with_peaks(device: Device, kept: Path | None, *, measure: bool) -> Device:
    """A detected device with newly measured peaks, else with those of a file that describes it."""
    if measure:
        from hwnas.shown_progress import shown_progress
        from hwnas.timing.peaks import measure_peaks

        with shown_progress() as progress:
            return measure_peaks(detect_host(), progress=progress).of(device)
    return read_spec(kept, Device) if kept else device


def _document(device: Device) -> dict[str, object]:
    return device.model_dump(mode="json", by_alias=True, exclude_none=True)
