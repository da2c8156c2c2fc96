"""The range of int8 weights, which depends on the target's arithmetic.

x86 CPUs without VNNI add the products of an unsigned and a signed byte in pairs, in 16 bits with saturation
(``vpmaddubsw``): 2 * 255 * 127 is 64,770, and the sum stops at 32,767. With weights in [-64, 64] it is at most 32,640.
VNNI, AMX and GPUs add in 32 bits; so do the kernels for 64-bit Arm of ONNX Runtime (``umlal``, ``udot``, ``ummla``) and
of OpenVINO (Arm Compute Library).
"""

from __future__ import annotations

from collections.abc import Collection

from hwnas.targets.host import detect_host
from hwnas.targets.recipe import Recipe

# CPU flags of instructions that accumulate int8 products in 32 bits.
EXACT_FLAGS = ("avx_vnni", "avx512_vnni", "amx_int8", "asimd")


def adds_exactly(flags: Collection[str]) -> bool:
    """Whether a CPU with these flags adds int8 products without saturation; False if no flag guarantees it.

    An unknown CPU gets 7 bits: that costs one bit of the weights on a VNNI CPU, but 8 bits cost up to two points of
    accuracy on others.
    """
    return any(flag in flags for flag in EXACT_FLAGS)


def with_weights(recipe: Recipe, flags: Collection[str]) -> Recipe:
    """A recipe with ``weights = "auto"`` resolved for a CPU with these flags; "int8" on a GPU."""
    how = recipe.quantization
    if how is None or how.weights != "auto":
        return recipe
    exact = recipe.facts.kind == "gpu" or adds_exactly(flags)
    decided = how.model_copy(update={"weights": "int8" if exact else "int7"})
    return recipe.model_copy(update={"quantization": decided})


def saturates_here(recipe: Recipe) -> str | None:
    """Why int8 sums saturate on this host under a recipe with resolved weights; None if they do not."""
    how = recipe.quantization
    if how is None or how.weights != "int8" or recipe.facts.kind == "gpu":
        return None
    if adds_exactly(detect_host().flags):
        return None
    return (
        "Its weights have 8 bits, and this CPU has no VNNI: it adds u8 x s8 products in pairs in 16 bits, where the "
        'sums saturate. Export for this device, or with weights = "int7" under [quantization] of the recipe, which '
        "computes the same on every CPU"
    )
