"""Networks of timm as spaces: what becomes a variable, and whether subnets compute what they should.

    pip install --no-deps timm torchvision huggingface_hub
    python benchmarks/elastic.py [NAME ...] [--subnets 20] [--latency]

For each network with random weights: the largest subnet is compared with the original; random subnets are extracted,
counted, exported and run in ONNX Runtime. With ``--latency`` the ops are profiled, and 40 random networks are timed and
compared with their predictions.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from timm_here import network
from torch import Tensor, nn

from hwnas.errors import InvalidValue
from hwnas.latency import load_model
from hwnas.lowering import form_of
from hwnas.profiling import profile, validate
from hwnas.runtimes import open_session
from hwnas.search.solver import check_strategy
from hwnas.shown_progress import shown_progress
from hwnas.spaces.traced import remember
from hwnas.spaces.traced.space import space_of
from hwnas.supernet import Supernet, extract
from hwnas.targets import load_recipe, resolve_target
from hwnas.tracing.choices import ElasticOptions
from hwnas.tracing.network import network_of
from hwnas.tracing.supernet import supernet_of
from hwnas.tracing.trace import trace

NAMES = (
    *("resnet18", "resnet50", "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_lite0", "regnety_002"),
    *("convnext_atto", "repvgg_a0", "densenet121", "ghostnet_100", "vit_tiny_patch16_224"),
    *("deit_tiny_patch16_224", "mobilevit_xxs", "swin_tiny_patch4_window7_224"),
)


def counted(module: nn.Module, x: Tensor) -> tuple[int, int]:
    """MACs of convolutions and linear layers, and parameters."""
    macs = 0

    def count(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal macs
        macs += out[0].numel() * math.prod(layer.weight.shape[1:])

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    module(x)
    for hook in hooks:
        hook.remove()
    return macs, sum(parameter.numel() for parameter in module.parameters())


def checked(name: str, subnets: int) -> Supernet:
    """Print what becomes of a network, and the differences of its subnets."""
    start, exact = time.perf_counter(), "too dense for exact search"
    module, shape = network(name)
    found = trace(module, shape)
    spec = network_of(found, name, ElasticOptions())
    with suppress(InvalidValue):
        check_strategy("exact", space_of(remember(spec)))
        exact = "exact search decomposes it"
    supernet = supernet_of(spec, {key: weight.tensor for key, weight in found.weights.items()})
    took_s, space = time.perf_counter() - start, supernet.space
    x = torch.randn(1, *shape)
    form = form_of(load_recipe("onnxruntime-cpu-fp32"))
    codes = space.sample(subnets, seed=1)
    apart, wrong = 0.0, 0
    with torch.no_grad():
        whole = (supernet(x, space.largest) - module(x)).abs().max().item()
        for arch, macs, params in zip(
            space.decode(codes), space.macs(codes).tolist(), space.params(codes).tolist(), strict=True
        ):
            subnet = extract(supernet, arch)
            wrong += counted(subnet, x) != (macs, params)
            with open_session(form.lower(subnet, space.input_shape(arch)), form.recipe) as session:
                apart = max(apart, float(np.abs(session.run(x.numpy()) - supernet(x, arch).numpy()).max()))
    print(
        f"{name}: {len(space.variables) - 1} variables, {spec.blocks} of them blocks; {space.size:.1e} networks, "
        f"{len(space.distinct_ops)} ops in {len(spec.segments)} segments of {len(spec.graphs)} forms; "
        f"{len(spec.fixed)} layers keep their width; {exact}; traced in {took_s:.1f} s. Largest difference of the "
        f"largest subnet {whole:.1e}, of {subnets} subnets in ONNX Runtime {apart:.1e}; {wrong} counts differ",
        flush=True,
    )
    return supernet


def timed(supernet: Supernet) -> None:
    """Profile a space, and print the errors of predictions of 40 random networks."""
    target = resolve_target("this/onnxruntime-cpu-fp32")
    with tempfile.TemporaryDirectory() as folder, shown_progress() as progress:
        table = profile(supernet.space, target, journals=Path(folder) / "profile", progress=progress)
        report = validate(
            load_model(table, supernet.space), target, programs=Path(folder) / "programs", progress=progress
        )
    found = report.summary
    print(
        f"  latency of {found.networks} networks: MAPE {found.mape:.2%}, noise floor {found.noise_floor:.2%}, within "
        f"5% {found.within_5pct:.0%}, Kendall τ {found.kendall_tau:.3f}",
        flush=True,
    )


def main() -> None:
    """Check the networks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--subnets", type=int, default=20)
    parser.add_argument("--latency", action="store_true")
    given = parser.parse_args()
    for name in given.names:
        supernet = checked(name, given.subnets)
        if given.latency:
            timed(supernet)


if __name__ == "__main__":
    main()
