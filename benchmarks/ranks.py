"""Ranks of layers, chosen by exact search: beside one rank for all layers, and beside ranks by number of parameters.

    python benchmarks/ranks.py --out DIR [vit mlp] [--steps 2000]

A small vision transformer and a network of wide residual MLPs are trained on `cluttered-digits`. Their ranks alone
become variables (`hwnas elastic --ranks`, no widths). For each network with one share of the ranks in all layers, the
search finds the best network within its predicted latency; and so does a search within numbers of parameters, of whose
results the most accurate one within that latency is taken. All are timed in the same passes and evaluated on the test
images without fine-tuning. A killed run resumes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from on_host import profiled
from search_closed_loop import timed
from torch import Tensor, nn
from torch.nn import functional

from hwnas import workflows
from hwnas.accuracy import Evaluator, fit_on_subnets
from hwnas.data import ClutteredDigits
from hwnas.errors import InfeasibleBudget
from hwnas.search import Problem, latency_objective
from hwnas.search.objectives import resource
from hwnas.search.rerank import choose
from hwnas.shown_progress import shown_progress
from hwnas.spaces import Arch, Space
from hwnas.supernet import load_supernet

SIDE, CLASSES = 32, 10
RANKS = (0.125, 0.25, 0.5)
PARAMS = 12  # budgets of parameters for each latency


class Attention(nn.Module):
    """A layer of a vision transformer, pre-norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The layer or the network."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.proj(y)
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Vit(nn.Module):
    """Patches of 4 x 4 as tokens, the mean of the tokens at the end."""

    def __init__(self, width: int = 192, depth: int = 4, heads: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, 4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (SIDE // 4) ** 2, width))
        self.blocks = nn.Sequential(*(Attention(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The layer or the network."""
        x = self.patch(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


class Wide(nn.Module):
    """A residual MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The layer or the network."""
        return x + self.down(functional.gelu(self.up(self.norm(x))))


class Mlp(nn.Module):
    """Residual MLPs on all pixels."""

    def __init__(self, width: int = 512, depth: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(SIDE * SIDE, width)
        self.blocks = nn.Sequential(*(Wide(width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The layer or the network."""
        return self.head(self.norm(self.blocks(self.first(x.flatten(1)))))


NETWORKS = {"vit": Vit, "mlp": Mlp}


def trained(name: str, steps: int, out: Path) -> nn.Module:
    """A network after its training with AdamW."""
    torch.manual_seed(0)
    network, path = NETWORKS[name](), out / f"{name}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    data = ClutteredDigits()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for step in range(steps):
        x, y = data.train_batch(step, 64, SIDE, seed=0)
        loss = functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"{name}: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    torch.save(network.state_dict(), path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)
    return network.eval()


def uniform(space: Space) -> dict[str, Arch]:
    """Networks with one share of the rank in all layers; layers that do not have it are whole."""
    shares = sorted({len(v.values) - 1 for v in space.variables if v.name.startswith("rank_")})[-1]
    found = {}
    for i in range(shares):
        ranks = {v.name: v.values[min(i, len(v.values) - 1)] for v in space.variables if v.name.startswith("rank_")}
        found[f"{RANKS[i]:.1%}"] = space.arch({**space.largest, **ranks})
    return found


def main() -> None:
    """Train, search, time and evaluate; print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--recipe", default="onnxruntime-cpu-fp32")
    parser.add_argument("--subnets", type=int, default=200)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.networks:
        folder = given.out / name
        network = trained(name, given.steps, given.out)
        if not folder.exists():
            workflows.elastic(
                network, "cluttered-digits", folder, shape=(1, SIDE, SIDE), widths=(), ranks=RANKS, blocks=False,
                importance="none", name=name,
            )  # fmt: skip
        compare(name, folder, given)


def compare(name: str, folder: Path, given: argparse.Namespace) -> None:
    """Print the table of a network."""
    supernet, facts = load_supernet(folder)
    space = supernet.space
    evaluator = Evaluator(supernet, ClutteredDigits(), images=2000, seed=1)
    with shown_progress() as progress, evaluator.journal(given.out / f"{name}-work", facts.weights_sha256) as journal:
        target, latency = profiled(space, given.recipe, given.out / f"{name}-work", progress)
        accuracy = fit_on_subnets(evaluator, journal, subnets=given.subnets, seed=0, progress=progress)
        objective, params = latency_objective(latency), resource(space, "params")
        rows: dict[str, Arch] = {"the network": space.largest}
        for share, arch in uniform(space).items():
            budget = float(objective.total(space.encode([arch]))[0])
            problem = Problem(space=space, accuracy=accuracy, objectives=(objective,), budgets={objective.name: budget})
            rows[f"uniform {share}"] = arch
            rows[f"search, as fast as {share}"] = (
                choose(problem, evaluator, journal, progress=progress).candidates[0].arch
            )
            rows[f"by parameters, as fast as {share}"] = by_params(problem, params, evaluator, journal, progress)
        measured = timed(evaluator, target, list(rows.values()), progress)
    print(f"\n{name}: {space.size:.3g} networks, {len(space.distinct_ops)} ops\n")
    print("| ranks | measured (ms) | parameters | validation | test |\n|---|---:|---:|---:|---:|")
    for (row, arch), ms in zip(rows.items(), measured, strict=True):
        count = int(space.params(space.encode([arch]))[0])
        print(
            f"| {row} | {ms:.4f} | {count:,} | {evaluator.accuracy(arch):.2%} | {evaluator.test_accuracy(arch):.2%} |",
            flush=True,
        )


def by_params(problem: Problem, params, evaluator, journal, progress) -> Arch:
    """The most accurate network within the latency of a problem, of those that searches by parameters find."""
    space, [latency] = problem.space, problem.objectives
    low, high = params.total(space.encode([space.smallest, space.largest]))
    best, found = None, -1.0
    for budget in np.linspace(low, high, PARAMS + 1)[1:]:
        try:
            chosen = choose(
                replace(problem, objectives=(params,), budgets={params.name: float(budget)}),
                evaluator, journal, candidates=5, progress=progress,
            )  # fmt: skip
        except InfeasibleBudget:
            continue
        for candidate, accuracy in zip(chosen.candidates, chosen.accuracies, strict=False):
            within = float(latency.total(space.encode([candidate.arch]))[0]) <= problem.budgets[latency.name]
            if within and accuracy > found:
                best, found = candidate.arch, accuracy
    return best or space.smallest


if __name__ == "__main__":
    main()
