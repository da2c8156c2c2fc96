"""What the heads of a network read in some examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from hwnas.data import Data
from hwnas.data.options import Size
from hwnas.nn import network
from hwnas.nn.attention import Attention
from hwnas.report.token_figures import AttentionMap, AttentionRow
from hwnas.spaces import Space, Value

_EXAMPLES = 3  # of different classes, the first of each on the test split
_COLUMNS = 128  # more cannot be distinguished; adjacent tokens share a column then


def attention_maps(
    space: Space, arch: Mapping[str, Value], subnet: Callable[[], nn.Module], data: Data
) -> list[dict[str, JsonValue]]:
    """How much the tokens of some test examples read each token, for every head of every layer with attention.

    Args:
        space: the space of the network.
        arch: the network.
        subnet: makes its extracted network, whose weights count; not called for a network without attention.
        data: its data.

    Returns:
        an `AttentionMap` for each example and each length of tokens that layers of the network have, as JSON values;
        none without attention.
    """
    made = network(space, arch)  # the extracted network has torch's layers only
    layers = [layer for layer in made.modules() if isinstance(layer, Attention)]
    if not layers:
        return []
    weights = subnet().state_dict()  # tracing added constants to it
    made.load_state_dict({name: weights[name] for name in made.state_dict()})
    made.eval()
    seen: dict[Attention, tuple[Tensor, Tensor | None]] = {}
    numbers = {layer: number for number, layer in enumerate(layers, start=1)}
    hooks = [layer.register_forward_pre_hook(lambda layer, given: seen.update({layer: given})) for layer in layers]
    try:
        found = []
        for x, label in _examples(data, space.input_size(arch)):
            with torch.no_grad():
                made(x)
            found += [one.model_dump(mode="json") for one in _maps(seen, numbers, x, label, data)]
        return found
    finally:
        for hook in hooks:
            hook.remove()


def _examples(data: Data, size: Size) -> Iterator[tuple[Tensor, str]]:
    """The first test example of each of the first classes that occur, ``(1, *shape)``, and its label."""
    known: set[int] = set()
    for x, y in data.batches("test", size, batch_size=64):
        for one, label in zip(x, y, strict=True):
            number = int(label.argmax() if label.dim() else label)
            if number not in known:
                known.add(number)
                yield one.unsqueeze(0), data.classes[number]
            if len(known) == min(_EXAMPLES, len(data.classes)):
                return


def _maps(
    seen: Mapping[Attention, tuple[Any, ...]], numbers: Mapping[Attention, int], x: Tensor, label: str, data: Data
) -> Iterator[AttentionMap]:
    """The maps of an example, one for each length."""
    for length in sorted({layer.length for layer in seen}, reverse=True):
        rows, there = [], length
        for layer, (tokens, mask) in seen.items():
            if layer.length != length:
                continue
            there = length if mask is None else max(1, int(mask.sum()))
            weights = layer.read(tokens, mask)[0, :, :there]
            rows += [(numbers[layer], head, each) for head, each in enumerate(weights, start=1)]
        each = math.ceil(there / _COLUMNS)
        names = _names(x, there, length, data)
        yield AttentionMap(
            label=label,
            columns=names[::each],
            tokens=each,
            rows=[
                AttentionRow(layer=layer, head=head, shares=[round(float(part.sum()), 5) for part in row.split(each)])
                for layer, head, row in rows
            ],
        )


def _names(x: Tensor, there: int, length: int, data: Data) -> list[str]:
    """Texts of tokens: their words or letters if the data have some, else their positions."""
    tokenizer: dict[str, Any] = getattr(data, "tokenizer", dict)() if x.dim() == 2 and x.shape[1] == length else {}
    tokens = x[0].tolist()[:there] if tokenizer else []
    if tokenizer.get("kind") == "words":
        return [tokenizer["tokens"][token] for token in tokens]
    if tokenizer.get("kind") == "bytes":
        return [_letter(token - tokenizer["first"]) for token in tokens]
    return [str(position) for position in range(1, there + 1)]


def _letter(byte: int) -> str:
    """A byte as a letter; a dot where it is none."""
    return chr(byte) if 32 < byte < 127 else "·"
