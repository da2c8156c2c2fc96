"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.errors import InvalidValue

if TYPE_CHECKING:
    from hwnas.data.options import DataOptions
    from hwnas.engines import EngineConfig

ARCH = (
    "File from `hwnas search`, report.json of `hwnas compile` (report.json:device/recipe if it has several targets), "
    "manifest.json of a bundle, or your own."
)
Arch = Annotated[Path, typer.Argument(help=ARCH, metavar="ARCH")]
ArchOrModel = Annotated[
    Path,
    typer.Argument(
        help=f"{ARCH} Or a model: model.onnx, program.pt2 of torch.export.save, or net.py:make.", metavar="ARCH|MODEL"
    ),
]
SupernetOfArch = Annotated[
    Path | None, typer.Option("--supernet", help="Folder from `hwnas train`; required for an arch.")
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        help="Of a model: sizes of an input with open axes, x=1x3x224x224, or of a symbolic axis, width=320. May be "
        "repeated.",
        metavar="NAME=SIZES",
    ),
]
Inputs = Annotated[
    Path | None,
    typer.Option(
        "--inputs",
        help="Of a model: samples to run on and to calibrate int8, a .npz file with an array per input (and labels), "
        "or a folder of images. By default random numbers.",
        metavar="PATH",
    ),
]
ModelWeights = Annotated[
    Path | None,
    typer.Option("--weights", help="Of a module in a Python file: its weights, .safetensors or a state dictionary."),
]
Target = Annotated[
    str,
    typer.Option(help="device/recipe; the device 'this' is the present host.", metavar="DEVICE/RECIPE"),
]
Targets = Annotated[
    list[str],
    typer.Option(
        "--target",
        help="device/recipe; the device 'this' is the present host. May be repeated: different machines are measured "
        "at the same time.",
        metavar="DEVICE/RECIPE",
    ),
]
SPACE = "Search space: {spaces}; or path/to/file.py:NAME; or a TOML file (hwnas spaces list)."
SpaceName = Annotated[str, typer.Option("--space", help=SPACE)]
OptionalSpaceName = Annotated[str | None, typer.Option("--space", help=SPACE)]
Resolution = Annotated[
    str | None,
    typer.Option(help="Resolutions of the space instead of its own: 64,80,96, or 64:128:16 with both ends."),
]
Width = Annotated[float | None, typer.Option(help="Width multiplier of the space instead of its own: 0.5.")]
KernelSizes = Annotated[
    str | None, typer.Option("--kernel-sizes", help="Kernel sizes of the space instead of its own: 3,5.")
]
Expansions = Annotated[str | None, typer.Option(help="Expansions of the space instead of its own: 3,6.")]
Aspect = Annotated[
    str | None,
    typer.Option(help="Width to height of the images, 2:1; the resolution is then their height.", metavar="W:H"),
]
Fix = Annotated[
    list[str] | None,
    typer.Option("--fix", help="Restrict a variable to one or several values: resolution=160,192. May be repeated."),
]
Channels = Annotated[int | None, typer.Option(help="Channels of the images; by default the space's.")]
Vocabulary = Annotated[
    int | None,
    typer.Option("--vocabulary", help="Number of tokens of a space of sequences, of which 0 is padding.", min=2),
]
Classes = Annotated[int | None, typer.Option(help="Number of classes; by default the space's.")]
DataName = Annotated[str, typer.Option("--data", help="Dataset: {datasets}; or path/to/file.py:NAME.")]
DataPath = Annotated[
    Path | None,
    typer.Option("--data-path", help="Folder of images (train/<class>/, val/<class>/), or of a Hugging Face dataset."),
]
MovedData = Annotated[
    Path | None,
    typer.Option("--data-path", help="Folder where the supernet's images are now, if they were moved.", metavar="PATH"),
]
DataChannels = Annotated[
    int | None, typer.Option("--channels", help="1 for gray, 3 for colour; by default from the images.", min=1, max=3)
]
DataSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Shares of train, validation and test, 70,15,15, of a folder of <class>/ or of --labels.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(help="CSV with the columns file, label and optionally split; a relative path starts at --data-path."),
]
MultiLabel = Annotated[
    bool,
    typer.Option(
        "--multi-label",
        help="Several labels per image, independent of each other: names in --labels separated by semicolons, or one "
        "column per class with probabilities.",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out images that cannot be read; all are decoded once to find them.")
]
DataOptionsFile = Annotated[
    Path | None,
    typer.Option("--data-options", help="TOML file with keys of a job's \\[data]: transform, split_seed and others."),
]
Budgets = Annotated[
    list[str],
    typer.Option(
        "--budget",
        help="Latency: 0.8ms, or 50% of the largest network's. NAME=VALUE for other targets (device/recipe=4ms) "
        "and for macs, params, size_bytes, peak_activation_bytes. May be repeated: all apply.",
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        help="Confidence that the measured latency stays within the budget.", min=0.5, max=0.999, show_default="0.95"
    ),
]
NoMargin = Annotated[
    bool,
    typer.Option("--no-margin", help="Apply the budget to the prediction itself; needed for imported tables."),
]
USUAL_METRIC = "top1; mAP for several labels per image"
Images = Annotated[int, typer.Option(help="Validation images per evaluation.", min=1)]
Metric = Annotated[
    str | None,
    typer.Option(
        help="What evaluations measure and the search maximises: {metrics}, recall@precision=0.9, or "
        "path/to/file.py:function.",
        show_default=USUAL_METRIC,
    ),
]
TrainingMetric = Annotated[
    str | None,
    typer.Option(
        help="What validations measure: {metrics}, recall@precision=0.9, or path/to/file.py:function.",
        show_default=USUAL_METRIC,
    ),
]
DeployedMetric = Annotated[
    str | None,
    typer.Option(
        help="What the accuracy is in the runtime: {metrics}, recall@precision=0.9, or path/to/file.py:function. Of a "
        "model: top1, mse, mae.",
        show_default=USUAL_METRIC,
    ),
]
Positive = Annotated[str | None, typer.Option(help="Class of the metric, for mAP, f1, auc and recall@precision.")]
Calibration = Annotated[int, typer.Option(help="Training images for BN re-calibration.", min=2)]
Tables = Annotated[
    Path | None,
    typer.Option(help="Folder of latency tables; by default the user's data folder or $HWNAS_HOME."),
]
Training = Annotated[
    Path | None, typer.Option(help="Training config, a TOML file; by default one phase of 1100 updates.")
]
Teacher = Annotated[
    Path | None, typer.Option(help="Folder of a trained supernet whose largest network is an additional teacher.")
]
Accelerator = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Devices = Annotated[
    int,
    typer.Option(
        help="Total number of processes, one per device; on the CPU they share its cores. hwnas starts them, or uses "
        "those of srun or torchrun.",
        min=1,
    ),
]
NumNodes = Annotated[
    int,
    typer.Option(
        "--num-nodes",
        help="Hosts that train together: run the same command on each, with its --node-rank, and the same "
        "--main-address. --devices is the number of all their processes.",
        min=1,
    ),
]
NodeRank = Annotated[
    int | None, typer.Option("--node-rank", help="Number of this host, from 0; the first one writes the files.", min=0)
]
MainAddress = Annotated[
    str | None,
    typer.Option(
        help="The first host, which the others reach under this name: HOST or HOST:PORT.", metavar="HOST:PORT"
    ),
]
TrainingPrecision = Annotated[
    str, typer.Option("--precision", help="32-true, or bf16-mixed if the device supports it.")
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="Where evaluations and trainings run, with the same results: {engines}; serial is this process, pool has "
        "processes of this host, ray a Ray cluster.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Workers of the engine; by default as many as the cores have room for, with their threads.", min=1
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster of the engine ray: HOST:PORT; by default $RAY_ADDRESS, or this host alone.",
        metavar="HOST:PORT",
    ),
]
Resume = Annotated[bool, typer.Option(help="Resume from the folder's checkpoint, or delete it and start over.")]
MAX_SEED = 2**32 - 1
Seed = Annotated[int, typer.Option(help="Random seed.", min=0, max=MAX_SEED)]
ModelRun = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Of a model: folder to which the figures are added, with a page, report.html. Bench, sweep and predict of "
        "one model may share it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout; progress goes to stderr.")]


