"""`hwnas verify`: check a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options, output
from hwnas.errors import InvalidValue


def verify(
    bundle: Annotated[Path | None, typer.Argument(help="Folder of a bundle.", metavar="BUNDLE")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of manifests and exit.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Check that a bundle is unchanged and safe to load, and that its outputs here match the recorded ones."""
    from hwnas.deploy import verify as check
    from hwnas.deploy.manifest import schema_text

    if schema:
        typer.echo(schema_text(), nl=False)
        return
    if bundle is None:
        raise InvalidValue("the folder of a bundle is missing; give it, as in: hwnas verify bundle")
    found = check(bundle)
    if as_json:
        output.print_json(asdict(found))
        return
    typer.echo(f"{bundle}, made for {found.target}")
    typer.echo(f"  files    {found.files} as in the manifest, and no others")
    typer.echo("  program  " + ("safe to load" if found.program_form else "unchanged; its content was not checked"))
    if found.max_abs_error is None:
        typer.echo(f"  outputs  not compared: {found.not_run}")
    else:
        typer.echo(
            "  outputs  as recorded"
            + (", and those of several images in a run" if found.dynamic_batch else "")
            + f": largest difference {found.max_abs_error:.2e}, accepted {found.accepted_error:.2e}"
        )
    if found.saturates is not None:
        typer.echo(f"warning: outputs may differ on this host for other images. {found.saturates}", err=True)
