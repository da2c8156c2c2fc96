"""The lines of a bundle's README run with its runtime, numpy and Pillow only: on the example and on photographs."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from hwnas.data import Data, open_data
from hwnas.data.decode import opened
from hwnas.deploy import Bundle, BundleManifest, open_bundle, verify, write_bundle
from hwnas.deploy.bundle import write_example
from hwnas.deploy.manifest import README, tolerance
from hwnas.deploy.preprocessing import photograph_lines, step_words
from hwnas.errors import BundleError
from hwnas.lowering import form_of
from hwnas.lowering.included import Included, Step
from hwnas.runtimes import open_session
from hwnas.targets import Recipe, load_recipe

Transform = dict[str, Any]
GRAY: Transform = {
    "layout": "NCHW", "channels": "L", "dtype": "float32",
    "resize": {"side": "both", "size": 24, "interpolation": "bilinear", "antialias": True},
    "crop": None, "value_range": [0.0, 1.0], "mean": [0.25], "std": [0.5],
}  # fmt: skip
RECIPES = [
    "onnxruntime-cpu-fp32",
    "onnxruntime-cpu-int8",
    "openvino-cpu-fp32",
    "openvino-cpu-bf16",
    "openvino-cpu-int8",
    "torch-cpu-fp32",
]
# Programs of torch alone take 5 s each in a process of their own.
QUICK = [pytest.param(name, marks=[pytest.mark.long] if name.startswith("torch") else []) for name in RECIPES]
# Nothing else of this environment may be imported: hwnas and what it needs is not there for whoever gets a bundle.
ALONE = """\
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {blocked!r} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
AFTER = "np.save('../x.npy', x)\nnp.save('../y.npy', y)\nassert 'hwnas' not in sys.modules\n"

# What takes the GPU's place in the lines of its bundles, so that all the rest of them runs anywhere.
ON_A_CPU = {
    "onnxruntime-cuda-fp16": {'["CUDAExecutionProvider"]': '["CPUExecutionProvider"]'},
    "onnxruntime-tensorrt-fp16": {
        '[("TensorrtExecutionProvider", {"trt_fp16_enable": True})]': '["CPUExecutionProvider"]'
    },
    "torch-cuda-fp16": {'"cuda"': '"cpu"'},
    "tensorrt-fp16": {
        "polygraphy.backend.trt import EngineFromBytes, TrtRunner": (
            "polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx"
        ),
        'TrtRunner(EngineFromBytes(BytesFromPath("model.engine")))': (
            'OnnxrtRunner(SessionFromOnnx(BytesFromPath("model.onnx")))'
        ),
    },
}

Make = Callable[..., Bundle]


