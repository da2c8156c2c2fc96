"""A space, a runtime and a dataset for hwnas."""

from __future__ import annotations

from hwnas.targets.runtimes import RuntimeFacts

RUNTIME = RuntimeFacts(
    kind="cpu",
    form="onnx",
    precisions=("fp32",),
    session="hwnas_plugin.session:ReferenceSession",
    packages=("onnx",),
    install="onnx",
    script="hwnas_plugin:run.py",
    recipes="hwnas_plugin:recipes",
)
