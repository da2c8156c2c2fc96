"""From a file to the tokens of a bundle, as Python lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from pydantic import JsonValue

_STEPS = frozenset(("layout", "dtype", "length", "padding", "start", "tokenizer"))
_INDENT = "    "
Tokenizer = dict[str, JsonValue]


def token_lines(transform: dict[str, JsonValue]) -> str | None:
    """A function ``prepared(file)`` from a file to the input of a network, one sequence, as Python.

    Of pairs of texts it is ``prepared(file, other)``. It needs ``np``, and ``Image`` for pixels.

    Args:
        transform: of a manifest's input (`hwnas.data.sequences.TokenData.transform`).

    Returns:
        the lines; None if it is not one of tokens, or has a step that they do not know.
    """
    tokenizer = transform.get("tokenizer")
    if transform.keys() != _STEPS or not isinstance(tokenizer, dict) or tokenizer.get("kind") not in _KINDS:
        return None
    arguments, lines = _KINDS[str(tokenizer["kind"])](tokenizer, cast("int", transform["length"]))
    body = [
        *lines,
        f"tokens = [{transform['start']}, *tokens][:{transform['length']}]",
        f"x = np.full((1, {transform['length']}), {transform['padding']}, np.int64)",
        "x[0, : len(tokens)] = tokens",
        "return x",
    ]
    return f"def prepared({arguments}):\n" + "".join(f"{_INDENT}{line}\n" for line in body)


def reads_pairs(transform: dict[str, JsonValue]) -> bool:
    """Whether an input is made of two texts."""
    tokenizer = transform.get("tokenizer")
    return isinstance(tokenizer, dict) and "separator" in tokenizer


def _words(tokenizer: Tokenizer, length: int) -> tuple[str, list[str]]:
    return "file", [
        f"names = {tokenizer['tokens']!r}",
        'tokens = [names.index(word) for word in open(file, encoding="utf-8").read().split()]',
    ]


def _bytes(tokenizer: Tokenizer, length: int) -> tuple[str, list[str]]:
    first = tokenizer["first"]

    def read(name: str) -> str:
        return f'[byte + {first} for byte in open({name}, "rb").read()]'

    if "separator" not in tokenizer:
        return "file", [f"tokens = {read('file')}"]
    half = (length - 1) // 2
    return "file, other", [
        f"tokens, second = {read('file')}, [{tokenizer['separator']}, *{read('other')}]",
        f"if len(tokens) + len(second) > {length - 1}:",
        f"    tokens = tokens[: max({length - 1} - min(len(second), {half}), {half})]",
        "tokens += second",
    ]


def _pixels(tokenizer: Tokenizer, length: int) -> tuple[str, list[str]]:
    side = tokenizer["side"]
    return "file", [
        f'image = Image.open(file).convert("L").resize(({side}, {side}), Image.Resampling.BILINEAR)',
        f"tokens = (np.asarray(image).reshape(-1).astype(np.int64) + {tokenizer['first']}).tolist()",
    ]


_KINDS: dict[str, Callable[[Tokenizer, int], tuple[str, list[str]]]] = {
    "words": _words,
    "bytes": _bytes,
    "pixels": _pixels,
}
