"""Networks that hwnas did not build: ONNX files, exported torch programs and torch modules."""

from __future__ import annotations

from hwnas.models.model import Model, open_model

__all__ = ["Model", "open_model"]
