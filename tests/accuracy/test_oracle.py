"""A benchmark's table as an accuracy: a made-up one, of accuracies that a function of the cells gives."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from hwnas.accuracy import BenchmarkTable, Oracle, read_benchmark
from hwnas.errors import DataError, InfeasibleBudget, InvalidValue, UnknownName
from hwnas.search import STRATEGIES, Problem, resource, solve
from hwnas.search.problem import Constraints
from hwnas.spaces import Arch, make_space
from hwnas.spaces.nasbench201 import EDGES, OPERATIONS, nasbench201_string

SPACE = make_space("nasbench201")
HEURISTICS = [name for name in STRATEGIES if name not in ("exact", "milp")]
ALL = np.array(list(itertools.product([0], *[range(len(OPERATIONS))] * len(EDGES))), np.uint8)
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "nasbench201_oracle.py"
spec = importlib.util.spec_from_file_location("nasbench201_oracle", SCRIPT)
assert spec
assert spec.loader
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
CONV = NONE.replace("|none~0|+", "|nor_conv_3x3~0|+", 1)
SKIP = NONE.replace("|none~0|+", "|skip_connect~0|+", 1)


def made_up(
    codes: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Accuracies in percent: edges help each other, and the last two convolutions hinder."""
    edges = codes[:, 1:].astype(float)
    ways = edges[:, 0] * edges[:, 2] * edges[:, 5] + edges[:, 1] * edges[:, 5] + 3 * edges[:, 3]
    return 10 + 80 * (1 - np.exp(-ways / 30)) - 0.5 * (edges[:, 4] - 2) ** 2


def written(path: Path, rows: list[tuple[str, ...]], header: str = "arch,valid") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkTable:
    values = made_up(ALL)
    rows = [
        (nasbench201_string(arch), f"{value:.4f}", f"{value / 100 - 0.01:.6f}")
        for arch, value in zip(SPACE.decode(ALL), values.tolist(), strict=True)
    ]
    return read_benchmark(written(tmp_path_factory.mktemp("table") / "nb.csv", rows, "arch,valid,test"))


def arch_of(**edges: int) -> Arch:
    return SPACE.arch({v.name: v.values[0] for v in SPACE.variables} | edges)


# -- reading -------------------------------------------------------------------------------------------------------


def test_percent_and_fractions(table: BenchmarkTable) -> None:
    assert table.codes.tolist() == ALL.tolist()
    np.testing.assert_allclose(table.column("valid"), made_up(ALL) / 100, atol=1e-6)
    np.testing.assert_allclose(table.column("test"), made_up(ALL) / 100 - 0.01, atol=1e-6)


def test_a_column_below_one_percent_in_places_is_still_in_percent(tmp_path: Path) -> None:
    found = read_benchmark(written(tmp_path / "t.csv", [(NONE, "0.83"), (CONV, "41.5")]))
    assert found.column().tolist() == [0.0083, 0.415]
    found = read_benchmark(written(tmp_path / "t.csv", [(NONE, "0.83"), (CONV, "1")]))
    assert found.column().tolist() == [0.83, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"first line should have 'arch' and distinct names of accuracies, .* not ''"),
        ("arch\n", r"first line should have 'arch' and distinct names of accuracies"),
        ("cell,valid\n", r"not 'cell,valid'"),
        ("arch,valid,valid\n", r"distinct names"),
        ("arch, \n", r"first line should have 'arch'"),
        ("arch,valid\n", r"has no networks below its first line"),
        (f"arch,valid\n{NONE},10\n{CONV}\n", r"t\.csv, line 3: 1 values, but 2 columns"),
        (f"arch,valid\n{NONE},10,11\n", r"t\.csv, line 2: 3 values, but 2 columns"),
        (f"arch,valid\n\n{NONE[:-1]},10\n", r"t\.csv, line 3: .* does not parse: at position 46 '\|' is expected"),
        (f"arch,valid\n{NONE},10\n{CONV},20\n{NONE},30\n", r"t\.csv, line 4: .* is a duplicate of line 2"),
        *(
            (
                f"arch,valid\n{NONE},10\n{CONV},{wrong}\n",
                rf"t\.csv, line 3: valid is '{wrong}'; an accuracy should be from 0 to 1",
            )
            for wrong in ("", "high", "nan", "inf", "-0.1", "100.5")
        ),
    ],
)
def test_a_bad_table_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_benchmark(tmp_path / "t.csv")


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_benchmark(tmp_path / "missing.csv")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_benchmark(tmp_path / "binary")


