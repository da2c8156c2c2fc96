"""Search as a mixed-integer linear program, solved by HiGHS: an independent check of exact search.

Binary variables select the value of each variable of the space; others select, for each slot, one of its assignments.
Their marginals must agree (the local polytope of a graphical model: Wainwright and Jordan, "Graphical Models,
Exponential Families, and Variational Inference", 2008, section 4). Accuracy and costs are then linear, and any number
of budgets are rows. It uses neither parts nor fronts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import optimize, sparse

from hwnas.errors import InvalidValue
from hwnas.search.problem import Problem
from hwnas.search.strategies.base import Floats, Outcome, StrategyOptions
from hwnas.spaces import Codes, SlotFunction

_SCALE = 100.0  # of the objective and of budget rows: HiGHS's tolerance of 1e-6 becomes a relative 1e-8


def search_milp(problem: Problem, options: StrategyOptions) -> Outcome:
    """The networks with the highest additive accuracy within the budgets; each next one excludes those before.

    Raises:
        InvalidValue: the accuracy is not a sum over slots.
    """
    score = problem.require_additive("milp")
    program, found, stopped = _Program(problem), list[Codes](), False
    while len(found) < options.candidates and not stopped:
        options.progress("solving mixed-integer programs", len(found), options.candidates)
        code = program.solve()
        if code is None:
            break
        if problem.excess(code[None])[0] == 0:  # HiGHS accepts networks above a budget within its tolerance
            found.append(code)
        program.exclude(code)
        stopped = options.stop()
    codes = np.array(found, np.uint8).reshape(len(found), len(problem.space.variables))
    codes = codes[np.argsort(-score(codes), kind="stable")] if len(codes) else codes
    return Outcome(codes=codes, proved=not stopped, stopped=stopped, evaluations=0)


@dataclass(slots=True)
class _Rows:
    """Constraints ``low <= A x <= high``, as triples of a sparse matrix."""

    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def add(self, columns: list[int], values: list[float], low: float, high: float) -> None:
        self.rows += [len(self.low)] * len(columns)
        self.columns += columns
        self.values += values
        self.low.append(low)
        self.high.append(high)


class _Program:
    """The program of a problem."""

    def __init__(self, problem: Problem) -> None:
        self.space = problem.space
        self.rows = _Rows()
        counts = [len(v.values) for v in self.space.variables]
        self.first = np.concatenate([[0], np.cumsum(counts)])  # of each variable's values
        self.size = int(self.first[-1])
        self.upper: list[float] = [1.0] * self.size
        for i, count in enumerate(counts):
            self.rows.add(list(range(self.first[i], self.first[i] + count)), [1.0] * count, 1.0, 1.0)
        for i, conditions in enumerate(self.space.conditions):
            for one in conditions:  # without effect it must have its first value, so that networks count once
                idle = [self.first[one.column] + j for j in np.flatnonzero(~one.matters).tolist()]
                self.rows.add([self.first[i], *idle], [1.0, *[-1.0] * len(idle)], 0.0, np.inf)
        self.choices: dict[tuple[int, ...], int] = {}  # axes -> first of the binary variables of their assignments
        gain, _ = self._linear(problem.require_additive("milp"))
        costs = []
        for function, limit in zip(problem.held.functions, problem.held.limits, strict=True):
            if function.combine is np.maximum:
                self._forbid(function, limit)
            else:
                cost, constant = self._linear(function)
                costs.append((cost, limit - constant, abs(limit)))
        self.objective = np.zeros(self.size)
        self.objective[: len(gain)] = -gain * _SCALE / max(float(np.abs(gain).max(initial=0)), 1e-300)
        for cost, left, scale in costs:
            [columns] = np.nonzero(cost)
            self.rows.add(columns.tolist(), (cost[columns] * _SCALE / scale).tolist(), -np.inf, left * _SCALE / scale)

    def _linear(self, function: SlotFunction) -> tuple[Floats, float]:
        """The coefficients of a sum over slots, and its constant."""
        found, constant = [], function.constant
        for axes, array in zip(function.axes, function.arrays, strict=True):
            if axes:
                found.append((self._assignments(axes, array.shape), array.reshape(-1)))
            else:
                constant += float(array)
        coefficients = np.zeros(self.size)
        for first, values in found:
            coefficients[first : first + len(values)] += values
        return coefficients, constant

    def _assignments(self, axes: tuple[int, ...], shape: tuple[int, ...]) -> int:
        """The first of the binary variables for the assignments of some axes; created on first use."""
        if len(axes) == 1:
            return int(self.first[axes[0]])
        if axes not in self.choices:
            first, count = self.size, int(np.prod(shape))
            self.choices[axes] = first
            self.size += count
            self.upper += [1.0] * count
            numbers = first + np.arange(count).reshape(shape)
            for d, axis in enumerate(axes):
                for value in range(shape[d]):
                    own = numbers.take(value, axis=d).reshape(-1).tolist()
                    self.rows.add([*own, int(self.first[axis]) + value], [*[1.0] * len(own), -1.0], 0.0, 0.0)
        return self.choices[axes]

    def _forbid(self, function: SlotFunction, limit: float) -> None:
        """Limit a maximum by excluding assignments with larger terms."""
        if function.constant > limit:
            self.upper = [0.0] * self.size
        for axes, array in zip(function.axes, function.arrays, strict=True):
            first = self._assignments(axes, array.shape)
            for place in np.flatnonzero(array.reshape(-1) > limit):
                self.upper[first + int(place)] = 0.0

    def exclude(self, code: Codes) -> None:
        """Exclude a network."""
        chosen = [int(self.first[i]) + int(value) for i, value in enumerate(code)]
        self.rows.add(chosen, [1.0] * len(chosen), -np.inf, len(chosen) - 1)

    def solve(self) -> Codes | None:
        """The best remaining network, ``(variables,)``; None if there is none."""
        rows = self.rows
        shape = (len(rows.low), self.size)
        matrix = sparse.csr_matrix((rows.values, (rows.rows, rows.columns)), shape=shape)
        integral = np.zeros(self.size)
        integral[: self.first[-1]] = 1  # the assignments follow from the values
        answer = optimize.milp(
            self.objective,
            integrality=integral,
            bounds=optimize.Bounds(0, np.array(self.upper)),
            constraints=optimize.LinearConstraint(matrix, rows.low, rows.high),
            options={"mip_rel_gap": 0.0},
        )
        if answer.status == 2:  # infeasible
            return None
        if not answer.success:
            raise InvalidValue(f"HiGHS did not solve the program: {answer.message}")
        values = np.split(answer.x[: self.first[-1]], self.first[1:-1])
        return np.array([int(value.argmax()) for value in values], np.uint8)
