"""Kernels, their regression, and the sum over a network."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import InvalidValue, TableCorrupt, TableError, TableMismatch
from hwnas.latency.kernels import Kernel, KernelModel, KernelTable, kernel_of, load_kernels, parse_kernel
from hwnas.latency.kernels.bound import fitted_bound, spread_of, spreads_of
from hwnas.latency.kernels.model import judged, unknown_factor
from hwnas.latency.kernels.regression import KindRegression, _broadcast, features
from hwnas.latency.kernels.table import KernelNetwork, KernelRow, kernel_path, read_kernels, write_kernels
from hwnas.runner.program import Layer
from hwnas.targets import Target

CONV = Kernel("Conv", ((1, 16, 32, 32), (24, 16, 3, 3)), ((1, 24, 32, 32),))


def conv(rng: np.random.Generator) -> Kernel:
    side, given, made, kernel = (
        int(rng.choice(of)) for of in ((7, 14, 28, 56), range(8, 257), range(8, 257), (1, 3, 5))
    )
    return Kernel("Conv", ((1, given, side, side), (made, given, kernel, kernel)), ((1, made, side, side),))


def act(rng: np.random.Generator) -> Kernel:
    shape = (1, int(rng.integers(8, 257)), int(rng.choice((7, 14, 28, 56))), 32)
    return Kernel("Relu", (shape,), (shape,))


def law_ms(kernel: Kernel) -> float:
    """A device: a call, work with a penalty for channels that do not fill a vector, and bytes."""
    waste = 1.0 if kernel.outputs[0][1] % 16 == 0 else 1.4
    return 0.004 + (kernel.macs or 0) * waste / 4e7 + kernel.bytes / 8e6


def network(rng: np.random.Generator, layers: int) -> list[Kernel]:
    return [one for _ in range(layers) for one in (conv(rng), act(rng))]


def measured(count: int = 40, *, seed: int = 0) -> tuple[list[KernelRow], list[KernelNetwork]]:
    """Rows and networks on that device, with a cost of 2 µs between kernels."""
    rng = np.random.default_rng(seed)
    networks = [network(rng, int(rng.integers(5, 12))) for _ in range(count)]
    kernels = list(dict.fromkeys(kernel for one in networks for kernel in one))
    rows = [KernelRow(kernel=kernel.key, ms=law_ms(kernel) * rng.normal(1, 0.02), count=1) for kernel in kernels]
    whole = [
        KernelNetwork(
            name=str(i), ms=sum(map(law_ms, one)) + 0.002 * len(one), kernels=[kernels.index(kernel) for kernel in one]
        )
        for i, one in enumerate(networks)
    ]
    return rows, whole


@pytest.fixture(scope="module")
def rows_and_networks() -> tuple[list[KernelRow], list[KernelNetwork]]:
    return measured()


@pytest.fixture(scope="module")
def table(rows_and_networks: tuple[list[KernelRow], list[KernelNetwork]], this: Target) -> KernelTable:
    rows, networks = rows_and_networks
    judgement = judged(rows, networks)
    return KernelTable(
        device=this.device.name,
        recipe=this.recipe.name,
        device_fingerprint="",
        recipe_hash=this.recipe.hash,
        date="2026-01-01",
        host={},
        versions={},
        measurement={},
        profiler_ms=0.001,
        references={"reference 0": 1.0},
        rows=rows,
        networks=networks,
        errors=judgement.errors,
        spreads=judgement.spreads,
        kind_spreads=judgement.kind_spreads,
        unknown_factor=unknown_factor(rows),
        validation=judgement.validation,
    )


@pytest.mark.parametrize(
    "kernel",
    [
        CONV,
        Kernel("Reshape", ((1, 4), ()), ((4, 1),)),
        Kernel("Constant", (), ((3,),)),
        Kernel("Split", ((4,),), ((2,), (2,))),
        Kernel("Conv", ((1, 4), ()), ((4, 1),), "activation=Relu"),
        Kernel("Subgraph", ((1, 4),), ((1, 4),), "Add,Multiply"),
    ],
)
def test_a_key_has_all_of_a_kernel(kernel: Kernel) -> None:
    assert parse_kernel(kernel.key) == kernel


def test_a_runtime_s_name_of_a_fused_kernel_is_its_kind_and_variant() -> None:
    kernel = kernel_of(Layer(name="a", kind="conv + relu", ms=1.0, inputs=((1, 4),), outputs=((1, 4),)))
    assert (kernel.kind, kernel.variant) == ("conv", "relu")
    assert parse_kernel(kernel.key) == kernel


@pytest.mark.parametrize("key", ["", "Conv", "Conv 1x3", "Conv 1xa > 1", "Conv 1x3 >1x3", "> > >"])
def test_a_key_of_another_form(key: str) -> None:
    with pytest.raises(InvalidValue, match="is not a kernel"):
        parse_kernel(key)


@pytest.mark.parametrize(
    ("kernel", "macs"),
    [
        (CONV, 24 * 32 * 32 * 16 * 9),
        (Kernel("Conv", ((1, 32, 8, 8), (32, 1, 5, 5)), ((1, 32, 8, 8),)), 32 * 64 * 25),
        (Kernel("GroupConvolution", ((1, 32, 8, 8), (32, 1, 1, 5, 5)), ((1, 32, 8, 8),)), 32 * 64 * 25),
        (Kernel("GroupConvolution", ((1, 32, 8, 8), (4, 6, 8, 3, 3)), ((1, 24, 8, 8),)), 24 * 64 * 8 * 9),
        (Kernel("QLinearConv", ((1, 16, 8, 8), (), (), (8, 16, 1, 1), (8,)), ((1, 8, 8, 8),)), 8 * 64 * 16),
        (Kernel("Gemm", ((197, 192), (576,)), ((197, 576),)), 197 * 192 * 576),
        (Kernel("FusedMatMul", ((1, 3, 10, 64), (1, 3, 10, 64)), ((1, 3, 10, 10),)), 300 * 64),
        (Kernel("Subgraph", ((1, 3, 9, 64), (1, 3, 64, 9)), ((1, 9, 3, 64),), "MatMul,Softmax,MatMul"), 2 * 81 * 192),
        (Kernel("Subgraph", ((1, 8),), ((1, 8),), "Add"), None),
        (Kernel("Relu", ((1, 8),), ((1, 8),)), None),
    ],
)
def test_work_of_kernels(kernel: Kernel, macs: int | None) -> None:
    assert kernel.macs == macs


def test_all_kernels_have_the_same_number_of_features() -> None:
    kernels = [
        CONV,
        Kernel("Conv", ((1, 16, 100), (24, 16, 3)), ((1, 24, 98),)),
        Kernel("GroupConvolution", ((1, 32, 8, 8), (4, 6, 8, 3, 3)), ((1, 24, 8, 8),)),
        Kernel("Add", ((), (3, 4)), ((3, 4),)),
        Kernel("Constant", (), ((),)),
        Kernel("Odd", (), ()),
        Kernel("Transpose", ((1, 2, 3, 4, 5, 6, 7),), ((7, 6, 5, 4, 3, 2, 1),)),
    ]
    assert {len(features(kernel)) for kernel in kernels} == {len(features(CONV))}
    assert all(np.isfinite(features(kernel)).all() for kernel in kernels)


def test_a_law_of_shapes_is_learned() -> None:
    rng = np.random.default_rng(1)
    seen, new = [conv(rng) for _ in range(1500)], [conv(rng) for _ in range(300)]
    found = KindRegression(seen, np.array([*map(law_ms, seen)]), np.ones(1500))
    off = np.abs(found.predict(new) / [law_ms(kernel) for kernel in new] - 1)
    assert off.mean() < 0.06
    few = KindRegression(seen[:20], np.array([*map(law_ms, seen[:20])]), np.ones(20))
    assert np.abs(few.predict(new) / [law_ms(kernel) for kernel in new] - 1).mean() < 0.25


def test_variants_are_told_apart_and_share_what_is_common() -> None:
    def drawn(rng: np.random.Generator) -> Kernel:
        bare = conv(rng)
        return Kernel(bare.kind, bare.inputs, bare.outputs, str(rng.choice(("activation=Relu", "activation=Clip"))))

    def ms(kernel: Kernel) -> float:
        return law_ms(kernel) * (1.3 if "Clip" in kernel.variant else 1.0)

    rng = np.random.default_rng(2)
    known, new = [drawn(rng) for _ in range(600)], [drawn(rng) for _ in range(100)]
    model = KindRegression(known, np.array([ms(kernel) for kernel in known]), np.ones(600))
    off = np.abs(model.predict(new) / [ms(kernel) for kernel in new] - 1)
    blind = [Kernel(kernel.kind, kernel.inputs, kernel.outputs) for kernel in known]
    other = KindRegression(blind, np.array([ms(kernel) for kernel in known]), np.ones(600))
    off_blind = np.abs(other.predict(new) / [ms(kernel) for kernel in new] - 1)
    assert off.mean() < 0.6 * off_blind.mean()
    unseen = [Kernel(kernel.kind, kernel.inputs, kernel.outputs, "activation=Other") for kernel in new]
    assert np.isfinite(model.predict(unseen)).all()


def test_a_rare_variant_of_a_hundredfold_cost_is_learned_from_a_few() -> None:
    def resize(mode: str, rng: np.random.Generator) -> Kernel:
        channels, side = int(rng.integers(3, 120)), int(rng.integers(5, 100))
        shapes = ((1, channels, side, side), (4,)), ((1, channels, 2 * side, 2 * side),)
        return Kernel("Resize", *shapes, f"mode={mode}")

    def ms(kernel: Kernel) -> float:
        return 0.01 + np.prod(kernel.outputs[0]) * (1e-4 if "cubic" in kernel.variant else 1e-6)

    rng = np.random.default_rng(3)
    known = [resize("nearest", rng) for _ in range(50)] + [resize("cubic", rng) for _ in range(8)]
    new = [resize("cubic", rng) for _ in range(50)]
    found = KindRegression(known, np.array([*map(ms, known)]), np.ones(len(known))).predict(new)
    assert np.abs(found / [*map(ms, new)] - 1).mean() < 0.2


@pytest.mark.parametrize(
    ("key", "simplest"),
    [
        ("Transpose+perm=0.2.1 1x196x384 > 1x384x196", "Transpose+perm=1.0 196x384 > 384x196"),
        # In one step, with the axis of q, k and v of size 1: two axes move.
        (
            "Transpose+perm=2.0.3.4.1 1x1024x1x8x12 > 1x1x8x12x1024",
            "Transpose+perm=1.0,axes=several 1024x96 > 96x1024",
        ),
        # Two axes that stay adjacent move as one.
        ("Transpose+perm=0.3.4.1.2 1x56x56x2x128 > 1x2x128x56x56", "Transpose+perm=1.0 3136x256 > 256x3136"),
        (
            "Resize+mode=cubic 1x3x240x240;4 > 1x3x224x224",
            "Resize+mode=cubic,fraction=cubic 1x3x240x240;4 > 1x3x224x224",
        ),
        ("Resize+mode=cubic 1x8x12x12;4 > 1x8x24x24", "Resize+mode=cubic 1x8x12x12;4 > 1x8x24x24"),
        ("Resize+mode=cubic 1x12x12x8;4 > 1x24x24x8", "Resize+mode=cubic-last 1x12x12x8;4 > 1x24x24x8"),
        (
            "Interpolate+mode=nearest,Relu 1x8x12x12;4 > 1x8x24x24",
            "Interpolate+mode=nearest,Relu 1x8x12x12;4 > 1x8x24x24",
        ),
        ("Resize+mode=cubic 1x8x12x12;4 > 1x8x12x12", "Resize+copy 1x8x12x12;4 > 1x8x12x12"),
        ("Cast 1x8x12x12 > 1x8x12x12", "Cast 1x8x12x12 > 1x8x12x12"),
    ],
)
def test_the_form_of_which_a_latency_is_learned(key: str, simplest: str) -> None:
    assert parse_kernel(key).simplest.key == simplest


@pytest.mark.parametrize(
    ("key", "axis"),
    [
        ("QLinearConv 1x160x160x3;s;s;80x3x7x7 > 1x80x80x80", -1),  # as many channels as rows
        ("Conv 1x3x160x160;80x3x7x7 > 1x80x80x80", 1),
        ("QLinearConv 1x64x64x48;s;s;96x1x7x7 > 1x32x32x96", -1),
        ("Conv 1x48x64x64;96x1x7x7 > 1x96x32x32", 1),
        ("Convolution 1x64x28x28;4x16x16x3x3 > 1x64x28x28", 1),  # OpenVINO's weights of groups
    ],
)
def test_where_the_channels_of_a_convolution_are(key: str, axis: int) -> None:
    assert parse_kernel(key).channel_axis == axis


def test_products_of_rows_that_do_not_fill_registers() -> None:
    """Rows of 196 elements take as long as rows of 256: other sizes are predicted by that."""

    def product(length: int) -> Kernel:
        return Kernel("QLinearMatMul", ((1, 96, length), (length, 64)), ((1, 96, 64),))

    assert features(product(192))[-1] == 1.0
    assert features(product(196))[-1] == pytest.approx(256 / 196)
    assert features(CONV)[-1] == 1.0


@pytest.mark.parametrize(
    ("order", "together"), [("0.1.2.3", 2 * 3 * 4 * 5), ("0.2.1.3", 5), ("1.0.2.3", 20), ("0.1.3.2", 1)]
)
def test_a_transpose_copies_the_last_axes_that_stay(order: str, together: int) -> None:
    shape = (2, 3, 4, 5)
    kernel = Kernel("Transpose", (shape,), (tuple(shape[int(i)] for i in order.split(".")),), f"perm={order}")
    assert features(kernel)[-3] == pytest.approx(np.log1p(together))


@pytest.mark.parametrize(
    ("shapes", "outputs"),
    [
        ("1x196x196x4;s;s;4;s;s > 1x196x196x4", 4),
        ("1x196x192;192 > 1x196x192", 192),
        ("1x256x56x56;1x256x1x1 > 1x256x56x56", 56 * 56),
        ("1x56x56x256;1x1x1x256 > 1x56x56x256", 256),
        ("1x64x9;1x64x9 > 1x64x9", 64 * 9),
        ("1x64x9;s > 1x64x9", 64 * 9),
        ("1x56x56x256;2 > 1x1x1x256", 256),  # axes of a mean
    ],
)
def test_how_long_a_broadcast_reads_its_inputs_in_a_row(shapes: str, outputs: int) -> None:
    assert _broadcast(parse_kernel(f"Add {shapes}")) == outputs


def test_the_rows_of_a_broadcast_cost() -> None:
    """Few numbers that are added to long rows, and few to short ones: the same elements, another time."""
    rng, kernels, ms = np.random.default_rng(0), [], []
    for _ in range(60):
        rows, width = int(rng.integers(20, 2000)), int(rng.choice((32, 64, 128, 256, 512)))
        kernels.append(Kernel("Add", ((1, rows, width), (width,)), ((1, rows, width),)))
        ms.append(0.002 + rows * 32e-6 + rows * width * 5e-8)
    regression = KindRegression(kernels, np.array(ms), np.ones(60))
    narrow = Kernel("Add", ((1, 38_416, 4), (4,)), ((1, 38_416, 4),))
    [found] = regression.predict([narrow])
    assert found == pytest.approx(0.002 + 38_416 * (32e-6 + 4 * 5e-8), rel=0.25)


def test_larger_kernels_than_any_measured_take_longer() -> None:
    rng = np.random.default_rng(1)
    seen = [conv(rng) for _ in range(400)]
    found = KindRegression(seen, np.array([*map(law_ms, seen)]), np.ones(400))
    large = [Kernel("Conv", ((1, c, 56, 56), (c, c, 3, 3)), ((1, c, 56, 56),)) for c in (256, 512, 1024, 2048)]
    ms = found.predict(large)
    assert (ms[1:] / ms[:-1] > 3.5).all()
    assert 0.5 < ms[-1] / law_ms(large[-1]) < 2


def test_networks_are_predicted_without_their_kernels(
    rows_and_networks: tuple[list[KernelRow], list[KernelNetwork]],
) -> None:
    found = judged(*rows_and_networks)
    errors, validation = found.errors, found.validation
    assert len(errors) == validation.networks == 40
    assert validation.mape < 0.06
    assert validation.kendall_tau > 0.95
    assert np.abs(errors).mean() == pytest.approx(validation.mape, rel=0.1)


def test_a_measured_kernel_is_taken_from_the_table_and_others_are_estimated(table: KernelTable) -> None:
    model = load_kernels(table)
    row = table.rows[0]
    other = Kernel("Conv", ((1, 100, 30, 30), (77, 100, 3, 3)), ((1, 77, 30, 30),))
    found = model.network([parse_kernel(row.kernel), other])
    assert [one.how for one in found.kernels] == ["measured", "estimated"]
    assert found.kernels[0].ms == row.ms
    assert found.kernels[1].ms == pytest.approx(law_ms(other), rel=0.25)
    assert found.ms == pytest.approx(sum(one.ms for one in found.kernels) + found.context_ms)
    assert found.upper_ms is not None
    assert found.upper_ms > found.ms


def test_bounds_hold_for_new_networks(table: KernelTable) -> None:
    model, rng = load_kernels(table), np.random.default_rng(9)
    below = 0
    for _ in range(100):
        kernels = network(rng, 12)
        upper = model.network(kernels, confidence=0.9).upper_ms
        assert upper is not None
        below += sum(map(law_ms, kernels)) + 0.002 * len(kernels) <= upper
    assert below >= 80


def test_networks_of_kernels_that_are_hard_to_predict_have_wider_bounds() -> None:
    """Networks of exact kernels, and of rough ones: each sort is below the bound as often as it says."""
    rng = np.random.default_rng(0)
    spreads = [0.01, 0.2] * 200
    errors = [float(np.exp(rng.normal(0, spread)) - 1) for spread in spreads]
    bound = fitted_bound(errors, spreads)
    for spread in (0.01, 0.2):
        over = bound.over(spread, 0.95)
        assert over is not None
        assert over == pytest.approx(math.exp(1.645 * spread), rel=0.04)
        assert 0.92 < np.mean(np.exp(rng.normal(0, spread, 4000)) <= over) < 0.98


def test_a_few_wild_errors_leave_the_scale_of_the_others() -> None:
    errors = np.exp(np.random.default_rng(0).normal(0, 0.02, 78)) - 1
    bound = fitted_bound([*errors.tolist(), 2.0, 1.5], [0.0] * 80)
    over = bound.over(0.0, 0.9)
    assert over == pytest.approx(math.exp(1.28 * 0.02), rel=0.015)


def test_a_bound_is_never_below_the_prediction() -> None:
    assert fitted_bound([-0.3] * 30, [0.0] * 30).over(0.0, 0.95) == 1.0
    assert fitted_bound([0.0] * 30, [0.0] * 30).over(0.0, 0.95) == pytest.approx(1.0, abs=0.01)
    assert fitted_bound([], []).over(0.0, 0.5) is None


def test_the_spread_of_a_network() -> None:
    one, other = Kernel("A", ((1,),), ((1,),)), Kernel("B", ((1,),), ((1,),))
    kinds = spreads_of([one, one, other], np.array([1.0, 3.0, 1.0]), np.array([math.e, 3.0, 1.0]))
    assert kinds == pytest.approx({"A": 0.5, "B": 0.0})  # sqrt((1 * 1 + 3 * 0) / 4)
    assert spread_of([one, one, other], [1.0, 1.0, 2.0], kinds) == pytest.approx(0.25)  # not independent
    unseen = Kernel("C", ((1,),), ((1,),))
    assert spread_of([one, unseen], [1.0, 1.0], kinds) == pytest.approx(0.25)
    assert spread_of([one], [1.0], {}) == 0


def test_an_unknown_kind_counts_and_widens_the_bound(table: KernelTable) -> None:
    model, rng = load_kernels(table), np.random.default_rng(9)
    known = network(rng, 12)
    odd = Kernel("FancyOp", ((1, 256, 56, 56),), ((1, 256, 56, 56),))
    before, after = model.network(known), model.network([*known, odd])
    assert after.kernels[-1].how == "unknown"
    assert after.kernels[-1].ms > 0.1
    assert before.upper_ms is not None
    assert after.upper_ms is not None
    assert after.upper_ms - after.ms > before.upper_ms - before.ms


def test_too_few_networks_give_no_bound(rows_and_networks: tuple[list[KernelRow], list[KernelNetwork]]) -> None:
    rows, _ = rows_and_networks
    model = KernelModel(rows, bound=fitted_bound([0.1] * 10, [0.0] * 10))
    assert model.network([CONV], confidence=0.95).upper_ms is None
    assert model.network([CONV], confidence=0.9).upper_ms is not None


def test_a_table_is_written_and_read(table: KernelTable, this: Target, tmp_path: Path) -> None:
    path = kernel_path(tmp_path, this)
    write_kernels(table, path)
    assert read_kernels(path, this) == table
    assert len(path.read_text().splitlines()) > len(table.rows)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda d: d.update(device="other"), TableMismatch, "has the kernels of other/"),
        (lambda d: d.update(recipe_hash="0" * 64), TableMismatch, "was made with another recipe"),
        (lambda d: d["rows"].append(d["rows"][0]), TableCorrupt, "a kernel has two rows"),
        (lambda d: d["rows"][0].update(ms=-1), TableCorrupt, "is not a table of kernels"),
        (lambda d: d["rows"][0].update(ms=1e300), TableCorrupt, "is not a table of kernels"),
        (lambda d: d["rows"][0].update(kernel="odd"), TableCorrupt, "is not a table of kernels"),
        (lambda d: d["networks"][0].update(kernels=[10**9]), TableCorrupt, "a kernel without a row"),
        (lambda d: d.pop("networks"), TableCorrupt, "is not a table of kernels"),
        (lambda d: d.clear(), TableCorrupt, "is not a table of kernels"),
    ],
)
def test_a_damaged_table_is_refused(
    table: KernelTable, this: Target, tmp_path: Path, change: object, error: type[Exception], said: str
) -> None:
    path = kernel_path(tmp_path, this)
    write_kernels(table, path)
    document = json.loads(path.read_text())
    assert callable(change)
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(error, match=said):
        read_kernels(path, this)


def test_a_missing_or_cut_table_is_refused(table: KernelTable, this: Target, tmp_path: Path) -> None:
    path = kernel_path(tmp_path, this)
    with pytest.raises(TableError, match="hwnas profile --kernels --target"):
        read_kernels(path, this)
    write_kernels(table, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TableCorrupt):
        read_kernels(path, this)
