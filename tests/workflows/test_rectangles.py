"""Photographs that are not square, from a folder of them to the class that the lines of a bundle print."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hwnas import workflows
from hwnas.data import Images
from hwnas.deploy import verify
from hwnas.errors import InvalidValue
from hwnas.latency import load_model, read_table
from hwnas.machines import SimulatedMachine
from hwnas.runtimes import open_session
from hwnas.supernet import load_supernet

NAME = "mobilenetv3-tiny+resolution=16,24+aspect=3:1"
FIX = {"depth_1": 1, "depth_2": 1, "depth_3": 1, "kernel_1_1": 3, "kernel_2_1": 3, "kernel_3_1": 3, "expansion_1_1": 2}
SIZE = (24, 72)


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Gray strips with a dark stroke: near the left end, or near the right one."""
    root, rng = tmp_path_factory.mktemp("plates"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8), ("test", 8)):
        for name, first in (("left", 30), ("right", 110)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(40, 60), rng.integers(150, 190)
                pixels = rng.normal(170, 12, (height, width))
                at = first + rng.integers(0, 16)
                pixels[:, at : at + 12] -= 110
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def supernet(plates, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plates-net") / "net"
    training = folder.with_name("training.toml")
    training.write_text(
        'schema = 1\nbatch_size = 16\naugmentation = "none"\nvalidate_every = 0\n'
        '[[phases]]\nname = "all"\nsteps = 40\nlearning_rate = 0.1\n'
    )
    answer = workflows.train(NAME, "images", folder, data_path=plates, fix=FIX, training=training, accelerator="cpu")
    assert answer.space == NAME
    return folder


def test_from_photographs_to_the_class_that_the_readme_prints(plates, supernet, this, tmp_path, monkeypatch):
    monkeypatch.setattr("hwnas.accuracy.ensemble._STEPS", 40)
    space = load_supernet(supernet)[0].space
    assert (space.name, space.in_channels, space.input_shape(space.largest)) == (NAME, 1, (1, *SIZE))

    # A table: its keys have heights and widths, and its context is fitted on networks of the space.
    machine = SimulatedMachine(lambda op: 0.001 + op.macs / 1e8)
    workflows.profile(space, this, tables=tmp_path, networks=6, bound_networks=4, machine=machine)
    table = read_table(this, tmp_path / f"{this.name}.csv")
    assert "conv 1x24x72>16x12x36 act=hswish kernel=3 stride=2" in table.rows
    model = load_model(table, space)

    # A search in it.
    found = workflows.search(
        supernet, budget="90%", target=this.name, images=16, calibration_images=48, candidates=3, confidence=None,
        tables=tmp_path, out=tmp_path / "arch.json",
    )  # fmt: skip
    [network] = found.networks
    arch = space.arch(network.arch)
    whole = float(model.predict(space.encode([space.largest]))[0])
    assert network.predicted[this.name] == pytest.approx(float(model.predict(space.encode([arch]))[0]))
    assert network.predicted[this.name] <= 0.9 * whole

    # The largest network learned the strokes; its bundle keeps them. With the normalisation inside, it takes pixels.
    (tmp_path / "largest.json").write_text(json.dumps({"arch": dict(space.largest)}))
    data = Images(plates)
    images, labels = next(data.batches("test", SIZE))
    for include, shape in (((), [1, 1, *SIZE]), (("normalize", "softmax"), [1, *SIZE, 1])):
        bundle = workflows.export(
            tmp_path / "largest.json", supernet, this, tmp_path / "-".join(("bundle", *include)), tables=tmp_path,
            include=include,
        )  # fmt: skip
        manifest = bundle.manifest
        assert (manifest.domain.space, manifest.input.shape) == (NAME, shape)
        assert manifest.input.transform["crop"] == {"position": "centre", "size": list(SIZE)}
        assert manifest.predicted_ms == pytest.approx(whole)
        assert manifest.accuracy >= 0.75
        assert verify(bundle.folder).max_abs_error is not None
        page = (bundle.folder / "README.md").read_text("utf-8")
        [lines] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        if not include:
            with open_session(bundle.program, manifest.recipe) as session:
                told = np.concatenate([session.run(image[None].numpy()) for image in images]).argmax(1)
            assert (told == labels.numpy()).mean() == manifest.accuracy
        for label, name in enumerate(data.classes[:1] if include else data.classes):
            index = next(i for i in range(len(labels)) if labels[i] == told[i] == label)
            done = subprocess.run(
                [sys.executable, "-I", "-c", lines + "np.save('../x.npy', x)\n", plates / data.files("test")[index][0]],
                cwd=bundle.folder, capture_output=True, encoding="utf-8", check=False,
            )  # fmt: skip
            assert (done.returncode, done.stdout) == (0, f"class {name}\n"), done.stderr
            if not include:
                assert np.array_equal(np.load(tmp_path / "x.npy")[0], images[index].numpy())


def test_a_teacher_of_another_aspect_is_refused(plates, supernet, tmp_path):
    with pytest.raises(InvalidValue, match=r"images with the aspect 3:1 .*; this training loads them with 1:1"):
        workflows.train(
            "mobilenetv3-tiny", "images", tmp_path / "net", data_path=plates, fix={**FIX, "resolution": 24},
            teacher=supernet, steps=1, accelerator="cpu",
        )  # fmt: skip
