"""`hwnas devices connect | connections | disconnect`: machines at the end of a connection."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli import options, output
from hwnas.errors import InvalidValue

Name = Annotated[
    str, typer.Argument(help="Name of the connection and of its device, e.g. pi5.", metavar="NAME", show_default=False)
]


def connect(
    name: Name,
    ssh: Annotated[str | None, typer.Option(help="Host for the system's ssh, e.g. pi@192.168.1.20.")] = None,
    command: Annotated[
        str | None,
        typer.Option(help="Any other command that gives a shell on a pipe, e.g. 'docker exec -i NAME'."),
    ] = None,
    python: Annotated[str, typer.Option(help="Python there: 3.9 or later, with numpy and the runtimes.")] = "python3",
    as_json: options.AsJson = False,
) -> None:
    """Add a machine: try the connection, send the runner, and keep the connection in $HWNAS_HOME.

    The runner needs Python 3.9 or later, numpy and the runtime (pip install numpy onnxruntime) on that machine.
    """
    from pydantic import ValidationError

    from hwnas.machines.connection import Connection
    from hwnas.machines.connections import save_connection
    from hwnas.machines.remote import RemoteMachine
    from hwnas.targets import devices, load_device

    if (ssh is None) == (command is None):
        raise InvalidValue("use --ssh HOST or --command 'COMMAND', one of them")
    try:
        connection = Connection(ssh=ssh, command=command, python=python)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "connection"
        raise InvalidValue(f"--{where} is {first['input']!r}: {first['msg']}") from error
    machine = RemoteMachine(name, connection)
    host = machine.host()
    path = save_connection(name, connection)
    known = name in devices()
    differences = load_device(name).differences(host) if known else []
    facts = machine.snapshot.facts
    if as_json:
        output.print_json(
            {
                "name": name,
                "connection": connection.text,
                "file": str(path),
                "cpu": host.cpu,
                "cores": host.cores,
                "python": facts["python"],
                "device_known": known,
                "differences": differences,
            }
        )
        return
    typer.echo(f"{name}: {host.cpu}, {host.cores} cores, Python {facts['python']}, {facts['system']}")
    typer.echo(f"wrote {path}")
    if differences:
        typer.echo(
            f"warning: it is not the device {name}: {'; '.join(differences)}. Give this machine another name, or "
            f"describe it anew: hwnas devices detect --on {name} --save --force",
            err=True,
        )
    elif not known:
        typer.echo(f"Describe its device next: hwnas devices detect --on {name} --save")


def connections(as_json: options.AsJson = False) -> None:
    """List the connections."""
    from hwnas.machines.connections import connections as known

    found = known()
    if as_json:
        output.print_json({name: one.model_dump(exclude_none=True) for name, one in found.items()})
        return
    for name, one in found.items():
        typer.echo(f"{name}: {one.text}, {one.python}")
    if not found:
        typer.echo("There are none; add one: hwnas devices connect NAME --ssh user@host")


def disconnect(name: Name) -> None:
    """Remove a connection; its device file and tables are kept."""
    from hwnas.machines.connections import remove_connection

    typer.echo(f"removed {remove_connection(name)}")
