"""`hwnas supernet`: import published supernets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.workflows import inputs

app = typer.Typer(help="Import published supernets.", no_args_is_help=True)

FORMATS = ("ofa",)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Checkpoint, e.g. ofa_mbv3_d234_e346_k357_w1.0.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="Folder for the supernet.")],
    format_: Annotated[str, typer.Option("--format", help="ofa: a published checkpoint of once-for-all.")] = "ofa",
    space: Annotated[
        str | None, typer.Option(help="Space of the supernet; by default inferred from its tensors.")
    ] = None,
    data_path: Annotated[
        Path | None, typer.Option(help="ImageNet as an image folder, for BN re-calibration and evaluation.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Read a published supernet. Only tensors are unpickled, and every name and shape is checked."""
    from hwnas.data import open_data
    from hwnas.errors import CheckpointError, DataError, UnknownName
    from hwnas.spaces import make_space
    from hwnas.supernet import Supernet, load_once_for_all, read_once_for_all, save_supernet
    from hwnas.supernet.once_for_all import PUBLISHED, resembled

    inputs.check_folder(out, "supernet")
    if format_ not in FORMATS:
        raise UnknownName("format", format_, FORMATS)
    if space is not None and space not in PUBLISHED:
        raise UnknownName("space of a published supernet", space, PUBLISHED)
    state = read_once_for_all(file)
    name = space or resembled(state)
    if name is None:
        raise CheckpointError(
            f"{file} has no parameter of once-for-all's supernets; supported are {', '.join(PUBLISHED)}"
        )
    supernet = Supernet(make_space(name))
    load_once_for_all(supernet, state)
    classes = tuple(map(str, range(supernet.space.classes)))
    if data_path:
        classes = open_data("images", path=data_path).classes
        if len(classes) != supernet.space.classes:
            raise DataError(
                f"{file} has {supernet.space.classes} classes, but {data_path} has {len(classes)}: "
                "use the images that it was trained on, or omit --data-path"
            )
    save_supernet(
        supernet,
        out,
        data={"name": "images", "path": str(data_path.absolute())} if data_path else {"name": None, "path": None},
        classes=classes,
        training={"imported": format_, "file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
    )
    if as_json:
        options.print_json({"space": name, "tensors": len(state), "supernet": str(out)})
    else:
        typer.echo(f"{len(state)} tensors of {name}: {out}")
