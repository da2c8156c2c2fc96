"""How well ten whole-network measurements predict a device: leave one device out over the shared latencies.

    python benchmarks/transfer.py --data FOLDER [--measurements 10 20] [--draws 10] [--part ranks designs found]
        [--designs determinant]

FOLDER has nasbench201.csv and fbnet.csv: a column `arch`, and milliseconds per device and batch size (``1080ti_32``).
All columns of a device are left out with it.
"""

from __future__ import annotations

import argparse
import csv
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwnas.latency.transfer import (
    DESIGN,
    DESIGNS,
    Choice,
    Known,
    Measured,
    Source,
    choose,
    choose_method,
    fit_costs,
    spearman,
)
from hwnas.latency.transfer.decision import decide
from hwnas.spaces.nasbench201 import EDGES, OPERATIONS

PUBLISHED = {"HELP, 10 networks, six other devices": 0.932, "BRP-NAS, 900 networks, six other devices": 0.789}
FAILED_MS = 0.1  # entries of a phone below this are failed measurements
CONFIDENCE = 0.9
BUDGETS = (0.25, 0.5, 0.75)  # quantiles of the measured latencies
MOST = 20  # measurements


class Shared:
    """The latencies of a space's networks on all devices.

    Attributes:
        terms: one column for all networks, one per variable and choice, and in cells again one per edge and operation
            for the operations whose output is read, ``(n, terms)``.
        kinds: of the terms.
        unread: in cells, the choices that have a column of their own when they are read.
        latency_ms: NaN where a measurement failed, ``(n, columns)``.
    """

    def __init__(self, path: Path) -> None:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        self.columns = header[1:]
        latency_ms = np.array([[float(cell) for cell in row[1:]] for row in rows])
        self.latency_ms = np.where(latency_ms < FAILED_MS, np.nan, latency_ms)
        self.failed = int((latency_ms < FAILED_MS).sum())
        archs = [row[0] for row in rows]
        cells = archs[0].startswith("|")
        read = (lambda a: [OPERATIONS.index(n) for n in re.findall(r"\|(\w+)~", a)]) if cells else _numbers
        codes = np.array([read(arch) for arch in archs], np.uint8)
        choices = range(int(codes.max()) + 1)
        parts = [np.ones((len(codes), 1)), *((codes == value).astype(float) for value in choices)]
        self.kinds = ["all", *(f"choice {value}" for value in choices for _ in codes[0])]
        self.unread: list[int] = []
        if cells:
            some = [value for value in choices if OPERATIONS[value] != "none"]
            read_of = _read(codes)
            parts += [((codes == value) & read_of).astype(float) for value in some]
            self.kinds += [f"choice {value} read" for value in some for _ in codes[0]]
            self.unread = [self.kinds.index(f"choice {value}") + edge for value in some for edge in range(len(EDGES))]
        self.terms = np.concatenate(parts, axis=1)

    def measured(self, column: int) -> Measured:
        """The networks of a column whose measurement did not fail."""
        rows = np.flatnonzero(np.isfinite(self.latency_ms[:, column]))
        return Measured(terms=self.terms[rows], latency_ms=self.latency_ms[rows, column])

    def known(self) -> Known:
        """All columns as sources: as measured, and in cells also as if ops whose output nobody reads were left out.

        One of the 13 devices has a runtime that leaves them out (a Pixel 3, whose latencies correlate at 0.962 with a
        sum over the ops that are read, and at 0.942 with one over all); the others run them.
        """
        sources = []
        for i, name in enumerate(self.columns):
            measured = self.measured(i)
            source = Source(name=name, device=device_of(name), cost_ms=fit_costs(measured), measured=measured)
            sources.append(source)
            if self.unread:
                cost_ms = source.cost_ms.copy()
                cost_ms[-len(self.unread) :] += cost_ms[self.unread]
                cost_ms[self.unread] = 0
                sources.append(replace(source, name=f"{name}, without unread ops", cost_ms=cost_ms, measured=None))
        rows = np.random.default_rng(0).permutation(len(self.terms))[:500]
        return Known(sources=tuple(sources), kinds=tuple(self.kinds), networks=self.terms[rows])


def _read(codes: np.ndarray) -> np.ndarray:
    """Whether the output of each edge of a cell reaches that of the cell, ``(n, 6)``."""
    some = codes != OPERATIONS.index("none")
    reads = {max(to for _, to in EDGES): np.ones(len(codes), bool)}
    for node in sorted({source for source, _ in EDGES}, reverse=True):
        after = [some[:, e] & reads[to] for e, (source, to) in enumerate(EDGES) if source == node]
        reads[node] = np.any(after, axis=0)
    return np.stack([some[:, e] & reads[to] for e, (_, to) in enumerate(EDGES)], axis=1)


