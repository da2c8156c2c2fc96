"""Bundles of users' models: written with a parity check, opened, verified."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from hwnas.deploy.manifest import DeviceFacts, tolerance
from hwnas.deploy.model_manifest import INPUTS, OUTPUTS, SCHEMA, ModelManifest, ModelParity, Port
from hwnas.deploy.model_readme import model_readme
from hwnas.deploy.sealed import read_sealed, write_sealed
from hwnas.errors import BundleError
from hwnas.files import write_whole
from hwnas.files.untrusted import open_regular
from hwnas.machines import Machine
from hwnas.models import Model
from hwnas.runner.signature import DTYPES, Feeds, Value
from hwnas.targets import Target, saturates_here, with_weights
from hwnas.targets.weights import EXACT_FLAGS

_ARRAYS_BYTES = 2**32


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """A bundle of a user's model with unchanged files.

    Attributes:
        folder: of the bundle.
        manifest: its manifest.
        program: the program's file.
    """

    folder: Path
    manifest: ModelManifest
    program: Path

    @property
    def saturates(self) -> str | None:
        """Why its int8 sums saturate on this host; None if they do not."""
        return saturates_here(with_weights(self.manifest.recipe, EXACT_FLAGS))

    def example(self) -> tuple[Feeds, Feeds]:
        """The recorded inputs and outputs, by name.

        Raises:
            BundleError: a file does not have the arrays that the manifest describes.
        """
        manifest = self.manifest
        inputs = _read_arrays(self.folder / INPUTS, manifest.inputs)
        return inputs, _read_arrays(self.folder / OUTPUTS, manifest.outputs)


def write_model_bundle(
    folder: Path,
    program: Path,
    model: Model,
    target: Target,
    parity: ModelParity,
    inputs: Feeds,
    outputs: Feeds,
    *,
    fallback: list[str],
    versions: dict[str, str],
    predicted_ms: float | None = None,
    measured_ms: float | None = None,
    measured_cores: str | None = None,
) -> ModelBundle:
    """Write the bundle of a model, atomically.

    Args:
        folder: of the bundle; an older bundle there is replaced, anything else is an error.
        program: the program's file.
        model: the model.
        target: the target of the program.
        parity: of the program.
        inputs: an example.
        outputs: those of the program for it.
        fallback: layers that stayed in float.
        versions: of the software that the outputs were computed with.
        predicted_ms: predicted latency.
        measured_ms: measured latency.
        measured_cores: cores of the measurement.

    Raises:
        OutputError: the folder is a file, contains something other than a bundle, or cannot be written.
    """
    manifest = ModelManifest(
        target=target.name,
        device=DeviceFacts(name=target.device.name, kind=target.device.kind, fingerprint=target.device.fingerprint),
        recipe=target.recipe,
        model=model.name,
        model_sha256=model.sha256,
        inputs=list(map(_port, model.signature.inputs)),
        outputs=[
            Port(name=value.name, shape=list(outputs[value.name].shape), dtype=value.dtype)
            for value in model.signature.outputs
        ],
        max_abs_error={
            name: tolerance(target.recipe.precision, float(np.abs(array.astype(np.float64)).max(initial=0.0)))
            for name, array in outputs.items()
        },
        parity=parity,
        fallback=fallback,
        predicted_ms=predicted_ms,
        measured_ms=measured_ms,
        measured_cores=measured_cores or None,
        notes=list(model.notes),
        versions=versions,
        files={},
    )

    def write(place: Path) -> Path:
        write_whole(place / INPUTS, _packed(inputs))
        write_whole(place / OUTPUTS, _packed(outputs))
        write_whole(place / "model.onnx", program.read_bytes())
        return place / "model.onnx"

    complete, path = write_sealed(folder, write, manifest, model_readme)
    return ModelBundle(folder, complete, path)


def open_model_bundle(folder: Path) -> ModelBundle:
    """Read a bundle of a user's model, and check that it is unchanged and that its program is safe to load.

    Raises:
        BundleError: a file is missing, malformed, changed or not allowed in a bundle; or the bundle was written by
            another version of hwnas.
    """
    from hwnas.models.untrusted import check_model  # imports onnx

    manifest = cast("ModelManifest", read_sealed(folder, {SCHEMA: ModelManifest}))
    bundle = ModelBundle(folder, manifest, folder / manifest.program)
    bundle.example()
    check_model(bundle.program.read_bytes(), str(bundle.program))
    return bundle


def check_model_outputs(bundle: ModelBundle, machine: Machine) -> float:
    """Run a bundle's program on its example; return the largest difference from a recorded output.

    Raises:
        BundleError: it cannot be run, or an output differs more than the manifest accepts.
        RuntimeUnavailable: its runtime cannot run on the machine.
    """
    inputs, recorded = bundle.example()
    [found] = machine.run_feeds(bundle.program, bundle.manifest.recipe, [inputs])
    worst = 0.0
    for name, wanted in recorded.items():
        if name not in found or found[name].shape != wanted.shape:
            raise BundleError(f"{bundle.program} has no output {name} of the shape {list(wanted.shape)}")
        got = found[name].astype(np.float64)
        difference, accepted = float(np.abs(got - wanted).max(initial=0.0)), bundle.manifest.max_abs_error[name]
        if not difference <= accepted:
            raise BundleError(
                f"the output {name} of {bundle.program} differs from the recorded one by {difference:.3g}; at most "
                f"{accepted:.3g} is accepted" + (f". {why}" if (why := bundle.saturates) else "")
            )
        worst = max(worst, difference)
    return worst


def _port(value: Value) -> Port:
    return Port(name=value.name, shape=list(value.shape), dtype=value.dtype)


def _packed(arrays: Feeds) -> bytes:
    """Arrays as the bytes of an ``.npz`` file, whose entries are named by their position."""
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{i}": array for i, array in enumerate(arrays.values())})  # type: ignore[arg-type]
    return buffer.getvalue()


def _read_arrays(path: Path, ports: list[Port]) -> Feeds:
    """The arrays of an ``.npz`` file, by name."""
    with open_regular(path, BundleError, limit_bytes=_ARRAYS_BYTES) as file:
        data = file.read()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = [np.asarray(arrays[f"{i}"]) for i in range(len(ports))]
    except Exception as error:  # numpy and zipfile share no base class for malformed files
        raise BundleError(f"{path} is malformed: {str(error)[:200]}") from error
    for port, array in zip(ports, found, strict=True):
        fits = len(port.shape) == array.ndim and all(
            axis in (None, size) for axis, size in zip(port.shape, array.shape, strict=True)
        )
        if not fits or str(array.dtype) != port.dtype or str(array.dtype) not in DTYPES:
            raise BundleError(f"{path} is malformed: {port.name} should be {port.dtype} of the shape {port.shape}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BundleError(f"{path} is malformed: {port.name} has NaN or infinite values")
    return {port.name: array for port, array in zip(ports, found, strict=True)}
