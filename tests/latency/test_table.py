from __future__ import annotations

import csv
import hashlib
import importlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hwnas.errors import MissingOp, OutputError, SpecError, TableCorrupt, TableError, TableMismatch
from hwnas.latency import LatencyTable, Row, load_model, read_table, write_table
from hwnas.latency.manifest import Fit
from hwnas.latency.table import COLUMNS, merged, profile_command
from hwnas.spaces import Domain, Space, make_space, parse_op
from hwnas.targets import Host, Recipe, Target, catalog, detect_host
from hwnas.targets.device import other_machine

Make = Callable[..., LatencyTable]
table_module = importlib.import_module("hwnas.latency.table")
profile_module = importlib.import_module("hwnas.profiling.profiler")


@pytest.fixture
def written(space: Space, this: Target, make_table: Make, tmp_path: Path) -> Path:
    """The CSV of a table on disk."""
    path = tmp_path / this.device.name / f"{this.recipe.name}.csv"
    write_table(make_table(space, this), path)
    return path


def a_fit(space: Space, **more: object) -> Fit:
    facts: dict[str, object] = {
        "domain": Domain.of(space).model_dump(),
        "seed": 1,
        "calibration_ms": [0.5] * 16,
        "terms": {"scale": 0.9, "ms per op": -0.001, "stage stem": 0.25},
        "held_out_mape": 0.012,
        "scores": [-0.02, 0.01, 0.03],
        "measurement": {"passes": 10},
    }
    return Fit.model_validate(facts | more)


def rewritten(path: Path, change: Callable[[list[list[str]]], object], *, seal: bool = True) -> None:
    """Change the cells of a table; `seal` makes the manifest's checksum fit, so that another check has to see it."""
    with path.open(newline="") as file:
        cells = list(csv.reader(file))
    change(cells)
    path.write_text("".join(",".join(row) + "\n" for row in cells))
    if seal:
        reseal(path)


def reseal(path: Path) -> None:
    manifest = path.with_suffix(".toml")
    lines = manifest.read_text().splitlines()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(
        "\n".join(f'csv_sha256 = "{digest}"' if x.startswith("csv_sha256") else x for x in lines) + "\n"
    )


# -- the table of another machine ------------------------------------------------------------------------


def measured_on(table: LatencyTable, **facts: object) -> LatencyTable:
    host = {**table.manifest.host, **facts}
    return replace(table, manifest=table.manifest.model_copy(update={"host": host}))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"board": "Raspberry Pi 4 Rev 1.4"},
            "board: measured on 'Raspberry Pi 4 Rev 1.4', this is 'my",
        ),
        ({"core": "0xd08 r0p3"}, "core: measured on '0xd08 r0p3', this is '0xd08 r1p0'"),
        ({"board": "my board", "core": "0xd08 r1p0"}, ""),
        ({}, ""),  # of a time when neither was recorded
    ],
)
def test_the_table_of_another_board_is_questioned(
    space: Space,
    this: Target,
    make_table: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    facts: dict[str, object],
    said: str,
) -> None:
    host = replace(detect_host(), board="my board", core="0xd08 r1p0")
    monkeypatch.setattr(table_module, "detect_host", lambda: host)
    table = write_table(measured_on(make_table(space, this), **facts), tmp_path / "t.csv")
    read_table(this, tmp_path / "t.csv")
    assert said in caplog.text
    assert (f"hwnas devices detect --save --name {this.device.name}-2" in caplog.text) is bool(said)
    machine = SimpleNamespace(host=lambda: host)
    if said:
        with pytest.raises(TableMismatch, match="was measured on another machine") as caught:
            profile_module._check_machine(table, this, machine)
        assert said in str(caught.value)
    else:
        profile_module._check_machine(table, this, machine)


def test_flags_count_where_nothing_else_tells_chips_apart() -> None:
    apple = Host(architecture="aarch64", cpu_name="Arm implementer 0x61 part 0x000", flags=("asimd", "fp"), cores=4)
    m2 = replace(apple, flags=("asimd", "bf16", "i8mm"))
    assert other_machine({"flags": list(apple.flags)}, apple) == []
    assert other_machine({"flags": list(m2.flags)}, apple) == ["CPU flags: only one of the two has i8mm, bf16"]
    named = replace(apple, cpu_name="Apple M2 Pro")  # a newer kernel may show more flags of the same chip
    assert other_machine({"flags": list(m2.flags)}, named) == []


