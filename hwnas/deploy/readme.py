"""``README.md`` of a bundle: how to run it with nothing but its runtime, and whose rights there are."""

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
    """Python that runs a bundle, from its folder, with its runtime and numpy alone.

    It is the script that the record of the runtime names (`RuntimeFacts.script`), with the values of this bundle in its
    first line of constants, which may name: PROGRAM, the program's file; INPUT, the name of its input; BATCH, PRECISION
    and OPTIONS, those of the recipe.
    """
    recipe = manifest.recipe
    assert recipe.facts.script is not None  # what has no session has no bundles
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
    """A value as Python writes it, texts in double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(each)}" for key, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _step_text(value: JsonValue) -> str:
    """A step of the input's transform in words: its settings one after the other."""
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
    images = "one image" if manifest.recipe.batch == 1 else f"{manifest.recipe.batch} images"
    measured = f", measured {manifest.measured_ms:.4g} ms" if manifest.measured_ms else ""
    return f"""\
# A network of {manifest.domain.space} for {manifest.target}

{manifest.accuracy:.2%} top-1 accuracy on the test images of {manifest.data}. A run of {images} takes \
{manifest.predicted_ms:.4g} ms on {manifest.device.name} as predicted{measured}. `manifest.json` has everything else.

## Run it

With `pip install {package} numpy` (made with {package} {version}), in this folder:

{FENCE}python
{lines(manifest)}{FENCE}

The difference from the recorded output stays below {manifest.example.max_abs_error:.3g}. The output is \
{manifest.output.meaning}; names of the classes stand in `manifest.json`. The input is {manifest.input.shape}, made \
from an image in this order:

{steps}

## Check it

`hwnas verify` on this folder tells whether a byte of it was changed, and runs the example. Checksums tell accidents, \
not authors: whoever can change a file can change its checksum.

## Licence

The weights come from training on `{manifest.data}`. The licence of hwnas covers its code and gives no rights to these \
weights or to that data, and hwnas does not know what rights there are. Whoever passes this folder on states here the \
licence of the weights, and keeps to that of the data.
"""
