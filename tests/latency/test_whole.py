"""Files of whole-network latencies, and what is wrong with them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import InvalidValue, TableError
from hwnas.latency.whole import failed_rows, networks_csv, read_networks
from hwnas.spaces import Codes, Space, make_space, notation_of

OTHER = "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"


@pytest.fixture
def codes(space: Space) -> Codes:
    return np.unique(space.sample(40, seed=1), axis=0)[:6]


def written(path: Path, space: Space, codes: Codes, times: list[object]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("arch", "latency_ms"))
        writer.writerows((json.dumps(dict(arch)), ms) for arch, ms in zip(space.decode(codes), times, strict=True))
    return path


def test_archs_as_values(space: Space, codes: Codes, tmp_path: Path) -> None:
    found = read_networks(written(tmp_path / "m.csv", space, codes, [1.5, 2, 3, 4, 5, 6]), space)
    np.testing.assert_array_equal(found.codes, codes)
    assert found.latency_ms.tolist() == [1.5, 2, 3, 4, 5, 6]
    assert (found.repeated, found.disagreement) == (0, 0)


def test_cells_of_nasbench201(tmp_path: Path) -> None:
    space = make_space("nasbench201")
    path = tmp_path / "m.csv"
    path.write_text(f"arch,gpu_1,gpu_32\n{CELL},3.5,8\n{OTHER},7,9\n")
    found = read_networks(path, space, "gpu_1")
    assert found.latency_ms.tolist() == [3.5, 7]
    assert found.codes.tolist() == [[0, 4, 0, 1, 2, 3, 1], [0, 4, 4, 1, 2, 3, 1]]


def test_numbers_of_fbnet(tmp_path: Path) -> None:
    space = make_space("fbnet")
    path = tmp_path / "m.csv"
    numbers = "7 8 1 8 4 8 8 8 7 4 1 4 7 3 2 7 3 2 4 2 4 5"
    path.write_text(f"arch,phone\n{numbers},11\n{numbers[:-1]}0,12\n")
    found = read_networks(path, space)
    assert [notation_of(arch) for arch in space.decode(found.codes)] == [numbers, f"{numbers[:-1]}0"]


def test_a_form_to_fill_in_is_read_back(space: Space, codes: Codes, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    filled = networks_csv(space, codes).splitlines()
    path.write_text("\n".join([filled[0], *(line + str(i + 1) for i, line in enumerate(filled[1:]))]))
    found = read_networks(path, space)
    np.testing.assert_array_equal(found.codes, codes)
    assert found.latency_ms.tolist() == [1, 2, 3, 4, 5, 6]


def test_repeated_measurements_that_agree_are_one(space: Space, codes: Codes, tmp_path: Path) -> None:
    twice = np.concatenate([codes, codes[:1]])
    found = read_networks(written(tmp_path / "m.csv", space, twice, [1.0, 2, 3, 4, 5, 6, 1.04]), space)
    assert found.latency_ms[0] == pytest.approx(1.02)
    assert (len(found), found.repeated) == (6, 1)
    assert found.disagreement == pytest.approx(0.04)


def test_repeated_measurements_that_disagree(space: Space, codes: Codes, tmp_path: Path) -> None:
    twice = np.concatenate([codes, codes[:1]])
    with pytest.raises(InvalidValue, match=r"differ by 50%, from 1 to 1.5 ms; at most 10%"):
        read_networks(written(tmp_path / "m.csv", space, twice, [1.0, 2, 3, 4, 5, 6, 1.5]), space)


def test_a_constant_column(space: Space, codes: Codes, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="all 6 latencies are 2 ms"):
        read_networks(written(tmp_path / "m.csv", space, codes, [2] * 6), space)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "", "fast"])
def test_a_latency_that_is_none(space: Space, codes: Codes, tmp_path: Path, text: str) -> None:
    with pytest.raises(TableError, match=r"line 3: the latency is .*positive number of milliseconds"):
        read_networks(written(tmp_path / "m.csv", space, codes, [1, text, 3, 4, 5, 6]), space)


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "seconds"), (1e3, "microseconds")])
def test_another_unit(factor: float, unit: str, tmp_path: Path) -> None:
    space = make_space("nasbench201")
    path = tmp_path / "m.csv"
    fast = {"seconds": 0.05, "microseconds": 1_000.0}[unit]  # milliseconds of a fast GPU, and of a slow controller
    path.write_text(f"arch,latency_ms\n{CELL},{fast * factor}\n{OTHER},{fast * factor * 0.9}\n")
    with pytest.raises(InvalidValue, match=f"the unit looks like {unit}"):
        read_networks(path, space)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("network,ms\nx,1\n", "one should be arch"),
        ("arch,a,b\nx,1,2\n", "choose the latencies with --column, one of: a, b"),
        ("arch\nx\n", "0 columns beside arch"),
        ("arch,latency_ms\n", "has no rows"),
        ("", "is empty; it should be a CSV file with the columns arch and latency_ms"),
        ("arch,latency_ms\n5,3\n", "line 2: '5' is not a network of nasbench201"),
        ("arch,latency_ms\nnull,3\n", "line 2: 'null' is not a network"),
        ('arch,latency_ms\n"{""arch"": 5}",3\n', "line 2: .* is not a network"),
        ('arch,latency_ms\n"{""arch"": null}",3\n', "line 2: .* is not a network"),
        ('arch,latency_ms\n"{""a"":' + "[" * 100_000 + '",3\n', "it is nested too deep"),
        ("arch,latency_ms\n1 2,3\n", "line 2: '1 2' is not a network of nasbench201"),
        ("arch,latency_ms\n|x~0|,3\n", "is not a network of nasbench201"),
        ('arch,latency_ms\n"{""a"": 1}",3\n', "is not a network of nasbench201"),
        ("arch,latency_ms\nx\n", "1 cells; the header has 2"),
    ],
)
def test_files_that_are_no_measurements(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(TableError, match=message.replace("|", r"\|")):
        read_networks(path, make_space("nasbench201"))
    with pytest.raises(TableError, match="cannot read"):
        read_networks(tmp_path / "none.csv", make_space("nasbench201"))


def test_files_of_spreadsheets(space: Space, codes: Codes, tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", space, codes, [1, 2, 3, 4, 5, 6])
    padded = path.read_text().replace('"{', '" {').replace('}"', '} "')
    path.write_text(padded + " , \n", encoding="utf-8-sig")
    np.testing.assert_array_equal(read_networks(path, space).codes, codes)


def test_failed_measurements_are_found() -> None:
    expected = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    measured = 7 * expected * np.array([1.0, 1.1, 0.0003, 0.9, 1.2])
    assert failed_rows(measured, expected).tolist() == [False, False, True, False, False]
