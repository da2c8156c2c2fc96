from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.errors import InvalidValue, SpecError, UnknownName
from hwnas.files import toml_text
from hwnas.targets import (
    RUNTIMES,
    Device,
    Hardware,
    Host,
    Match,
    catalog,
    describe,
    load_device,
    load_recipe,
    resolve_target,
    targets_of,
    this_device,
)

HOST = Host(architecture="x86_64", cpu_name="Test CPU 9", flags=("avx", "avx2"), cores=2, gpus=("Test GPU",))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and a host that no shipped device is."""
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(catalog, "detect_host", lambda: HOST)
    return tmp_path / "home"


def save(root: Path, name: str, *, description: str = "d", kind: str = "cpu", **match: object) -> Device:
    device = Device(
        schema=1,
        name=name,
        kind=kind,  # type: ignore[arg-type]
        description=description,
        match=Match(**match),  # type: ignore[arg-type]
        hardware=Hardware(source="s"),
    )
    (root / "devices").mkdir(parents=True, exist_ok=True)
    (root / "devices" / f"{name}.toml").write_text(toml_text(device))
    return device


# -- roots ---------------------------------------------------------------------------------------------


def test_home_is_the_variable_or_the_users_data_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalog.home() == home
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("HWNAS_HOME")
        else:
            monkeypatch.setenv("HWNAS_HOME", unset)
        assert catalog.home().name == "hwnas"
        assert catalog.home().is_absolute()


def test_a_home_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "file"))
    with pytest.raises(InvalidValue, match=r"HWNAS_HOME is '.*file', which is a file; set it to a folder"):
        catalog.devices()


def test_checkout_and_wheel(tmp_path: Path) -> None:
    package = tmp_path / "hwnas"
    assert catalog.shipped(package) == package / "share"
    (tmp_path / "devices").mkdir()
    assert catalog.shipped(package) == package / "share"  # someone's folder beside site-packages
    (tmp_path / "pyproject.toml").write_text("")
    assert catalog.shipped(package) == tmp_path


def test_home_goes_ahead_of_what_is_shipped(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "shipped", "a", description="shipped", cpu="x")
    save(tmp_path / "shipped", "b", cpu="x")
    save(home, "a", description="mine", cpu="x")
    monkeypatch.setattr(catalog, "roots", lambda: [home, tmp_path / "shipped"])
    assert list(catalog.devices()) == ["a", "b"]
    assert load_device("a").description == "mine"


# -- loading -------------------------------------------------------------------------------------------


def test_an_unknown_device_lists_the_choices(home: Path) -> None:
    save(home, "my-board", cpu="x")
    with pytest.raises(
        UnknownName,
        match=r"unknown device 'my-bord'. Did you mean 'my-board'\? Known: my-board, .*devices detect",
    ):
        load_device("my-bord")


def test_an_unknown_recipe_lists_the_choices(home: Path) -> None:
    with pytest.raises(UnknownName) as caught:
        load_recipe("onnxruntime-fp32")
    said = str(caught.value)
    assert said.startswith("unknown recipe 'onnxruntime-fp32'. Did you mean 'onnxruntime-cpu-fp32'? Known: ")
    assert "torch-cpu-fp32" in said
    assert "exporters/" in said


@pytest.mark.parametrize("name", ["../devices/a", "a.toml", "sub/a", "", "."])
def test_only_stems_are_names(home: Path, name: str) -> None:
    save(home, "a", cpu="x")
    with pytest.raises(UnknownName, match="unknown device"):
        load_device(name)


def test_the_name_in_the_file_is_the_files(home: Path) -> None:
    save(home, "a", cpu="x")
    (home / "devices" / "a.toml").rename(home / "devices" / "b.toml")
    with pytest.raises(SpecError, match=r"b.toml: name is 'a'; it should be the file's name, 'b'"):
        load_device("b")


# -- this ----------------------------------------------------------------------------------------------


def test_this_is_detected_where_no_device_matches(home: Path) -> None:
    assert catalog.this_device() == describe(HOST)
    assert not home.exists()


def test_this_is_the_device_that_asks_for_most(home: Path) -> None:
    save(home, "a-loose", cpu="Test.*")
    exact = save(home, "b-exact", cpu="Test CPU 9", flags=("avx", "avx2"), cores=2)
    save(home, "c-other", cpu="Test CPU 9", flags=("avx", "avx2", "amx_tile"), cores=2)
    assert catalog.this_device() == exact


def test_of_equals_the_first_in_the_order_of_the_roots(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "shipped", "a", cpu="Test.*")
    mine = save(home, "z", cpu="Test.*")
    monkeypatch.setattr(catalog, "roots", lambda: [home, tmp_path / "shipped"])
    assert catalog.this_device() == mine


def test_this_gpu(home: Path) -> None:
    found = catalog.this_device("gpu")
    assert (found.name, found.kind, found.match.gpu) == ("test-gpu", "gpu", "Test GPU")
    gpu = save(home, "g", kind="gpu", gpu="Test GPU", cpu="Test CPU 9", cores=2)
    assert catalog.this_device("gpu") == gpu
    assert catalog.this_device("cpu") == describe(HOST)


def test_a_detected_device_never_takes_the_name_of_another(home: Path) -> None:
    name = describe(HOST).name
    save(home, name, cpu="Test CPU 9", flags=("amx_tile",), cores=2)
    device = catalog.this_device()
    assert device.name == f"{name}-{device.fingerprint[:6]}"
    assert device.match == describe(HOST).match
    save(home, name, cpu="Test CPU 9", cores=2, description="the same one")
    assert catalog.detected_device(HOST).name == name


# -- hosts that nothing tells apart --------------------------------------------------------------------

APPLE = Host(architecture="aarch64", cpu_name="Arm implementer 0x61 part 0x000", flags=("asimd", "asimdhp"), cores=4)
M2 = replace(APPLE, flags=("asimd", "asimdhp", "bf16", "i8mm"))


def test_an_apple_chip_in_a_virtual_machine_is_asked_for_a_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "detect_host", lambda: APPLE)
    for call in (this_device, lambda: catalog.resolve_target("this/torch-cpu-fp32"), lambda: targets_of("this")):
        with pytest.raises(InvalidValue, match="hwnas devices detect --save --name my-machine") as caught:
            call()
        assert "Arm implementer 0x61 part 0x000" in str(caught.value)
    old = "arm-implementer-0x61-part-0x000-4c"  # what all of them were called
    assert old in str(caught.value)
    found = catalog.resolve_target(f"{old}/torch-cpu-fp32").device
    assert found == describe(APPLE).model_copy(update={"name": old})
    assert catalog.resolve_target("apple-silicon-4c/torch-cpu-fp32").device == describe(APPLE)


def test_a_name_of_ones_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "detect_host", lambda: APPLE)
    mine = save(home, "my-m1", **describe(APPLE).match.model_dump(exclude_none=True))
    assert this_device() == mine
    monkeypatch.setattr(catalog, "detect_host", lambda: M2)
    assert mine.differences(M2) == ["CPU flags: expected none of asimddp, i8mm, bf16, sve, sve2, sme; found i8mm, bf16"]
    with pytest.raises(InvalidValue, match="Give it a name"):
        this_device()


def test_of_two_names_for_what_nothing_tells_apart_none_is_chosen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "detect_host", lambda: M2)
    for name in ("my-m2", "my-m3"):
        save(home, name, **describe(M2).match.model_dump(exclude_none=True))
    with pytest.raises(InvalidValue, match=r"it may be any of my-m2, my-m3: name it in place of `this`"):
        this_device()
    assert catalog.resolve_target("my-m3/torch-cpu-fp32").device.name == "my-m3"


def test_what_was_called_by_its_architecture_is_still_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(architecture="riscv64", cpu_name="riscv64", cores=4, board="StarFive VisionFive 2 v1.3B")
    monkeypatch.setattr(catalog, "detect_host", lambda: host)
    assert this_device().name == "starfive-visionfive-2-v1.3b-4c"
    assert catalog.resolve_target("riscv64-4c/torch-cpu-fp32").device.match.cpu == "riscv64"
    old = save(home, "riscv64-4c", cpu="riscv64", cores=4)
    assert this_device() == old


def test_the_name_by_the_cpu_text_is_still_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pi = Host(
        architecture="aarch64",
        cpu_name="Arm implementer 0x41 part 0xd0b",
        cores=4,
        board="Raspberry Pi 5 Model B Rev 1.0",
    )
    monkeypatch.setattr(catalog, "detect_host", lambda: pi)
    assert this_device().name == "raspberry-pi-5-model-b-rev-1.0-4c"
    old = "arm-implementer-0x41-part-0xd0b-4c"
    found = catalog.resolve_target(f"{old}/torch-cpu-fp32").device
    assert (found.name, found.match) == (old, this_device().match)
    saved = save(home, old, cpu="Arm implementer 0x41 part 0xd0b", cores=4)
    assert this_device() == saved


def test_files_of_devices_from_before_still_match(home: Path) -> None:
    old = Match(cpu="Arm implementer 0x41 part 0xd0b", flags=("asimd",), cores=4)
    device = Device(schema=1, name="pi", kind="cpu", description="d", match=old, hardware=Hardware(source="s"))
    host = Host(
        architecture="aarch64",
        cpu_name="Arm implementer 0x41 part 0xd0b",
        flags=("asimd", "asimdhp"),
        cores=4,
        core="0xd0b r4p1",
        board="Raspberry Pi 5 Model B Rev 1.0",
    )
    assert device.differences(host) == []
    # What it is recognised by is written in tables and bundles.
    assert device.fingerprint == "9a6e3ea80207ed542cac9707161e7423f42aea352d78b104496af41a6c44ec7b"


# -- files that cannot be used -------------------------------------------------------------------------


def test_one_broken_file_does_not_end_what_reads_the_folder(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = save(home, "good", cpu="Test CPU 9")
    (home / "devices" / "bad.toml").write_text("schema = 1\nname =", encoding="utf-8")
    (home / "devices" / "folder.toml").mkdir()
    (home / "exporters").mkdir()
    (home / "exporters" / "worse.toml").write_bytes(b"\xff\xfe")
    before = {target.name for target in targets_of("good")}
    assert this_device() == good
    assert "good/torch-cpu-fp32" in before
    assert {target.name for target in targets_of("this")} >= before
    assert [caplog.text.count(f"{name}.toml") for name in ("bad", "folder", "worse")] == [1, 1, 1]
    assert caplog.text.count("left out: ") == 3
    with pytest.raises(SpecError, match=r"bad\.toml"):
        load_device("bad")
    with pytest.raises(SpecError, match=r"worse\.toml"):
        catalog.resolve_target("good/worse")
    with pytest.raises(SpecError, match=r"bad\.toml"):
        targets_of("bad")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_nothing_waits_for_a_fifo(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("devices", "exporters"):
        (home / folder).mkdir(parents=True, exist_ok=True)
        os.mkfifo(home / folder / "pipe.toml")
        (home / folder / "zero.toml").symlink_to("/dev/zero")  # has no end
        (home / folder / "loop.toml").symlink_to("loop.toml")
    assert "pipe" not in {device.name for device in catalog.known_devices()}
    assert "pipe" not in {recipe.name for recipe in catalog.known_recipes()}
    assert caplog.text.count("pipe.toml: it is a FIFO, not a file") == 2
    assert caplog.text.count("zero.toml: it is a device, not a file") == 2
    assert caplog.text.count("loop.toml: Too many levels of symbolic links") == 2
    with pytest.raises(SpecError, match=r"pipe\.toml: it is a FIFO"):
        load_device("pipe")


# -- targets and tables --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["this", "", "/", "this/", "/onnxruntime-cpu-fp32", "a/b/c", "this/ torch-cpu-fp32"])
def test_a_malformed_target(home: Path, text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        catalog.resolve_target(text)
    assert str(caught.value) == (f"a target is written device/recipe, e.g. this/onnxruntime-cpu-fp32; not {text!r}")


def test_targets(home: Path) -> None:
    save(home, "board", cpu="Another")
    assert catalog.resolve_target("board/torch-cpu-fp32").name == "board/torch-cpu-fp32"
    this = catalog.resolve_target("this/onnxruntime-cpu-fp32")
    assert (this.name, this.device) == ("test-9-2c/onnxruntime-cpu-fp32", describe(HOST))
    assert this.recipe == load_recipe("onnxruntime-cpu-fp32")
    assert hash(this) == hash(catalog.resolve_target("this/onnxruntime-cpu-fp32"))


def test_targets_of_unknown_parts(home: Path) -> None:
    with pytest.raises(UnknownName, match="unknown device 'bord'"):
        catalog.resolve_target("bord/torch-cpu-fp32")
    with pytest.raises(UnknownName, match="unknown recipe 'torch'"):
        catalog.resolve_target("this/torch")


def test_a_recipe_for_another_kind_of_device(home: Path) -> None:
    save(home, "g", kind="gpu", gpu="Test GPU")
    with pytest.raises(
        InvalidValue,
        match=r"g/torch-cpu-fp32: the device g is a gpu, but the recipe's runtime torch runs on a cpu; "
        r"`hwnas devices list` shows the kinds",
    ):
        catalog.resolve_target("g/torch-cpu-fp32")


def test_tables(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(catalog, "roots", lambda: [home, shipped])
    save(home, "a", cpu="x")
    recipe = Path(__file__).parents[2] / "exporters" / "torch-cpu-fp32.toml"
    (home / "exporters").mkdir()
    (home / "exporters" / recipe.name).write_bytes(recipe.read_bytes())
    target = catalog.resolve_target("a/torch-cpu-fp32")
    assert catalog.tables() == []
    assert catalog.table_path(target) is None
    for root in (shipped, home):
        path = root / "latency_tables" / "a" / "torch-cpu-fp32.csv"
        path.parent.mkdir(parents=True)
        path.write_text("")
        (path.parent / ".hwnas-0.tmp").write_text("")
        assert catalog.table_path(target) == path
        assert catalog.tables() == [("a", "torch-cpu-fp32", path)]


def test_importing_loads_no_runtime() -> None:
    heavy = ["torch", "onnx", "onnxruntime", "numpy", "sklearn"]
    code = f"import sys, hwnas.targets; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_measured_recipe_of_a_device():
    names = {target.recipe.name for target in targets_of("this")}
    assert {"onnxruntime-cpu-fp32", "openvino-cpu-bf16", "torch-compile-cpu-fp32-2t"} <= names
    assert "roofline-cpu-fp32" not in names
    assert {RUNTIMES[target.recipe.runtime].kind for target in targets_of(this_device().name)} == {"cpu"}
    with pytest.raises(UnknownName, match="unknown device 'nobody'"):
        targets_of("nobody")


def test_a_connection_without_a_device_says_how_to_describe_it(home: Path) -> None:
    (home / "connections").mkdir(parents=True)
    (home / "connections" / "board.toml").write_text('schema = 1\ncommand = "sh"\n')
    with pytest.raises(UnknownName, match=r"board has a connection: .*hwnas devices detect --on board --save"):
        resolve_target("board/onnxruntime-cpu-fp32")
