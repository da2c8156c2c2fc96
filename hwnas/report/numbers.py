"""Ranges of the numbers in figures."""

from typing import Annotated

from pydantic import Field

# Ranges for which results on the page are finite: it divides by latencies and multiplies them by 1000.
Milliseconds = Annotated[float, Field(ge=1e-9, le=1e12)]
Difference = Annotated[float, Field(ge=-1e12, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**63)]
Finite = Annotated[float, Field(ge=-1e30, le=1e30)]
