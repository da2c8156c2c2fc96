"""`hwnas tables`: list, show, compare, import and transfer latency tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli import options, output, transfer
from hwnas.cli.help import Verb
from hwnas.errors import HwnasError, InvalidValue

if TYPE_CHECKING:
    from hwnas.latency import LatencyTable
    from hwnas.latency.manifest import Fit
    from hwnas.spaces import Domain
    from hwnas.targets import FoundTable

app = typer.Typer(help="List, show, compare, import and transfer latency tables.", no_args_is_help=True)
app.command("transfer", cls=Verb)(transfer.transfer)
app.command("next", cls=Verb)(transfer.next_)

TargetName = Annotated[
    str,
    typer.Argument(help="device/recipe; the device 'this' is the present host.", metavar="DEVICE/RECIPE"),
]
Side = Annotated[str, typer.Argument(help="device/recipe, or a table's CSV file.", show_default=False)]
Tables = Annotated[
    Path | None,
    typer.Option(help="Folder of latency tables; by default all known ones (yours, then the shipped ones)."),
]
_SHOWN = 10  # rows of a listing; --json lists all


@app.command("list")
def list_tables(tables: Tables = None, as_json: options.AsJson = False) -> None:
    """List the known latency tables with their last validation.

    A table that cannot be used is listed with the reason.
    """
    from hwnas.targets import roots

    known = [(found, *_readable(found)) for found in sorted(_found(tables), key=lambda one: (one.device, one.recipe))]
    if as_json:
        output.print_json([_entry(found, table, reason) for found, table, reason in known])
        return
    for found, table, reason in known:
        name = f"{found.device}/{found.recipe}"
        if table is None:
            typer.echo(f"{name}\n  cannot be used: {reason}")
            continue
        whose = "" if tables else ", shipped" if found.path.is_relative_to(roots()[-1]) else ", yours"
        typer.echo(f"{name}\n  {table.manifest.origin} {table.manifest.date}, {len(table.rows)} rows{whose}")
        for fit in sorted(table.manifest.fits, key=lambda fit: _domain_text(fit.domain)):
            typer.echo(f"  fitted on {_domain_text(fit.domain)}: {_validation_text(fit)}")
        if not table.manifest.fits:
            typer.echo("  no fit")
    if not known:
        typer.echo("There is no latency table. `hwnas profile` measures one, `hwnas tables import` imports one.")


@app.command()
def show(target: TargetName, tables: Tables = None, as_json: options.AsJson = False) -> None:
    """Print the provenance and accuracy of a latency table, and its slowest ops."""
    table, path = _target_table(target, tables)
    manifest, rows = table.manifest, _rows(table)
    if as_json:
        document = manifest.model_dump(mode="json", by_alias=True)
        output.print_json({"target": table.target.name, "table": str(path), "manifest": document, "rows": rows})
        return
    typer.echo(f"{table.target.name}: {len(rows)} ops, {manifest.origin}, {manifest.date}\n{path}")
    typer.echo(f"\ndevice fingerprint {manifest.device_fingerprint[:12]}…, recipe hash {manifest.recipe_hash[:12]}…")
    facts: dict[str, Mapping[str, object]]
    facts = {"host": manifest.host, "versions": manifest.versions, "measurement": manifest.measurement}
    for title, values in facts.items():
        for i, (name, value) in enumerate(values.items()):
            shown = f"{len(value)} (--json lists them)" if isinstance(value, list) else value
            label = f"{name[:19]}…" if name.startswith("sha256-") else name
            typer.echo(f"{'' if i else title:12} {label}: {shown}")
    for fit in manifest.fits:
        typer.echo("\n" + _fit_text(table, fit))
    if not manifest.fits:
        typer.echo("\nno context terms: predictions are the plain sum of the rows, without an upper bound")
    typer.echo(f"\nthe slowest of {len(rows)} ops\n{'p25 ms':>10} {'p50 ms':>10} {'p90 ms':>10} {'samples':>8}  op")
    for row in sorted(rows, key=lambda row: -row["latency_ms_p25"])[:_SHOWN]:
        quantiles = " ".join(f"{row[f'latency_ms_{q}']:10.4g}" for q in ("p25", "p50", "p90"))
        typer.echo(f"{quantiles} {row['samples']:8}  {row['op']}")


@app.command()
def diff(a: Side, b: Side, tables: Tables = None, as_json: options.AsJson = False) -> None:
    """Compare two latency tables op by op: of two targets, or of one target on two days.

    A table is named by its target or by its CSV file. Ratios are B over A, of p25.
    """
    from hwnas.latency.diff import diff_tables

    found = diff_tables(_side(a, tables), _side(b, tables))
    if as_json:
        output.print_json(asdict(found))
        return
    tau = "none" if found.kendall_tau is None else f"{found.kendall_tau:.3f}"
    typer.echo(
        f"A  {a}" + (f"  ({found.a})" if a != found.a else "") + "\n"
        f"B  {b}" + (f"  ({found.b})" if b != found.b else "") + "\n"
        f"{len(found.ops)} ops in common, {len(found.only_a)} only in A, {len(found.only_b)} only in B\n"
        f"  B / A        {found.ratio_median:.4f}   (median; p5 {found.ratio_p5:.4f}, p95 {found.ratio_p95:.4f})\n"
        f"  Kendall τ    {tau}   (ranks of the ops in common)\n"
        f"\nthe most different\n{'B / A':>8} {'A ms':>10} {'B ms':>10}  op"
    )
    for op in found.ops[:_SHOWN]:
        typer.echo(f"{op.ratio:8.4f} {op.a_ms:10.4g} {op.b_ms:10.4g}  {op.op}")
    for side, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            typer.echo(f"\nonly in {side}" + (f" (the first {_SHOWN} of {len(only)})" if len(only) > _SHOWN else ""))
            typer.echo("\n".join(f"  {key}" for key in only[:_SHOWN]))


@app.command("import", cls=Verb)
def import_(
    files: Annotated[list[Path], typer.Argument(help="Tables in another format, all files of one target.")],
    format_: Annotated[
        str, typer.Option("--format", help="Format of the files: {formats} (once-for-all's is ofa-yaml).")
    ],
    target: options.Target,
    tables: options.Tables = None,
    space: Annotated[
        str | None, typer.Option(help="With --format networks: the space of the networks, with its options.")
    ] = None,
    resolution: options.Resolution = None,
    width: options.Width = None,
    kernel_sizes: options.KernelSizes = None,
    expansions: options.Expansions = None,
    aspect: options.Aspect = None,
    fix: options.Fix = None,
    channels: options.Channels = None,
    vocabulary: options.Vocabulary = None,
    classes: options.Classes = None,
    column: transfer.Column = None,
    replace: Annotated[bool, typer.Option("--replace", help="Drop an older table instead of adding to it.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Import latency tables that were measured elsewhere, or, with --format networks, latencies of whole networks.

    An op in several files gets the mean weighted by their counts. Rows of an older imported table for the same target
    are kept unless the files contain them, too.
    """
    from hwnas import workflows
    from hwnas.files import only_one
    from hwnas.latency import read_table, write_table
    from hwnas.latency.imports import NETWORKS, imported_table, read_files
    from hwnas.latency.table import table_lock
    from hwnas.targets import resolve_target, writable_home

    wanted = resolve_target(target)
    of_space = {
        "resolution": resolution,
        "width": width,
        "kernel_sizes": kernel_sizes,
        "expansions": expansions,
        "aspect": aspect,
        "fix": fix,
        "channels": channels,
        "vocabulary": vocabulary,
        "classes": classes,
    }
    if format_ == NETWORKS:
        whole = transfer.networks_of(files, space, of_space)
        answer = workflows.import_networks(whole, wanted, files[0], column=column, tables=tables, replace=replace)
        transfer.print_imported(answer, as_json=as_json)
        return
    of_networks = {"space": space, **of_space, "column": column}
    if given := [f"--{name.replace('_', '-')}" for name, value in of_networks.items() if value]:
        raise InvalidValue(f"{' and '.join(given)}: these are for --format {NETWORKS}")
    imported = read_files(files, format_)
    path = (tables or writable_home() / "latency_tables") / f"{wanted.name}.csv"
    with only_one(table_lock(path), f"the table of {wanted.name}"):
        old = read_table(wanted, path) if path.is_file() and not replace else None
        table = write_table(imported_table(imported, wanted, old), path)
    replaced = sum(op.key in old.rows for op in imported.means) if old else 0
    facts = {
        "target": wanted.name,
        "format": imported.format,
        "files": len(imported.files),
        "ops": len(imported.means),
        "rows": len(table.rows),
        "rows_replaced": replaced,
        "ops_in_several_files": imported.repeated,
        "largest_relative_difference": imported.largest_difference,
        "most_different_op": imported.most_different.key if imported.most_different else None,
        "table": str(path),
    }
    if as_json:
        output.print_json(facts)
        return
    typer.echo(f"{facts['ops']} ops of {wanted.name} from {facts['files']} files; all quantiles are set to the means.")
    if imported.most_different:
        typer.echo(
            f"{imported.repeated} of them have different values in several files and got the mean weighted by count; "
            f"the files differ most, by {imported.largest_difference:.1%}, in {imported.most_different.key}"
        )
    if replaced:
        typer.echo(f"{replaced} rows of the older table were replaced.")
    typer.echo(f"Table: {path} ({len(table.rows)} rows)")


