"""Search strategies for accuracies that are not sums over slots, and for comparison: heuristics and MILP."""
