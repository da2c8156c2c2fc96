"""Modules to export: BN folded into the convolution before it, with trained or random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from hwnas.lowering.form import InputType
from hwnas.nn import build, plain
from hwnas.spaces import Op
from hwnas.spaces.kinds import KINDS
from hwnas.spaces.ops import Shape


def folded(module: nn.Module) -> nn.Module:
    """An equivalent copy in evaluation mode with every BN folded into its convolution.

    Weights are converted to the default memory format: another layout would be exported as additional operations.
    """
    training = module.training
    copy: nn.Module = fuse(plain(module.eval()))  # some modules compute otherwise in training
    module.train(training)
    for parameter in copy.parameters():
        # Not `contiguous`: weights of 1x1 convolutions are contiguous in both layouts, and would keep their strides.
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return copy.requires_grad_(False)


def blank(batch: int, shape: Shape, dtype: InputType = "float32") -> Tensor:
    """Inputs of zeros, ``(batch, *shape)``, for an export."""
    return torch.zeros(batch, *shape, dtype=torch.int64 if dtype == "int64" else torch.float32)


def blanks(op: Op, batch: int) -> tuple[Tensor, ...]:
    """Inputs of an op, of zeros; distinct tensors, since torch.export would merge equal ones."""
    first, *others = op.inputs
    return (blank(batch, first, KINDS[op.kind].dtype), *(blank(batch, other) for other in others))


def stand_in(op: Op) -> nn.Module:
    """A folded module of an op with random weights, for timing.

    BN parameters are random, because those of a new BN fold into biases of 0, which runtimes skip: a network of such
    ops runs 1 to 2% faster than a trained one.
    """
    module = build(op)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.1)
            assert layer.running_mean is not None and layer.running_var is not None
            nn.init.normal_(layer.running_mean, 0.0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.1)
    return folded(module)