# -- finding and reading -------------------------------------------------------------------------------------


def _found(folder: Path | None) -> list[FoundTable]:
    from hwnas.targets import FoundTable, tables

    if folder is None:
        return tables()
    if not folder.is_dir():
        raise InvalidValue(f"--tables is {str(folder)!r}, not a folder; it should contain <device>/<recipe>.csv")
    return [FoundTable(path.parent.name, path.stem, path) for path in sorted(folder.glob("*/*.csv"))]


def _readable(found: FoundTable) -> tuple[LatencyTable | None, str]:
    """A table, or None and why it cannot be used: one damaged table must not hide the others."""
    from hwnas.latency import read_table
    from hwnas.targets import resolve_target

    try:
        return read_table(resolve_target(f"{found.device}/{found.recipe}"), found.path), ""
    except (HwnasError, OSError) as error:
        return None, str(error)


def _target_table(name: str, folder: Path | None) -> tuple[LatencyTable, Path]:
    from hwnas.latency import read_table
    from hwnas.targets import resolve_target, table_path

    target = resolve_target(name)
    path = folder / f"{target.name}.csv" if folder else table_path(target)
    table = read_table(target, path)
    assert path is not None
    return table, path


def _side(text: str, folder: Path | None) -> LatencyTable:
    """The table of one side of a comparison: a CSV file by its suffix, else a target."""
    from hwnas.latency.table import read_table_file

    if text.endswith(".csv"):
        return read_table_file(Path(text))
    return _target_table(text, folder)[0]


