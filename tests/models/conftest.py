"""Small models of users: written by hand, exported from torch, with several inputs and outputs of several types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from hwnas.timing import Protocol

QUICK = Protocol(
    visit_ms=0.1, min_runs=1, max_runs=3, warmup_runs=1, session_passes=1, max_sessions=2, max_disagreement=1e3
)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a model of some nodes; inputs and outputs are ``name, type, axes``."""

    def make(
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[tuple[str, int, Sequence[int | str] | None]],
        outputs: Sequence[tuple[str, int, Sequence[int | str] | None]],
        weights: dict[str, Any] | None = None,
        *,
        opset: int = 18,
        domains: Sequence[str] = (),
        name: str = "model.onnx",
    ) -> Path:
        graph = helper.make_graph(
            list(nodes),
            "graph",
            [helper.make_tensor_value_info(*entry) for entry in inputs],
            [helper.make_tensor_value_info(*entry) for entry in outputs],
            [numpy_helper.from_array(np.asarray(value), key) for key, value in (weights or {}).items()],
        )
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.fixture
def relu(write: Write) -> Path:
    """y = relu(x), with the axes N, 3, H, W."""
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    axes = ["N", 3, "H", "W"]
    return write([node], [("x", TensorProto.FLOAT, axes)], [("y", TensorProto.FLOAT, axes)])


class TextClassifier(nn.Module):
    """A transformer of one layer: tokens and a mask -> logits, and the mean of the hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(ids)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        kept = mask.unsqueeze(-1).to(x.dtype)
        pooled = (x * kept).sum(1) / kept.sum(1).clamp(min=1)
        return self.head(pooled), pooled


@pytest.fixture(scope="session")
def text() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A text classifier and its inputs: int64 tokens and an int64 mask, (1, 8) each."""
    torch.manual_seed(0)
    return TextClassifier().eval(), (torch.randint(0, 50, (1, 8)), torch.ones(1, 8, dtype=torch.int64))


@pytest.fixture(scope="session")
def picture() -> nn.Module:
    """A small CNN for images (1, 3, 16, 16), with 4 classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip


@pytest.fixture
def quick() -> Protocol:
    """Two short sessions, whatever the noise."""
    return QUICK
