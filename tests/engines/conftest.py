from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.accuracy import Evaluator
from hwnas.supernet import Supernet, save_supernet


@pytest.fixture(scope="session")
def supernet_folder(supernet: Supernet, evaluator: Evaluator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The supernet of the small space as a file, which workers open."""
    folder = tmp_path_factory.mktemp("supernet")
    data = {"name": "cluttered-digits", "path": None}
    save_supernet(supernet, folder, data=data, classes=evaluator.data.classes, training={})
    return folder
