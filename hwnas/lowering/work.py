"""Computation and memory traffic of the operations of a lowered network: the input of roofline estimates."""

from __future__ import annotations

import math

import torch

from hwnas.latency.sources import Work
from hwnas.lowering.form import Program
from hwnas.nn.wired import Wired

_BYTES = 4  # fp32


def works(program: Program) -> tuple[Work, ...]:
    """The work of each operation of a program that `torch.export` made, in order.

    This counts the multiply-adds of convolutions and linear layers, and one operation for each element that any other
    operation writes.
    """
    if isinstance(program, Wired):
        return tuple(work for part in program.parts for work in works(part))
    assert isinstance(program, torch.fx.GraphModule)
    return tuple(_work(node) for node in program.graph.nodes if node.op == "call_function")


def _work(node: torch.fx.Node) -> Work:
    shapes = [tuple(argument.meta["val"].shape) for argument in node.all_input_nodes]
    out = tuple(node.meta["val"].shape)
    moved = sum(math.prod(shape) for shape in (*shapes, out))
    # The second input of a convolution or a linear layer is its weight, (out, in / groups, ...) or (out, in).
    weighted = node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
    flops = 2 * math.prod(out) * math.prod(shapes[1][1:]) if weighted else math.prod(out)
    return Work(flops, moved * _BYTES)
