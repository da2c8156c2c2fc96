"""ListOps: nested operations on lists of digits, whose value is the class.

Source: Nangia and Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", NAACL SRW 2018; the long form and
its parameters from Tay et al., "Long Range Arena: A Benchmark for Efficient Transformers", ICLR 2021, section 2.1.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable

import numpy as np
from pydantic import JsonValue

from hwnas.data.base import stable_seed
from hwnas.data.sequences import START, GeneratedTokens, Tokens
from hwnas.errors import InvalidValue

OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
TOKENS = ("<pad>", "<start>", *map(str, range(10)), *OPERATIONS, "]")
DIGIT, OPERATION, END = 2, 12, 16  # the first tokens of each kind
DEPTH, ARGUMENTS, NESTED = 10, 10, 0.25  # deepest operation, most arguments, share of arguments that are operations
LONGEST, SHORTEST, MOST = 512, 16, 4096
_SHARE, _ENOUGH = 0.25, 512  # least length of a sequence: a share of the longest, but no more than this
REVISION = 1


class ListOps(GeneratedTokens):
    """Expressions such as ``[MAX 4 3 [MIN 2 3 ] 1 ]``, of which the value is the class: ten classes.

    Args:
        seed: of the fixed sequences.
        length: the longest sequence, in tokens; all have at least a quarter of it.

    Raises:
        InvalidValue: the length is impossible.
    """

    name = "listops"
    classes = tuple(map(str, range(10)))
    vocabulary = len(TOKENS)

    def __init__(self, *, seed: int = 0, length: int = LONGEST) -> None:
        if not SHORTEST <= length <= MOST:
            raise InvalidValue(f"listops cannot have sequences of at most {length} tokens; use {SHORTEST} to {MOST}")
        super().__init__(seed)
        self.resolution = length

    def fingerprint(self) -> str:
        """A hash of everything that determines the sequences."""
        rules = (
            self.name,
            REVISION,
            self._seed,
            self.resolution,
            DEPTH,
            ARGUMENTS,
            NESTED,
            _SHARE,
            _ENOUGH,
            self.sizes,
        )
        return hashlib.blake2b(repr(rules).encode(), digest_size=16).hexdigest()

    def recorded_options(self) -> dict[str, JsonValue]:
        """The longest length."""
        return {"length": self.resolution}

    def tokenizer(self) -> dict[str, JsonValue]:
        """Tokens are words between spaces."""
        return {"kind": "words", "tokens": list(TOKENS)}

    def _generated(self, *seed: object) -> tuple[Tokens, int]:
        rng = np.random.default_rng(stable_seed(self.name, *seed))
        least, most = min(round(_SHARE * self.resolution), _ENOUGH) - 1, self.resolution - 1
        while True:
            tokens: list[int] = []
            value = _expression(rng, tokens, 0, most)
            if value is not None and len(tokens) >= least:
                return np.array([START, *tokens], np.int64), value


def _expression(rng: np.random.Generator, tokens: list[int], depth: int, most: int) -> int | None:
    """Append a random expression; its value, or None if there would be more than `most` tokens."""
    if len(tokens) >= most:
        return None
    if depth and (depth >= DEPTH or rng.random() > NESTED):
        digit = int(rng.integers(10))
        tokens.append(DIGIT + digit)
        return digit
    operation = int(rng.integers(len(OPERATIONS)))
    tokens.append(OPERATION + operation)
    values = []
    for _ in range(int(rng.integers(2, ARGUMENTS + 1))):
        value = _expression(rng, tokens, depth + 1, most)
        if value is None:
            return None
        values.append(value)
    tokens.append(END)
    return list(OPERATIONS.values())[operation](values) if len(tokens) <= most else None


def evaluated(text: str) -> int:
    """The value of an expression as text, ``[MAX 4 [SM 2 3 ] ]``, computed without the generator.

    Raises:
        InvalidValue: it is not an expression.
    """
    stack: list[list[int | str]] = [[]]
    for word in text.split():
        if word in OPERATIONS:
            stack.append([word])
        elif word == "]" and len(stack) > 1 and len(stack[-1]) > 1:
            operation, *values = stack.pop()
            stack[-1].append(OPERATIONS[str(operation)]([int(value) for value in values]))
        elif word in map(str, range(10)):
            stack[-1].append(int(word))
        else:
            raise InvalidValue(f"{word!r} does not belong to a ListOps expression: {text[:80]}")
    if len(stack) != 1 or len(stack[0]) != 1:
        raise InvalidValue(f"{text[:80]!r} is not one ListOps expression")
    return int(stack[0][0])
