"""``README.md`` of a bundle of a user's model."""

from __future__ import annotations

import json

from hwnas.deploy.model_manifest import INPUTS, OUTPUTS, ModelManifest, Port
from hwnas.deploy.readme import FENCE, filled
from hwnas.plugins import resource

_LINES = """\
import numpy as np
{script}

names = {names}
inputs = np.load("{inputs}")
outputs = run({{name: inputs[str(i)] for i, name in enumerate(names)}})
recorded = np.load("{outputs}")
for i, y in enumerate(outputs):
    print("output", i, y.dtype, y.shape, "largest difference", abs(np.asarray(y, float) - recorded[str(i)]).max())
"""


def model_lines(manifest: ModelManifest) -> str:
    """Python that runs the bundle from its folder, with its runtime and numpy only."""
    recipe = manifest.recipe
    assert recipe.facts.feeds_script is not None  # `hwnas.models.lowered.require_takes_models`
    script = resource(recipe.facts.feeds_script).read_text(encoding="utf-8")
    values = {"PROGRAM": manifest.program, "PRECISION": recipe.precision, "OPTIONS": recipe.options}
    names = json.dumps([port.name for port in manifest.inputs], ensure_ascii=False)
    return _LINES.format(script=filled(script, values).rstrip(), names=names, inputs=INPUTS, outputs=OUTPUTS)


def _ports(ports: list[Port]) -> str:
    def axes(port: Port) -> str:
        return ", ".join("any" if axis is None else str(axis) for axis in port.shape)

    return "\n".join(f"- `{port.name}`: {port.dtype} [{axes(port)}]" for port in ports)


def model_readme(manifest: ModelManifest) -> str:
    """The page as Markdown."""
    runtime = manifest.recipe.runtime
    package, version = manifest.recipe.facts.install, manifest.versions.get(runtime, "")
    figures = ((manifest.predicted_ms, "as predicted"), (manifest.measured_ms, "as measured"))
    known = [f"{ms:.4g} ms {how}" for ms, how in figures if ms is not None]
    latency = (
        f"A run takes {', '.join(known)} on {manifest.device.name}."
        if known
        else f"Its latency on {manifest.device.name} was not measured; `hwnas bench` measures it."
    )
    worst = max(manifest.parity.outputs, key=lambda one: one.max_abs_error)
    inputs = "random inputs" if manifest.parity.random else "samples"
    return f"""\
# {manifest.model} for {manifest.target}

{latency} On {manifest.parity.samples} {inputs}, outputs differ from those of the model in fp32 by at most \
{worst.max_abs_error:.3g} ({worst.name}, whose largest magnitude is {worst.largest:.3g}). `manifest.json` has \
everything else.

## Run it

With `pip install {package} numpy` (made with {package} {version}), in this folder:

{FENCE}python
{model_lines(manifest)}{FENCE}

Inputs:

{_ports(manifest.inputs)}

Outputs:

{_ports(manifest.outputs)}

## Check it

`hwnas verify` on this folder detects changed bytes, and runs the example. Checksums detect accidents but do not prove \
authorship: anyone who can change a file can change its checksum.

## Licence

hwnas does not know the licence of the model. If you distribute this folder, state it here.
"""
