"""What the programs of gpu.sh share: sizes, where things lie, and JSON lines of what was found.

WORK (a folder) and OUT (what is brought back) come from gpu.sh; LEMA_GPU_DRY=1 makes everything tiny, for a CPU.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from lema_jax.parallel import chips

DRY = os.environ.get("LEMA_GPU_DRY") == "1"
_HOME = Path(tempfile.gettempdir()) / "lema-gpu"  # as gpu.sh says, which sets both
WORK, OUT = Path(os.environ.get("WORK", _HOME)), Path(os.environ.get("OUT", _HOME / "out"))
PEAK = chips.peak_flops("NVIDIA H200") or 0.0  # an H100 (SXM) has the same
STEPS = 3 if DRY else 20  # of training that two programs are to follow each other in
LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-4, 0.1, 1.0
RANK, ALPHA = (4, 8.0) if DRY else (64, 64.0)


def _shape(vocab: int, width: int, feed_forward: int, layers: int, heads: int, kv_heads: int, theta: float) -> dict:
    return {
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 8192,
        "rope_theta": theta,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }


# As config.json has them: SmolLM2-135M's own shape, and a LLaMA of Qwen2.5-0.5B's sizes.
MODELS = {
    "135m": _shape(49152, 576, 1536, 30, 9, 3, 1e5),
    "0.5b": _shape(151936, 896, 4864, 24, 14, 2, 1e6),
}
if DRY:
    MODELS = {"135m": _shape(1024, 96, 128, 2, 6, 2, 1e4), "0.5b": _shape(2048, 128, 256, 2, 4, 2, 1e4)}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured, in rows × tokens, prompts and steps."""

    short: tuple[int, int] = (8, 1024)
    long: tuple[int, int] = (4, 2048)
    followed: tuple[int, int] = (4, 512)
    timed: int = 20
    prompts: int = 128
    new: int = 256
    questions: int = 1319
    greedy: int = 64


SIZES = Sizes((2, 256), (1, 256), (2, 384), 1, 8, 8, 12, 8) if DRY else Sizes()


def line(step: str, **found: Any) -> None:
    """One JSON line, printed and kept in OUT/gpu.jsonl."""
    rounded = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in found.items()}
    text = json.dumps({"step": step, **rounded})
    print(text, flush=True)
    with (OUT / "gpu.jsonl").open("a") as file:
        file.write(text + "\n")


@contextlib.contextmanager
def case(step: str, name: str) -> Iterator[dict[str, Any]]:
    """A line of what is put into the dict inside, and the seconds that it took; an error is said in it, and goes no
    further."""
    found: dict[str, Any] = {"case": name}
    began = time.perf_counter()
    try:
        yield found
    except Exception as error:
        traceback.print_exc()
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
    line(step, **found, took_s=round(time.perf_counter() - began, 1))


def seconds(run: Callable[[], Any], wait: Callable[[Any], Any], times: int) -> float:
    """Median seconds of a call, each waited for, after two that are not counted."""
    took = []
    for _ in range(times + 2):
        began = time.perf_counter()
        wait(run())
        took.append(time.perf_counter() - began)
    return statistics.median(took[2:])


def machine() -> None:
    """The first line: card, driver, versions, commit (COMMIT, where the copy has no repository)."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "torch", "transformers", "peft", "numpy")
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    commit = os.environ.get("COMMIT") or _said(["git", "rev-parse", "--short", "HEAD"])
    versions = {name: _version(name) for name in packages}
    line("machine", card=_said(query), cores=os.cpu_count(), commit=commit, dry=DRY, **versions)


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown: {error}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    machine()
