"""Load the published once-for-all supernets.

Source: mit-han-lab/once-for-all (MIT): `ofa_mbv3_d234_e346_k357_w1.0` and `_w1.2`, `ofa_proxyless_d234_e346_k357_w1.3`,
`ofa_resnet50`. The networks are identical; only the parameter names differ.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from hwnas.errors import CheckpointError, InvalidValue
from hwnas.spaces import make_space
from hwnas.supernet.network import Supernet

# Exceptions that torch raises for a corrupted file, in addition to its own.
_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_SHOWN = 8  # maximum number of names of each kind in a message
_BLOCKS = 4  # blocks per MobileNet stage; the published files number them consecutively after a block 0
_FIRSTS = (0, 4, 8, 14)  # index of the first block of each ResNet stage


def read_once_for_all(path: Path) -> dict[str, Tensor]:
    """Read the parameters of a checkpoint in once-for-all format. Only tensors are unpickled.

    Returns:
        published name -> tensor on the CPU, all values finite.

    Raises:
        CheckpointError: the file is missing or broken, or is not a once-for-all checkpoint.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings that precede the error handled below
            content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:  # torch's message explains how to execute the code in such a file
        raise CheckpointError(
            f"cannot read {path} as a once-for-all checkpoint: it is not a file of tensors, or holds more than "
            "tensors, which is not unpickled"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except _BROKEN as error:
        raise CheckpointError(f"cannot read {path} as a once-for-all checkpoint, it is broken: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items())
    ):
        raise CheckpointError(
            f"{path} is no once-for-all checkpoint: it has no tensors by name, nor a 'state_dict' of them"
        )
    for name, tensor in state.items():
        counts = name.endswith("num_batches_tracked")
        if tensor.layout != torch.strided or tensor.is_meta or not (counts or tensor.is_floating_point()):
            raise CheckpointError(f"{name} of {path} is no tensor of weights: {tensor.layout}, {tensor.dtype}")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{name} of {path} holds values that are NaN or infinite")
    # torch's DataParallel and DistributedDataParallel save names with this prefix.
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_once_for_all(supernet: Supernet, state_dict: Mapping[str, Tensor]) -> None:
    """Load the parameters of a published supernet into a supernet, which is unchanged if this raises.

    Args:
        supernet: supernet of an unrestricted space of `PUBLISHED`, with its default classes and channels.
        state_dict: published name -> tensor; ``num_batches_tracked``, which is not used, may be missing.

    Raises:
        InvalidValue: the supernet is of another space.
        CheckpointError: a parameter is missing, unexpected or of another shape.
    """
    name = supernet.space.name
    if name not in PUBLISHED:
        raise InvalidValue(f"once-for-all's networks are those of {', '.join(PUBLISHED)}, not of {name}")
    own = supernet.state_dict()
    names = {PUBLISHED[name](ours): ours for ours in own}
    shapes = {theirs: _published_shape(ours, own[ours]) for theirs, ours in names.items()}
    required = {theirs for theirs in names if not theirs.endswith("num_batches_tracked")}
    misshapen = [
        f"{theirs} {tuple(tensor.shape)} instead of {shapes[theirs]}"
        for theirs, tensor in state_dict.items()
        if theirs in shapes and tuple(tensor.shape) != shapes[theirs]
    ]
    problems = [
        f"{what}: {_listed(found)}"
        for what, found in (
            ("missing", required - state_dict.keys()),
            ("unexpected", state_dict.keys() - names.keys()),
            ("of another shape", misshapen),
        )
        if found
    ]
    if problems:
        alike = resembled(state_dict)
        hint = "" if alike == name else f" (they look like {alike or 'none of ' + ', '.join(PUBLISHED)})"
        raise CheckpointError(f"these are not the parameters of {name}{hint}; {'; '.join(problems)}")
    own |= {names[theirs]: tensor.reshape(own[names[theirs]].shape) for theirs, tensor in state_dict.items()}
    supernet.load_state_dict(own)


def resembled(state_dict: Mapping[str, Tensor]) -> str | None:
    """Return the space of `PUBLISHED` with the most matching parameter names and shapes; None without any match."""
    found = {(name, tuple(tensor.shape)) for name, tensor in state_dict.items()}
    shared = {space: len(found & _parameters(space)) for space in PUBLISHED}
    return max(shared, key=shared.__getitem__) if any(shared.values()) else None


@cache
def _parameters(space: str) -> frozenset[tuple[str, tuple[int, ...]]]:
    with torch.device("meta"):
        own = Supernet(make_space(space)).state_dict()
    return frozenset((PUBLISHED[space](ours), _published_shape(ours, tensor)) for ours, tensor in own.items())


def _published_shape(ours: str, tensor: Tensor) -> tuple[int, ...]:
    """Return the published shape: the layer before MobileNetV3's classifier is a 1x1 convolution there, linear here."""
    return (*tensor.shape, 1, 1) if ".hidden." in ours else tuple(tensor.shape)


def _mobilenet(ours: str, *, head: str) -> str:
    """Return the published name of a tensor of a MobileNet.

    ``slots.stage2_block1.shared.layers.project.bn.bias`` -> ``blocks.5.mobile_inverted_conv.point_linear.bn.bn.bias``
    """
    ends = {
        "slots.stem.shared.": "first_conv.",
        "slots.head.shared.": f"{head}.",
        "slots.classifier.shared.hidden.": "feature_mix_layer.conv.",
        "slots.classifier.shared.linear.": "classifier.linear.",
    }
    for prefix, theirs in ends.items():
        if ours.startswith(prefix):
            return theirs + ours.removeprefix(prefix)
    match = re.fullmatch(r"slots\.stage(\d+)_block(\d+)\.(?:shared\.layers|transforms)\.(.+)", ours)
    assert match, ours
    stage, block, rest = int(match[1]), int(match[2]), match[3]
    index = _BLOCKS * (stage - 1) + block if stage else 0
    layer = f"blocks.{index}.mobile_inverted_conv."
    if transform := re.fullmatch(r"layers_depthwise_conv_weight_(\d)to(\d)", rest):
        return f"{layer}depth_conv.conv.{transform[1]}to{transform[2]}_matrix"
    part, kind, tensor = rest.split(".")
    if part == "se":
        return f"{layer}depth_conv.se.fc.{kind}.{tensor}"
    parts = {"expand": "inverted_bottleneck", "depthwise": "depth_conv", "project": "point_linear"}
    # An elastic layer wraps the plain layer under the same name; block 0 is not elastic.
    return f"{layer}{parts[part]}.{kind}.{f'{kind}.' if index else ''}{tensor}"


def _resnet(ours: str) -> str:
    """Return the published name of a tensor of a ResNet, in which every layer is elastic.

    ``slots.stage2_block1.shared.layers.spatial.bn.bias`` -> ``blocks.4.conv2.bn.bn.bias``
    """
    *_, kind, tensor = ours.split(".")
    if ours.startswith("slots.classifier."):
        return f"classifier.linear.linear.{tensor}"
    if match := re.match(r"slots\.stem_conv(\d)\.", ours):
        number = int(match[1])
        return f"input_stem.{number - 1}.{'conv.' if number == 2 else ''}{kind}.{kind}.{tensor}"
    match = re.fullmatch(r"slots\.stage(\d)_block(\d)\.shared\.(?:layers\.)?(\w+)\.(\w+)\.(\w+)", ours)
    assert match, ours
    index = _FIRSTS[int(match[1]) - 1] + int(match[2]) - 1
    parts = {"reduce": "conv1", "spatial": "conv2", "expand": "conv3", "shortcut": "downsample"}
    return f"blocks.{index}.{parts[match[3]]}.{kind}.{kind}.{tensor}"


PUBLISHED: dict[str, Callable[[str], str]] = {
    "mobilenetv3": partial(_mobilenet, head="final_expand_layer"),
    "mobilenetv3-w1.2": partial(_mobilenet, head="final_expand_layer"),
    "proxyless-w1.3": partial(_mobilenet, head="feature_mix_layer"),
    "resnet50": _resnet,
}
"""Space -> function from the tensor name in hwnas to the published name."""


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