# -- what is written is what is read ---------------------------------------------------------------------


def test_round_trip(space: Space, this: Target, make_table: Make, tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.csv"
    table = make_table(space, this).with_fit(a_fit(space))
    returned = write_table(table, path)
    read = read_table(this, path)
    assert read.rows == table.rows
    assert read.manifest == returned.manifest
    assert read.manifest.csv_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.manifest.model_copy(update={"csv_sha256": ""}) == table.manifest
    assert sorted(p.name for p in path.parent.iterdir()) == ["t.csv", "t.toml"]
    for op in space.distinct_ops:
        assert read.latency_ms(op) == table.rows[op.key].latency_ms_p25


def test_the_csv_is_sorted_and_has_the_columns_that_people_know(space: Space, written: Path) -> None:
    lines = written.read_bytes().split(b"\n")
    assert lines[0] == b"op,latency_ms_p25,latency_ms_p50,latency_ms_p90,samples,macs,params"
    assert lines[-1] == b""
    keys = [line.split(b",")[0].decode() for line in lines[1:-1]]
    assert keys == sorted(op.key for op in space.distinct_ops)
    with written.open(newline="") as file:
        for row in csv.DictReader(file):
            op = parse_op(row["op"])
            assert (int(row["macs"]), int(row["params"])) == (op.macs, op.params)


def test_latencies_keep_six_digits(space: Space, this: Target, make_table: Make, tmp_path: Path) -> None:
    table = make_table(space, this)
    key = space.distinct_ops[0].key
    row = Row(latency_ms_p25=1.23456789e-5, latency_ms_p50=0.1, latency_ms_p90=12345.678, samples=7)
    write_table(replace(table, rows={key: row}), tmp_path / "t.csv")
    assert read_table(this, tmp_path / "t.csv").rows == {
        key: Row(latency_ms_p25=1.23457e-5, latency_ms_p50=0.1, latency_ms_p90=12345.7, samples=7)
    }
    assert ",1.23457e-05,0.1,12345.7,7," in (tmp_path / "t.csv").read_text()


def test_the_catalog_is_where_tables_are_looked_for(
    space: Space, this: Target, make_table: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "roots", lambda: [tmp_path])
    with pytest.raises(TableError, match=f"no latency table for {this.name}. .*hwnas profile --target {this.name}"):
        read_table(this)
    write_table(make_table(space, this), tmp_path / "latency_tables" / f"{this.name}.csv")
    assert len(read_table(this).rows) == len(space.distinct_ops)


def test_no_table_at_a_path(this: Target, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no latency table for .* at .*none.csv. `hwnas profile --target"):
        read_table(this, tmp_path / "none.csv")


def test_a_place_that_cannot_be_written(space: Space, this: Target, make_table: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        write_table(make_table(space, this), tmp_path / "file" / "t.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# -- bad tables ------------------------------------------------------------------------------------------


def test_a_row_edited_by_hand(this: Target, written: Path) -> None:
    def edit(cells: list[list[str]]) -> None:
        cells[3][1] = str(float(cells[3][1]) * 0.99)

    rewritten(written, edit, seal=False)
    with pytest.raises(TableCorrupt, match=r"was changed after it was written: its sha256 is .*hwnas profile again"):
        read_table(this, written)


def test_a_row_deleted_by_hand(this: Target, written: Path) -> None:
    rewritten(written, lambda cells: cells.pop(2), seal=False)
    with pytest.raises(TableCorrupt, match="was changed after it was written"):
        read_table(this, written)


def cell(column: str, text: str) -> Callable[[list[list[str]]], None]:
    def change(cells: list[list[str]]) -> None:
        cells[2][COLUMNS.index(column)] = text

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cell("latency_ms_p25", "nan"), r"line 3: latencies are \['nan', .*must be positive, finite"),
        (cell("latency_ms_p25", "1e-320"), r"line 3: .*from 1e-09 to 1e\+09"),
        (cell("latency_ms_p50", "nan"), r"line 3: .*must be positive, finite"),
        (cell("latency_ms_p90", "inf"), r"line 3: .*'inf'\] ms; they must be positive, finite"),
        (cell("latency_ms_p25", "0"), r"line 3: latencies are \['0', .*must be positive"),
        (cell("latency_ms_p25", "-0.5"), r"line 3: latencies are \['-0.5', .*must be positive"),
        (cell("latency_ms_p25", "fast"), r"line 3: .*'fast'"),
        (cell("latency_ms_p25", ""), r"line 3: "),
        (cell("latency_ms_p25", "9999"), r"line 3: quantiles must be ascending"),
        (cell("samples", "0"), r"line 3: .*samples positive"),
        (cell("samples", "4.5"), r"line 3: .*'4.5'"),
        (cell("macs", "1"), r"line 3: .*macs \d+ and params \d+"),
        (cell("params", "1"), r"line 3: .*macs \d+ and params \d+"),
        (cell("op", "conv"), r"line 3: 'conv' is not the key of an op"),
        (cell("op", "konv 1x2x2>1x2x2 act=relu kernel=3 stride=1"), r"line 3: .*unknown op kind 'konv'"),
        (cell("op", "conv 1x2x2>1x2x2 kernel=3 act=relu stride=1"), r"line 3: .*canonical form"),
        (cell("op", "conv 1x2x2>1x2x2 act=relu kernel=3"), r"line 3: .*attributes"),
        (cell("op", "conv 1xtwo>1x2 act=relu kernel=3 stride=1"), r"line 3: .*is not the key of an op"),
        (lambda cells: cells.append(cells[1]), r"line 14: the op .* is a duplicate"),
        (lambda cells: cells[2].pop(), "line 3: 6 cells; a row must have 7"),
        (lambda cells: cells[2].append("1"), "line 3: 8 cells; a row must have 7"),
        (lambda cells: cells[0].reverse(), r"has the columns \['params', .*a latency table must have \['op',"),
        (lambda cells: cells.pop(0), "has the columns"),
        (lambda cells: cells.clear(), r"has the columns \[\]"),
        (cell("samples", "80\r"), "is not a CSV file: new-line character"),
    ],
)
def test_a_bad_row(this: Target, written: Path, change: Callable[[list[list[str]]], object], words: str) -> None:
    rewritten(written, change)
    with pytest.raises(TableCorrupt, match=words) as caught:
        read_table(this, written)
    assert str(written) in str(caught.value)


def test_the_last_row_cut_off(this: Target, written: Path) -> None:
    written.write_bytes(written.read_bytes()[:-30])
    with pytest.raises(TableCorrupt, match=r"cells; a row must have 7|is not the key|was changed"):
        read_table(this, written)


def test_bytes_that_are_no_text(this: Target, written: Path) -> None:
    written.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableCorrupt, match="has the columns"):
        read_table(this, written)


def test_no_manifest(this: Target, written: Path) -> None:
    written.with_suffix(".toml").unlink()
    with pytest.raises(TableCorrupt, match=r"has no manifest, so its target and protocol are unknown"):
        read_table(this, written)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "colour = 1\n" + text, r"unknown key 'colour'.*allowed at the top level: schema, device"),
        (lambda text: text.replace("schema = 1", "schema = 2"), r"schema is 2"),
        (lambda text: text.replace("device =", "devise ="), r"unknown key 'devise'; did you mean 'device'"),
        (lambda text: text[:100] + "=", "line "),
        (
            lambda text: text.replace("held_out_mape = 0.012", 'held_out_mape = "low"'),
            r"fits\[0\].held_out_mape is 'low'",
        ),
        (lambda text: text.replace('"stage stem" = 0.25', '"stage stem" = nan'), r"terms.stage stem is nan"),
    ],
)
def test_a_malformed_manifest(
    space: Space, this: Target, make_table: Make, tmp_path: Path, change: Callable[[str], str], words: str
) -> None:
    path = tmp_path / "t.csv"
    write_table(make_table(space, this).with_fit(a_fit(space)), path)
    manifest = path.with_suffix(".toml")
    before = manifest.read_text()
    manifest.write_text(change(before))
    assert manifest.read_text() != before
    with pytest.raises(SpecError, match=words) as caught:
        read_table(this, path)
    assert str(manifest) in str(caught.value)


def test_a_table_made_with_another_recipe_of_that_name(this: Target, written: Path) -> None:
    other = Recipe.model_validate({**this.recipe.model_dump(by_alias=True), "threads": 2})
    with pytest.raises(
        TableMismatch,
        match=rf"made with another recipe 'onnxruntime-cpu-fp32' \(hash {this.recipe.hash[:12]}…, now "
        rf"{other.hash[:12]}…\).*--replace",
    ):
        read_table(Target(this.device, other), written)


def test_words_and_limits_of_a_recipe_may_change(this: Target, written: Path) -> None:
    other = this.recipe.model_copy(update={"description": "better words"})
    assert read_table(Target(this.device, other), written).rows


def test_another_targets_table(this: Target, elsewhere: Target, written: Path) -> None:
    with pytest.raises(TableMismatch, match=f"is the table of {this.name}, not of board/made-up"):
        read_table(elsewhere, written)
    with pytest.raises(TableMismatch, match="is the table of"):
        read_table(Target(elsewhere.device, this.recipe), written)


def test_another_runtime_version_warns(this: Target, written: Path, caplog: pytest.LogCaptureFixture) -> None:
    import onnxruntime

    with caplog.at_level(logging.WARNING, logger="hwnas"):
        read_table(this, written)
    assert caplog.records == []
    manifest = written.with_suffix(".toml")
    manifest.write_text(
        manifest.read_text().replace(f'onnxruntime = "{onnxruntime.__version__}"', 'onnxruntime = "0.9.8"')
    )
    with caplog.at_level(logging.WARNING, logger="hwnas"):
        assert read_table(this, written).rows
    [record] = caplog.records
    assert record.name == "hwnas.latency.table"
    assert f"was measured with onnxruntime 0.9.8, but {onnxruntime.__version__} is installed" in record.getMessage()


# -- a kill while a table is written -----------------------------------------------------------------------


def test_killed_before_the_manifest_is_renamed(
    space: Space, this: Target, make_table: Make, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = read_table(this, written)
    key = space.distinct_ops[0].key
    newer = replace(old, rows={**old.rows, key: replace(old.rows[key], samples=81)})
    real = Path.replace

    def killed(self: Path, to: Path) -> Path:
        if Path(to).suffix == ".toml":
            raise KeyboardInterrupt
        return real(self, to)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_table(newer, written)
    monkeypatch.undo()
    assert written.with_suffix(".toml.next").is_file()
    assert read_table(this, written).rows == newer.rows
    # The next write tidies up.
    write_table(old, written)
    assert not written.with_suffix(".toml.next").exists()
    assert read_table(this, written).rows == old.rows


def test_killed_before_the_rows_are_renamed(
    space: Space, this: Target, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = read_table(this, written)
    real = Path.replace

    def killed(self: Path, to: Path) -> Path:
        if Path(to).suffix == ".csv":
            raise KeyboardInterrupt
        return real(self, to)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_table(replace(old, rows=dict(list(old.rows.items())[:3])), written)
    monkeypatch.undo()
    assert read_table(this, written).rows == old.rows


@pytest.mark.parametrize("first", [True, False], ids=["the first table", "over an older one"])
@pytest.mark.parametrize("places", [(a, b, c) for a in range(4) for b in range(4) for c in range(4)])
def test_killed_again_and_again_the_table_stays_whole(
    space: Space,
    this: Target,
    make_table: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: bool,
    places: tuple[int, ...],
) -> None:
    """Three writes, each killed before one of its files was written (3: before it tidies up), whichever they were."""
    path, key = tmp_path / "t.csv", space.distinct_ops[0].key
    whole = make_table(space, this)
    tables = [
        replace(whole, rows={**whole.rows, key: replace(whole.rows[key], samples=n)}).with_fit(a_fit(space, seed=n))
        for n in range(1, 6)
    ]
    if not first:
        write_table(tables[0], path)
    standing = None if first else tables[0]
    real, unlink = table_module.write_whole, Path.unlink
    for written, kept in zip(tables[1:4], places, strict=True):
        files: list[Path] = []
        steps = (path.with_suffix(".toml.next"), path, path.with_suffix(".toml"))

        def write_or_die(
            file: Path, content: str | bytes, files: list[Path] = files, steps: tuple[Path, ...] = steps, at: int = kept
        ) -> None:
            # The repair of an older kill comes before the first step and writes the manifest out of turn.
            if len(files) == at and at < 3 and file == steps[at]:
                raise KeyboardInterrupt
            real(file, content)
            if len(files) < 3 and file == steps[len(files)]:
                files.append(file)

        def unlink_or_die(self: Path, missing_ok: bool = False) -> None:
            if self.name.endswith(".toml.next"):
                raise KeyboardInterrupt
            unlink(self, missing_ok=missing_ok)

        monkeypatch.setattr(table_module, "write_whole", write_or_die)
        monkeypatch.setattr(Path, "unlink", unlink_or_die)
        with pytest.raises(KeyboardInterrupt):
            write_table(written, path)
        monkeypatch.setattr(table_module, "write_whole", real)
        monkeypatch.setattr(Path, "unlink", unlink)
        if kept >= 2:  # the new rows stand
            standing = written
        if standing is None:
            assert not path.exists()
            continue
        read = read_table(this, path)
        assert read.rows == standing.rows
        assert read.manifest.fits == standing.manifest.fits
    write_table(tables[4], path)
    assert read_table(this, path).manifest.fits == tables[4].manifest.fits
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.toml"]


def test_the_first_table_killed_before_its_manifest_is_renamed(this: Target, written: Path) -> None:
    written.with_suffix(".toml").rename(written.with_suffix(".toml.next"))
    assert read_table(this, written).rows
    os.truncate(written, written.stat().st_size // 2)
    with pytest.raises((TableCorrupt, SpecError)):
        read_table(this, written)


# -- ops that were not measured ----------------------------------------------------------------------------


def test_a_missing_op_names_all_that_helps(space: Space, this: Target, make_table: Make) -> None:
    table = make_table(space, this)
    [op] = [op for op in space.distinct_ops if op.kind == "classifier"]
    without = replace(table, rows={key: row for key, row in table.rows.items() if key != op.key})
    with pytest.raises(MissingOp) as caught:
        without.require(space)
    said = str(caught.value)
    assert f"the latency table of {this.name} lacks 1 of the {len(space.distinct_ops)} ops of {space.name}" in said
    assert repr(op.key) in said
    assert any(key in said for key in without.rows)
    assert f"hwnas profile --space {space.name} --target {this.name} --fix resolution=24 --fix depth_1=1,2" in said
    with pytest.raises(MissingOp) as caught:
        without.latency_ms(op)
    said = str(caught.value)
    assert this.name in said
    assert repr(op.key) in said
    assert sum(repr(key) in said for key in without.rows) == 3
    assert "hwnas profile --target" in said
    with pytest.raises(MissingOp):
        load_model(without, space)


def test_an_empty_table_misses_everything(space: Space, this: Target, make_table: Make) -> None:
    empty = replace(make_table(space, this), rows={})
    with pytest.raises(MissingOp, match=r"lacks 12 of the 12 ops .*\(nearest row: none\)"):
        empty.require(space)
    with pytest.raises(MissingOp, match="has no op"):
        empty.latency_ms(space.distinct_ops[0])


def test_the_command_measures_just_that_space(space: Space, this: Target) -> None:
    from hwnas.spaces import make_space

    whole = make_space("mobilenetv3-tiny")
    assert profile_command(whole, this) == f"hwnas profile --space mobilenetv3-tiny --target {this.name}"
    fixes = [word.split("=") for word in profile_command(space, this).split(" ") if "=" in word]
    assert whole.fix(**{name: [int(v) for v in values.split(",")] for name, values in fixes}).choices == space.choices


# -- fits and older tables ----------------------------------------------------------------------------------


def test_fit_for_takes_the_narrowest_domain_that_covers(space: Space, this: Target, make_table: Make) -> None:
    from hwnas.spaces import make_space

    whole = make_space("mobilenetv3-tiny")
    middle = whole.fix(resolution=24)
    beside = whole.fix(resolution=28)
    table = make_table(space, this)
    assert table.fit_for(space) is None
    for domain in (whole, middle, beside):
        table = table.with_fit(a_fit(domain))
    narrow = table.fit_for(space)
    assert narrow is not None
    assert narrow.domain == Domain.of(middle)
    assert table.fit_for(whole).domain == Domain.of(whole)  # type: ignore[union-attr]
    assert table.fit_for(beside.fix(depth_1=2)).domain == Domain.of(beside)  # type: ignore[union-attr]
    assert table.fit_for(whole.fix(resolution=32)).domain == Domain.of(whole)  # type: ignore[union-attr]
    assert table.fit_for(make_space("mobilenetv3-tiny", classes=5)) is None


def test_a_fit_takes_the_place_of_one_for_the_same_domain(space: Space, this: Target, make_table: Make) -> None:
    table = make_table(space, this).with_fit(a_fit(space)).with_fit(a_fit(space, calibration_ms=[0.5] * 20))
    assert [len(fit.calibration_ms) for fit in table.manifest.fits] == [20]


def test_merging_keeps_other_rows_and_drops_what_no_longer_fits(this: Target, make_table: Make) -> None:
    from hwnas.spaces import make_space

    whole = make_space("mobilenetv3-tiny")
    small, large = whole.fix(resolution=24), whole.fix(resolution=32)
    old = make_table(whole, this)
    for domain in (whole, small, large):
        old = old.with_fit(a_fit(domain))
    new = {
        op.key: Row(latency_ms_p25=9.0, latency_ms_p50=9.0, latency_ms_p90=9.0, samples=1) for op in large.distinct_ops
    }
    rows, fits = merged(new.items(), old)
    assert set(rows) == set(old.rows)
    assert {key: row for key, row in rows.items() if key in new} == new
    assert all(rows[key] == old.rows[key] for key in old.rows if key not in new)
    # The whole space's terms were fitted on rows that are no more.
    assert [fit.domain for fit in fits] == [Domain.of(small)]
    assert merged(new.items(), None) == (new, [])


def test_commands_in_messages_are_complete(space: Space, this: Target, written: Path, tmp_path: Path) -> None:
    command = profile_command(space, this)
    folder = tmp_path / "my tables"
    with pytest.raises(TableError, match="there is no latency table for") as caught:
        read_table(this, folder / f"{this.name}.csv", space=space)
    assert f"Measure with: {command} --tables '{folder}'" in str(caught.value)
    table = read_table(this, written)
    assert table.folder == tmp_path
    rows = dict(list(table.rows.items())[1:])
    with pytest.raises(MissingOp) as caught_op:
        replace(table, rows=rows).require(space)
    assert f"Measure with: {command} --tables {tmp_path} --only-missing." in str(caught_op.value)
    changed = this.recipe.model_copy(update={"threads": 3})
    other = Target(this.device, changed)
    with pytest.raises(TableMismatch, match=f"--tables {tmp_path} --replace"):
        read_table(other, written, space=space)
    write_table(table.with_fit(a_fit(space)), written)
    with pytest.raises(TableMismatch, match=f"Measure with: {command} --tables {tmp_path} --replace"):
        read_table(other, written)


@pytest.mark.parametrize(
    "damage",
    [
        {"calibration_ms": [1.0]},
        {"bound_ms": [1.0]},
        {"codes": [[0], [0]]},
        {"codes": [[0] * 99, [0] * 99]},
        {"codes": [[200] * 23, [0] * 23]},
        {"codes": [[-1] * 23, [0] * 23]},
        {"codes": [[300] * 23, [0] * 23]},
    ],
)
def test_networks_of_a_fit_that_are_not_of_its_space(damage: dict[str, Any]) -> None:
    space = make_space("fbnet")
    sound = Fit(
        domain=Domain.of(space),
        seed=0,
        calibration_ms=[1.0, 2.0],
        terms={},
        held_out_mape=0.0,
        scores=[],
        codes=space.sample(2, seed=0).tolist(),
        measurement={},
    )
    assert sound.networks().shape == (2, len(space.variables))
    with pytest.raises(TableCorrupt, match="a fit for fbnet has 2 networks"):
        sound.model_copy(update=damage).networks()
