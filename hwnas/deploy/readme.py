"""``README.md`` of a bundle: how to run it without hwnas, and notes on licences."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Collection, Mapping

from hwnas.deploy.manifest import SCRIPT, BundleManifest
from hwnas.deploy.preprocessing import photograph_lines, step_words
from hwnas.deploy.tokenizing import reads_pairs, token_lines
from hwnas.plugins import resource

# The first line of a script that sets names in capitals, such as `PROGRAM, BATCH = "model.onnx", 1`.
_CONSTANTS = re.compile(r"^(?P<names>[A-Z]+(?:, [A-Z]+)*) = .+$", re.MULTILINE)
FENCE = "```"


# The lines before and after a script that defines `run`, which takes the input of one run and returns its output.
_IMPORTS = """\
import json
import sys

import numpy as np
"""
_PHOTOGRAPH = """\
x = prepared(sys.argv[1]) if sys.argv[1:] else np.load("example-input.npy")
"""
_PAIR = """\
if len(sys.argv) == 2:
    sys.exit("two files are needed")
x = prepared(*sys.argv[1:]) if sys.argv[1:] else np.load("example-input.npy")
"""
_PAIRS = """\
if len(sys.argv) % 2 == 0:
    sys.exit("files are needed in pairs")
files = list(zip(sys.argv[1::2], sys.argv[2::2]))
x = np.concatenate([prepared(*pair) for pair in files]) if files else np.load("example-input.npy")
"""
_PHOTOGRAPHS = """\
files = sys.argv[1:]
x = np.concatenate([prepared(file) for file in files]) if files else np.load("example-input.npy")
"""
_EXAMPLE = """\
x = np.load("example-input.npy")
"""
_RUN, _RUN_ALL = "y = run(x.repeat(BATCH, axis=0))\n", "y = run(x)\n"
_CLASSES = """\
with open("manifest.json", encoding="utf-8") as file:
    classes = json.load(file)["classes"]
"""
_COMPARE = 'print("largest difference", abs(y[:1] - np.load("example-output.npy")).max())\n'


def lines(manifest: BundleManifest) -> str:
    """Python that runs a bundle from its folder, with its runtime, numpy and Pillow only.

    The middle is the script in the runtime's record (`RuntimeFacts.script`), with the values of this bundle in its
    first line of constants, which may contain: PROGRAM, the program's file; INPUT, the name of its input; BATCH,
    PRECISION and OPTIONS of the recipe. If the script defines ``run(x)``, from the input of a run to its output, it
    also needs BATCH, and the lines around it take a photograph or the recorded example and print the answer of the
    task; else it stands alone. With a dynamic batch there is no BATCH, and the lines take several photographs.
    """
    from hwnas.tasks import task_of

    recipe, dynamic = manifest.recipe, manifest.dynamic_batch
    assert recipe.facts.script is not None  # runtimes without a session have no bundles
    text = resource(recipe.facts.script).read_text(encoding="utf-8")
    runs = _defines_run(text)
    left_out = {"BATCH"} if dynamic and runs else set()
    values = {
        "PROGRAM": manifest.program,
        "INPUT": manifest.input.name,
        "BATCH": recipe.batch,
        "PRECISION": recipe.precision,
        "OPTIONS": recipe.options,
    }

    script = filled(text, values, left_out)
    if not runs:
        return script
    task = task_of(manifest.task)
    activated = task.activation in manifest.include
    if dynamic:
        answers = "for scores in y:\n" + textwrap.indent(task.lines("scores", activated=activated), "    ")
        run = _RUN_ALL + _CLASSES + answers
    else:
        run = _RUN + _CLASSES + task.lines("y[0]", activated=activated)
    prepared = _prepared(manifest)
    if prepared is None:
        return f"{_IMPORTS}{script}\n\n{_EXAMPLE}{run}{_COMPARE}"
    pillow = ""
    if "Image" in prepared:
        pillow = "from PIL import Image" + (", ImageOps" if "ImageOps" in prepared else "") + "\n"
    read = _PHOTOGRAPHS if dynamic else _PHOTOGRAPH
    if reads_pairs(manifest.input.transform):
        read = _PAIRS if dynamic else _PAIR
    return f"{_IMPORTS}{pillow}{script}\n\n{prepared}\n\n{read}{run}if not sys.argv[1:]:\n    {_COMPARE}"


def _prepared(manifest: BundleManifest) -> str | None:
    """The function from a file to the input; None if the preprocessing is unknown."""
    return photograph_lines(manifest.input.transform) or token_lines(manifest.input.transform)


def filled(script: str, values: Mapping[str, object], left_out: Collection[str] = ()) -> str:
    """A script with the values of a bundle in its first line of constants, without those left out."""

    def line(found: re.Match[str]) -> str:
        names = [name for name in found["names"].split(", ") if name not in left_out]
        return f"{', '.join(names)} = {', '.join(_literal(values[name]) for name in names)}"

    return _CONSTANTS.sub(line, script, count=1)


def takes_files(manifest: BundleManifest) -> bool:
    """Whether the lines take a file: they know its preprocessing, and the runtime's script defines `run`."""
    script = manifest.recipe.facts.script
    assert script is not None
    text = resource(script).read_text(encoding="utf-8")
    return _defines_run(text) and _prepared(manifest) is not None


