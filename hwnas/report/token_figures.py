"""Figures of networks whose layers are over tokens."""

from __future__ import annotations

from pydantic import Field, model_validator

from hwnas.files import Spec
from hwnas.report.numbers import Count, Finite, Milliseconds


class LengthCurve(Spec):
    """Time of a mixer in the table, for each length of a sequence in tokens."""

    mixer: str
    lengths: list[Count] = Field(min_length=2)
    latency_ms: list[Milliseconds]

    @model_validator(mode="after")
    def _fit_together(self) -> LengthCurve:
        if len(self.lengths) != len(self.latency_ms):
            raise ValueError(f"{self.mixer} has {len(self.lengths)} lengths and {len(self.latency_ms)} times")
        return self


class AttentionRow(Spec):
    """How much the tokens of an example read each token, in one head of a layer.

    Attributes:
        layer: of those with attention, counted from 1.
        head: counted from 1.
        shares: one for each column.
    """

    layer: Count
    head: Count
    shares: list[Finite]


class AttentionMap(Spec):
    """What the heads of the deployed network read in an example.

    Attributes:
        label: class of the example.
        columns: the tokens; where they are too many, the first of the tokens that a column has.
        tokens: tokens of a column.
        rows: the heads of all layers whose attention is over these tokens.
    """

    label: str
    columns: list[str]
    tokens: Count
    rows: list[AttentionRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _fit_together(self) -> AttentionMap:
        if any(len(row.shares) != len(self.columns) for row in self.rows):
            raise ValueError(f"a row of the attention map of {self.label} does not have {len(self.columns)} columns")
        return self
