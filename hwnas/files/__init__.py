"""Safe reading and writing of files: atomic writes, journals, validated specs, untrusted input."""

from hwnas.files.atomic import only_one, reason_of, system_refusals, temporary_folder, write_whole
from hwnas.files.journal import Journal
from hwnas.files.spec import Spec, checked_spec, read_spec, toml_text

__all__ = [
    "Journal",
    "Spec",
    "checked_spec",
    "only_one",
    "read_spec",
    "reason_of",
    "system_refusals",
    "temporary_folder",
    "toml_text",
    "write_whole",
]
