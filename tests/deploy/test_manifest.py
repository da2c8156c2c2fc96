"""The schema that is shipped, and what `hwnas verify` says of a bundle."""

from __future__ import annotations

import json
import sys

import pytest

from hwnas.deploy import Bundle, verify
from hwnas.deploy.manifest import SCHEMA_FILE, BundleManifest, schema_text
from hwnas.errors import RuntimeUnavailable
from hwnas.files.untrusted import file_name_mistake


def test_the_shipped_schema_is_that_of_the_model() -> None:
    """`hwnas verify --schema` prints it: write that to the file when this fails."""
    assert SCHEMA_FILE.read_text() == schema_text()


def test_a_manifest_has_what_its_schema_asks_for(bundle: Bundle) -> None:
    said = json.loads((bundle.folder / "manifest.json").read_bytes())
    schema = json.loads(SCHEMA_FILE.read_text())
    # Left out of a bundle that was not timed, includes no other steps, has a fixed batch, and is of made-up data of one
    # class per image.
    said |= {"measured_cores": "1", "include": [], "measured_p95_ms": 2.0, "measured_p99_ms": 3.0}
    said |= {"measured_images_per_s": 900.0, "data_folder": "cells", "data_fingerprint": "0" * 32, "references": {}}
    said |= {"task": "multi-label", "dynamic_batch": True}
    assert set(said) == set(schema["properties"]) == {f.alias or n for n, f in BundleManifest.model_fields.items()}
    assert set(schema["required"]) <= set(said)
    assert schema["properties"]["schema"]["const"] == said["schema"] == 2
    assert schema["additionalProperties"] is False


def test_what_verify_says(bundle: Bundle) -> None:
    found = verify(bundle.folder)
    assert (found.target, found.files, found.program_form, found.not_run) == ("board/made-up", 4, True, None)
    assert found.max_abs_error == 0
    assert found.accepted_error == 1e-3


def test_a_bundle_whose_runtime_is_missing_is_checked_without_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RuntimeUnavailable("ONNX Runtime is not installed: pip install onnxruntime")

    monkeypatch.setattr(sys.modules["hwnas.deploy.verification"], "open_session", missing)
    found = verify(bundle.folder)
    assert found.max_abs_error is None
    assert found.not_run == "ONNX Runtime is not installed: pip install onnxruntime"


@pytest.mark.parametrize("name", ["model.onnx", "README.md", "a", "model-2_b.tar.gz"])
def test_plain_names(name: str) -> None:
    assert file_name_mistake(name) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a..b", "a.", ".a", "aux", "COM1.txt", "ä", "a b", "a\n"]
)
def test_other_names(name: str) -> None:
    assert file_name_mistake(name)
