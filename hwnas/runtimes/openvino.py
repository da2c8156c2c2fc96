"""OpenVINO on the CPU."""

from __future__ import annotations

import pydantic

from hwnas.errors import RuntimeUnavailable
from hwnas.runtimes.driven import DrivenSession

try:
    from hwnas.runner.openvino import OpenVinoProgram
except RuntimeError as error:  # its telemetry requires the user's home folder
    raise RuntimeUnavailable(f"cannot load OpenVINO: {error} Set HOME to a writable folder") from error


class OpenVinoOptions(pydantic.BaseModel, extra="forbid", frozen=True):
    """The ``[options]`` of an openvino recipe: none."""


class OpenVinoSession(DrivenSession):
    """An ONNX graph in OpenVINO's CPU plugin, one stream, tuned for latency."""

    takes_uint8 = True
    takes_any_batch = True
    opens_in_threads = True
    program = OpenVinoProgram
    known_options = OpenVinoOptions
