"""Options of spaces in jobs."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from hwnas.errors import InvalidValue, SpecError
from hwnas.latency import read_table
from hwnas.pipeline import compile_job, preview_job, read_job
from hwnas.spaces import InputKind, make_space
from hwnas.supernet import load_supernet
from hwnas.targets import resolve_target

NAME = "mobilenetv3-small+resolution=64,80,96+width=0.5"
SPACE = """
[space]
name = "mobilenetv3-small"
resolution = [64, 80, 96]
width = 0.5
"""
REST = """
[data]
name = "cluttered-digits"

[latency]
calibration_networks = 4
bound_networks = 19
validation_networks = 4

[training]
batch_size = 8
random_subnets = 1

[[training.phases]]
name = "all"
steps = 6
learning_rate = 0.1

[accuracy]
subnets = 30
images = 100
calibration_images = 50

[search]
candidates = 2
random_networks = 2
confidence = 0.5
"""
HEAD = 'schema = 1\ntargets = ["this/onnxruntime-cpu-fp32"]\nbudget = "200%"\n'


def job_of(tmp_path, space):
    path = tmp_path / "job.toml"
    path.write_text(HEAD + space + REST)
    return read_job(path)


def name_of(job):
    return job.make_space(reads=InputKind(1), classes=10).name


def test_options_are_keys_of_the_jobs_space(tmp_path):
    assert name_of(job_of(tmp_path, SPACE)) == NAME
    stage = '\n[[space.stages]]\nwidth = 24\ndepths = [1, 2]\nstride = 2\nact = "relu"\n'
    assert name_of(job_of(tmp_path, SPACE + "kernels = 3\n" + stage)) == f"{NAME}+kernels=3+stages=24x1.2-s2-relu"
    ranged = SPACE.replace("[64, 80, 96]", '"64:112:16"')
    assert name_of(job_of(tmp_path, ranged)) == "mobilenetv3-small+resolution=64:112:16+width=0.5"
    assert name_of(job_of(tmp_path, f'[space]\nname = "{NAME}"\nwidth = 1\n')) == NAME.removesuffix("+width=0.5")
    assert name_of(job_of(tmp_path, SPACE + 'aspect = "4:2"\n')) == f"{NAME}+aspect=2:1"


def test_a_toml_file_in_a_job_counts_from_its_folder(tmp_path, monkeypatch):
    (tmp_path / "solar.toml").write_text(
        'schema = 1\nbase = "mobilenetv3-small"\nresolution = [64, 80, 96]\nwidth = 0.5\n'
    )
    job = job_of(tmp_path, '[space]\nname = "solar.toml"\nfix = { depth_1 = 1 }\n')
    monkeypatch.chdir("/")
    assert name_of(job) == NAME
    assert job.make_space(reads=InputKind(1), classes=10).choices["depth_1"] == [1]


def test_mistakes_in_a_jobs_space(tmp_path):
    with pytest.raises(
        SpecError, match=r"unknown key 'space.resolutions'; did you mean 'resolution'\? allowed in \[space\]"
    ):
        job_of(tmp_path, SPACE.replace("resolution", "resolutions"))
    with pytest.raises(SpecError, match=r"space.resolution is '64:90:16'; steps of 16 from 64 do not reach 90"):
        job_of(tmp_path, SPACE.replace("[64, 80, 96]", '"64:90:16"'))
    with pytest.raises(SpecError, match=r'space.aspect is 2; write width:height as two integers of at least 1, "2:1"'):
        job_of(tmp_path, SPACE + "aspect = 2\n")
    with pytest.raises(InvalidValue, match=r"mobilenetv3-small: resolution 8 is too small: .* use 16 or more"):
        name_of(job_of(tmp_path, SPACE.replace("[64, 80, 96]", "8")))


def test_quarter_turns_of_images_that_are_not_square_are_refused_before_any_work(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("L", (64, 32), 100 * i).save(tmp_path / "images" / split / name / f"{i}.png")
    data = 'name = "images"\npath = "images"'
    turns = 'augmentation = "any-orientation"\nbatch_size = 8'
    rest = REST.replace('name = "cluttered-digits"', data).replace("batch_size = 8", turns).replace("= 30", "= 60")
    path = tmp_path / "job.toml"
    path.write_text(HEAD + SPACE + 'aspect = "2:1"\n' + rest)
    with pytest.raises(
        InvalidValue, match=r"quarter_turns .* needs square ones; those of this space have 96 x 192 pixels"
    ):
        preview_job(read_job(path), tmp_path / "out")
    path.write_text(HEAD + SPACE + rest)
    assert preview_job(read_job(path), tmp_path / "out")


@pytest.mark.long
def test_a_job_with_options_runs_the_whole_way(tmp_path):
    fixed = {f"depth_{s}": 1 if s in (1, 3) else 2 for s in (1, 2, 3, 4)}
    fixed |= {f"kernel_{s}_{b}": 3 for s in (1, 2, 3, 4) for b in (1, 2)}
    fixed |= {f"expansion_{s}_{b}": 3 for s, b in ((1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 2))}
    lines = "".join(f"{name} = {value}\n" for name, value in fixed.items())
    name, given = f"{NAME}+aspect=2:1", f'{SPACE}aspect = "2:1"\n'
    job = job_of(tmp_path, f"{given}[space.fix]\n{lines}depth_1 = [1, 2]\n".replace("depth_1 = 1\n", ""))
    out = tmp_path / "out"
    [answer] = compile_job(job, out)["targets"].values()
    assert answer["space"] == name
    assert answer["arch"]["resolution"] in (64, 80, 96)

    stages = {folder.name.partition("-")[0]: folder for folder in (out / "stages").iterdir()}
    supernet, _ = load_supernet(stages["train"])
    table = read_table(resolve_target("this/onnxruntime-cpu-fp32"), stages["profile"] / "table.csv")
    made = table.manifest.fits[0].domain.make()
    [manifest] = out.glob("bundles/*/*/manifest.json")
    domain = json.loads(manifest.read_text())["domain"]
    whole = make_space(name, in_channels=1, classes=10)
    assert {supernet.space.name, made.name, domain["space"]} == {name}
    assert set(supernet.space.distinct_ops) == set(made.distinct_ops) <= set(whole.distinct_ops)
    assert supernet.space.choices == made.choices
    assert made.choices["resolution"] == [64, 80, 96]

    # A second run finds every stage.
    assert all(stage.cached for stage in preview_job(job, out))