@pytest.fixture
def make(manifest: BundleManifest, tmp_path: Path, runs_here: Callable[[str], Recipe]) -> Make:
    """Makes the bundle of a small network under a shipped recipe; another one may run it for the example."""

    def made(
        name: str,
        run_by: str | None = None,
        batch: int = 1,
        transform: Transform | None = None,
        include: tuple[Step, ...] = (),
        dynamic: bool = False,
        folder: str = "bundle",
    ) -> Bundle:
        recipe = load_recipe(name).model_copy(update={"batch": batch})
        torch.manual_seed(0)
        transform = transform or GRAY
        image = (1, len(transform["mean"]), 24, 24)
        network = nn.Sequential(
            nn.Conv2d(image[1], 8, 3, stride=2), nn.Hardswish(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip
        form = form_of(recipe)
        program = form.lower(network.eval(), image[1:], torch.randn(32, *image[1:]))
        x = torch.randn(image).numpy()
        if include:
            steps = Included.of(transform, include)
            program, transform = steps.into(program, recipe), steps.transform(transform)
            [(images, _)] = steps.batches([(torch.from_numpy(x), torch.zeros(1))])
            x = images.numpy()
        if dynamic:
            program = form.any_batch(program)
        run_by = run_by or name
        with open_session(program, runs_here(run_by).model_copy(update={"batch": batch}), any_batch=dynamic) as session:
            y = session.run(x.repeat(1 if dynamic else batch, axis=0))[:1]

        def write(folder: Path) -> Path:
            write_example(folder, x, y)
            return form.write(program, folder)

        example = manifest.example.model_copy(
            update={"max_abs_error": tolerance(recipe.precision, float(abs(y).max()))}
        )
        shapes = {
            "input": manifest.input.model_copy(
                update={"shape": [batch, *x.shape[1:]], "transform": transform, "dtype": str(x.dtype)}
            ),
            "output": manifest.output.model_copy(update={"shape": [batch, 3]}),
        }
        said = {"recipe": recipe, "example": example, "include": include, "dynamic_batch": dynamic}
        told = manifest.model_copy(update=said | shapes)
        return write_bundle(tmp_path / folder, write, told)

    return made


def lines(bundle: Bundle) -> str:
    """The Python of a README, exactly as it stands there."""
    [code] = re.findall(r"^```python\n(.*?)^```$", (bundle.folder / README).read_text(), re.DOTALL | re.MULTILINE)
    return str(code)


def check(bundle: Bundle, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    recorded = np.load(bundle.folder / "example-output.npy", allow_pickle=False)
    printed = re.fullmatch(r"class (.+)\nlargest difference (\S+)\n", done.stdout)
    assert printed, done.stdout
    assert printed[1] == bundle.manifest.classes[recorded[0].argmax()]
    assert float(printed[2]) <= bundle.manifest.example.max_abs_error
    y = np.load(bundle.folder.parent / "y.npy", allow_pickle=False)
    assert y.shape == tuple(bundle.manifest.output.shape)
    assert float(abs(y[:1] - recorded).max()) == pytest.approx(float(printed[2]), abs=1e-9)


@pytest.mark.parametrize("name", RECIPES)
def test_the_lines_run_with_the_runtime_alone(name: str, make: Make) -> None:
    bundle = make(name)
    assert len(lines(bundle).splitlines()) <= 47
    runtime = bundle.manifest.recipe.runtime
    blocked = {"hwnas", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "pydantic", "safetensors"} - {runtime}
    code = ALONE.format(blocked=blocked) + lines(bundle) + AFTER
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False
    )
    check(bundle, done)
    assert verify(bundle.folder).max_abs_error is not None


@pytest.fixture
def photographs(tmp_path: Path) -> Data:
    """Image folders, with one test image for each of two classes: of odd sizes, a JPEG and a PNG with a palette."""
    generator = np.random.default_rng(5)
    for split, count in (("train", 2), ("val", 1)):
        for name, width, height in (("cat", 61, 47), ("dog", 33, 90)):
            folder = tmp_path / "photographs" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                small = Image.fromarray(generator.integers(0, 256, (6, 5, 3), np.uint8))
                image = small.resize((width, height), Image.Resampling.BICUBIC)
                if name == "dog":
                    image.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / f"{number}.png")
                else:
                    image.save(folder / f"{number}.jpg")
    return open_data("images", path=tmp_path / "photographs")


@pytest.mark.parametrize("name", QUICK)
def test_the_lines_go_from_a_photograph_to_the_name_of_its_class(name: str, make: Make, photographs: Data) -> None:
    """The input is bit for bit what hwnas computes from the file, and so is the class."""
    bundle = make(name, transform=photographs.transform(24))
    runtime = bundle.manifest.recipe.runtime
    blocked = {"hwnas", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "pydantic", "safetensors"} - {runtime}
    images, labels = next(iter(photographs.batches("test", 24)))
    [cat, dog] = (images[labels == label].numpy() for label in (0, 1))
    root = bundle.folder.parent
    for file, expected in (("cat/0.jpg", cat), ("dog/0.png", dog)):
        photograph = root / "photographs" / "val" / file
        code = ALONE.format(blocked=blocked) + lines(bundle) + AFTER
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, photograph],
            cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert np.array_equal(np.load(root / "x.npy"), expected)
        with open_session(bundle.program, bundle.manifest.recipe) as session:
            y = session.run(expected)
        assert np.allclose(np.load(root / "y.npy"), y, atol=bundle.manifest.example.max_abs_error)
        assert done.stdout == f"class {bundle.manifest.classes[y[0].argmax()]}\n"
    assert "`python classify.py photograph.jpg` prints the class" in (bundle.folder / README).read_text("utf-8")


