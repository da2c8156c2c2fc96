"""Devices: hardware facts, and the conditions that identify a device."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from hwnas.errors import RuntimeUnavailable
from hwnas.files.spec import Spec
from hwnas.targets.cores import SERVER, arm_names

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
    """The text, if it is a valid name of a device or a recipe.

    Raises:
        ValueError: it is not; the message says why without the text, which pydantic adds.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text):
        raise ValueError("a name consists of a-z, 0-9, '.' and '-', and starts with a letter or a digit")
    if text == "this":
        raise ValueError("that name is reserved for the present host; choose another one")
    return text


# TOML has lists, which `strict` rejects for a tuple; a tuple is hashable and immutable.
Names = Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z0-9_.]+$")], ...], Field(strict=False)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Name = Annotated[str, AfterValidator(checked_name)]


# Flags that decide which kernels an inference runtime picks. A detected spec requires those that are present;
# with every flag, a kernel update would look like another device.
_X86_FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
)
_ARM_FLAGS = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")
# A 32-bit kernel has other names: a 64-bit one on the same board is another device.
_ARM32_FLAGS = ("neon", "vfpv4")
_RISCV_FLAGS = ("v", "zvfh")
INFERENCE_FLAGS = (*_X86_FLAGS, *_ARM_FLAGS, *_ARM32_FLAGS, *_RISCV_FLAGS)


class Match(Spec):
    """Conditions on what a host reports; a condition that is not set always holds.

    Attributes:
        cpu: regular expression for the whole CPU text, e.g. ``AMD EPYC family 25 model 17`` (`Host.cpu`).
        flags: CPU flags that must all be present, as Linux names them.
        no_flags: CPU flags that must all be absent, e.g. those of a later chip with the same CPU text.
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
        """Number of conditions: of two devices that match, the one with more conditions is chosen."""
        given = (self.cpu, self.core, self.board, self.cores, self.gpu)
        return len(self.flags) + len(self.no_flags or ()) + sum(value is not None for value in given)


class Hardware(Spec):
    """Facts about the device that are not used for matching; None if unknown.

    Attributes:
        cores: logical cores of a CPU, multiprocessors of a GPU.
        memory_gib: memory in GiB.
        l1d_kib, l2_kib, l3_kib: sizes of the data caches that a core sees, in KiB.
        peak_fp32_gflops: peak of fp32 multiply-adds, in 10^9 floating point operations per second.
        peak_memory_gb_per_s: peak memory bandwidth, in 10^9 bytes per second.
        source: source of these figures.
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
    """A device, as described in ``devices/<name>.toml``.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        name: the file's stem.
        kind: the processor, "cpu" or "gpu".
        description: one line for readers.
        match: conditions that identify the device.
        hardware: further facts.
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
            raise ValueError(f"match.{self.kind} is missing; a device of kind {self.kind!r} is recognised by it")
        if self.kind == "cpu" and self.match.gpu is not None:
            raise ValueError(f"match.gpu is {self.match.gpu!r}, but kind is 'cpu'; remove it or set kind to 'gpu'")
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the device's identity: its kind and its match conditions."""
        facts = self.model_dump(mode="json", include={"kind", "match"}, exclude_none=True)
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def differences(self, host: Host) -> list[str]:
        """Differences between a host and this device, one entry each; empty if the host matches."""
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
    """A spec for a host's CPU, with a name that depends only on the host, e.g. ``amd-epyc-f25m17-2c``.

    The name of a machine with a board is the board's, e.g. ``raspberry-pi-5-model-b-rev-1.0-4c``. For a host that is
    not `recognisable`, the name does not identify it, and the spec rejects hosts with more flags.
    """
    named = ", ".join(filter(None, (host.board, arm_names(host.cpu_name)))) or host.cpu_name
    known = _ARM_FLAGS if "asimd" in host.flags else _X86_FLAGS
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
    """Differences between the facts recorded with a measurement and this machine.

    Both may match the same device spec: a Raspberry Pi 4 and a cloud's Graviton have the same CPU text, as have all
    Apple chips in virtual machines. Only facts that both sides report are compared.

    Args:
        facts: of the measured host, as stored in a manifest: core, board, flags.
        host: the present host.
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
    """A spec for a host's first GPU, named after it, e.g. ``nvidia-h200``.

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
        hardware=Hardware(source="only its name is known, from nvidia-smi (hwnas devices detect --kind gpu)"),
    )


def _literally(text: str) -> str:
    """A regular expression for exactly this text, with as few backslashes as possible."""
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)


def former_name(host: Host) -> str:
    """The name that earlier versions gave to a host's CPU: by its CPU text, also on a machine with a board."""
    return f"{_cpu_slug(host, host.cpu_name)}-{host.cores}c"


def _slug(host: Host) -> str:
    """The board or the CPU as a file name, with the architecture of a 32-bit kernel."""
    cores = arm_names(host.cpu_name)
    kernel = f" {host.architecture}" if host.architecture.startswith("armv") else ""
    if host.board:
        # The model of a board determines its cores, the product of a server or of a cloud does not.
        return _plain(host.board + (f" {cores}" if SERVER.search(cores) else "") + kernel) or "board"
    if not host.cpu_is_named and host.core and not cores:
        return _plain(host.core) or "board"
    return _cpu_slug(host, cores + kernel if cores else host.cpu_name)


def _cpu_slug(host: Host, name: str) -> str:
    """A CPU's name as a file name, without trademarks, clock rates and generic words."""
    text = re.sub(r"\((r|tm)\)|@.*|\b(cpu|processor|\d+-core)\b", " ", name.lower())
    slug = _plain(text) or _plain(host.architecture) or "cpu"
    if host.family is not None and (not re.search(r"\d", text) or name == host.architecture):
        slug += f"-f{host.family}m{host.model}"
    return slug


def _plain(text: str) -> str:
    """Text as a part of a file's name: at most 80 of a-z, 0-9, '.' and '-'."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:80].rstrip("-.")
