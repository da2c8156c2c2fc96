"""Verification: a bundle's files, the form of its program, and its outputs on this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.deploy.bundle import Bundle, open_bundle
from hwnas.deploy.model_manifest import SCHEMA
from hwnas.deploy.sealed import schema_of
from hwnas.errors import BundleError, RuntimeUnavailable
from hwnas.machines import Machine
from hwnas.runtimes import Session, open_session
from hwnas.runtimes.base import Array
from hwnas.targets import usable_cores

_SEVERAL = 3  # images of a batch, where the recipe has one


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The checks that a bundle passed.

    Attributes:
        bundle: the folder.
        target: of the bundle.
        files: number of files with the size and the hash in the manifest.
        program_form: whether the content of the opened program was checked against limits; an engine's is not.
        max_abs_error: largest difference of the outputs on this host from the recorded ones; with a dynamic batch, also
            of those of a batch from those of its images one by one; None if it was not run.
        accepted_error: largest accepted difference.
        not_run: why the program was not run; None if it was.
        dynamic_batch: whether a run takes any number of images.
        saturates: why its int8 sums saturate on this CPU, which may change the classes of other images; else None.
    """

    bundle: str
    target: str
    files: int
    program_form: bool
    max_abs_error: float | None
    accepted_error: float
    not_run: str | None
    dynamic_batch: bool
    saturates: str | None


def verify(folder: Path) -> Verification:
    """Check a bundle, and run it if its runtime is installed.

    Raises:
        BundleError: it was changed, has content that is not allowed, or its outputs differ on this host.
    """
    if schema_of(folder) == SCHEMA:
        return _verify_model(folder)
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
        dynamic_batch=manifest.dynamic_batch,
        saturates=bundle.saturates,
    )


def _verify_model(folder: Path) -> Verification:
    """As `verify`, for the bundle of a user's model."""
    from hwnas.deploy.model_bundle import check_model_outputs, open_model_bundle
    from hwnas.machines import LocalMachine

    bundle = open_model_bundle(folder)
    error, not_run = None, None
    try:
        error = check_model_outputs(bundle, LocalMachine())
    except RuntimeUnavailable as reason:
        not_run = str(reason)
    manifest = bundle.manifest
    return Verification(
        bundle=str(folder),
        target=manifest.target,
        files=len(manifest.files),
        program_form=True,
        max_abs_error=error,
        accepted_error=max(manifest.max_abs_error.values()),
        not_run=not_run,
        dynamic_batch=False,
        saturates=bundle.saturates,
    )


def check_outputs(bundle: Bundle, machine: Machine | None = None) -> float:
    """Run a bundle's program on its example; return the largest difference from the recorded output.

    In this process, a program with a dynamic batch is also run on several images at once, whose outputs must equal
    those of the images one by one.

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
    if machine is None:
        y, apart = _run(bundle, x)
    else:
        y, apart = machine.run(bundle.compiled, manifest.recipe, x[None])[0], 0.0
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
    if not apart <= accepted:
        raise BundleError(
            f"{bundle.folder}: the outputs of several images in a run differ from those of the images one by one by "
            f"{apart:.3g}; at most {accepted:.3g} is accepted. Recorded with {_versions(manifest.versions)}"
        )
    return max(difference, apart)


def batch_difference(session: Session, x: Array) -> float:
    """Largest difference of the outputs of a batch from those of its images, each in a run of its own.

    The batch is the recipe's, or of three images if that is one.

    Args:
        session: takes any number of images (`Session.any_batch`).
        x: one image, ``(1, ...)``; the batch has it and its mirror image by turns.
    """
    count = session.recipe.batch if session.recipe.batch > 1 else _SEVERAL
    pair = np.concatenate([x, np.flip(x, axis=tuple(range(1, x.ndim)))])
    one_by_one = np.concatenate([session.run(image[None]) for image in pair])
    turns = np.arange(count) % len(pair)
    return float(np.abs(session.run(pair[turns]) - one_by_one[turns]).max())


def _run(bundle: Bundle, x: Array) -> tuple[Array, float]:
    """The outputs in this process; with a dynamic batch, also the `batch_difference`, else 0."""
    manifest = bundle.manifest
    # The outputs do not depend on the number of threads, and more threads than cores would wait for each other.
    recipe = manifest.recipe.model_copy(update={"threads": min(manifest.recipe.threads, usable_cores())})
    with open_session(bundle.compiled, recipe, any_batch=manifest.dynamic_batch) as session:
        if session.shape != tuple(manifest.input.shape):
            raise BundleError(
                f"{bundle.compiled} has the input shape {session.shape}, but the manifest has {manifest.input.shape}"
            )
        try:
            return session.run(x), batch_difference(session, x[:1]) if manifest.dynamic_batch else 0.0
        except Exception as error:  # runtimes have no common base class for errors during runs
            raise BundleError(f"cannot run {bundle.compiled}: {str(error).strip()[:400]}") from error


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
