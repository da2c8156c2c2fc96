"""What sharing weights costs: a training step of a supernet's subnet beside one of the extracted network.

    python benchmarks/elastic_overhead.py

A step is the forward pass, the loss and the backward pass. The networks alternate, on the same images; the figure is
the ratio of the 25% quantiles.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from hwnas.nn import channels_last
from hwnas.spaces import Arch, make_space
from hwnas.supernet import Supernet, extract

# Space -> images a step: the shipped recipe's, and as few as one trains with.
CASES = {"mobilenetv3-tiny": 64, "mobilenetv3": 16}


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each network")
    seconds = parser.parse_args().seconds
    print("| space | network | images | extracted, ms | supernet, ms | ratio |\n|---|---|---:|---:|---:|---:|")
    for name, images in CASES.items():
        space = make_space(name)
        supernet = Supernet(space)
        channels_last(supernet.train())
        middle = space.arch({v.name: v.values[len(v.values) // 2] for v in space.variables})
        for kind, arch in (("smallest", space.smallest), ("middle", middle), ("largest", space.largest)):
            alone, shared = compared(supernet, arch, images, seconds)
            print(f"| {name} | {kind} | {images} | {alone:.2f} | {shared:.2f} | {shared / alone:.3f} |", flush=True)


def compared(supernet: Supernet, arch: Arch, images: int, seconds: float) -> tuple[float, float]:
    """Milliseconds of a step of the extracted network and of the supernet."""
    space = supernet.space
    network = channels_last(extract(supernet, arch).train())
    x = torch.randn(images, *space.ops(arch)[0][1].input).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(space.classes, (images,))
    times: dict[str, list[float]] = {"alone": [], "shared": []}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for kind, found in times.items():
            module: nn.Module = network if kind == "alone" else supernet
            module.zero_grad(set_to_none=True)
            start = time.perf_counter()
            logits = network(x) if kind == "alone" else supernet(x, arch)
            functional.cross_entropy(logits, labels).backward()
            found.append(time.perf_counter() - start)
    alone, shared = (float(np.quantile(found[1:], 0.25)) * 1e3 for found in times.values())
    return alone, shared


if __name__ == "__main__":
    main()
