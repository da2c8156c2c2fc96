"""once-for-all's tables as ours: translation, malformed files, several files, and the tables of a real phone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.errors import InfeasibleBudget, InvalidValue, MissingOp, TableCorrupt, TableError, TableMismatch, UnknownName
from hwnas.latency import LatencyTable, Row, load_model, read_table, write_table
from hwnas.latency.imports import imported_table, read_files
from hwnas.latency.ofa_yaml import Mean, parse_ofa_yaml
from hwnas.profiling import profile, validate
from hwnas.search import Problem, check_feasible, latency_objective, solve
from hwnas.spaces import Space, make_space
from hwnas.targets import Target

NOTE10 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ofa-note10"
needs_note10 = pytest.mark.skipif(not NOTE10.is_dir(), reason=f"the Note10 tables are not at {NOTE10}")
RESOLUTIONS = tuple(range(160, 225, 4))

STEM = "Conv-input:160x160x3-output:80x80x24"
FIRST = "expanded_conv-input:80x80x24-output:80x80x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0"
BLOCK = "expanded_conv-input:41x41x48-output:21x21x96-expand:144-kernel:5-stride:2-idskip:0-se:1-hs:1"
HEAD = "Conv_1-input:5x5x192-output:5x5x1152"
POOL = "AvgPool2D-input:5x5x1152-output:1x1x1152"
HIDDEN = "Conv_2-input:1x1x1152-output:1x1x1536"
LOGITS = "Logits-input:1x1x1536-output:1000"


def text(*rows: tuple[str, object, object]) -> str:
    """A file with these rows: name, mean, count."""
    return "".join(f"{name}:\n  count: {count}\n  mean: {mean}\n  std: 0.01\n" for name, mean, count in rows)


def parsed(content: str | bytes) -> dict[str, Mean]:
    found = parse_ofa_yaml(content.encode() if isinstance(content, str) else content, "t.yaml")
    return {op.key: mean for op, mean in found.items()}


# -- translation -----------------------------------------------------------------------------------------------


def test_every_kind_of_row() -> None:
    rows = ((STEM, 0.5, 10), (FIRST, 0.25, 11), (BLOCK, 1, 12), (HEAD, "4.0e-01", 13))
    found = parsed(text(*rows, (POOL, 0.01, 30), (HIDDEN, 0.7, 20), (LOGITS, 0.6, 25)))
    assert found == {
        "conv 3x160x160>24x80x80 act=hswish kernel=3 stride=2": Mean(latency_ms=0.5, samples=10),
        "mbconv 24x80x80>24x80x80 act=relu expand=0 kernel=3 mid=24 se=0 skip=1 stride=1": Mean(
            latency_ms=0.25, samples=11
        ),
        "mbconv 48x41x41>96x21x21 act=hswish expand=1 kernel=5 mid=144 se=1 skip=0 stride=2": Mean(
            latency_ms=1.0, samples=12
        ),
        "conv 192x5x5>1152x5x5 act=hswish kernel=1 stride=1": Mean(latency_ms=0.4, samples=13),
        "classifier 1152x5x5>1000 act=hswish hidden=1536": Mean(latency_ms=pytest.approx(1.31), samples=20),
    }


def test_two_poolings_share_a_hidden_layer() -> None:
    other = POOL.replace("5x5x", "7x7x")
    found = parsed(text((POOL, 0.01, 30), (other, 0.03, 9), (HIDDEN, 0.7, 20), (LOGITS, 0.6, 25)))
    assert {key: mean.samples for key, mean in found.items()} == {
        "classifier 1152x5x5>1000 act=hswish hidden=1536": 20,
        "classifier 1152x7x7>1000 act=hswish hidden=1536": 9,
    }


def test_the_deviation_may_be_left_out() -> None:
    assert len(parsed(f"{STEM}: {{mean: 1e-3, count: 2}}")) == 1


# -- malformed files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "t.yaml has no rows"),
        ("{}", "has no rows"),
        ("- 1\n- 2\n", "has no rows"),
        ("just words", "has no rows"),
        ("a: [1\nb: 2", "t.yaml is not YAML: .*line 2"),
        (b"\x00\xff\x13", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ('"\\UFFFFFFFF": 1', "is not YAML"),
        (f"%YAML 1.{'1' * 5000}\n---\na: 1", "is not YAML"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("!!python/object/apply:os.getcwd []: 1", "unknown kind of row"),
    ],
)
def test_no_table_at_all(content: str | bytes, words: str) -> None:
    with pytest.raises(TableCorrupt, match=words):
        parsed(content)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("{count: 5, std: 0.1}", "mean missing; a row has mean, std and count"),
        ("{mean: 0.5}", "count missing"),
        ("{mean: 0.5, count: 5, p50: 0.4}", "p50 unknown"),
        ("0.5", "count, mean missing"),
        ("[0.5, 5]", "count, mean missing"),
        ("", "count, mean missing"),
        ("{mean: -0.5, count: 5}", "mean is '-0.5'; it should be a positive number of milliseconds"),
        ("{mean: 0, count: 5}", "mean is '0'"),
        ("{mean: .nan, count: 5}", "mean is '.nan'"),
        ("{mean: nan, count: 5}", "mean is 'nan'"),
        ("{mean: .inf, count: 5}", "mean is '.inf'"),
        ("{mean: inf, count: 5}", "mean is 'inf'"),
        ("{mean: 1e308, count: 5}", "mean is '1e308'"),
        ("{mean: fast, count: 5}", "mean is 'fast'"),
        ("{mean: [1], count: 5}", r"mean is '\(sequence\)'"),
        ("{mean: 1, count: 0}", "count is '0'; it should be a whole number"),
        ("{mean: 1, count: -3}", "count is '-3'"),
        ("{mean: 1, count: 2.5}", "count is '2.5'"),
        (f"{{mean: 1, count: {'9' * 400}}}", "count is '999"),
        ("{mean: 1, std: -1, count: 5}", "std is '-1'"),
        ("{mean: 1, mean: 2, count: 5}", "mean is given twice"),
    ],
)
def test_a_row_without_figures(fields: str, words: str) -> None:
    with pytest.raises(TableCorrupt, match=f"t.yaml, line 5, row '{BLOCK}': {words}"):
        parsed(text((STEM, 0.5, 10)) + f"{BLOCK}: {fields}\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (STEM, "is a duplicate"),
        ("Dense-input:1x1x8-output:8", "unknown kind of row 'Dense'; known: Conv, expanded_conv"),
        ("whatever", "unknown kind of row 'whatever'"),
        ("Conv", "a row must be called Conv-input:HxWxC-output:HxWxC"),
        ("Conv-input:160x160-output:80x80x24", "a row must be called"),
        ("Conv-input:0x160x3-output:80x80x24", "a row must be called"),
        ("Conv-input:0160x160x3-output:80x80x24", "a row must be called"),
        (f"Conv-input:{'9' * 100}x160x3-output:80x80x24", "a row must be called"),
        (
            BLOCK.replace("kernel:5", "kernel:-5"),
            "a row must be called expanded_conv-input:HxWxC-output:HxWxC-expand:N-",
        ),
        (f"{STEM}-kernel:3", "the attributes of Conv must be, in this order: none"),
        (BLOCK.removesuffix("-hs:1"), "in this order: expand, kernel, stride, idskip, se, hs"),
        (BLOCK.replace("-se:1-hs:1", "-hs:1-se:1"), "in this order"),
        ("Conv-input:160x160x3-output:160x160x24", "impossible: with stride 2 the output must be 80x80"),
        ("Conv_1-input:5x5x192-output:6x5x1152", "impossible: with stride 1 the output must be 5x5"),
        ("Conv_1-input:5x5x192-output:1152", "impossible: the output of Conv_1 must be an image"),
        (BLOCK.replace("21x21", "20x20"), "with stride 2 the output must be 21x21"),
        (BLOCK.replace("stride:2", "stride:0"), "the stride is 0"),
        (BLOCK.replace("kernel:5", "kernel:4"), "kernel is 4; it should be odd"),
        (BLOCK.replace("expand:144", "expand:0"), "expand, the number of channels in the middle, is 0"),
        (BLOCK.replace("idskip:0", "idskip:1"), "idskip is 1, but input and output are of different shapes"),
        (BLOCK.replace("se:1", "se:2"), "se is 2; it should be 0 or 1"),
        ("AvgPool2D-input:5x5x1152-output:1x1x960", "the output of its pooling must be 1x1x1152"),
        ("Conv_2-input:5x5x1152-output:5x5x1536", "its input must be 1x1xC"),
        ("Logits-input:1x1x1536-output:1x1x1000", "the output of Logits must be a number of classes"),
        (POOL, "the file has no matching Conv_2 and Logits"),
        (HIDDEN, "the file has no matching AvgPool2D and Logits"),
        (LOGITS, "the file has no matching AvgPool2D and Conv_2"),
    ],
)
def test_a_row_that_no_op_is(name: str, words: str) -> None:
    with pytest.raises(TableCorrupt, match=r"^t\.yaml, line 5, row '") as refused:
        parsed(text((STEM, 0.5, 10), (name, 1.0, 10)))
    assert words in str(refused.value)


def test_a_classifier_whose_channels_do_not_agree() -> None:
    with pytest.raises(TableCorrupt, match=r"row 'Logits-input:1x1x1280-output:1000': .* a part of a classifier"):
        parsed(text((POOL, 1, 1), (HIDDEN, 1, 1), (LOGITS, 1, 1), ("Logits-input:1x1x1280-output:1000", 1, 1)))


# -- several files ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[Path]]:
    """A function that writes files and returns their paths."""

    def write(*contents: str) -> list[Path]:
        paths = [tmp_path / f"{'abcdef'[i]}.yaml" for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content)
        return paths

    return write


def test_the_mean_is_weighted_by_count(files: Callable[..., list[Path]]) -> None:
    a = text((STEM, 1.0, 30), (FIRST, 0.2, 5), (HEAD, 0.3, 7))
    b = text((STEM, 2.0, 10), (FIRST, 0.2, 5), (BLOCK, 0.4, 9))
    paths = files(a, b)
    imported, turned = read_files(paths, "ofa-yaml"), read_files(paths[::-1], "ofa-yaml")
    assert imported.means == turned.means
    by_key = {op.key: mean for op, mean in imported.means.items()}
    stem = "conv 3x160x160>24x80x80 act=hswish kernel=3 stride=2"
    assert by_key[stem] == Mean(latency_ms=1.25, samples=40)
    assert len(by_key) == 4
    assert imported.repeated == 1  # the first block stands in both, with one value
    assert imported.largest_difference == 1.0
    assert imported.most_different is not None
    assert imported.most_different.key == stem
    assert list(imported.files.values()) == ["a.yaml", "b.yaml"]


def test_one_file_repeats_nothing(files: Callable[..., list[Path]]) -> None:
    imported = read_files(files(text((STEM, 1.0, 30))), "ofa-yaml")
    assert (imported.repeated, imported.largest_difference, imported.most_different) == (0, 0.0, None)


def test_files_that_cannot_be_read(files: Callable[..., list[Path]], tmp_path: Path) -> None:
    [path, copy] = files(text((STEM, 1.0, 30)), text((STEM, 1.0, 30)))
    with pytest.raises(InvalidValue, match=r"a.yaml and b.yaml are the same file"):
        read_files([path, copy], "ofa-yaml")
    with pytest.raises(TableError, match=r"cannot read .*none.yaml: No such file"):
        read_files([path, tmp_path / "none.yaml"], "ofa-yaml")
    with pytest.raises(TableError, match=r"cannot read .*: Is a directory"):
        read_files([tmp_path], "ofa-yaml")
    with pytest.raises(UnknownName, match=r"unknown format of latency tables 'ofa-yml'. Did you mean 'ofa-yaml'"):
        read_files([path], "ofa-yml")


# -- imported tables -------------------------------------------------------------------------------------------


def as_imported(table: LatencyTable) -> LatencyTable:
    """A made-up table as if it had been imported."""
    return LatencyTable(
        target=table.target, rows=table.rows, manifest=table.manifest.model_copy(update={"origin": "imported"})
    )


def test_a_table_is_added_to_or_begun(files: Callable[..., list[Path]], elsewhere: Target, tmp_path: Path) -> None:
    paths = files(text((STEM, 1.0, 30), (FIRST, 0.2, 5)), text((STEM, 2.0, 10), (HEAD, 0.3, 7)))
    one = write_table(imported_table(read_files(paths[:1], "ofa-yaml"), elsewhere), tmp_path / "t.csv")
    two = imported_table(read_files(paths[1:], "ofa-yaml"), elsewhere, read_table(elsewhere, tmp_path / "t.csv"))
    assert one.manifest.origin == "imported"
    assert one.manifest.measurement["statistic"] == "mean"
    assert one.manifest.measurement["imported_from"] == "ofa-yaml"
    rows = {key.split()[0] + key.split()[1]: row for key, row in two.rows.items()}
    assert len(rows) == 3
    assert rows["conv3x160x160>24x80x80"] == Row(latency_ms_p25=2.0, latency_ms_p50=2.0, latency_ms_p90=2.0, samples=10)
    assert two.manifest.measurement["files"] == 2
    hashes = {key: name for key, name in two.manifest.measurement.items() if key.startswith("sha256-")}
    assert sorted(hashes.values()) == ["a.yaml", "b.yaml"]
    assert all(len(key) == len("sha256-") + 64 for key in hashes)


def test_imported_and_measured_rows_are_never_mixed(
    files: Callable[..., list[Path]],
    this: Target,
    space: Space,
    make_table: Callable[..., LatencyTable],
    tmp_path: Path,
) -> None:
    imported = read_files(files(text((STEM, 1.0, 30))), "ofa-yaml")
    measured = make_table(space, this)
    with pytest.raises(TableMismatch, match=r"was measured; imported rows cannot be added .*--replace"):
        imported_table(imported, this, measured)
    with pytest.raises(TableMismatch, match=r"was imported; measured rows cannot be added"):
        profile(space, this, journals=tmp_path, old=as_imported(measured))


def test_the_model_is_the_plain_sum_and_has_no_upper_bound(
    space: Space, this: Target, make_table: Callable[..., LatencyTable]
) -> None:
    measured = make_table(space, this)
    with pytest.raises(TableError, match="no context terms"):
        load_model(measured, space)
    model = load_model(as_imported(measured), space)
    assert model.fit is None
    codes = space.sample(10, seed=0)
    for arch, ms in zip(space.decode(codes), model.predict(codes), strict=True):
        assert ms == pytest.approx(sum(measured.latency_ms(op) for _, op in space.ops(arch)))
    for refused in (model.margin, lambda: model.predict_upper(codes)):
        with pytest.raises(TableError, match=r"were imported and never calibrated .*no upper bound.*--no-margin"):
            refused()
    with pytest.raises(InvalidValue):
        model.margin(2.0)
    with pytest.raises(TableError, match=r"were imported and never calibrated .* nothing to hold"):
        validate(model, this)


def test_a_search_without_a_margin(space: Space, this: Target, make_table: Callable[..., LatencyTable]) -> None:
    model = load_model(as_imported(make_table(space, this)), space)
    [budget] = model.predict(space.encode([space.smallest]))
    problem = Problem(
        space=space,
        accuracy=space.macs,
        objectives=(latency_objective(model),),
        budgets={model.target: float(budget)},
        confidence=None,
    )
    with pytest.raises(TableError, match="--no-margin"):
        check_feasible(replace(problem, confidence=0.99))
    assert solve(problem).candidates[0].arch == space.smallest
    with pytest.raises(InfeasibleBudget, match=r"\(without a margin\)"):
        check_feasible(replace(problem, budgets={model.target: float(budget) * 0.9}))


def test_a_missing_op_is_imported_and_not_measured(
    files: Callable[..., list[Path]], elsewhere: Target, space: Space
) -> None:
    table = imported_table(read_files(files(text((STEM, 1.0, 30))), "ofa-yaml"), elsewhere)
    for refused in (lambda: load_model(table, space), lambda: table.latency_ms(space.distinct_ops[0])):
        with pytest.raises(
            MissingOp,
            match=r"was imported\. If .* another width, .*`hwnas tables import` and --target board/made-up",
        ):
            refused()


# -- a phone ---------------------------------------------------------------------------------------------------


def note10_file(resolution: int) -> Path:
    return NOTE10 / f"{resolution}_lookup_table.yaml"


@needs_note10
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_each_file_of_the_note10(resolution: int, elsewhere: Target, tmp_path: Path) -> None:
    imported = read_files([note10_file(resolution)], "ofa-yaml")
    assert len(imported.means) == 94  # of 96 rows, of which three are the classifier
    write_table(imported_table(imported, elsewhere), tmp_path / "t.csv")
    space = make_space("mobilenetv3-w1.2").fix(resolution=resolution)
    model = load_model(read_table(elsewhere, tmp_path / "t.csv"), space)
    smallest, largest = model.predict(space.encode([space.smallest, space.largest]))
    assert 9 < smallest < largest < 93
    if resolution == 160:
        assert smallest == pytest.approx(9.890, abs=1e-3)
    if resolution == 224:
        assert largest == pytest.approx(92.398, abs=1e-3)


@needs_note10
def test_all_files_of_the_note10_together(elsewhere: Target, tmp_path: Path) -> None:
    imported = read_files([note10_file(resolution) for resolution in RESOLUTIONS], "ofa-yaml")
    # Ops of the last stages, whose sides are the same at several resolutions, are timed anew in each file.
    assert imported.repeated > 300
    assert imported.largest_difference < 0.03
    write_table(imported_table(imported, elsewhere), tmp_path / "t.csv")
    space = make_space("mobilenetv3-w1.2").fix(resolution=RESOLUTIONS)
    model = load_model(read_table(elsewhere, tmp_path / "t.csv"), space)
    smallest, largest = model.predict(space.encode([space.smallest, space.largest]))
    assert smallest == pytest.approx(9.890, rel=0.01)
    assert largest == pytest.approx(92.398, rel=0.01)
