"""``README.md`` of a bundle: how to run it with its runtime only, and notes on licences."""

from __future__ import annotations

import json
import re

from pydantic import JsonValue

from hwnas.deploy.manifest import BundleManifest
from hwnas.plugins import resource

# The first line of a script that sets names in capitals, such as `PROGRAM, BATCH = "model.onnx", 1`.
_CONSTANTS = re.compile(r"^(?P<names>[A-Z]+(?:, [A-Z]+)*) = .+$", re.MULTILINE)
FENCE = "```"


def lines(manifest: BundleManifest) -> str:
    """Python that runs a bundle from its folder, with its runtime and numpy only.

    It is the script in the runtime's record (`RuntimeFacts.script`), with the values of this bundle in its first line
    of constants, which may contain: PROGRAM, the program's file; INPUT, the name of its input; BATCH, PRECISION and
    OPTIONS of the recipe.
    """
    recipe = manifest.recipe
    assert recipe.facts.script is not None  # runtimes without a session have no bundles
    text = resource(recipe.facts.script).read_text(encoding="utf-8")
    values = {
        "PROGRAM": manifest.program,
        "INPUT": manifest.input.name,
        "BATCH": recipe.batch,
        "PRECISION": recipe.precision,
        "OPTIONS": recipe.options,
    }

    def filled(line: re.Match[str]) -> str:
        return f"{line['names']} = {', '.join(_literal(values[name]) for name in line['names'].split(', '))}"

    return _CONSTANTS.sub(filled, text, count=1)


def _literal(value: object) -> str:
    """A value as a Python literal, strings in double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(each)}" for key, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _step_text(value: JsonValue) -> str:
    """The settings of a preprocessing step as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_step_text(each)}" for name, each in value.items())
    return str(value)


def readme(manifest: BundleManifest) -> str:
    """The page as Markdown."""
    runtime = manifest.recipe.runtime
    package = manifest.recipe.facts.install
    version = manifest.versions.get(runtime, "")
    steps = "\n".join(
        f"- {step}: {_step_text(value)}" for step, value in manifest.input.transform.items() if value is not None
    )
    metric = "top-1 accuracy" if manifest.parity.metric == "top1" else manifest.parity.metric
    images = "one image" if manifest.recipe.batch == 1 else f"{manifest.recipe.batch} images"
    measured = f", measured {manifest.measured_ms:.4g} ms" if manifest.measured_ms else ""
    return f"""\
# A network of {manifest.domain.space} for {manifest.target}

{manifest.accuracy:.2%} {metric} on the test images of {manifest.data}. A run of {images} takes \
{manifest.predicted_ms:.4g} ms on {manifest.device.name} as predicted{measured}. `manifest.json` has everything else.

## Run it

With `pip install {package} numpy` (made with {package} {version}), in this folder:

{FENCE}python
{lines(manifest)}{FENCE}

The difference from the recorded output stays below {manifest.example.max_abs_error:.3g}. The output is \
{manifest.output.meaning}; `manifest.json` has the names of the classes. The input has the shape \
{manifest.input.shape} and is computed from an image by these steps:

{steps}

## Check it

`hwnas verify` on this folder detects changed bytes, and runs the example. Checksums detect accidents but do not prove \
authorship: anyone who can change a file can change its checksum.

## Licence

The weights were trained on `{manifest.data}`. The licence of hwnas covers its code and grants no rights to these \
weights or to that data; hwnas does not know their licences. If you distribute this folder, state the licence of the \
weights here, and comply with that of the data.
"""