# -- words ---------------------------------------------------------------------------------------------------


def _entry(found: FoundTable, table: LatencyTable | None, reason: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"target": f"{found.device}/{found.recipe}", "table": str(found.path)}
    if table is None:
        return {**entry, "usable": False, "reason": reason}
    fits = [
        {
            "domain": fit.domain.model_dump(),
            "networks": len(fit.calibration_ms),
            "validation": fit.validation.model_dump() if fit.validation else None,
        }
        for fit in table.manifest.fits
    ]
    manifest = table.manifest
    return {
        **entry,
        "usable": True,
        "origin": manifest.origin,
        "date": manifest.date,
        "rows": len(table.rows),
        "fits": fits,
    }


def _rows(table: LatencyTable) -> list[dict[str, Any]]:
    from hwnas.spaces import parse_op

    rows = []
    for key, row in sorted(table.rows.items()):
        op = parse_op(key)
        rows.append({"op": key, **asdict(row), "macs": op.macs, "params": op.params})
    return rows


def _domain_text(domain: Domain) -> str:
    fixed = "".join(f" {name}={','.join(map(str, values))}" for name, values in domain.choices.items())
    return f"{domain.space}{fixed} ({domain.reads.text}, {domain.classes} classes)"


def _fit_text(table: LatencyTable, fit: Fit) -> str:
    from hwnas.latency.table import profile_command

    terms = ", ".join(f"{name} {value:.4g}" for name, value in fit.terms.items())
    bounds = {"transferred": "the errors on its sources", "imported": "their held-out errors"}.get(
        table.origin, f"{len(fit.scores)} more"
    )
    text = (
        f"fitted on {_domain_text(fit.domain)}\n"
        f"  {len(fit.calibration_ms)} networks, held-out error {fit.held_out_mape:.2%}; upper bounds from {bounds}\n"
        f"  terms: {terms}"
    )
    checked = fit.validation
    if checked is None:
        command = profile_command(fit.domain.make(), table.target, table.folder, verb="validate")
        return f"{text}\n  {_validation_text(fit)}. Validate it with: {command}"
    others = ", ".join(f"{name} {baseline.mape:.2%}" for name, baseline in checked.baselines.items())
    return (
        f"{text}\n"
        f"  {_validation_text(fit)}: {checked.networks} fresh networks,\n"
        f"  within 5% {checked.within_5pct:.0%}, within 10% {checked.within_10pct:.0%}, "
        f"Kendall τ {checked.kendall_tau:.3f} (two measurements {checked.kendall_tau_repeat:.3f})\n"
        f"  MAPE of others: {others}"
    )


def _validation_text(fit: Fit) -> str:
    checked = fit.validation
    if checked is None:
        return "never validated"
    return f"MAPE {checked.mape:.2%}, noise floor {checked.noise_floor:.2%}, validated {checked.date}"
