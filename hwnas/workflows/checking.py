"""Check data before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hwnas.progress import Progress, silent
from hwnas.workflows.answers import DataAnswer
from hwnas.workflows.inputs import Place

if TYPE_CHECKING:
    from hwnas.data import DataOptions


def check_data(path: Place, *, data_options: DataOptions | None = None, progress: Progress = silent) -> DataAnswer:
    """Decode all images of an image folder, and list every file that is bad, ignored, or in several splits.

    Args:
        path: the folder.
        data_options: how its images are read: channels, transform, layout.
        progress: callback, invoked regularly.

    Raises:
        DataError: the folder does not have the layout of an image folder. Bad images are no error here.
    """
    from hwnas.data import DataOptions, Images, Split
    from hwnas.data.check import check_images

    options = data_options or DataOptions()
    listed = Images.listed(Path(path), options)
    found = check_images(listed, progress=progress)
    return DataAnswer(
        path=str(path),
        classes=list(listed.classes),
        channels=options.channels or listed.channels_of_headers({issue.file for issue in found.bad}),
        sizes={split: listed.size(split) for split in get_args(Split)},
        check=found,
    )