def test_a_column_is_named_where_there_are_several(table: BenchmarkTable) -> None:
    for name in (None, "vald"):
        with pytest.raises(UnknownName, match=r"unknown column of .*nb\.csv .*Known: valid, test"):
            Oracle(table, SPACE, column=name)


# -- counting ------------------------------------------------------------------------------------------------------


def test_different_networks_are_counted_and_the_best_so_far_kept(tmp_path: Path) -> None:
    small = read_benchmark(written(tmp_path / "t.csv", [(NONE, "10"), (SKIP, "30"), (CONV, "20")]))
    none, skip, conv = SPACE.encode([arch_of(), arch_of(edge_0_1=1), arch_of(edge_0_1=4)])
    oracle = Oracle(small, SPACE)
    assert (oracle.best, oracle.best_arch, oracle.evaluations) == (0.3, arch_of(edge_0_1=1), 0)
    assert len(oracle.regret) == 0
    assert oracle(np.stack([conv, none, conv])).tolist() == [0.2, 0.1, 0.2]
    assert oracle(none[None]).tolist() == [0.1]
    assert oracle.evaluations == 2
    assert oracle(np.stack([skip, none])).tolist() == [0.3, 0.1]
    assert oracle.best_so_far.tolist() == [0.2, 0.2, 0.3]
    assert oracle.regret == pytest.approx([0.1, 0.1, 0.0])


def test_networks_above_the_budgets_are_counted_but_never_the_best(tmp_path: Path) -> None:
    small = read_benchmark(written(tmp_path / "t.csv", [(NONE, "10"), (SKIP, "20"), (CONV, "30")]))
    none, skip, conv = SPACE.encode([arch_of(), arch_of(edge_0_1=1), arch_of(edge_0_1=4)])
    oracle = Oracle(small, SPACE, within=lambda codes: codes[:, 1] < 4)
    assert (oracle.best, oracle.best_arch) == (0.2, arch_of(edge_0_1=1))
    assert oracle(np.stack([conv, none, skip])).tolist() == [0.3, 0.1, 0.2]
    assert oracle.best_so_far.tolist() == pytest.approx([np.nan, 0.1, 0.2], nan_ok=True)
    with pytest.raises(InfeasibleBudget, match=r"none of the 3 networks of .*t\.csv is within the budgets"):
        Oracle(small, SPACE, within=lambda codes: np.zeros(len(codes), bool))


def test_a_missing_network_is_named(tmp_path: Path) -> None:
    oracle = Oracle(read_benchmark(written(tmp_path / "t.csv", [(NONE, "10"), (SKIP, "20")])), SPACE)
    with pytest.raises(DataError) as error:
        oracle(SPACE.encode([arch_of(), arch_of(edge_0_1=4)]))
    assert f"has no accuracy of {CONV}. It has 2 of the 15625 networks of nasbench201" in str(error.value)


def test_restricted_and_smaller_spaces(table: BenchmarkTable) -> None:
    part = SPACE.fix(edge_0_1=[1, 3], edge_2_3=4)
    codes = part.sample(50, seed=0)
    whole = SPACE.encode(part.decode(codes))
    found = Oracle(table, part, column="valid")
    assert found(codes).tolist() == Oracle(table, SPACE, column="valid")(whole).tolist()
    assert set(found.best_arch.items()) >= {("edge_2_3", 4)}
    tiny = make_space("nasbench201-tiny")
    assert Oracle(table, tiny, column="valid").best == Oracle(table, SPACE, column="valid").best
    with pytest.raises(InvalidValue, match="darts-tiny has no NAS-Bench-201 cells"):
        Oracle(table, make_space("darts-tiny"), column="valid")


