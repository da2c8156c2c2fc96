"""Storage of a trained supernet in a folder: its weights and their description."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
from pydantic import Field, JsonValue, ValidationError

from hwnas.errors import CheckpointError, HwnasError
from hwnas.files import Spec, write_whole
from hwnas.spaces import Domain, Space
from hwnas.spaces.traced import NETWORK, known_network, read_network
from hwnas.supernet.network import Supernet

if TYPE_CHECKING:
    from collections.abc import Mapping

# What building the modules of a traced network from a malformed file raises.
_MALFORMED = (KeyError, IndexError, ValueError, TypeError, AttributeError, AssertionError)
WEIGHTS, FACTS = "supernet.safetensors", "supernet.json"


class SupernetFacts(Spec):
    """``supernet.json``: describes the weights in the same folder.

    Attributes:
        domain: the space.
        data: name and path of the training dataset, and its `hwnas.data.DataOptions` that differ from the defaults
            (missing in supernets of older versions).
        classes: names of the classes.
        task: name of the task (`hwnas.data.Data.task`).
        training: description of the training.
        weights_sha256: SHA-256 hash of the weights file.
    """

    domain: Domain
    data: dict[str, JsonValue]
    classes: list[str]
    task: str = Field(default="classification", exclude_if=lambda task: task == "classification")
    training: dict[str, JsonValue]
    weights_sha256: str


def save_supernet(
    supernet: Supernet,
    folder: Path,
    *,
    data: Mapping[str, JsonValue],
    classes: tuple[str, ...],
    training: Mapping[str, JsonValue],
    task: str = "classification",
) -> None:
    """Write a supernet's weights and facts into a folder.

    Raises:
        OutputError: a file cannot be written.
    """
    weights = safetensors.torch.save({name: tensor.contiguous() for name, tensor in supernet.state_dict().items()})
    facts = SupernetFacts(
        domain=Domain.of(supernet.space),
        data=dict(data),
        classes=list(classes),
        task=task,
        training=dict(training),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    if (network := known_network(supernet.space.name)) is not None:
        write_whole(folder / NETWORK, network.json_text())
    write_whole(folder / WEIGHTS, weights)
    write_whole(folder / FACTS, json.dumps(facts.model_dump(), indent=2) + "\n")


def read_facts(folder: Path) -> SupernetFacts:
    """Read the description of the supernet in a folder, without its weights.

    Raises:
        CheckpointError: the file is missing or malformed.
    """
    try:
        return SupernetFacts.model_validate_json((folder / FACTS).read_bytes())
    except OSError as error:
        raise _nothing(folder, error) from error
    except ValidationError as error:
        raise CheckpointError(f"{folder / FACTS} is malformed: {error}") from error


def load_supernet(folder: Path) -> tuple[Supernet, SupernetFacts]:
    """Load a supernet from a folder written by `save_supernet`, in evaluation mode.

    Raises:
        CheckpointError: a file is missing, malformed, or was changed after it was written.
    """
    facts = read_facts(folder)
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise _nothing(folder, error) from error
    if hashlib.sha256(weights).hexdigest() != facts.weights_sha256:
        raise CheckpointError(f"{folder / WEIGHTS} is not the file that {FACTS} describes; one of them was changed")
    if (folder / NETWORK).exists():
        read_network(folder / NETWORK)
    try:
        space = facts.domain.make()
        _check_size(space, len(weights))
        supernet = Supernet(space)
        supernet.load_state_dict(safetensors.torch.load(weights))
    except (HwnasError, RuntimeError, safetensors.SafetensorError, *_MALFORMED) as error:
        raise CheckpointError(f"{folder / WEIGHTS} does not fit the domain in {FACTS}: {error}") from error
    return supernet.eval(), facts


def _check_size(space: Space, size_bytes: int) -> None:
    """Check, before memory is reserved, that a file of weights may contain a space's parameters.

    Raises:
        CheckpointError: it is too small.
    """
    params = int(space.params(space.encode([space.largest]))[0])
    if 2 * params > size_bytes:  # at least two bytes each
        raise CheckpointError(f"{space.name} has {params:,} parameters, and the file has {size_bytes:,} bytes")


def _nothing(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{folder} holds no supernet: {error.filename}: {error.strerror}. `hwnas train` with --out {folder} trains one"
    )
