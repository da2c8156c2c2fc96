"""`hwnas study`: the best network within budgets where each is trained by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options
from hwnas.shown_progress import INTERRUPTED, shown_progress, stopped_by_ctrl_c
from hwnas.workflows import inputs

if TYPE_CHECKING:
    from hwnas.search.study.from_scratch import FromScratch

ARCH, STORAGE = "arch.json", "study.journal"


def study(
    space: options.SpaceName,
    data: options.DataName,
    budget: options.Budgets,
    out: Annotated[Path, typer.Option(help="Folder for the best network, its weights and the study.")],
    target: Annotated[
        str | None,
        typer.Option(help="What a budget without a name is for; 'this' is the present host.", metavar="DEVICE/RECIPE"),
    ] = None,
    data_path: options.DataPath = None,
    fix: options.Fix = None,
    trials: Annotated[int, typer.Option(help="Networks to train, by all workers together.", min=1)] = 50,
    training: options.Training = None,
    steps: Annotated[int | None, typer.Option(help="Updates of a training, in place of the config's.", min=1)] = None,
    epochs: Annotated[
        int, typer.Option(help="Equal parts of a training, after each of which it may be cut short.", min=1)
    ] = 9,
    sampler: Annotated[str, typer.Option(help="tpe, gp or random.")] = "tpe",
    storage: Annotated[
        str | None,
        typer.Option(
            help=f"Where the workers meet: a .log or .journal file or the URL of a database; {STORAGE} in the folder "
            "if left out."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the study in its storage.")] = "study",
    images: options.Images = 2000,
    confidence: options.Confidence = None,
    no_margin: options.NoMargin = False,
    accelerator: options.Accelerator = "auto",
    precision: options.TrainingPrecision = "32-true",
    tables: options.Tables = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Train networks from scratch, one after the other, each drawn by what those before it have taught.

    The same command goes on with a study that was killed; given again meanwhile, here or on another machine, it adds a
    worker. Ctrl-C ends it with the best network so far.
    """
    from hwnas.data import open_data
    from hwnas.errors import InvalidValue, SearchStopped
    from hwnas.search.study.from_scratch import FromScratch
    from hwnas.search.study.study import search_study
    from hwnas.supernet import TrainConfig, read_training
    from hwnas.workflows import answers as said
    from hwnas.workflows.constraints import asked

    if target is not None and target.endswith("/*"):
        raise InvalidValue(f"a study is for one recipe, not for --target {target}; name it: {target[:-1]}RECIPE")
    held = inputs.held_confidence(confidence, no_margin)
    pictures = open_data(data, path=data_path)
    chosen = inputs.fixed_space(space, fix, pictures.in_channels, len(pictures.classes))
    config = read_training(training) if training else TrainConfig()
    config = config.lasting(steps) if steps else config
    [wanted] = asked(chosen, budget, target, tables=tables, family=False, confidence=held).constraints.values()
    with shown_progress() as progress, stopped_by_ctrl_c() as stop:
        train = FromScratch(
            space=chosen,
            data=pictures,
            data_facts={"name": pictures.name, "path": str(data_path.absolute()) if data_path else None},
            config=config,
            epochs=epochs,
            images=images,
            seed=seed,
            fabric=options.launched(accelerator, 1, precision, alone=True),
            folder=out,
            study=name,
            progress=progress,
            stop=stop,
        )
        _prepare_folder(train)
        found = search_study(
            wanted,
            train,
            trials=trials,
            sampler=sampler,
            epochs=epochs,
            storage=storage or str(out / STORAGE),
            name=name,
            settings=train.settings,
            seed=seed,
            progress=progress,
            stop=stop,
        )
    if not found.candidates:
        if found.stopped:
            raise typer.Exit(INTERRUPTED)
        raise SearchStopped(
            f"none of the {found.evaluations} networks of study {name} is trained to the end; when no other worker is "
            "at one, run the same command with more --trials"
        )
    best = found.candidates[0]
    answer = said.network_answer(
        wanted,
        best,
        best.predicted_accuracy,
        strategy=found.strategy,
        proof=("Stopped early: the" if found.stopped else "The")
        + f" best of {found.evaluations} networks that the study trained. Nothing is proved of the others",
    )
    kept = train.kept
    here = kept is not None and kept.domain.make().largest == best.arch
    answer["supernet"] = str(out) if here else None
    answer["candidates"] = [
        {"arch": dict(c.arch), "predicted": dict(c.costs), "validation_accuracy": c.predicted_accuracy}
        for c in found.candidates
    ]
    [file] = said.write_answers(out / ARCH, [answer], family=False)
    if as_json:
        options.print_json(answer)
    else:
        typer.echo("\n".join(said.lines_of(answer, file, out if here else None)))
        if not here:
            typer.echo(
                "Its weights are in the --out of the worker that trained it, or were deleted; `hwnas train` with its "
                "values as --fix makes them again"
            )
    if found.stopped:
        raise typer.Exit(INTERRUPTED)


def _prepare_folder(train: FromScratch) -> None:
    """Make the study's folder, and check that the best network may be written into it.

    Raises:
        OutputError: it is a file, or holds a supernet of something else, which would be lost.
    """
    kept = train.kept
    if kept is None or kept.training.get("study") != train.study:
        inputs.check_folder(train.folder, "study")
    train.folder.mkdir(parents=True, exist_ok=True)
