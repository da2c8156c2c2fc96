"""The stage that writes a trained network of the user as a supernet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from hwnas.pipeline.cache import Stage, file_digest
from hwnas.pipeline.stages import Context, Result
from hwnas.plugins import file_of
from hwnas.workflows.tracing import elastic_into


def elastic_stage_of(
    context: Context, stage: Callable[..., Stage], data: Mapping[str, str], versions: Mapping[str, str]
) -> Stage:
    """The stage of a job with ``[model]``.

    Args:
        context: of the target, or of all.
        stage: makes a stage in the run's folder.
        data: fingerprints of the images that it uses.
        versions: of the packages of a target.
    """
    model = context.job.model
    assert model is not None
    files = {"weights": model.weights, "network": model.network if model.network.endswith(".pt2") else None}
    code = file_of(model.network)
    return stage(
        name="elastic",
        inputs={
            "model": model.model_dump(exclude={"train", "weights"}),
            "space": context.space.name,  # with the hash of what was traced
            "files": {name: file_digest(Path(path)) for name, path in files.items() if path},
            **({"code": file_digest(code)} if code else {}),
            "seed": context.job.seed,
            "versions": {name: versions[name] for name in ("hwnas", "torch")},
            **data,
        },
        needs=(),
        work=partial(elastic_stage, context),
    )


def elastic_stage(context: Context, folder: Path) -> Result:
    """Trace the network, sort its channels, and write its supernet."""
    job, model = context.job, context.job.model
    assert model is not None
    _, importance, judged = elastic_into(
        folder,
        model.traced(context.data),
        context.data,
        context.data_facts,
        importance=model.importance,
        seed=job.seed,
        progress=context.progress,
    )
    return {"importance": importance, "judged": judged}