@pytest.mark.parametrize("change", [{"sharpen": 2}, {"channels": "CMYK"}, {"resize": {"side": "both", "size": 24}}])
def test_lines_without_a_photograph_where_a_step_is_not_known(change: Transform, make: Make) -> None:
    bundle = make("onnxruntime-cpu-fp32", transform=GRAY | change)
    assert "prepared" not in lines(bundle)
    done = subprocess.run(
        [sys.executable, "-I", "-c", lines(bundle) + AFTER],
        cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    check(bundle, done)


def test_how_sizes_and_crops_are_rounded_is_said_in_words(photographs: Data) -> None:
    said = "\n".join(step_words(photographs.transform(24)))
    assert (
        "The short side becomes 27 pixels. The other one keeps the ratio and is rounded to the nearest integer" in said
    )
    assert "The crop starts at (width - 24) / 2 and (height - 24) / 2, both rounded down." in said


def test_a_rotated_photograph_of_16_bits(tmp_path: Path) -> None:
    """Steps of a manifest: the EXIF orientation, and a range of pixels that becomes 8 bits."""
    pixels = np.arange(30 * 20, dtype=np.uint16).reshape(20, 30) * 7
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "deep.png", exif=exif)
    steps = GRAY | {"orientation": "EXIF", "pixel_range": [0.0, 4095.0], "resize": None}
    given: dict[str, Any] = {"np": np, "Image": Image, "ImageOps": ImageOps}
    exec(photograph_lines(steps) or "", given)
    found = given["prepared"](tmp_path / "deep.png")
    assert found.shape == (1, 1, 30, 20)
    expected = np.rot90(np.round(np.clip(pixels / 4095, 0, 1) * 255), -1)
    assert np.allclose(found[0, 0], (expected / 255 - 0.25) / 0.5, atol=0.01)


