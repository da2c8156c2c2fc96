"""Once-for-all's published supernets, read into ours.

Source: mit-han-lab/once-for-all (MIT), `ofa_mbv3_d234_e346_k357_w1.0` and `_w1.2`. The networks are the same; only
the parameters have other names.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hwnas.errors import CheckpointError, InvalidValue
from hwnas.supernet.network import Supernet

SPACES = ("mobilenetv3", "mobilenetv3-w1.2")
_BLOCKS = 4  # blocks of a stage; the published files count them through, after a block 0
_SHOWN = 8  # names of one kind in a message

_ENDS = {
    "slots.stem.shared.": "first_conv.",
    "slots.head.shared.": "final_expand_layer.",
    "slots.classifier.shared.hidden.": "feature_mix_layer.conv.",
    "slots.classifier.shared.linear.": "classifier.linear.",
}
_PARTS = {"expand": "inverted_bottleneck", "depthwise": "depth_conv", "project": "point_linear"}


def read_once_for_all(path: Path) -> dict[str, Tensor]:
    """The parameters of a published checkpoint. Nothing but tensors is unpickled.

    Raises:
        CheckpointError: the file is missing, broken, or holds something else.
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"cannot read {path} as a once-for-all checkpoint: {error}") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{path} is no once-for-all checkpoint: it has no 'state_dict' of tensors")
    return state


def load_once_for_all(supernet: Supernet, state_dict: Mapping[str, Tensor]) -> None:
    """Give a supernet the parameters of a published one. Where this raises, the supernet stays as it was.

    Args:
        supernet: of the whole space `mobilenetv3` or `mobilenetv3-w1.2`.
        state_dict: published name -> tensor; ``num_batches_tracked``, which nothing here reads, may be missing.

    Raises:
        InvalidValue: the supernet is of another space.
        CheckpointError: a parameter is missing, unexpected or of another shape.
    """
    if supernet.space.name not in SPACES:
        raise InvalidValue(f"once-for-all's networks are those of {' and '.join(SPACES)}, not of {supernet.space.name}")
    own = supernet.state_dict()
    names = {_published(name): name for name in own}
    # The published layer before the classifier is a 1x1 convolution; here it is linear.
    shapes = {
        published: (*own[name].shape, 1, 1) if published.startswith("feature_mix_layer.") else tuple(own[name].shape)
        for published, name in names.items()
    }
    required = {name for name in names if not name.endswith("num_batches_tracked")}
    misshapen = [
        f"{name} {tuple(tensor.shape)} instead of {shapes[name]}"
        for name, tensor in state_dict.items()
        if name in shapes and tuple(tensor.shape) != shapes[name]
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
        raise CheckpointError(f"these are not the parameters of {supernet.space.name}; {'; '.join(problems)}")
    own |= {names[name]: tensor.reshape(own[names[name]].shape) for name, tensor in state_dict.items()}
    supernet.load_state_dict(own)


def _published(name: str) -> str:
    """The published name of one of our tensors.

    ``slots.stage2_block1.shared.layers.project.bn.bias`` -> ``blocks.5.mobile_inverted_conv.point_linear.bn.bn.bias``
    """
    for prefix, published in _ENDS.items():
        if name.startswith(prefix):
            return published + name.removeprefix(prefix)
    match = re.fullmatch(r"slots\.stage(\d+)_block(\d+)\.(?:shared\.layers|transforms)\.(.+)", name)
    assert match, name
    stage, block, rest = int(match[1]), int(match[2]), match[3]
    index = _BLOCKS * (stage - 1) + block if stage else 0
    layer = f"blocks.{index}.mobile_inverted_conv."
    if transform := re.fullmatch(r"layers_depthwise_conv_weight_(\d)to(\d)", rest):
        return f"{layer}depth_conv.conv.{transform[1]}to{transform[2]}_matrix"
    part, kind, tensor = rest.split(".")
    if part == "se":
        return f"{layer}depth_conv.se.fc.{kind}.{tensor}"
    # Elastic layers wrap the plain one under its own name; block 0 is not elastic.
    return f"{layer}{_PARTS[part]}.{kind}.{f'{kind}.' if index else ''}{tensor}"


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