def test_a_table_without_a_network_of_the_space(tmp_path: Path) -> None:
    small = read_benchmark(written(tmp_path / "t.csv", [(NONE, "10")]))
    with pytest.raises(InvalidValue, match="has no network of nasbench201 under these restrictions"):
        Oracle(small, SPACE.fix(edge_0_1=4))


# -- searching -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", HEURISTICS)
def test_every_strategy_searches_a_table(strategy: str, table: BenchmarkTable) -> None:
    macs = resource(SPACE, "macs")
    budget = 0.4 * float(macs.total(ALL).max())
    wanted = Constraints(space=SPACE, objectives=(macs,), budgets={"macs": budget})
    oracle = Oracle(table, SPACE, column="valid", within=lambda codes: wanted.excess(codes) == 0)
    assert oracle.best == pytest.approx(made_up(ALL)[wanted.excess(ALL) == 0].max() / 100, abs=1e-6)
    found = solve(Problem.of(wanted, accuracy=oracle, seed=2), strategy, candidates=1, evaluations=500)
    assert found.evaluations == 500
    assert 100 < oracle.evaluations <= 500
    curve = oracle.regret
    assert len(curve) == oracle.evaluations
    kept = curve[~np.isnan(curve)]
    assert (np.diff(kept) <= 0).all()
    assert (kept >= 0).all()
    # What the search gives is what the curve ends with.
    assert found.candidates[0].predicted_accuracy == oracle.best_so_far[-1]


def test_a_few_evaluations_are_not_all_spent_on_the_first_population(table: BenchmarkTable) -> None:
    def ends(strategy: str) -> float:
        regrets = []
        for seed in range(8):
            oracle = Oracle(table, SPACE, column="valid")
            problem = Problem(space=SPACE, accuracy=oracle, objectives=(resource(SPACE, "macs"),), seed=seed)
            solve(problem, strategy, candidates=1, evaluations=300)
            regrets.append(oracle.regret[-1])
        return float(np.mean(regrets))

    assert ends("evolution") < 0.5 * ends("random")


def test_a_sum_over_slots_is_needed_elsewhere(table: BenchmarkTable) -> None:
    oracle = Oracle(table, SPACE, column="valid")
    problem = Problem(space=SPACE, accuracy=oracle, objectives=(resource(SPACE, "macs"),))
    with pytest.raises(InvalidValue, match="exact search needs an accuracy that is a sum over slots"):
        solve(problem, "exact")


def test_the_script_prints_regrets(table: BenchmarkTable, capsys: pytest.CaptureFixture[str]) -> None:
    script.main([str(table.path), "--column", "valid", "--budget", "macs=40%", "--evaluations", "120", "--seeds", "3"])
    first, _, header, rule, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("Best of the table within the budgets: ")
    assert first.endswith("Median regret over 3 seeds, in points:")
    assert header == "| strategy | 50 | 100 | 120 | different networks |"
    assert rule == "|---|---:|---:|---:|---:|"
    assert [row.split(" | ")[0] for row in rows] == [f"| `{name}`" for name in HEURISTICS]
    for row in rows:
        *regrets, networks = (float(cell) for cell in row.strip("| ").split(" | ")[1:])
        assert regrets == sorted(regrets, reverse=True)
        assert 0 <= regrets[-1] < 30
        assert 0 < networks <= 120


@pytest.mark.long
def test_the_script_says_what_is_wrong(table: BenchmarkTable, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["missing.csv"], "cannot be read as CSV"),
        ([str(table.path)], "unknown column of"),
        ([str(table.path), "--column", "valid", "--budget", "macs=1"], "no network of nasbench201 is within"),
    ):
        with pytest.raises(SystemExit, match=message):
            script.main(arguments)
    with pytest.raises(SystemExit):
        script.main([str(table.path), "--target", "this/onnxruntime-cpu-fp32"])
    assert "--target is for a budget" in capsys.readouterr().err
