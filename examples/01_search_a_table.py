"""Search a space on a latency table that comes with hwnas: nothing is measured, trained or downloaded.

Shows how a table and a space become a latency model, what a budget is, and that exact search finds the optimum: an
integer program solver gives the same answer, random search a worse one. Takes about 5 seconds:

    python examples/01_search_a_table.py
"""

from __future__ import annotations

import hwnas

TARGET = "amd-epyc-f25m17-2c/onnxruntime-cpu-fp32"  # `hwnas tables list` shows the tables that are shipped


def main() -> None:
    """Search for the network with the most arithmetic within three budgets."""
    space = hwnas.make_space("mobilenetv3-tiny")
    table = hwnas.read_table(hwnas.resolve_target(TARGET))
    latency = hwnas.latency_objective(hwnas.load_model(table, space))
    print(f"{space.size:,} networks in {space.name}, {len(space.distinct_ops)} distinct ops in the table of {TARGET}")

    print(f"{'budget':>16} {'strategy':>9} {'predicted':>12} {'MMACs':>6}  proved")
    for share in ("30%", "50%", "70%"):  # of the latency of the largest network
        budget = hwnas.parse_budget(share, latency, space)
        problem = hwnas.Problem(
            space=space,
            accuracy=space.macs,  # a stand-in: `hwnas.search` fits a model of the accuracy of a trained supernet
            objectives=(latency,),
            budgets={latency.name: budget},
            confidence=0.95,  # that the measured latency stays within the budget
        )
        for strategy in ("random", "milp", "exact"):
            found = hwnas.solve(problem, strategy, candidates=1)
            [best] = found.candidates
            row = f"{best.costs[latency.name]:.5f} ms {best.predicted_accuracy / 1e6:6.3f}  {found.proved}"
            print(f"{share} = {budget:.5f} ms {strategy:>9} {row}")
        print(f"    {space.describe(best.arch)}")


if __name__ == "__main__":
    main()