def _defines_run(script: str) -> bool:
    return re.search(r"^def run\(", script, re.MULTILINE) is not None


def _literal(value: object) -> str:
    """A value as a Python literal, strings in double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(each)}" for key, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _interval(manifest: BundleManifest) -> str:
    """The interval of the accuracy and the baseline, in brackets; empty for a bundle of an older version."""
    if (figures := manifest.parity.figures) is None:
        return ""
    constant = f"{figures.constant} for every image gives"
    baseline = "" if figures.baseline is None else f"; {constant} {figures.baseline:.2%}"
    return f" ({figures.images} images, 95% confidence interval {figures.interval.words}{baseline})"


def _latency(manifest: BundleManifest, images: str) -> str:
    """What is known about the latency of a run of `images`, as a sentence."""
    figures = ((manifest.predicted_ms, "as predicted"), (manifest.measured_ms, "as measured"))
    known = [f"{ms:.4g} ms {how}" for ms, how in figures if ms is not None]
    if known:
        without = f" The prediction is without {' and '.join(manifest.include)}." if manifest.include else ""
        return f"A run of {images} takes {', '.join(known)} on {manifest.device.name}.{without}"
    return f"Its latency on {manifest.device.name} was neither predicted nor measured; `hwnas bench` measures it."


def _how(manifest: BundleManifest, packages: str, made_with: str) -> str:
    """The sentence before the lines; `packages` are those to install, without Pillow for images."""
    if not takes_files(manifest):
        return f"With `pip install {packages}` (made with {made_with}), in this folder:"
    from hwnas.tasks import task_of

    answer = task_of(manifest.task).answer
    images = "Image" in (_prepared(manifest) or "")
    what, one, another = ("image", "one.jpg", "another.jpg") if images else ("text", "one.txt", "another.txt")
    if reads_pairs(manifest.input.transform):
        prints = f"`python {SCRIPT} {one} {another}` prints {answer} of two text files" + (
            "; more files are further pairs, in the same run" if manifest.dynamic_batch else ""
        )
    elif manifest.dynamic_batch:
        prints = f"`python {SCRIPT} {one} {another}` prints {answer} of each {what} file, from one run"
    else:
        prints = f"`python {SCRIPT} {'photograph.jpg' if images else one}` prints {answer} of {_a(what)} file"
    packages = f"{packages} pillow" if images else packages
    return (
        f"With `pip install {packages}` (made with {made_with}), save these lines in this folder as "
        f"`{SCRIPT}`. {prints}; without a file, they run the recorded example."
    )


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _input(manifest: BundleManifest) -> str:
    """Type and shape of the input, in words."""
    _, *image = manifest.input.shape
    shape = (
        f"[n, {', '.join(map(str, image))}], for any number n of images,"
        if manifest.dynamic_batch
        else str(manifest.input.shape)
    )
    return f"{manifest.input.dtype} of the shape {shape}"


def _included(manifest: BundleManifest) -> str:
    """Which steps are in the program, in words that follow a sentence."""
    return f" (the program includes {' and '.join(manifest.include)})" if manifest.include else ""


def _data(manifest: BundleManifest) -> str:
    """The dataset in words."""
    return f"the dataset `{manifest.data_folder or manifest.data}`"


def readme(manifest: BundleManifest) -> str:
    """The page as Markdown."""
    runtime = manifest.recipe.runtime
    package = manifest.recipe.facts.install
    version = manifest.versions.get(runtime, "")
    steps = "\n".join(step_words(manifest.input.transform))
    metric = "top-1 accuracy" if manifest.parity.metric == "top1" else manifest.parity.metric
    noun = "sequence" if manifest.domain.vocabulary else "image"
    images = f"one {noun}" if manifest.recipe.batch == 1 else f"{manifest.recipe.batch} {noun}s"
    source = "a file" if manifest.domain.vocabulary else "an image"
    return f"""\
# A network of {manifest.domain.space} for {manifest.target}

{manifest.accuracy:.2%} {metric} on the test {noun}s of {_data(manifest)}{_interval(manifest)}. \
{_latency(manifest, images)} \
`manifest.json` has everything else.

## Run it

{_how(manifest, f"{package} numpy", f"{package} {version}")}

{FENCE}python
{lines(manifest)}{FENCE}

The difference from the recorded output stays below {manifest.example.max_abs_error:.3g}. The output is \
{manifest.output.meaning}; `manifest.json` has the names of the classes. The input is \
{_input(manifest)} and is computed from {source} by these \
steps{_included(manifest)}:

{steps}

## Check it

`hwnas verify` on this folder detects changed bytes, and runs the example. Checksums detect accidents but do not prove \
authorship: anyone who can change a file can change its checksum.

## Licence

The weights were trained on {_data(manifest)}. The licence of hwnas covers its code and grants no rights to these \
weights or to that data; hwnas does not know their licences. If you distribute this folder, state the licence of the \
weights here, and comply with that of the data.
"""
