"""``README.md`` of a bundle: how to run it with nothing but its runtime, and whose rights there are."""

from __future__ import annotations

from pydantic import JsonValue

from hwnas.deploy.manifest import INPUT, OUTPUT, BundleManifest
from hwnas.targets.runtimes import Precision, RuntimeName

# After these lines `y` is the output of the program, (batch, classes); `x` is its input.
_ONNXRUNTIME = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{program}", providers={providers})
x = np.load("{input}").repeat({batch}, axis=0)
[y] = session.run(None, {{"{name}": x}})
"""
_OPENVINO = """\
import numpy as np
import openvino

settings = {settings}
model = openvino.Core().compile_model("{program}", "CPU", settings)
x = np.load("{input}").repeat({batch}, axis=0)
y = model(x)[0]
"""
_TORCH = """\
import numpy as np
import torch

model = {module}
x = np.load("{input}").repeat({batch}, axis=0)
with torch.inference_mode():
    y = model(torch.from_numpy(x)).numpy()
"""
_TORCH_CUDA = """\
import numpy as np
import torch

model = torch.export.load("{program}").module().to("cuda", torch.{dtype})
x = np.load("{input}").repeat({batch}, axis=0)
with torch.inference_mode():
    y = model(torch.from_numpy(x).to("cuda", torch.{dtype})).float().cpu().numpy()
"""
_TENSORRT = """\
import numpy as np
from polygraphy.backend.common import BytesFromPath
from polygraphy.backend.trt import EngineFromBytes, TrtRunner

x = np.load("{input}").repeat({batch}, axis=0)
with TrtRunner(EngineFromBytes(BytesFromPath("model.engine"))) as runner:
    y = runner.infer({{"{name}": x}})["output"]
"""
_CHECK = """\
recorded = np.load("{output}")
print("class", int(y[0].argmax()), "largest difference", float(np.abs(y[:1] - recorded).max()))
"""
_LINES: dict[RuntimeName, str] = {
    "onnxruntime": _ONNXRUNTIME,
    "openvino": _OPENVINO,
    "torch": _TORCH,
    "roofline": _TORCH,
    "torch-cuda": _TORCH_CUDA,
    "onnxruntime-cuda": _ONNXRUNTIME,
    "onnxruntime-tensorrt": _ONNXRUNTIME,
    "tensorrt": _TENSORRT,
}
_PROVIDERS: dict[RuntimeName, str] = {
    "onnxruntime": '["CPUExecutionProvider"]',
    "onnxruntime-cuda": '["CUDAExecutionProvider"]',
    "onnxruntime-tensorrt": '[("TensorrtExecutionProvider", {"trt_fp16_enable": True})]',
}
_DTYPES: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_PACKAGES: dict[RuntimeName, str] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "torch": "torch",
    "roofline": "torch",
    "torch-cuda": "torch",
    "onnxruntime-cuda": "onnxruntime-gpu",
    "onnxruntime-tensorrt": "onnxruntime-gpu tensorrt",
    "tensorrt": "tensorrt polygraphy",
}
_OPENVINO_SETTINGS = {
    "fp32": '{"INFERENCE_PRECISION_HINT": "f32"}',
    "bf16": '{"INFERENCE_PRECISION_HINT": "bf16"}',
    # As hwnas.runtimes.openvino does, and for its reason.
    "int8": '{"INFERENCE_PRECISION_HINT": "f32", "SNIPPETS_MODE": "DISABLE"}',
}
FENCE = "```"


def lines(manifest: BundleManifest) -> str:
    """Python that runs a bundle, from its folder, with its runtime and numpy alone."""
    recipe = manifest.recipe
    module = f'torch.export.load("{manifest.program}").module()'
    return (_LINES[recipe.runtime] + _CHECK).format(
        program=manifest.program,
        name=manifest.input.name,
        batch=recipe.batch,
        input=INPUT,
        output=OUTPUT,
        providers=_PROVIDERS.get(recipe.runtime),
        dtype=_DTYPES.get(recipe.precision),
        settings=_OPENVINO_SETTINGS.get(recipe.precision),
        module=f"torch.compile({module})" if recipe.options.get("compile") else module,
    )


def _step_text(value: JsonValue) -> str:
    """A step of the input's transform in words: its settings one after the other."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_step_text(each)}" for name, each in value.items())
    return str(value)


def readme(manifest: BundleManifest) -> str:
    """The page as Markdown."""
    runtime = manifest.recipe.runtime
    package = _PACKAGES[runtime]
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
