"""Fine-tune a network of a supernet."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue, UnknownName
from hwnas.progress import Progress, silent
from hwnas.workflows import inputs
from hwnas.workflows.answers import FinetuneAnswer
from hwnas.workflows.inputs import Place
from hwnas.workflows.processes import launched
from hwnas.workflows.training import alone_in, config_of, outcome, train_into

if TYPE_CHECKING:
    from hwnas.adapters import AdapterChoice
    from hwnas.supernet import TrainConfig

FINETUNING_EPOCHS = 3  # default without a training config


def finetune(
    subnet: Place,
    out: Place,
    *,
    data_path: Place | None = None,
    training: Place | TrainConfig | None = None,
    epochs: int | None = None,
    method: str | None = None,
    rank: int | None = None,
    metric: str | None = None,
    positive: str | None = None,
    teacher: Place | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    resume: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> FinetuneAnswer:
    """Fine-tune an extracted network.

    Args:
        subnet: folder from `hwnas subnet extract`.
        out: folder for the fine-tuned subnet.
        data_path: folder where the supernet's images are now, if they were moved.
        training: training config, or its TOML file.
        epochs: passes over the training images, instead of the config's steps; 3 without a config.
        method: name of a method that trains few parameters and merges them into the weights
            (`hwnas.adapters.ADAPTERS`); all weights are trained if None.
        rank: of its changes; 8 by default.
        metric: as in `train`.
        positive: as in `train`.
        teacher: as in `train`.
        accelerator: as in `train`.
        devices: as in `train`.
        precision: as in `train`.
        resume: resume from the folder's checkpoint.
        seed: random seed.
        progress: callback, invoked after every update.

    Raises:
        InvalidValue: the folder contains more than one network; the rank exceeds all layers, or is given without a
            method.
        UnknownName: there is no such method.
        OutputError, CheckpointError, TrainingDiverged, OutOfMemory, ProcessLost, SystemExit: as in `train`.
    """
    from hwnas.supernet import Phase, load_supernet, usual_training
    from hwnas.supernet.config import finetuning_rate

    adapter = adapter_of(method, rank)
    subnet, out = Path(subnet), Path(out)
    net, facts = load_supernet(subnet)
    facts = inputs.moved(facts, data_path)
    if net.space.size > 1:
        raise InvalidValue(
            f"{subnet} contains {net.space.size} networks; extract one with: hwnas "
            f"subnet extract arch.json --supernet {shlex.quote(str(subnet))} --out subnet"
        )
    data = inputs.reopen_data(facts)
    usual = usual_training(net.space)
    gentle = Phase(name="finetune", steps=1, learning_rate=finetuning_rate(usual.optimizer))
    usual = usual.model_copy(update={"phases": [gentle]})
    config = config_of(training) if training else usual
    if epochs or not training:
        config = config.lasting(math.ceil((epochs or FINETUNING_EPOCHS) * data.size("train") / config.batch_size))
    if adapter is not None:
        config = config.model_copy(update={"adapter": adapter})
    fabric = launched(accelerator, devices, precision, config=config)
    with alone_in(out, fabric):
        history = train_into(
            out,
            net,
            data,
            config,
            fabric,
            seed=seed,
            data_facts=facts.data,
            metric=metric,
            positive=positive,
            teacher=Path(teacher) if teacher else None,
            resume=resume,
            started_from=facts,
            progress=progress,
        )
    return FinetuneAnswer(subnet=str(out), **outcome(config, history, data, metric))


def adapter_of(method: str | None, rank: int | None) -> AdapterChoice | None:
    """A method of fine-tuning; None without one.

    Raises:
        UnknownName: there is no such method.
        InvalidValue: a rank without a method, or below 1.
    """
    from hwnas.adapters import ADAPTERS, AdapterChoice

    if method is None:
        if rank is not None:
            raise InvalidValue(f"--rank {rank} needs --method: one of {', '.join(ADAPTERS)}")
        return None
    if method not in ADAPTERS:
        raise UnknownName("method of fine-tuning", method, ADAPTERS)
    if rank is not None and rank < 1:
        raise InvalidValue(f"the rank should be at least 1, not {rank}")
    return AdapterChoice(method=method, **({} if rank is None else {"rank": rank}))
