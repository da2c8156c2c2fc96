"""Devices: facts about hardware, and how to recognise it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from hwnas.errors import RuntimeUnavailable
from hwnas.files.spec import Spec

if TYPE_CHECKING:
    from hwnas.targets.host import Host

DeviceKind = Literal["cpu", "gpu"]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"it should be a regular expression: {error}") from error
    return text


def checked_name(text: str) -> str:
    """The text, if a device or a recipe may be called that.

    Raises:
        ValueError: it may not; the message says why but leaves out the text, which pydantic adds.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text):
        raise ValueError("a name is made of a-z, 0-9, '.' and '-', and starts with a letter or a digit")
    if text == "this":
        raise ValueError("that name stands for the present host; choose another one")
    return text


# TOML gives lists; `strict` would refuse them for a tuple, which is hashable and cannot be changed.
Names = Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z0-9_.]+$")], ...], Field(strict=False)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Name = Annotated[str, AfterValidator(checked_name)]


# Flags that decide which kernels an inference runtime picks. A detected spec asks for those that are there;
# asking for every flag would make a kernel update look like another device.
_X86_FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
)
_ARM_FLAGS = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")
INFERENCE_FLAGS = (*_X86_FLAGS, *_ARM_FLAGS)


class Match(Spec):
    """What a host must report to be the device; what is not given may be anything.

    Attributes:
        cpu: regular expression for the whole CPU text, e.g. ``AMD EPYC family 25 model 17`` (`Host.cpu`).
        flags: CPU flags that must all be present, as Linux names them.
        no_flags: CPU flags that must all be absent: what a later chip has, where the CPU text is that of both.
        core: regular expression for the whole text of the cores' revisions or identification (`Host.core`).
        board: regular expression for the whole name of the machine around the CPU (`Host.board`).
        cores: exact number of logical cores.
        gpu: regular expression for the whole name of one of the GPUs.
    """

    cpu: Pattern | None = None
    flags: Names = ()
    no_flags: Names | None = None
    core: Pattern | None = None
    board: Pattern | None = None
    cores: int | None = Field(default=None, ge=1)
    gpu: Pattern | None = None

    @property
    def criteria(self) -> int:
        """How many things it asks for: of two devices that match, the one that asks for more is meant."""
        given = (self.cpu, self.core, self.board, self.cores, self.gpu)
        return len(self.flags) + len(self.no_flags or ()) + sum(value is not None for value in given)


class Hardware(Spec):
    """Facts about the device that nothing is matched against; None where they are not known.

    Attributes:
        cores: logical cores of a CPU, multiprocessors of a GPU.
        memory_gib: memory in GiB.
        l1d_kib, l2_kib, l3_kib: sizes of the data caches that a core sees, in KiB.
        peak_fp32_gflops: peak of fp32 multiply-adds, in 10^9 floating point operations a second.
        peak_memory_gb_per_s: peak memory bandwidth, in 10^9 bytes a second.
        source: where these figures are from.
    """

    cores: int | None = Field(default=None, ge=1)
    memory_gib: float | None = Field(default=None, gt=0)
    l1d_kib: int | None = Field(default=None, ge=1)
    l2_kib: int | None = Field(default=None, ge=1)
    l3_kib: int | None = Field(default=None, ge=1)
    peak_fp32_gflops: float | None = Field(default=None, gt=0)
    peak_memory_gb_per_s: float | None = Field(default=None, gt=0)
    source: str = Field(min_length=1)


