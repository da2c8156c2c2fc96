"""Supernets for other classes than those that they were trained on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue, some
from hwnas.workflows import inputs
from hwnas.workflows.answers import AdaptAnswer
from hwnas.workflows.inputs import Place

if TYPE_CHECKING:
    from hwnas.data import Data, DataOptions
    from hwnas.spaces import Space
    from hwnas.supernet import Supernet, SupernetFacts

log = logging.getLogger(__name__)


def adapt_supernet(
    supernet: Place,
    data: str | Data,
    out: Place,
    *,
    data_path: Place | None = None,
    data_options: DataOptions | None = None,
    seed: int = 0,
) -> AdaptAnswer:
    """Write a supernet for other data: where these have other classes, its last layer is new.

    All other weights are kept. Accuracies are measured with BN statistics of the new images, as ever. `train` with
    `init` trains it further; it takes the folder of the original, too.

    Args:
        supernet: folder of the supernet.
        data: dataset or its name.
        out: folder for the new one.
        data_path: folder of a dataset that is read from disk.
        data_options: how its images are read.
        seed: of the last layer's weights.

    Raises:
        CheckpointError: the folder is not a supernet.
        InvalidValue: the data have other channels, or the space cannot have their classes.
        DataError, SpecError: the data cannot be read.
        OutputError: the folder cannot be written, or contains a supernet.
    """
    from hwnas.supernet import load_supernet, save_supernet

    place, source = Path(out), Path(supernet)
    inputs.check_folder(place, "supernet")
    images, facts = inputs.data_of(data, data_path, data_options)
    given, theirs = load_supernet(source)
    made, new = adapted_to(given, theirs, images, source, seed=seed)
    save_supernet(
        made,
        place,
        data=facts,
        classes=images.classes,
        task=images.task,
        training={"adapted_from": {"weights_sha256": theirs.weights_sha256, "training": theirs.training}, "seed": seed},
    )
    return AdaptAnswer(
        space=made.space.name, supernet=str(place), tensors=len(made.state_dict()) - len(new), new_tensors=new
    )


def started_from(
    init: Place, space: str | Space | None, data: Data, *, restricted: bool, seed: int
) -> tuple[Supernet, SupernetFacts, list[str]]:
    """The supernet that a training starts from, its facts, and names of tensors that are new.

    Raises:
        InvalidValue: a space or a restriction was given, too, or the data have other channels.
        CheckpointError: the folder is not a supernet.
    """
    from hwnas.supernet import load_supernet

    if space is not None or restricted:
        raise InvalidValue(f"{init} has a space, so a space, --fix and --arch cannot be given with --init")
    supernet, facts = load_supernet(Path(init))
    adapted, new = adapted_to(supernet, facts, data, Path(init), seed=seed)
    return adapted, facts, new


def adapted_to(
    supernet: Supernet, facts: SupernetFacts, data: Data, folder: Path, *, seed: int
) -> tuple[Supernet, list[str]]:
    """A supernet for the classes of other data: its last layer is new if they are not its own.

    Args:
        supernet: the weights.
        facts: of the supernet.
        data: the images.
        folder: of the supernet, for messages.
        seed: of the weights of a new layer.

    Returns:
        the supernet, and the names of its tensors that are new.

    Raises:
        InvalidValue: the data have other channels.
    """
    from hwnas.supernet import for_classes

    if supernet.space.reads != data.reads:
        raise InvalidValue(f"{folder} takes {supernet.space.reads.text}, {data.name} has {data.reads.text}")
    if facts.classes == list(data.classes) and facts.task == data.task:
        return supernet, []
    made, new = for_classes(supernet, len(data.classes), seed=seed)
    log.warning(
        "%s tells %s apart, %s has %s: the last layer is new (%s); the other %d tensors are those of %s",
        folder, some(facts.classes), data.name, some(data.classes), ", ".join(new),
        len(made.state_dict()) - len(new), folder,
    )  # fmt: skip
    return made, new
