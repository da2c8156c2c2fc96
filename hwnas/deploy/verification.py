"""Verification: a bundle's files, the form of its program, and its outputs on this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.deploy.bundle import Bundle, open_bundle
from hwnas.errors import BundleError, RuntimeUnavailable
from hwnas.machines import Machine
from hwnas.runtimes import open_session
from hwnas.runtimes.base import Array
from hwnas.targets import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The checks that a bundle passed.

    Attributes:
        bundle: the folder.
        target: of the bundle.
        files: number of files with the size and the hash in the manifest.
        program_form: whether the content of the opened program was checked against limits; an engine's is not.
        max_abs_error: largest difference of the outputs on this host from the recorded ones; None if it was not run.
        accepted_error: largest accepted difference.
        not_run: why the program was not run; None if it was.
        saturates: why its int8 sums saturate on this CPU, which may change the classes of other images; else None.
    """

    bundle: str
    target: str
    files: int
    program_form: bool
    max_abs_error: float | None
    accepted_error: float
    not_run: str | None
    saturates: str | None


def verify(folder: Path) -> Verification:
    """Check a bundle, and run it if its runtime is installed.

    Raises:
        BundleError: it was changed, has content that is not allowed, or its outputs differ on this host.
    """
    bundle = open_bundle(folder)
    error, not_run = None, None
    try:
        error = check_outputs(bundle)
    except RuntimeUnavailable as reason:
        not_run = str(reason)
    manifest = bundle.manifest
    return Verification(
        bundle=str(folder),
        target=manifest.target,
        files=len(manifest.files),
        program_form=bundle.form_is_known,
        max_abs_error=error,
        accepted_error=manifest.example.max_abs_error,
        not_run=not_run,
        saturates=bundle.saturates,
    )


def check_outputs(bundle: Bundle, machine: Machine | None = None) -> float:
    """Run a bundle's program on its example; return the largest difference from the recorded output.

    Args:
        bundle: an opened bundle.
        machine: where it runs; this process if None.

    Raises:
        BundleError: it cannot be run, or its outputs differ on the machine.
        RuntimeUnavailable: its runtime cannot run on the machine.
    """
    manifest = bundle.manifest
    x, recorded = bundle.example()
    x = x.repeat(manifest.recipe.batch, axis=0)
    y = _run(bundle, x) if machine is None else machine.run(bundle.compiled, manifest.recipe, x[None])[0]
    if list(y.shape) != manifest.output.shape:
        raise BundleError(
            f"{bundle.compiled} has the output shape {y.shape}, but the manifest has {manifest.output.shape}"
        )
    difference, accepted = float(np.abs(y[:1] - recorded).max()), manifest.example.max_abs_error
    if not difference <= accepted:
        raise BundleError(
            f"{bundle.folder}: the program's outputs on {machine.name if machine else 'this host'} differ from the "
            f"recorded ones by {difference:.3g}; at most {accepted:.3g} is accepted. "
            + (f"{why}. " if (why := bundle.saturates) else "")
            + f"Recorded with {_versions(manifest.versions)}"
        )
    return difference


def _run(bundle: Bundle, x: Array) -> Array:
    """The outputs in this process."""
    manifest = bundle.manifest
    # The outputs do not depend on the number of threads, and more threads than cores would wait for each other.
    recipe = manifest.recipe.model_copy(update={"threads": min(manifest.recipe.threads, usable_cores())})
    with open_session(bundle.compiled, recipe) as session:
        if session.shape != tuple(manifest.input.shape):
            raise BundleError(
                f"{bundle.compiled} has the input shape {session.shape}, but the manifest has {manifest.input.shape}"
            )
        try:
            return session.run(x)
        except Exception as error:  # runtimes have no common base class for errors during runs
            raise BundleError(f"cannot run {bundle.compiled}: {str(error).strip()[:400]}") from error


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
