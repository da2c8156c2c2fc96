from __future__ import annotations

import pytest
from pydantic import ValidationError

from hwnas.targets import Device, Hardware, Host, Match

HOST = Host(
    architecture="x86_64",
    cpu_name="AMD EPYC",
    family=25,
    model=17,
    flags=("avx", "avx2"),
    cores=2,
    gpus=("NVIDIA H200", "NVIDIA L4"),
)


def device(kind: str = "cpu", **match: object) -> Device:
    return Device(
        schema=1,
        name="d",
        kind=kind,  # type: ignore[arg-type]
        description="d",
        match=Match(**match),  # type: ignore[arg-type]
        hardware=Hardware(source="s"),
    )


@pytest.mark.parametrize(
    ("match", "differences"),
    [
        ({"cpu": "AMD EPYC family 25 model 17", "flags": ("avx2",), "cores": 2}, []),
        ({"cpu": "AMD .*"}, []),
        ({"cpu": "AMD EPYC"}, ["CPU: expected 'AMD EPYC', found 'AMD EPYC family 25 model 17'"]),
        (
            {"cpu": "Intel.*", "flags": ("avx2", "amx_tile", "avx512f"), "cores": 4},
            [
                "CPU: expected 'Intel.*', found 'AMD EPYC family 25 model 17'",
                "CPU flags: expected avx2, amx_tile, avx512f; found all but amx_tile, avx512f",
                "logical cores: expected 4, found 2",
            ],
        ),
    ],
)
def test_a_cpu_and_what_differs(match: dict[str, object], differences: list[str]) -> None:
    assert device(**match).differences(HOST) == differences


def test_a_gpu_and_what_differs() -> None:
    assert device("gpu", gpu="NVIDIA L4").differences(HOST) == []
    said = device("gpu", gpu="NVIDIA L").differences(HOST)
    assert said == ["GPU: expected 'NVIDIA L', found 'NVIDIA H200', 'NVIDIA L4'"]
    without = Host(architecture="x86_64", cpu_name="AMD EPYC", cores=2)
    assert device("gpu", gpu="NVIDIA L4").differences(without) == ["GPU: expected 'NVIDIA L4', found none"]


def test_a_device_is_a_value() -> None:
    one = device(cpu="a", flags=("avx",))
    assert hash(one) == hash(device(cpu="a", flags=("avx",)))
    with pytest.raises(ValidationError):
        one.name = "other"


def test_the_fingerprint_is_of_what_is_matched() -> None:
    one = device(cpu="a", flags=("avx",))
    explained = one.model_copy(update={"name": "e", "description": "other words"})
    assert explained.fingerprint == one.fingerprint
    assert len({one.fingerprint, device(cpu="a").fingerprint, device(cpu="a", cores=1).fingerprint}) == 3
