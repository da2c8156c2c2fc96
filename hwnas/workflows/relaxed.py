"""Differentiable search: joint training of the weights of a space and the probabilities of its choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue, some
from hwnas.files import only_one, read_spec
from hwnas.progress import Progress, Stopping, silent, unstoppable
from hwnas.workflows import inputs
from hwnas.workflows.answers import MostProbable, RelaxedAnswer
from hwnas.workflows.inputs import Fix, Place
from hwnas.workflows.networks import arch_facts, check_places, write_arch

if TYPE_CHECKING:
    from hwnas.data import Data, DataOptions
    from hwnas.search.differentiable import DifferentiableConfig, Relaxed
    from hwnas.search.problem import Constraints
    from hwnas.spaces import Space
    from hwnas.supernet import Supernet


def search_differentiably(
    strategy: str,
    space: str | Space | None,
    data: str | Data,
    out: Place,
    *,
    init: Place | None = None,
    budget: str | Sequence[str],
    target: str | None = None,
    data_path: Place | None = None,
    data_options: DataOptions | None = None,
    fix: Fix | None = None,
    training: Place | DifferentiableConfig | None = None,
    steps: int | None = None,
    penalty: str | None = None,
    accelerator: str = "auto",
    confidence: float | None = 0.95,
    tables: Place | None = None,
    resume: bool = True,
    seed: int = 0,
    progress: Progress = silent,
    stopping: Stopping = unstoppable,
) -> RelaxedAnswer:
    """Search with a differentiable strategy, and write the resulting network.

    Args:
        strategy: see `hwnas.search.differentiable.METHODS`.
        space: search space or its name; None with `init`.
        data: dataset or its name.
        out: file for the network, ``arch.json``; the checkpoint is in the folder ``arch.json.search``.
        init: folder of a supernet of the same classes whose space and weights are the start, such as one of `hybrid`.
        budget: as in `hwnas.search`.
        target: as in `hwnas.search`, without ``*``.
        data_path: folder of a dataset that is read from disk.
        data_options: how its images are read: channels, transform, layout.
        fix: variable -> the value or values that remain.
        training: its config, or the TOML file of the config.
        steps: updates, instead of the config's.
        penalty: latency penalty, instead of the config's.
        accelerator: auto, cpu or cuda.
        confidence: that a measured latency stays within its budget; None applies the budget to the prediction itself.
        tables: folder of latency tables; the catalog's if None.
        resume: resume from the checkpoint.
        seed: random seed.
        progress: callback, invoked after every update.
        stopping: creates the context in which the search can be stopped early.

    Raises:
        InvalidValue, UnknownName: a name or a value is unknown or invalid.
        DataError, SpecError, TableError: a file cannot be used.
        InfeasibleBudget: no network is within the budgets.
        OutputError: a file cannot be written.
    """
    from hwnas.search.differentiable import DifferentiableConfig, search_differentiable, usual_search
    from hwnas.workflows.constraints import asked, check_one_recipe
    from hwnas.workflows.processes import launched

    check_one_recipe(target, f"{strategy} searches for")
    out = Path(out)
    check_places(out, None, family=False)
    pictures, _ = inputs.data_of(data, data_path, data_options)
    start: Supernet | None = None
    if init is not None:
        if space is not None:
            raise InvalidValue(f"{init} has a space, so a space cannot be given with --init")
        start = _start(Path(init), pictures, fix or {})
        chosen = start.space
    elif space is None:
        raise InvalidValue(f"{strategy} needs a space, or a supernet to start from")
    else:
        chosen = inputs.space_for(space, pictures, fix)
    if isinstance(training, str | Path):
        config = read_spec(Path(training), DifferentiableConfig)
    else:
        config = training or usual_search(chosen)
    changes = {"steps": steps, "penalty": penalty}
    config = DifferentiableConfig.model_validate(
        {**config.model_dump(), **{k: v for k, v in changes.items() if v is not None}}
    )
    [wanted] = asked(
        chosen,
        [budget] if isinstance(budget, str) else list(budget),
        target,
        tables=Path(tables) if tables else None,
        family=False,
        confidence=confidence,
    ).constraints.values()
    folder = out.with_name(out.name + ".search")
    device = launched(accelerator, 1, "32-true", alone=True).device
    with only_one(folder / ".lock", str(folder)), stopping() as stop:
        found = search_differentiable(
            wanted,
            pictures,
            strategy,
            config,
            folder=folder,
            init=start,
            seed=seed,
            device=str(device),
            resume=resume,
            progress=progress,
            stop=stop,
        )
        answer = _answer(wanted, strategy, found, stopped=stop())
    write_arch(out, answer)
    return answer


def _start(folder: Path, data: Data, fix: Fix) -> Supernet:
    """The supernet that a search starts from.

    Raises:
        CheckpointError: the folder is not a supernet.
        InvalidValue: the data have other classes, or a variable is fixed that weights depend on.
    """
    from hwnas.supernet import Supernet, load_supernet

    supernet, facts = load_supernet(folder)
    if (facts.classes, facts.task) != (list(data.classes), data.task):
        raise InvalidValue(
            f"{folder} tells {some(facts.classes)} apart ({facts.task}), {data.name} has {some(data.classes)} "
            f"({data.task}). Write a supernet for these first, with hwnas supernet adapt, and start from it"
        )
    if not fix:
        return supernet
    made, state = Supernet(supernet.space.fix(**fix)), supernet.state_dict()
    if {name: tensor.shape for name, tensor in made.state_dict().items()} != {
        name: tensor.shape for name, tensor in state.items()
    }:
        raise InvalidValue(
            f"--fix of {', '.join(fix)} would cut the weights of {folder}; with --init, fix only variables that leave "
            "them whole, such as the resolution"
        )
    made.load_state_dict(state)
    return made


def _answer(wanted: Constraints, strategy: str, found: Relaxed, *, stopped: bool) -> RelaxedAnswer:
    from hwnas.spaces import notation_of

    repaired = found.repaired
    notation = notation_of(repaired.arch)
    return RelaxedAnswer.model_validate(
        {
            **arch_facts(wanted, repaired.arch, repaired.costs, list(wanted.budgets)),
            "strategy": strategy,
            "stopped": stopped,
            "steps": found.steps,
            "ended": found.ended,
            "expected": found.expected,
            "argmax": MostProbable(arch=dict(repaired.argmax), predicted=dict(repaired.argmax_costs)),
            "near": repaired.near,
            "log_probability": repaired.probability,
            "probabilities": found.probabilities,
            **({"notation": notation} if notation else {}),
        }
    )
