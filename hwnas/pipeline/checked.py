"""Open a job's data, and the stage that checks them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from hwnas.data import Data, Images, open_data
from hwnas.data.check import DataCheck, check_images
from hwnas.errors import DataError
from hwnas.pipeline.cache import Stage
from hwnas.pipeline.job import DataChoice
from hwnas.progress import Progress

log = logging.getLogger(__name__)
_SHOWN = 20


def open_checked(
    choice: DataChoice, place: Path, progress: Progress, *, again: bool = False
) -> tuple[Data, Stage | None, str]:
    """A job's data, the stage that checks them (None unless they are an image folder), and their fingerprint.

    With ``skip_bad`` the images are checked here, because all stages depend on which are left out; the stage stores the
    result for the next run.

    Args:
        choice: the job's data.
        place: folder of all stages.
        progress: callback, invoked during the check.
        again: check even if the result for these files is stored: a file can be repaired, or a drive be there again,
            without a change of its size and time.

    Raises:
        UnknownName, InvalidValue: there is no such dataset, or it takes no such options.
        DataError: the data cannot be read; if images are bad, the message lists all of them.
    """
    if choice.name != Images.name or choice.path is None:
        data = choice.open()
        return data, None, data.fingerprint()
    path, options = Path(choice.path), choice.options
    listed = Images.listed(path, options)

    def checked() -> DataCheck:
        if stage.is_whole() and not again:
            return DataCheck.model_validate(stage.result())
        return check_images(listed, progress=progress)

    def work(folder: Path) -> Mapping[str, object]:
        found = known or check_images(listed, progress=progress)
        if not options.skip_bad:
            found.require(path)
        _warn(found)
        return found.model_dump()

    inputs = {"data": listed.listing_hash()} | ({"skip_bad": True} if options.skip_bad else {})
    stage = Stage(name="check", inputs=inputs, needs=(), place=place, work=work)
    known = checked() if options.skip_bad else None
    try:
        opened = open_data(choice.name, path=path, options=known.leaving_out(options) if known else options)
        return opened, stage, opened.fingerprint()
    except DataError:
        (known or checked()).require(path)  # one bad image was found: name all of them
        raise


def _warn(found: DataCheck) -> None:
    """Log what does not prevent a run."""
    for what, files in (
        ("bad images are left out", [f"{issue.file}: {issue.reason}" for issue in found.bad]),
        ("files are ignored", [f"{issue.file}: {issue.reason}" for issue in found.ignored]),
        ("files are in several splits: accuracies on them are too high", [" = ".join(g) for g in found.duplicates]),
        ("notes on classes", found.notes),
    ):
        if files:
            more = f"\n  and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
            log.warning("%d %s:\n  %s%s", len(files), what, "\n  ".join(files[:_SHOWN]), more)
