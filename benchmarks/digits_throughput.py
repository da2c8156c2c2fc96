"""Print how many cluttered digits one core draws per second.

python benchmarks/digits_throughput.py
"""

from __future__ import annotations

import time

import torch

from hwnas.data import open_data

SECONDS = 2.0


def main() -> None:
    """Draws training batches for a while at each size and prints the rate."""
    torch.set_num_threads(1)
    data = open_data("cluttered-digits")
    for size, resolution in ((128, 32), (256, 32), (256, 28), (256, 24)):
        data.train_batch(0, size, resolution, seed=0)
        start, step = time.process_time(), 0
        while (spent := time.process_time() - start) < SECONDS:
            step += 1
            data.train_batch(step, size, resolution, seed=0)
        print(f"batch {size}, {resolution} px: {step * size / spent:,.0f} images/s on one core")


if __name__ == "__main__":
    main()
