"""Exact search over sums of slots: variable elimination, branch and bound, and exact Pareto fronts."""