def space_with(
    space: str,
    resolution: str | None,
    width: float | None,
    kernels: str | None,
    expansions: str | None,
    aspect: str | None,
) -> str:
    """The name of a space with the options of the command line.

    Raises:
        UnknownName, PluginError, SpecError, InvalidValue: as `hwnas.make_space`.
    """
    from hwnas.spaces import space_name

    given = {
        "resolution": resolution,
        "width": width,
        "kernels": kernels,
        "expansions": expansions,
        "aspect": aspect,
    }
    return space_name(space, {name: value for name, value in given.items() if value is not None})


def space_or_none(
    space: str | None,
    resolution: str | None,
    width: float | None,
    kernels: str | None,
    expansions: str | None,
    aspect: str | None,
) -> str | None:
    """As `space_with`, for verbs that take ``--init`` in place of ``--space``; None without a space.

    Raises:
        InvalidValue: there are options of a space, but no space.
    """
    from hwnas.errors import InvalidValue

    if space is not None:
        return space_with(space, resolution, width, kernels, expansions, aspect)
    if any(value is not None for value in (resolution, width, kernels, expansions, aspect)):
        raise InvalidValue(
            "--resolution, --width, --kernel-sizes, --expansions and --aspect belong to --space; those of a supernet "
            "are fixed"
        )
    return None


