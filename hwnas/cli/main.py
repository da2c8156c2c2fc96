"""`hwnas`: the entry point, and the error handling of all verbs."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hwnas.affinity import drop_binding
from hwnas.cli import (
    bench,
    data,
    deploy,
    devices,
    elastic,
    export,
    hybrid,
    predict,
    profile,
    report,
    search,
    shrink,
    spaces,
    streams,
    study,
    subnet,
    supernet,
    tables,
    train,
    validate,
    verify,
)
from hwnas.cli import compile as compile_verbs
from hwnas.cli.help import Verb
from hwnas.cli.processes import drop_ranks
from hwnas.cli.renamed import renamed
from hwnas.errors import HwnasError, InvalidValue
from hwnas.files import reason_of
from hwnas.shown_progress import INTERRUPTED, remembered_signals

app = typer.Typer(
    name="hwnas",
    help="Profile a device, search a network that fits it, export it, and time it again.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(devices.app, name="devices")
app.add_typer(spaces.app, name="spaces")
app.add_typer(tables.app, name="tables")
app.add_typer(supernet.app, name="supernet")
app.add_typer(subnet.app, name="subnet")
app.add_typer(deploy.app, name="deploy")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(importlib.metadata.version("hwnas"))
        raise typer.Exit


for verb in (
    profile.profile,
    validate.validate,
    predict.predict,
    elastic.elastic,
    hybrid.hybrid,
    shrink.shrink,
    train.train,
    search.search,
    study.study,
    export.export,
    bench.bench,
    verify.verify,
    report.report,
):
    app.command(cls=Verb)(verb)
app.command("compile")(compile_verbs.compile_)
app.command()(compile_verbs.quickstart)

# Typer may vendor click, so the base class of its usage errors is taken from one of them.
_USAGE: type[Any] = typer.BadParameter.__base__.__base__  # type: ignore[assignment,union-attr]


# Least address space (`ulimit -v`) for torch and the runtimes. With 240 MiB, OpenBLAS tries to allocate for ever and
# not even SIGTERM ends it; with 400 MiB the loader fails; from 1.2 GiB on, all verbs work.
_LEAST_ADDRESS_SPACE = 1200 * 2**20

# Messages of a RuntimeError from Python's threads and torch's allocator for failed system calls.
_LIMITS = {"can't start new thread": errno.EAGAIN, "can't allocate memory": errno.ENOMEM}


def _require_address_space() -> None:
    if sys.platform != "linux":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise InvalidValue(
            f"the address space of this process is limited to {limit / 2**20:.0f} MiB, and torch and the runtimes need "
            f"{_LEAST_ADDRESS_SPACE / 2**20:.0f} MiB: raise the limit, `ulimit -v unlimited`"
        )


def _verb(**options: object) -> object:
    """Run the verb of the command line.

    Raises:
        InvalidValue: the current folder was deleted: MKL would then abort the process when torch is loaded; or the
            address space is too small for the libraries.
    """
    _require_address_space()
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError as error:
        raise InvalidValue("the current folder no longer exists; `cd` to another one") from error
    return app(renamed(sys.argv[1:]), **options)


def _ended(run: Callable[..., object], **options: object) -> object:
    """The result of a call; an exit code with a message, if it raises an error that a user can act on."""
    try:
        return run(**options)
    except HwnasError as error:
        return _complained(error, error.exit_code)
    except OSError as error:
        said = f"{error.filename}: {reason_of(error)}" if error.filename else reason_of(error)
    except MemoryError as error:
        said = reason_of(OSError(errno.ENOMEM, f"the memory is full {error}".strip()))
    except RuntimeError as error:
        limit = next((number for text, number in _LIMITS.items() if text in str(error)), None)
        if limit is None:
            raise
        said = reason_of(OSError(limit, str(error).strip().splitlines()[0]))
    except ImportError as error:  # the loader has no memory for a library
        if "failed to map segment" not in str(error):
            raise
        said = reason_of(OSError(errno.ENOMEM, f"cannot load a library: {error}"))
    except _USAGE as error:
        error.show()
        return error.exit_code
    return _complained(said, 2)


def _complained(said: object, code: int) -> int:
    """The exit code, after a message on standard error, which may be closed or on a full disk."""
    with contextlib.suppress(OSError, ValueError):
        print(f"error: {said}", file=sys.stderr, flush=True)
    return code


def main() -> None:
    """Run the command line.

    Exit code 0; 1 on too noisy a machine; 2 after a user's error; 130 after Ctrl-C; 143 after SIGTERM.
    """
    streams.take_any_text()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for words in filter(None, (drop_binding(), drop_ranks())):
        logging.getLogger(__name__).warning(words)
    with remembered_signals() as interrupted:
        try:
            code = _ended(_verb, standalone_mode=False)
        except (typer.Abort, KeyboardInterrupt):
            code = INTERRUPTED
        if code == INTERRUPTED:  # typer converts an interrupt to this code
            print("interrupted; finished parts are kept, the same command resumes", file=sys.stderr)
            code = interrupted()
        code = _ended(streams.flush) or code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
