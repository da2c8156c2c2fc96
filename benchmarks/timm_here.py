"""Shared by benchmarks of timm's networks: timm beside the CPU build of torch, and networks with random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn


@cache
def timm_here() -> Any:
    """The module timm. It imports torchvision, whose wheel expects two operators that the CPU build of torch lacks."""
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import timm

    timm.library = library  # it is undefined with its object
    return timm


def network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of timm with random weights and BN statistics, and the shape of its images."""
    torch.manual_seed(0)
    module = timm_here().create_model(name).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0.0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module, tuple(module.pretrained_cfg["input_size"])
