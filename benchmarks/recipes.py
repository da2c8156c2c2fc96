"""What lowering costs: networks of trained supernets under every recipe of this host, beside torch.

From each folder from `hwnas train`, some networks (or all, if there are no more) are lowered under each recipe
and run on all test images: accuracy and parity beside the torch network, and bytes of the file per weight.

    python benchmarks/recipes.py supernet --networks 5
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from hwnas.accuracy import Evaluator
from hwnas.deploy.exporter import lower_subnet
from hwnas.deploy.parity import ParityReport, check_parity
from hwnas.errors import BundleError, ParityError, RuntimeUnavailable
from hwnas.lowering import form_of
from hwnas.progress import Progress
from hwnas.shown_progress import shown_progress
from hwnas.spaces import Arch, Space
from hwnas.supernet import load_supernet
from hwnas.targets import Recipe, targets_of
from hwnas.workflows.inputs import reopen_data


def main() -> None:
    """Measure, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("supernets", type=Path, nargs="+", help="folders from `hwnas train`")
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--images", type=int, help="test images; by default all")
    parser.add_argument("--recipes", nargs="+", help="only these")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipes = [target.recipe for target in targets_of("this")]
    recipes = [recipe for recipe in recipes if not given.recipes or recipe.name in given.recipes]
    with shown_progress() as progress:
        for folder in given.supernets:
            net, facts = load_supernet(folder)
            evaluator = Evaluator(net, reopen_data(facts), images=None, seed=1)
            report(evaluator, some(net.space, given.networks), recipes, given.images, progress)


def some(space: Space, count: int) -> list[Arch]:
    """The smallest network, the largest, and random ones between; all where there are no more."""
    drawn = np.unique(space.sample(100 * count, seed=0), axis=0)
    others = space.decode(np.random.default_rng(0).permutation(drawn))
    return list(dict.fromkeys([space.smallest, space.largest, *others]))[:count]


def report(
    evaluator: Evaluator, archs: list[Arch], recipes: list[Recipe], images: int | None, progress: Progress
) -> None:
    """A table of one supernet."""
    space = evaluator.supernet.space
    print(f"\n{space.name}, {len(archs)} networks, points of accuracy lost against torch:\n")
    print("| recipe | mean | worst | largest error | least cosine | bytes a weight | kept its parity |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    networks = {arch: evaluator.subnet(arch) for arch in archs}
    params = space.params(space.encode(archs))
    for recipe in recipes:
        found: list[ParityReport] = []
        sizes: list[float] = []
        for arch, weights in zip(archs, params, strict=True):
            try:
                program = lower_subnet(networks[arch], evaluator, arch, recipe)
                batches = evaluator.data.batches("test", arch["resolution"], limit=images)
                found.append(check_parity(networks[arch], program, recipe, batches, progress=progress))
            except (BundleError, ParityError, RuntimeUnavailable) as error:
                print(f"{recipe.name}: {error}")
                continue
            with tempfile.TemporaryDirectory() as folder:
                sizes.append(form_of(recipe).write(program, Path(folder)).stat().st_size / int(weights))
        if found:
            lost = [100 * (one.torch_accuracy - one.deployed_accuracy) for one in found]
            print(
                f"| {recipe.name} | {np.mean(lost):.2f} | {max(lost):.2f} | {max(o.max_abs_error for o in found):.2g} "
                f"| {min(o.min_cosine for o in found):.5f} | {np.mean(sizes):.2f} | {len(found)} of {len(archs)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
