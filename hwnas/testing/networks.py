"""Networks with non-degenerate outputs, and images for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.nn import build, network
from hwnas.spaces import make_space, parse_op

SHAPE, CLASSES = (3, 24, 24), 7


def pictures(n: int, seed: int) -> Tensor:
    """Images of 7 alternating classes: a pattern per class, and noise; ``(n, 3, 24, 24)``."""
    patterns = np.random.default_rng(0).standard_normal((CLASSES, *SHAPE), np.float32)
    noise = np.random.default_rng((1, seed)).standard_normal((n, *SHAPE), np.float32)
    return torch.from_numpy(patterns[np.arange(n) % CLASSES] + np.float32(0.1) * noise)


def trained_network(*, tiny: bool) -> nn.Module:
    """A network that distinguishes the classes of `pictures`, as if it had been trained.

    Otherwise its outputs would hardly depend on the image, and effects of int8 would be invisible.

    Args:
        tiny: two ops instead of the smallest network of mobilenetv3-tiny.
    """
    torch.manual_seed(0)
    module: nn.Module
    if tiny:
        ops = ("conv 3x24x24>16x12x12 act=hswish kernel=3 stride=2", "classifier 16x12x12>7 act=relu hidden=64")
        module = nn.Sequential(*(build(parse_op(key)) for key in ops))
    else:
        space = make_space("mobilenetv3-tiny", in_channels=SHAPE[0], classes=CLASSES)
        module = network(space, space.smallest)
    x = pictures(20 * CLASSES, 0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.1)
            layer.momentum = None  # cumulative statistics of the data
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    seen: list[Tensor] = []
    with torch.no_grad():
        module.train()(x)
        hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
        module.eval()(x)
        hook.remove()
        features = torch.cat([seen[0], torch.ones(len(x), 1)], dim=1)
        wanted = 5 * torch.eye(CLASSES).double().repeat(20, 1)
        ridge = 1e-2 * features.square().mean() * len(x) * torch.eye(features.shape[1])
        found = torch.linalg.solve(features.T @ features + ridge, features.T @ wanted)
        last.weight.copy_(found[:-1].T)
        last.bias.copy_(found[-1])
    return module