def _numbers(arch: str) -> list[int]:
    return [int(number) for number in arch.split()]


def device_of(column: str) -> str:
    """The device of a column: without the batch size of a GPU."""
    return re.sub(r"_(1|32|64|256)$", "", column) if column.startswith(("1080ti", "titanx")) else column


def judged(known: Known) -> list[Source]:
    """The sources that were measured."""
    return [source for source in known.sources if source.measured]


def ranks(choices: dict[str, Choice], known: Known, count: int, draws: int) -> None:
    """Rank correlation, error and coverage for each device left out, beside the simple ridge."""
    print(
        f"\n{count} measurements, {draws} draws\n"
        "columns: Spearman of ours, of the simple ridge, limit; MAPE of ours, of the ridge; share below the bound"
    )
    table = []
    for source in judged(known):
        others = known.without(source.device)
        choice = choices[source.device]
        drawn = np.array([_one(source, others, choice, count, draw) for draw in range(draws)])
        limit = spearman(source.measured.terms @ source.cost_ms, source.measured.latency_ms)
        mean = drawn.mean(axis=0)
        table.append([mean[0], mean[1], limit, mean[2], mean[3], mean[4]])
        figures = "".join(f"{value:8.3f}" for value in table[-1])
        print(f"{source.name:16}{figures}  {choice.best.method.name} {choice.best.scales}", flush=True)
    whole = np.array(table)
    print(f"{'mean':16}" + "".join(f"{value:8.4f}" for value in whole.mean(axis=0)))
    worst = judged(known)[int(whole[:, 0].argmin())].name
    print(f"worst device: {worst} {whole[:, 0].min():.3f}; without it mean {np.sort(whole[:, 0])[1:].mean():.4f}")


def _one(source: Source, others: Known, choice: Choice, count: int, draw: int) -> list[float]:
    """Rank correlation and error, ours and of the simple ridge, and share below the bound, on networks not measured."""
    measured = source.measured
    rows = choose(others, measured.terms, count, seed=(1, draw))
    rest = np.setdiff1d(np.arange(len(measured.latency_ms)), rows)
    seen, unseen = measured.at(rows), measured.at(rest)
    posterior, _ = choice.fit(others, seen)
    predicted = posterior.predict(unseen.terms)
    margins = choice.margins(posterior.noise, 199)
    margin = margins[int(np.ceil(200 * CONFIDENCE - 1e-9)) - 1]
    random = measured.at(choose(others, measured.terms, count, design="random", seed=(1, draw)))
    simple = simple_ridge(others, random, unseen.terms)
    return [
        spearman(predicted, unseen.latency_ms),
        spearman(simple, unseen.latency_ms),
        float(np.abs(predicted / unseen.latency_ms - 1).mean()),
        float(np.abs(simple / unseen.latency_ms - 1).mean()),
        float((unseen.latency_ms <= predicted * (1 + margin)).mean()),
    ]


def simple_ridge(others: Known, seen: Measured, terms: np.ndarray) -> np.ndarray:
    """Ridge on the others' predicted log-latencies and the numbers of ops, with the best pull by leave-one-out."""
    kinds = np.array(others.kinds)
    counts = np.array([kinds == kind for kind in dict.fromkeys(others.kinds)], float).T

    def features(x: np.ndarray) -> np.ndarray:
        logs = [np.log(np.maximum(x @ source.cost_ms, 1e-3)) for source in others.sources]
        return np.concatenate([np.array(logs).T, x @ counts], axis=1)

    base = features(others.networks)
    centre, size = base.mean(axis=0), np.maximum(base.std(axis=0), 1e-9)
    x, wanted = (features(seen.terms) - centre) / size, np.log(seen.latency_ms)
    errors = {}
    for pull in np.logspace(-2, 3, 11):
        left_out = x @ x.T + pull * np.eye(len(x)) + 1e3
        inverse = np.linalg.inv(left_out)
        errors[pull] = float((((inverse @ (wanted - wanted.mean())) / np.diag(inverse)) ** 2).mean())
    pull = min(errors, key=errors.__getitem__)
    solved = np.linalg.solve(x @ x.T + pull * np.eye(len(x)) + 1e3, wanted - wanted.mean())
    return np.exp(wanted.mean() + ((features(terms) - centre) / size @ x.T + 1e3) @ solved)


