"""The range of int8 weights follows the target's CPU."""

from __future__ import annotations

import pytest

from hwnas.targets import Device, Hardware, Match, Recipe, Target, load_recipe, saturates_here, weights

INT8 = ("onnxruntime-cpu-int8", "onnxruntime-cpu-int8-2t", "openvino-cpu-int8", "openvino-cpu-int8-2t")


def device(*flags: str, kind: str = "cpu") -> Device:
    match = Match(cpu="CPU", flags=flags) if kind == "cpu" else Match(gpu="GPU")
    return Device(
        schema=1,
        name="board",
        kind=kind,  # type: ignore[arg-type]
        description="d",
        match=match,
        hardware=Hardware(source="made up"),
    )


def changed(recipe: Recipe, **changes: object) -> Recipe:
    assert recipe.quantization is not None
    return recipe.model_copy(update={"quantization": recipe.quantization.model_copy(update=changes)})


def weights_of(recipe: Recipe) -> str:
    assert recipe.quantization is not None
    return recipe.quantization.weights


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("avx", "avx2", "fma"), "int7"),  # Zen 1 to 3, Intel up to Coffee Lake
        (("avx2", "avx512f"), "int7"),  # Skylake-X
        (("avx2", "avx_vnni"), "int8"),
        (("avx2", "avx512f", "avx512_vnni"), "int8"),
        (("avx512f", "amx_tile", "amx_int8"), "int8"),
        (("asimd",), "int8"),
        (("asimd", "asimddp", "i8mm"), "int8"),
        ((), "int7"),  # nothing is known
    ],
)
@pytest.mark.parametrize("name", INT8)
def test_auto_follows_the_flags_of_the_device(name: str, flags: tuple[str, ...], expected: str) -> None:
    recipe = load_recipe(name)
    assert weights_of(recipe) == "auto"
    target = Target(device(*flags), recipe)
    assert weights_of(target.recipe) == expected
    assert target.recipe.hash == recipe.hash  # tables stay valid: no time depends on it
    for fixed in ("int8", "int7"):
        assert weights_of(Target(device(*flags), changed(recipe, weights=fixed)).recipe) == fixed


def test_a_gpu_takes_8_bits_and_a_float_recipe_stays_as_it_is() -> None:
    assert weights_of(Target(device(kind="gpu"), load_recipe("tensorrt-int8")).recipe) == "int8"
    recipe = load_recipe("onnxruntime-cpu-fp32")
    assert Target(device("avx2"), recipe).recipe == recipe


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # as at commit 06ce973, before recipes had `weights`
        ("onnxruntime-cpu-int8", "5ace15dd42e48b3b6f5974e756462cc9268309fab65aa26f20ca4a7571abcfcf"),
        ("openvino-cpu-int8", "1c6dede9474ec9bf5a4c4004bf77e9d696a576132b43ebcc555c5b6d19824729"),
        ("tensorrt-int8", "5a3b52330849700bdeeede7d5818a5c83e30c18c9f4b0dcf89d661cd6d985050"),
    ],
)
def test_tables_from_before_the_range_of_weights_stay_valid(name: str, expected: str) -> None:
    assert load_recipe(name).hash == expected


def test_who_saturates_here(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("onnxruntime-cpu-int8")
    host = weights.detect_host()

    def said(recipe: Recipe, *flags: str) -> str | None:
        there = type(host)(architecture="made-up", cpu_name="CPU", cores=2, flags=flags)
        monkeypatch.setattr(weights, "detect_host", lambda: there)
        return saturates_here(recipe)

    eight, seven = changed(recipe, weights="int8"), changed(recipe, weights="int7")
    assert 'weights = "int7"' in (said(eight, "avx2") or "")
    assert said(eight, "avx2", "avx_vnni") is None
    assert said(seven, "avx2") is None
    assert said(changed(load_recipe("tensorrt-int8"), weights="int8"), "avx2") is None
    assert said(load_recipe("onnxruntime-cpu-fp32"), "avx2") is None


def test_a_recipe_from_before_the_range_of_weights_is_written_as_it_was() -> None:
    """A bundle's manifest is checked byte for byte, and those of older versions do not name the range."""
    document = load_recipe("onnxruntime-cpu-int8").model_dump(mode="json", by_alias=True)
    assert "weights" not in document["quantization"]
    assert Recipe.model_validate(document).model_dump(mode="json", by_alias=True) == document
    assert "weights" in Target(device("avx2"), load_recipe("onnxruntime-cpu-int8")).recipe.quantization.model_dump()
