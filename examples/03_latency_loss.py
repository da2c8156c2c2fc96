"""Use a latency table as a loss in your own training loop: weights and architecture are trained together.

Shows `hwnas.LatencyLoss`: the expected latency of a distribution over architectures, exact and differentiable. The
loop is plain PyTorch. Each update draws one architecture; the labels train its weights and, by REINFORCE, the
distribution; a penalty holds the expected latency at a target. Takes about 20 seconds:

    python examples/03_latency_loss.py

`hwnas.workflows.search_differentiably` has the published methods, and derives one network that meets the target.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

import hwnas

TARGET = "amd-epyc-f25m17-2c/onnxruntime-cpu-fp32"
UPDATES, BATCH = 120, 32


def main() -> None:
    """Train for some updates, then compare the expected latency with the target and with a sample."""
    torch.manual_seed(0)
    space = hwnas.make_space("mobilenetv3-tiny").fix(resolution=24)
    model = hwnas.load_model(hwnas.read_table(hwnas.resolve_target(TARGET)), space)
    smallest, largest = model.predict(space.encode([space.smallest, space.largest]))
    wanted = smallest + 0.2 * (largest - smallest)
    print(f"latencies from {smallest:.4f} to {largest:.4f} ms on {TARGET}; target {wanted:.4f} ms")

    data, supernet = hwnas.open_data("cluttered-digits"), hwnas.Supernet(space, seed=0)
    logits = {v.name: torch.zeros(len(v.values), requires_grad=True) for v in space.variables}
    latency = hwnas.LatencyLoss(model)  # of several models: an expected latency for each target
    weights = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9)
    choices = torch.optim.Adam(logits.values(), lr=0.02)
    mean_loss = 2.3
    for step in range(UPDATES):
        distributions = {name: torch.distributions.Categorical(logits=each) for name, each in logits.items()}
        drawn = {name: each.sample() for name, each in distributions.items()}
        arch = space.arch({v.name: v.values[drawn[v.name]] for v in space.variables})
        images, labels = data.train_batch(step, BATCH, arch["resolution"], seed=0)
        task_loss = cross_entropy(supernet(images, arch), labels)
        log_probability = torch.stack([distributions[name].log_prob(index) for name, index in drawn.items()]).sum()
        [expected_ms] = latency({name: each.probs for name, each in distributions.items()})
        reinforce = 0.1 * (task_loss.detach() - mean_loss) * log_probability
        for optimizer in (weights, choices):
            optimizer.zero_grad()
        (task_loss + reinforce + 20 * (expected_ms / wanted - 1) ** 2).backward()
        for optimizer in (weights, choices):
            optimizer.step()
        mean_loss = 0.9 * mean_loss + 0.1 * task_loss.item()
        if step % 20 == 19:
            print(f"update {step + 1:3}: mean loss {mean_loss:.2f}, expected latency {expected_ms.item():.4f} ms")

    probabilities = {name: each.softmax(0).detach() for name, each in logits.items()}
    draws = [torch.multinomial(probabilities[v.name], 2000, replacement=True) for v in space.variables]
    sampled = model.predict(space.canonical(torch.stack(draws, dim=1).numpy().astype("uint8")))
    likely = space.arch({v.name: v.values[probabilities[v.name].argmax()] for v in space.variables})
    print(
        f"expected latency {latency(probabilities).item():.4f} ms; mean of 2000 drawn networks {sampled.mean():.4f} ms"
    )
    print(f"most probable network: {model.predict(space.encode([likely]))[0]:.4f} ms, {space.describe(likely)}")


if __name__ == "__main__":
    main()
