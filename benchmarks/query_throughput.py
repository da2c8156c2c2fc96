"""Print how many latencies per second one core predicts, beside a walk of a dictionary of strings.

python benchmarks/query_throughput.py

The walk is how once-for-all uses its tables: for each network, block by block, it writes the text of the block's
shapes and attributes, looks its time up and adds it. Both get the same networks of mobilenetv3 in the form that they
take, a matrix of codes or a dictionary of values each, and both read the same table.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
from threadpoolctl import threadpool_limits

from hwnas.spaces import SPACES, Op, make_space
from hwnas.spaces.kinds import make_divisible
from hwnas.targets import choose_cores, read_topology

ROUNDS = 9
NETWORKS = 1_000_000
WALKED = 1_000  # of them: about as long as the sum takes for all


def synthetic_ms(op: Op) -> float:
    """A made-up latency: how fast it is found does not depend on what it is."""
    return 0.002 + op.macs / 2e8


def walk(table: Mapping[str, float]) -> Callable[[Mapping[str, int]], float]:
    """A function from the values of a network to its milliseconds, through the texts of its ops."""
    net = SPACES["mobilenetv3"]
    stem, head, hidden = net.width(net.stem), net.width(net.head), net.hidden
    stages = [(s, net.width(stage.width), stage) for s, stage in enumerate(net.stages, start=1)]

    def predict(arch: Mapping[str, int]) -> float:
        resolution = arch["resolution"]
        side, width = (resolution + 1) // 2, stem
        total = table[f"conv 3x{resolution}x{resolution}>{width}x{side}x{side} act=hswish kernel=3 stride=2"]
        shape = f"{width}x{side}x{side}"
        total += table[f"mbconv {shape}>{shape} act=relu expand=0 kernel=3 mid={width} se=0 skip=1 stride=1"]
        for s, out, stage in stages:
            for b in range(1, arch[f"depth_{s}"] + 1):
                stride = stage.stride if b == 1 else 1
                out_side = (side - 1) // stride + 1
                mid = make_divisible(round(width * arch[f"expansion_{s}_{b}"]))
                total += table[
                    f"mbconv {width}x{side}x{side}>{out}x{out_side}x{out_side} act={stage.act} expand=1 "
                    f"kernel={arch[f'kernel_{s}_{b}']} mid={mid} se={int(stage.se)} "
                    f"skip={int(stride == 1 and width == out)} stride={stride}"
                ]
                side, width = out_side, out
        total += table[f"conv {width}x{side}x{side}>{head}x{side}x{side} act=hswish kernel=1 stride=1"]
        total += table[f"classifier {head}x{side}x{side}>{net.classes} act=hswish hidden={net.width(hidden)}"]
        return total

    return predict


def main() -> None:
    """Times both in turn, several times, on one core."""
    if hasattr(os, "sched_setaffinity"):  # macOS and Windows cannot pin
        os.sched_setaffinity(0, choose_cores(read_topology(), os.sched_getaffinity(0), 1).cores)
    space = make_space("mobilenetv3")
    # What `LatencyModel.predict` calls: the context factors of a fit lie in its arrays.
    predict = space.slot_sum(synthetic_ms)
    walk_ms = walk({op.key: synthetic_ms(op) for op in space.distinct_ops})
    codes = space.sample(NETWORKS, seed=0)
    archs = [dict(arch) for arch in space.decode(codes[:WALKED])]
    summed, walked = predict(codes), [walk_ms(arch) for arch in archs]
    difference = float(np.abs(summed[:WALKED] / walked - 1).max())
    if difference > 1e-12:
        raise SystemExit(f"the two differ by up to {difference:.1e} of the milliseconds: no figure means anything")

    sum_rates, walk_rates = [], []
    with threadpool_limits(1):
        for _ in range(ROUNDS):
            start = time.process_time()  # not the clock: other work may share the core
            predict(codes)
            middle = time.process_time()
            for arch in archs:
                walk_ms(arch)
            end = time.process_time()
            sum_rates.append(NETWORKS / (middle - start))
            walk_rates.append(WALKED / (end - middle))
    ratio = statistics.median(s / w for s, w in zip(sum_rates, walk_rates, strict=True))
    print(f"{space.name}, {len(space.distinct_ops)} ops with synthetic latencies (only the speed of a look-up matters)")
    print(f"same milliseconds: largest relative difference {difference:.1e} on {WALKED:,} networks")
    for name, rates in (("predict", sum_rates), ("dictionary of strings", walk_rates)):
        print(f"{name}: {max(rates):,.0f} networks/s on one core (median of {ROUNDS}: {statistics.median(rates):,.0f})")
    print(f"ratio: {max(sum_rates) / max(walk_rates):,.0f} (median of {ROUNDS} rounds: {ratio:,.0f})")


if __name__ == "__main__":
    main()
