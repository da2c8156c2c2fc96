"""The user's connections: ``$HWNAS_HOME/connections/<name>.toml``.

A connection has the name of the device that it leads to. It is the user's own and never part of a device file, a table
or a bundle.
"""

from __future__ import annotations

from pathlib import Path

from hwnas.errors import InvalidValue, UnknownName
from hwnas.files import read_spec, toml_text, write_whole
from hwnas.machines.base import Machine
from hwnas.machines.connection import Connection
from hwnas.machines.local import LocalMachine
from hwnas.machines.remote import RemoteMachine
from hwnas.targets import Target
from hwnas.targets.catalog import CONNECTIONS, connection_files, writable_home
from hwnas.targets.device import checked_name


def connections() -> dict[str, Connection]:
    """The known connections by name.

    Raises:
        SpecError: a file is invalid.
    """
    return {name: read_spec(path, Connection) for name, path in connection_files().items()}


def save_connection(name: str, connection: Connection) -> Path:
    """Write a connection; an older one of that name is replaced.

    Raises:
        InvalidValue: it is not a name for a device.
        OutputError: the file cannot be written.
    """
    try:
        path = writable_home() / CONNECTIONS / f"{checked_name(name)}.toml"
    except ValueError as error:
        raise InvalidValue(f"the connection's name is {name!r}; {error}") from error
    write_whole(path, toml_text(connection))
    return path


def remove_connection(name: str) -> Path:
    """Remove a connection; return the file that it was in.

    Raises:
        UnknownName: there is none of that name.
    """
    known = connection_files()
    if name not in known:
        raise UnknownName("connection", name, known)
    known[name].unlink()
    return known[name]


def machine_named(name: str) -> RemoteMachine:
    """The machine at the end of a connection.

    Raises:
        UnknownName: there is none of that name.
        SpecError: its file is invalid.
    """
    known = connection_files()
    if name not in known:
        raise UnknownName("connection", name, known, hint=f"Add it: hwnas devices connect {name} --ssh user@host")
    return RemoteMachine(name, read_spec(known[name], Connection))


def machine_of(target: Target) -> Machine:
    """Where a target is timed: at the end of the connection with its device's name, else here.

    Raises:
        SpecError: the connection's file is invalid.
    """
    name = target.device.name
    return machine_named(name) if name in connection_files() else LocalMachine()
