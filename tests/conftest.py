"""Fixtures that several rooms share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real public data, in the publishers' layouts; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("LEMA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "gsm8k" / "train.jsonl").exists():
        pytest.skip(f"no public data at {folder}; set LEMA_DATA to a folder that has gsm8k/train.jsonl")
    return folder
