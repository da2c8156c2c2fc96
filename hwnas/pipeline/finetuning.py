"""The stage that fine-tunes the network found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from hwnas.pipeline.cache import Stage
from hwnas.pipeline.rounds import Finetuned
from hwnas.pipeline.stages import Context, Result
from hwnas.supernet import read_facts, single
from hwnas.workflows.processes import launched
from hwnas.workflows.training import train_into


def finetune_stage(context: Context, folder: Path, trained: Stage, searched: Stage, teacher: Stage) -> Result:
    """Fine-tune the network found, in one process, and evaluate it before and after on validation images.

    The teacher is the largest network of a supernet: of the trained one, or the user's own network.
    """
    job, space = context.job, context.space
    arch = space.arch(searched.result()["arch"])
    inherited = context.evaluator(trained.folder)
    training = job.finetune.training(job.training.config, context.data.size("train"))
    train_into(
        folder,
        single(space, arch, inherited.subnet(arch, progress=context.progress)),
        context.data,
        training,
        launched(job.training.accelerator, 1, job.training.precision, config=training, alone=True),
        seed=job.seed,
        data_facts=context.data_facts,
        metric=job.accuracy.metric,
        positive=job.accuracy.positive,
        teacher=teacher.folder if job.finetune.distil else None,
        started_from=read_facts(trained.folder),
        progress=context.progress,
    )
    found = Finetuned(
        steps=training.steps,
        inherited=inherited.accuracy(arch),
        finetuned=context.evaluator(folder).accuracy(arch),
    )
    return asdict(found)
