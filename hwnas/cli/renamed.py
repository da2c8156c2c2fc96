"""Options under the names that earlier releases gave them: still read, not listed by ``--help``."""

from __future__ import annotations

from collections.abc import Sequence

# A recipe is how a network is exported and run; how one is trained is a training config.
_TRAINING = {"--recipe": "--training"}
_RENAMED: dict[tuple[str, ...], dict[str, str]] = {
    ("train",): _TRAINING,
    ("study",): _TRAINING,
    ("search",): _TRAINING,
    ("subnet", "finetune"): _TRAINING,
}


def renamed(words: Sequence[str]) -> list[str]:
    """The words of a command, options by their present names: ``train --recipe=x`` -> ``train --training=x``."""
    new = next((names for verb, names in _RENAMED.items() if tuple(words[: len(verb)]) == verb), {})
    found = []
    for word in words:
        option, equals, value = word.partition("=")
        found.append(new.get(option, option) + equals + value)
    return found
