"""Old names of options: still accepted, not listed by ``--help``."""

from __future__ import annotations

from collections.abc import Sequence

# A recipe describes export and execution; a training config describes training.
_TRAINING = {"--recipe": "--training"}
_RENAMED: dict[tuple[str, ...], dict[str, str]] = {
    ("train",): _TRAINING,
    ("study",): _TRAINING,
    ("search",): _TRAINING,
    ("subnet", "finetune"): _TRAINING,
}


def renamed(words: Sequence[str]) -> list[str]:
    """The arguments of a command with current option names: ``train --recipe=x`` -> ``train --training=x``."""
    new = next((names for verb, names in _RENAMED.items() if tuple(words[: len(verb)]) == verb), {})
    found = []
    for word in words:
        option, equals, value = word.partition("=")
        found.append(new.get(option, option) + equals + value)
    return found
