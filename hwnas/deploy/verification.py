"""Verification: a bundle's files, its form, and what its program computes here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.deploy.bundle import Bundle, open_bundle
from hwnas.errors import BundleError, RuntimeUnavailable
from hwnas.runtimes import open_session
from hwnas.targets import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked of a bundle that passed.

    Attributes:
        bundle: the folder.
        target: that it was made for.
        files: how many have the size and the hash that the manifest says.
        program_form: whether the form of what its runtime opens was held to limits; an engine's is not.
        max_abs_error: largest difference of the outputs here from the recorded ones; None if it was not run.
        accepted_error: by how much they may differ.
        not_run: why the program was not run; None if it was.
        saturates: why its int8 sums saturate on this CPU, so that other images may give other classes here; None if
            they do not.
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
    """Check a bundle, and run it where its runtime is installed.

    Raises:
        BundleError: it is not what was written, holds what no bundle may hold, or computes something else here.
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


def check_outputs(bundle: Bundle) -> float:
    """Run a bundle's program on its example; returns the largest difference from what was recorded.

    Raises:
        BundleError: it cannot be run, or computes something else here.
        RuntimeUnavailable: its runtime cannot run here.
    """
    manifest = bundle.manifest
    x, recorded = bundle.example()
    # What it computes does not depend on its threads, and more of them than cores would wait for each other.
    recipe = manifest.recipe.model_copy(update={"threads": min(manifest.recipe.threads, usable_cores())})
    with open_session(bundle.compiled, recipe) as session:
        if session.shape != tuple(manifest.input.shape):
            raise BundleError(
                f"{bundle.compiled} takes the shape {session.shape}, and the manifest says {manifest.input.shape}"
            )
        try:
            y = session.run(x.repeat(manifest.recipe.batch, axis=0))
        except Exception as error:  # runtimes share no base class for what fails while they run
            raise BundleError(f"{bundle.compiled} cannot be run: {str(error).strip()[:400]}") from error
    if list(y.shape) != manifest.output.shape:
        raise BundleError(f"{bundle.compiled} gives the shape {y.shape}, and the manifest says {manifest.output.shape}")
    difference, accepted = float(np.abs(y[:1] - recorded).max()), manifest.example.max_abs_error
    if not difference <= accepted:
        raise BundleError(
            f"{bundle.folder}: the program gives other outputs here than were recorded: they differ by "
            f"{difference:.3g}, and at most {accepted:.3g} is accepted. "
            + (f"{why}. " if (why := bundle.saturates) else "")
            + f"Recorded with {_versions(manifest.versions)}"
        )
    return difference


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