@pytest.mark.parametrize("kind", ["I;16", "F"])
def test_photographs_of_more_than_8_bits_are_read_as_for_the_training(kind: str, tmp_path: Path) -> None:
    """Without a range in the transform it is that of their type."""
    rng = np.random.default_rng(0)
    pixels = rng.random((12, 16), np.float32) if kind == "F" else rng.integers(0, 65536, (12, 16), np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.tif")
    how = Included(steps=("normalize",), low=0, high=1, mean=(0.5,), std=(0.5,))
    steps = how.transform(GRAY | {"resize": None})
    given: dict[str, Any] = {"np": np, "Image": Image, "ImageOps": ImageOps}
    exec(photograph_lines(steps) or "", given)
    found = given["prepared"](tmp_path / "deep.tif")
    assert np.array_equal(found.reshape(12, 16), np.asarray(opened(tmp_path / "deep.tif", "it", channels=1)))


def test_the_lines_are_saved_where_the_page_says(make: Make) -> None:
    bundle = make("onnxruntime-cpu-fp32")
    (bundle.folder / "classify.py").write_text(lines(bundle))
    assert open_bundle(bundle.folder).program == bundle.program
    (bundle.folder / "other.py").write_text("")
    with pytest.raises(BundleError, match=r"other\.py"):
        open_bundle(bundle.folder)


@pytest.mark.parametrize("name", ON_A_CPU)
def test_the_lines_for_a_gpu_run_with_a_cpu_in_its_place(name: str, make: Make) -> None:
    bundle = make(name, run_by="torch-cpu-fp32" if name.startswith("torch") else "onnxruntime-cpu-fp32")
    code = lines(bundle)
    if name.startswith("tensorrt"):
        pytest.importorskip("polygraphy.backend.trt", reason="pip install polygraphy")
        exec(next(line for line in code.splitlines() if "backend.trt" in line), {})
    for theirs, ours in ON_A_CPU[name].items():
        assert theirs in code
        code = code.replace(theirs, ours)
    done = subprocess.run(
        [sys.executable, "-I", "-c", code + "np.save('../y.npy', y)\n"],
        cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    done.stdout = done.stdout[done.stdout.find("class ") :]  # Polygraphy tells what it does before
    check(bundle, done)


def test_the_lines_show_another_program(make: Make) -> None:
    """The difference that the lines print is one: of other outputs it is large."""
    bundle = make("onnxruntime-cpu-fp32")
    path = bundle.folder / "example-output.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-4] + np.float32(100).tobytes())
    done = subprocess.run(
        [sys.executable, "-I", "-c", lines(bundle)], cwd=bundle.folder, capture_output=True, text=True, check=True
    )
    assert float(done.stdout.split()[-1]) > 90


@pytest.mark.parametrize(
    "name", ["onnxruntime-cpu-fp32", "openvino-cpu-fp32", pytest.param("torch-cpu-fp32", marks=pytest.mark.long)]
)
def test_a_run_of_several_images(name: str, make: Make) -> None:
    bundle = make(name, batch=4)
    assert bundle.manifest.output.shape == [4, 3]  # the outputs that `check` compares are of this shape
    code = lines(bundle) + "np.save('../y.npy', y)\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False
    )
    check(bundle, done)


def test_values_of_a_bundle_are_written_as_python(manifest: BundleManifest) -> None:
    from hwnas.deploy.readme import lines as made

    name = 'in"put\\ \n"; import os #'
    told = manifest.model_copy(
        update={"program": "model.onnx", "input": manifest.input.model_copy(update={"name": name})}
    )
    [line] = [line for line in made(told).splitlines() if line.startswith("PROGRAM")]
    found: dict[str, object] = {}
    exec(line, found)
    assert (found["PROGRAM"], found["INPUT"], found["BATCH"]) == ("model.onnx", name, 1)


def test_the_steps_of_the_input_are_told_in_words(manifest: BundleManifest) -> None:
    from hwnas.deploy.readme import readme

    steps = {"resize": {"side": "both", "size": 24}, "mean": [0.1], "crop": None}
    told = manifest.model_copy(update={"input": manifest.input.model_copy(update={"transform": steps})})
    assert "- resize: side both, size 24\n- mean: [0.1]\n\n" in readme(told)
    assert "A run of one image takes" in readme(told)


def test_the_page_names_data_and_licence(bundle: Bundle) -> None:
    page = (bundle.folder / README).read_text()
    for words in (
        "## Licence",
        "trained on the dataset `made-up`",
        "grants no rights",
        "pip install onnxruntime numpy",
        "87.50%",
    ):
        assert words in page


@pytest.mark.long
@pytest.mark.parametrize("name", ["onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "openvino-cpu-fp32"])
def test_the_lines_run_in_an_environment_of_their_own(name: str, make: Make, tmp_path: Path) -> None:
    bundle = make(name)
    venv.create(tmp_path / "alone", with_pip=True)
    python = tmp_path / "alone" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    [packages] = re.findall(r"`pip install ([\w ]+)`", (bundle.folder / README).read_text())
    subprocess.run([python, "-m", "pip", "install", "-q", *packages.split()], check=True, capture_output=True)
    listed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    assert not re.search(r"^(hwnas|torch|onnx) ", listed, re.MULTILINE)
    code = "import sys\n" + lines(bundle) + AFTER
    done = subprocess.run(
        [python, "-I", "-c", code], cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False
    )
    check(bundle, done)


@pytest.mark.parametrize("name", QUICK)
def test_lines_with_steps_in_the_program_agree_with_the_plain_bundle(
    name: str, make: Make, photographs: Data, tmp_path: Path
) -> None:
    """The lines give the raw uint8 image to the program, and get the class and the probabilities of the plain one."""

    def ran(bundle: Bundle) -> tuple[str, np.ndarray, np.ndarray]:
        done = subprocess.run(
            [sys.executable, "-I", "-c", lines(bundle) + AFTER, tmp_path / "photographs" / "val" / "cat" / "0.jpg"],
            cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout, np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy")

    said, _, outputs = ran(make(name, transform=photographs.transform(24), folder="plain"))
    choices: tuple[tuple[Step, ...], ...] = (("normalize", "softmax"),)
    if name == RECIPES[0]:  # each step alone is the same for every runtime; a bundle of torch takes 5 s
        choices = (("normalize",), ("softmax",), *choices)
    if name == RECIPES[0] or name.startswith("torch"):  # an operator of its own in each form of a program
        choices = (*choices, ("sigmoid",))
    for include in choices:
        whole = make(name, transform=photographs.transform(24), include=include, folder="+".join(include))
        assert verify(whole.folder).max_abs_error is not None
        again, x, y = ran(whole)
        assert again == said
        expected = torch.from_numpy(outputs)
        if "softmax" in include:
            expected = expected.softmax(1)
            assert y.sum() == pytest.approx(1, abs=1e-3)
        if "sigmoid" in include:
            expected = expected.sigmoid()
        assert np.allclose(y, expected, atol=whole.manifest.example.max_abs_error)
        if "normalize" in include:
            assert (x.dtype, x.shape) == (np.uint8, (1, 24, 24, 3))
            assert (whole.manifest.input.dtype, whole.manifest.input.shape) == ("uint8", [1, 24, 24, 3])
            assert not {"mean", "std", "value_range"} & whole.manifest.input.transform.keys()
            assert "The input is uint8 of the shape [1, 24, 24, 3]" in (whole.folder / README).read_text("utf-8")
        assert f"(the program includes {' and '.join(include)})" in (whole.folder / README).read_text("utf-8")


@pytest.mark.parametrize("include", [(), ("normalize", "softmax")], ids=["plain", "with steps"])
@pytest.mark.parametrize("name", QUICK)
def test_lines_of_a_dynamic_batch_take_several_photographs(
    name: str, include: tuple[Step, ...], make: Make, photographs: Data, tmp_path: Path
) -> None:
    """One run of two photographs of other sizes gives the class of each, as a run of each alone does."""
    bundle = make(name, transform=photographs.transform(24), include=include, dynamic=True)
    assert "BATCH" not in lines(bundle)
    assert verify(bundle.folder).dynamic_batch
    folder = tmp_path / "photographs" / "val"
    found = []
    for files in (["cat/0.jpg", "dog/0.png"], ["cat/0.jpg"], ["dog/0.png"]):
        done = subprocess.run(
            [sys.executable, "-I", "-c", lines(bundle) + AFTER, *(folder / file for file in files)],
            cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        y = np.load(tmp_path / "y.npy")
        assert done.stdout == "".join(f"class {bundle.manifest.classes[scores.argmax()]}\n" for scores in y)
        assert np.load(tmp_path / "x.npy").shape == (len(files), *bundle.manifest.input.shape[1:])
        found.append(y)
    both, *alone = found
    assert (both[0] != both[1]).any()
    assert np.allclose(both, np.concatenate(alone), atol=bundle.manifest.example.max_abs_error)
    page = (bundle.folder / README).read_text("utf-8")
    assert "`python classify.py one.jpg another.jpg` prints the class of each image file, from one run" in page
    assert ", 24, 24], for any number n of images, " in page or "[n, 24, 24, 3], for any number n of images, " in page


@pytest.mark.parametrize("batch", [1, 4])
def test_lines_of_a_dynamic_batch_run_the_example(batch: int, make: Make) -> None:
    bundle = make("onnxruntime-cpu-fp32", batch=batch, dynamic=True)
    done = subprocess.run(
        [sys.executable, "-I", "-c", lines(bundle)],
        cwd=bundle.folder,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    printed = re.fullmatch(r"class (.+)\nlargest difference (\S+)\n", done.stdout)
    assert printed, done.stdout
    assert float(printed[2]) <= bundle.manifest.example.max_abs_error