class Device(Spec):
    """A device, as ``devices/<name>.toml`` describes it.

    Attributes:
        schema_: version of the file's form, ``schema`` in the file.
        name: the file's stem.
        kind: what computes, "cpu" or "gpu".
        description: one line for people.
        match: how to recognise it.
        hardware: what else is known of it.
    """

    schema_: Literal[1] = Field(alias="schema")
    name: Name
    kind: DeviceKind
    description: str = Field(min_length=1)
    match: Match
    hardware: Hardware

    @model_validator(mode="after")
    def _kind_has_its_pattern(self) -> Device:
        if getattr(self.match, self.kind) is None:
            raise ValueError(
                f"match.{self.kind} is missing; kind is {self.kind!r}, so it is how the device is recognised"
            )
        if self.kind == "cpu" and self.match.gpu is not None:
            raise ValueError(f"match.gpu is {self.match.gpu!r}, but kind is 'cpu'; leave it out or set kind to 'gpu'")
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what makes the device the device it is: its kind and what it is recognised by."""
        facts = self.model_dump(mode="json", include={"kind", "match"}, exclude_none=True)
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def differences(self, host: Host) -> list[str]:
        """What keeps a host from being this device: one entry a difference, none if it is the device."""
        found: list[str] = []
        match = self.match
        if match.cpu is not None and not re.fullmatch(match.cpu, host.cpu):
            found.append(f"CPU: expected {match.cpu!r}, found {host.cpu!r}")
        missing = [flag for flag in match.flags if flag not in host.flags]
        if missing:
            found.append(f"CPU flags: expected {', '.join(match.flags)}; found all but {', '.join(missing)}")
        if present := [flag for flag in match.no_flags or () if flag in host.flags]:
            found.append(f"CPU flags: expected none of {', '.join(match.no_flags or ())}; found {', '.join(present)}")
        for what, pattern, text in (("core", match.core, host.core), ("board", match.board, host.board)):
            if pattern is not None and not re.fullmatch(pattern, text or ""):
                found.append(f"{what}: expected {pattern!r}, found {repr(text) if text else 'none'}")
        if match.cores is not None and match.cores != host.cores:
            found.append(f"logical cores: expected {match.cores}, found {host.cores}")
        if match.gpu is not None and not any(re.fullmatch(match.gpu, gpu) for gpu in host.gpus):
            found.append(f"GPU: expected {match.gpu!r}, found {', '.join(map(repr, host.gpus)) or 'none'}")
        return found


def describe(host: Host) -> Device:
    """A spec of a host's CPU with a name that depends on nothing else, e.g. ``amd-epyc-f25m17-2c``.

    Where the CPU text is that of many, the board gives the name, or the cores' identification. Of a host that is not
    `recognisable` the name tells nothing, and the spec refuses what has more flags.
    """
    named, known = host.board or host.cpu_name, _ARM_FLAGS if "asimd" in host.flags else _X86_FLAGS
    absent = None if host.recognisable else tuple(flag for flag in known if flag not in host.flags)
    return Device(
        schema=1,
        name=f"{_slug(host)}-{host.cores}c",
        kind="cpu",
        description=f"{named}, {host.cores} logical cores, as detected",
        match=Match(
            cpu=_literally(host.cpu),
            flags=tuple(flag for flag in INFERENCE_FLAGS if flag in host.flags),
            no_flags=absent,
            core=_literally(host.core) if host.core else None,
            board=_literally(host.board) if host.board else None,
            cores=host.cores,
        ),
        hardware=Hardware(
            cores=host.cores,
            memory_gib=host.memory_gib,
            l1d_kib=host.l1d_kib,
            l2_kib=host.l2_kib,
            l3_kib=host.l3_kib,
            source="reported by the operating system (hwnas devices detect)",
        ),
    )


def other_machine(facts: Mapping[str, object], host: Host) -> list[str]:
    """What facts that were recorded with a measurement say of another machine than this one.

    A device's spec may be that of both: the CPU text of a Raspberry Pi 4 is that of a cloud's Graviton, too, and all
    Apple chips in virtual machines share theirs. Only what both sides report is compared.

    Args:
        facts: of the host that was measured, as a manifest keeps them: core, board, flags.
        host: the present one.
    """
    found = []
    for name, present in (("core", host.core), ("board", host.board)):
        before = facts.get(name)
        if before and present and before != present:
            found.append(f"{name}: measured on {before!r}, this is {present!r}")
    flags = facts.get("flags")
    if isinstance(flags, list) and not host.recognisable:
        differing = [flag for flag in INFERENCE_FLAGS if (flag in flags) != (flag in host.flags)]
        if differing:
            found.append(f"CPU flags: only one of the two has {', '.join(differing)}")
    return found


def describe_gpu(host: Host) -> Device:
    """A spec of a host's first GPU, named after it, e.g. ``nvidia-h200``.

    Raises:
        RuntimeUnavailable: the host reports no GPU.
    """
    if not host.gpus:
        raise RuntimeUnavailable(
            "this host has no GPU that nvidia-smi reports: install the GPU's driver, or choose a recipe for the CPU, "
            "e.g. onnxruntime-cpu-fp32"
        )
    name = host.gpus[0]
    return Device(
        schema=1,
        name=_plain(name) or "gpu",
        kind="gpu",
        description=f"{name}, as detected",
        match=Match(gpu=_literally(name)),
        hardware=Hardware(source="nothing but its name is known, from nvidia-smi (hwnas devices detect --kind gpu)"),
    )


def _literally(text: str) -> str:
    """A regular expression for just this text, with no more backslashes than it takes."""
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)


def _slug(host: Host) -> str:
    """The CPU's name as a file name: without trade marks, clock rates and words that every CPU bears."""
    if not host.cpu_is_named and (text := host.board or host.core):
        return _plain(text) or "board"
    text = re.sub(r"\((r|tm)\)|@.*|\b(cpu|processor|\d+-core)\b", " ", host.cpu_name.lower())
    slug = _plain(text) or _plain(host.architecture) or "cpu"
    if host.family is not None and (not re.search(r"\d", text) or host.cpu_name == host.architecture):
        slug += f"-f{host.family}m{host.model}"
    return slug


def _plain(text: str) -> str:
    """Text as a part of a file's name: at most 80 of a-z, 0-9, '.' and '-'."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:80].rstrip("-.")