def designs(choices: dict[str, Choice], known: Known, count: int, draws: int, names: list[str]) -> None:
    """Mean rank correlation of each design, and on how many devices it is at least as good as random networks.

    Each difference has the standard error of the draws: with 10 draws, 0.04 on phones whose runs are often too long.
    """
    print(f"\ndesigns, {count} measurements, {draws} draws")
    by_design = {name: np.empty((len(judged(known)), draws)) for name in (*names, "random")}
    for i, source in enumerate(judged(known)):
        others = known.without(source.device)
        choice = choices[source.device]
        for name, draw in ((name, draw) for name in by_design for draw in range(draws)):
            rows = choose(others, source.measured.terms, count, design=name, seed=(1, draw))
            seen = source.measured.at(rows)
            posterior, _ = choice.fit(others, seen)
            by_design[name][i, draw] = spearman(posterior.predict(source.measured.terms), source.measured.latency_ms)
    random = by_design["random"]
    for name, ranks_ in by_design.items():
        apart = ranks_.mean(axis=1) - random.mean(axis=1)
        errors = np.sqrt((ranks_.var(axis=1) + random.var(axis=1)) / draws)
        print(
            f"{name:14}{ranks_.mean():8.4f}  at least random on {(apart >= 0).sum()} of {len(apart)}, worse by two "
            f"standard errors on {(apart < -2 * errors).sum()}  "
            + " ".join(f"{a:+.4f}±{e:.4f}" for a, e in zip(apart, errors, strict=True))
        )


def found(known: Known, draws: int) -> None:
    """Measurements until the network found is within 1% of the best within the budget, chosen and at random.

    The best network is that with the most ops that cost something on average, i.e. the largest mean latency on the
    sources: it stands for accuracy, which the shared data do not have. Of 1,000 candidates; at most 20 measurements.
    """
    print(f"\nmeasurements until the network found is within 1% of the best within the budget, {draws} draws")
    whole = []
    for source in judged(known):
        others = known.without(source.device)
        choice = choose_method(others, 5)
        counts = [
            [_needed(source, others, choice, quantile, draw, chosen=chosen) for chosen in (True, False)]
            for quantile in BUDGETS
            for draw in range(draws)
        ]
        whole.append(np.mean(counts, axis=0))
        print(f"{source.name:16} chosen {whole[-1][0]:5.1f}  random {whole[-1][1]:5.1f}", flush=True)
    print(f"{'mean':16} chosen {np.mean(whole, axis=0)[0]:5.1f}  random {np.mean(whole, axis=0)[1]:5.1f}")


def _needed(source: Source, others: Known, choice: Choice, quantile: float, draw: int, *, chosen: bool) -> int:
    """The number of measurements from which on the network found is within 1% of the best; 21 if never."""
    measured = source.measured
    rng = np.random.default_rng((2, draw))
    pool = measured.at(rng.permutation(len(measured.latency_ms))[:1000])
    quality = np.mean([pool.terms @ cost for cost in others.relative], axis=0)
    truth = pool.terms @ source.cost_ms  # without the noise of single measurements
    budget = float(np.quantile(truth, quantile))
    best = quality[truth <= budget].max()
    rows = choose(others, pool.terms, 3, design=DESIGN if chosen else "random", seed=(3, draw)).tolist()
    last = MOST
    while True:
        posterior, _ = choice.fit(others, pool.at(rows))
        decision = decide(posterior, pool.terms, quality, [budget], measured=rows, seed=draw)
        network = decision.found[0]
        good = network >= 0 and truth[network] <= budget * 1.01 and quality[network] >= 0.99 * best
        last = min(last, len(rows)) if good else MOST + 1
        if len(rows) == MOST or (chosen and decision.next is None):
            return last
        rest = np.setdiff1d(np.arange(len(truth)), rows)
        rows.append(decision.next if chosen else int(rng.choice(rest)))


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--spaces", nargs="+", default=["nasbench201", "fbnet"])
    parser.add_argument("--measurements", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument(
        "--part", nargs="+", choices=["ranks", "designs", "found"], default=["ranks", "designs", "found"]
    )
    options = parser.parse_args()
    for figure, value in PUBLISHED.items():
        print(f"published, NAS-Bench-201, mean Spearman: {figure}: {value}")
    for name in options.spaces:
        shared = Shared(options.data / f"{name}.csv")
        print(
            f"\n== {name}: {len(shared.terms):,} networks, {len(shared.columns)} columns, "
            f"{shared.failed} failed entries left out"
        )
        known = shared.known()
        start = time.perf_counter()
        for count in options.measurements:
            if options.part == ["found"]:
                break
            choices = {device: choose_method(known.without(device), count) for device in known.devices}
            if "ranks" in options.part:
                ranks(choices, known, count, options.draws)
            if "designs" in options.part:
                designs(choices, known, count, options.draws, options.designs)
        if "found" in options.part:
            found(known, min(options.draws, 3))
        print(f"{time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
