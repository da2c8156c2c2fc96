"""Programs that are opened and timed in this process."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hwnas.errors import InvalidValue, OutOfMemory, RuntimeUnavailable
from hwnas.files import reason_of
from hwnas.lowering import Program
from hwnas.runner.memory import BadLimit
from hwnas.runner.opened import DoesNotFit, NoThreads, Opened
from hwnas.runner.signature import Feeds
from hwnas.runtimes import open_session, session_class
from hwnas.targets import Recipe

__all__ = ["Opened", "opened"]


@contextmanager
def opened(
    programs: Mapping[str, Program | Path], recipe: Recipe, cores: Collection[int], feeds: Feeds | None = None
) -> Iterator[Opened]:
    """The open ones of some programs, as many at once as fit into memory.

    Args:
        programs: name -> lowered program or its file.
        recipe: defines the runtime and its settings, which apply to the process from the first opening to the end.
        cores: cores on which programs may be opened.
        feeds: name of an input -> array, for every program; random inputs if None.

    Raises:
        OutOfMemory: not even one program fits.
        RuntimeUnavailable: the system starts no further threads.
        InvalidValue: the memory limit in the environment is invalid.
    """
    with (
        errors_of_runner(),
        Opened(
            programs,
            lambda name: open_session(programs[name], recipe),
            cores=cores,
            in_threads=lambda: session_class(recipe).opens_in_threads,
            what=recipe.name,
            feeds=feeds,
        ) as found,
    ):
        yield found


@contextmanager
def errors_of_runner() -> Iterator[None]:
    """Raise the errors of the runner, which does not know those of hwnas, as hwnas's.

    Raises:
        OutOfMemory, RuntimeUnavailable, InvalidValue: as the runner says.
    """
    try:
        yield
    except DoesNotFit as error:
        raise OutOfMemory(str(error)) from error
    except NoThreads as error:
        raise RuntimeUnavailable(f"cannot open programs: {reason_of(OSError(errno.EAGAIN, str(error)))}") from error
    except BadLimit as error:
        raise InvalidValue(str(error)) from error