def choices(fix: list[str] | None) -> dict[str, list[int | str]]:
    """The restrictions of ``--fix``: variable -> its values.

    Raises:
        InvalidValue: an option does not have the form variable=value, or repeats a variable.
    """
    found: dict[str, list[int | str]] = {}
    for text in fix or []:
        variable, sign, values = text.partition("=")
        if variable in found:
            raise InvalidValue(f"--fix {variable} is given twice; list its values together: {variable}=24,28")
        if not sign or not all(values.split(",")):
            raise InvalidValue(f"--fix must be variable=value or variable=value,value; not {text!r}")
        found[variable] = [int(value) if value.isdecimal() else value for value in values.split(",")]
    return found


def data_options(
    file: Path | None,
    channels: int | None,
    split: str | None,
    labels: str | None,
    skip_bad: bool,
    split_seed: int | None = None,
    *,
    multi_label: bool = False,
) -> DataOptions:
    """How images are read: from ``--data-options`` and the options that override its keys.

    Raises:
        SpecError: the file cannot be read, or has a wrong or unknown key.
        InvalidValue: an option is invalid.
    """
    from pydantic import ValidationError

    from hwnas.data.options import DataOptions
    from hwnas.files import read_spec

    known = read_spec(file, DataOptions) if file else DataOptions()
    given: dict[str, Any] = {
        "channels": channels,
        "labels": labels,
        "multi_label": multi_label or None,
        "skip_bad": skip_bad or None,
        "split_seed": split_seed,
    }
    if split is not None:
        try:
            given["split"] = tuple(float(share) for share in split.split(","))
        except ValueError as error:
            raise InvalidValue(f"--split must be three shares, e.g. 70,15,15; not {split!r}") from error
    changed = {name: value for name, value in given.items() if value is not None}
    try:
        return DataOptions.model_validate(known.model_dump() | changed)
    except ValidationError as error:
        reasons = "; ".join(
            f"--{'.'.join(map(str, each['loc'])).replace('_', '-')} {each['input']!r}: "
            + each["msg"].removeprefix("Value error, ")
            for each in error.errors()
        )
        raise InvalidValue(reasons) from error


def engine(name: str, workers: int | None, address: str | None) -> EngineConfig:
    """The engine of ``--engine``, ``--workers`` and ``--address``."""
    from hwnas.engines import EngineConfig

    return EngineConfig(name=name, workers=workers, address=address)


def held_confidence(confidence: float | None, no_margin: bool) -> float | None:
    """The confidence from ``--confidence`` and ``--no-margin``; None for predictions without a margin.

    Raises:
        InvalidValue: both are given.
    """
    if no_margin and confidence is not None:
        raise InvalidValue(f"use --confidence or --no-margin, not both (--confidence is {confidence})")
    return None if no_margin else 0.95 if confidence is None else confidence
