"""Add a runtime in a file: ONNX Runtime without its graph optimisations, profiled beside the usual one.

Shows a `Session` (what compiles and runs a program) and its record `RuntimeFacts`. Profile, validation, search, parity
and bundles then work with it. The figures show what the optimisations gain. Takes about a minute, and twice as long on
a busy machine:

    python examples/06_your_own_runtime.py [--out FOLDER]

docs/add-a-runtime.md has all rules. A package registers its record under an entry point: see examples/plugin/.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

import hwnas
from hwnas import workflows
from hwnas.errors import BundleError
from hwnas.latency import slot_latencies
from hwnas.runtimes import Session
from hwnas.targets import RUNTIMES, RuntimeFacts


class UnoptimizedSession(Session):
    """An ONNX graph as it was exported: no node is fused, folded or laid out anew."""

    @staticmethod
    def version() -> str:
        """What a table's manifest records."""
        return str(ort.__version__)

    def _load(self, program: onnx.ModelProto | Path) -> tuple[int, ...]:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = self.recipe.threads
        source = str(program) if isinstance(program, Path) else program.SerializeToString()
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever is wrong with the file, the user reads which file
            raise BundleError(f"ONNX Runtime cannot load {program}: {error}") from error
        [entry], [result] = self._session.get_inputs(), self._session.get_outputs()
        self._names = entry.name, result.name
        return tuple(entry.shape)

    def _run(self, x: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._names[0]: x})[0]

    def _bind(self, x: np.ndarray) -> Callable[[], object]:  # what is timed: nothing is copied
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._names[0], ort.OrtValue.ortvalue_from_numpy(x))
        binding.bind_output(self._names[1])
        return partial(self._session.run_with_iobinding, binding)

    def _close(self) -> None:
        del self._session


RUNTIMES["onnxruntime-unoptimized"] = RuntimeFacts(
    kind="cpu",
    form="onnx",
    precisions=("fp32",),
    session=f"{__name__}:UnoptimizedSession",
    packages=("onnxruntime",),
    install="onnxruntime",
    script="hwnas.runtimes:scripts/onnxruntime.py",  # how a bundle runs without hwnas; here the built-in runtime's
)


def main(out: Path) -> None:
    """Profile a small space under both runtimes, and compare the predictions of its largest network."""
    os.environ["HWNAS_HOME"] = str(out)  # tables and exported ops go here, not to the user's data folder
    usual = hwnas.resolve_target("this/onnxruntime-cpu-fp32")
    recipe = {"name": "unoptimized-fp32", "runtime": "onnxruntime-unoptimized", "options": {}}
    own = hwnas.Target(usual.device, usual.recipe.model_copy(update=recipe))
    space = hwnas.make_space("mobilenetv3-tiny").fix(
        resolution=24, depth_1=1, depth_2=1, depth_3=1, kernel_1_1=3, kernel_2_1=3, kernel_3_1=(3, 5)
    )
    slots = {}
    for target in (usual, own):
        profile = workflows.profile(space, target, networks=24, bound_networks=0)
        model = hwnas.load_model(hwnas.read_table(target), space)
        slots[target] = slot_latencies(model, space.largest)
        print(f"{target.recipe.runtime}: {sum(slots[target].values()):.4f} ms for the largest network")
        print(f"  error of the model on networks left out of its fit: {profile.held_out_mape:.2%}")
    print("milliseconds by slot, optimised and not:")
    for name, optimised in slots[usual].items():
        print(f"  {name:14} {optimised:8.5f} {slots[own][name]:8.5f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="folder to write into; a temporary one if it is left out")
    with tempfile.TemporaryDirectory() as scratch:
        main(parser.parse_args().out or Path(scratch))
