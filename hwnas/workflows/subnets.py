"""Networks out of a supernet, and supernets from elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import CheckpointError, DataError, UnknownName
from hwnas.progress import Progress, silent
from hwnas.workflows import inputs
from hwnas.workflows.answers import EvaluatedSubnet, ImportAnswer, SubnetAnswer
from hwnas.workflows.arch_files import chosen_arch
from hwnas.workflows.inputs import Place

if TYPE_CHECKING:
    from pydantic import JsonValue

    from hwnas.engines import EngineConfig

FORMATS = ("ofa",)  # of published supernets


def extract_subnet(
    arch: Place,
    supernet: Place,
    out: Place,
    *,
    data_path: Place | None = None,
    calibration_images: int = 2000,
    progress: Progress = silent,
) -> SubnetAnswer:
    """Take a network out of a supernet, re-calibrate its BN, and write it as the supernet of a space with one arch.

    Args:
        arch: file that `hwnas search` wrote, or your own.
        supernet: folder that `hwnas train` or `hwnas supernet import` wrote.
        out: folder for the subnet.
        data_path: folder where the supernet's images are now, if they were moved.
        calibration_images: training images for BN re-calibration.
        progress: callback, invoked during re-calibration.

    Raises:
        SpecError, DataError, InvalidValue: the supernet, its data or the arch cannot be used.
        OutputError: `out` holds something else, or cannot be written.
    """
    from hwnas.supernet import save_supernet, single

    inputs.check_folder(Path(out), "subnet")
    evaluator, facts = inputs.evaluator_of(
        supernet, images=None, calibration_images=calibration_images, data_path=data_path
    )
    space = evaluator.supernet.space
    chosen = chosen_arch(space, arch)[0]
    save_supernet(
        single(space, chosen, evaluator.subnet(chosen, progress=progress)),
        Path(out),
        data=facts.data,
        classes=tuple(facts.classes),
        task=facts.task,
        training={"extracted_from": facts.weights_sha256, "calibration_images": evaluator.calibration_images},
    )
    params = int(space.params(space.encode([chosen]))[0])
    return SubnetAnswer(arch=dict(chosen), params=params, subnet=str(out))


def evaluate_subnets(
    supernet: Place,
    archs: Sequence[Place] = (),
    *,
    data_path: Place | None = None,
    random: int = 0,
    images: int | None = None,
    calibration_images: int = 2000,
    metric: str | None = None,
    positive: str | None = None,
    engine: EngineConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[EvaluatedSubnet]:
    """Accuracies of networks with the weights that they inherit, several in one pass over the images.

    What was evaluated before is not evaluated again. Without archs and random networks, the smallest and the largest
    are evaluated.

    Args:
        supernet: folder that `hwnas train` or `hwnas supernet import` wrote.
        archs: files that `hwnas search` wrote, or your own.
        data_path: folder where the supernet's images are now, if they were moved.
        random: number of random networks to evaluate as well.
        images: validation images; all if None.
        calibration_images: training images for BN re-calibration.
        metric: as in `hwnas.workflows.search`.
        positive: class of the metric.
        engine: where networks are evaluated; this process if None.
        seed: of the random networks.
        progress: callback, invoked after every evaluation.

    Raises:
        SpecError, DataError, InvalidValue: the supernet, its data or an arch cannot be used.
        OutputError: the evaluations cannot be written.
        EngineError: the engine cannot run here, or an evaluation ended three of its workers.
    """
    from hwnas.engines import open_engine

    folder = Path(supernet)
    with open_engine(engine) as where:
        evaluator, facts = inputs.evaluator_of(
            folder,
            images=images,
            calibration_images=calibration_images,
            metric=metric,
            positive=positive,
            data_path=data_path,
            engine=where,
        )
        space = evaluator.supernet.space
        chosen = {str(path): chosen_arch(space, path)[0] for path in archs}
        if not chosen and not random:
            ends = {"smallest": space.smallest, "largest": space.largest}
            chosen = ends if space.size > 1 else {"the only network": space.largest}
        chosen |= {f"random {i}": arch for i, arch in enumerate(space.decode(space.sample(random, seed=seed)))}
        with evaluator.journal(inputs.evaluations_folder(folder), facts.weights_sha256) as journal:
            found = evaluator.figures(list(chosen.values()), journal, what="evaluating subnets", progress=progress)
    return [
        EvaluatedSubnet(
            name=name, arch=dict(arch), metric=figures.metric, validation_accuracy=figures.value, figures=figures
        )
        for (name, arch), figures in zip(chosen.items(), found, strict=True)
    ]


def import_supernet(
    file: Place, out: Place, *, file_format: str = "ofa", space: str | None = None, data_path: Place | None = None
) -> ImportAnswer:
    """Read a published supernet, and write its folder; only tensors are unpickled, every name and shape is checked.

    Args:
        file: the checkpoint, e.g. ``ofa_mbv3_d234_e346_k357_w1.0``.
        out: folder for the supernet.
        file_format: ofa, a published checkpoint of once-for-all.
        space: name of the supernet's space; the one that the checkpoint resembles if None.
        data_path: ImageNet as an image folder, for BN re-calibration and evaluation; without it the supernet cannot be
            evaluated.

    Raises:
        UnknownName: no such format or space.
        CheckpointError: the file is no such checkpoint.
        DataError: the images have another number of classes.
        OutputError: `out` holds something else, or cannot be written.
    """
    from hwnas.data import DataOptions, open_data
    from hwnas.spaces import make_space
    from hwnas.supernet import Supernet, load_once_for_all, read_once_for_all, save_supernet
    from hwnas.supernet.once_for_all import PUBLISHED, resembled

    source, images = Path(file), Path(data_path) if data_path else None
    inputs.check_folder(Path(out), "supernet")
    if file_format not in FORMATS:
        raise UnknownName("format", file_format, FORMATS)
    if space is not None and space not in PUBLISHED:
        raise UnknownName("space of a published supernet", space, PUBLISHED)
    state = read_once_for_all(source)
    name = space or resembled(state)
    if name is None:
        raise CheckpointError(
            f"{source} has no parameter of once-for-all's supernets; those of {', '.join(PUBLISHED)} can be read"
        )
    supernet = Supernet(make_space(name))
    load_once_for_all(supernet, state)
    classes = tuple(map(str, range(supernet.space.classes)))
    facts: dict[str, JsonValue] = {"name": None, "path": None}
    if images:
        opened = open_data("images", path=images, options=DataOptions(channels=3))
        classes, facts = opened.classes, inputs.facts_of("images", images, opened)
        if len(classes) != supernet.space.classes:
            raise DataError(
                f"{source} was trained on {supernet.space.classes} classes, but {images} has {len(classes)}: use the "
                "images that it was trained on, or omit --data-path"
            )
    save_supernet(
        supernet,
        Path(out),
        data=facts,
        classes=classes,
        training={
            "imported": file_format,
            "file": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        },
    )
    return ImportAnswer(space=name, tensors=len(state), supernet=str(out))
