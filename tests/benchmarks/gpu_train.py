"""Training steps on the card: tokens a second, MFU and memory of a model's shape, by attention kernel and layout.

    python -m tests.benchmarks.gpu_train first|rest

Some programs are compiled at the same time, then timed one after the other, then the next ones, on the batches of
gpu_make, which gpu_torch takes too. Weights and optimizer state are in float32 and activations in bfloat16; frozen
weights in bfloat16. The kernel is the one that gpu_attention found; beside it stands XLA's attention. `peak_gb` is the
compiler's own account: arguments, results and temporaries at once.
"""

import concurrent.futures
import dataclasses
import json
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.data.batches import DataConfig
from lema_jax.model import flops
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig
from lema_jax.training.setup import Setup
from lema_jax.weights import hf_config
from tests.benchmarks import gpu_lines
from tests.benchmarks.gpu_lines import DRY, MODELS, PEAK, SIZES, STEPS, WORK, case


@dataclasses.dataclass(frozen=True)
class Job:
    """A program to measure; `chunk` as `Compute.loss_chunk`, 0 for a whole row."""

    model: str
    mode: str
    batch: str
    kernel: str
    chunk: int = 128
    scan: bool = True

    @property
    def name(self) -> str:
        rows, length = getattr(SIZES, self.batch)
        chunk, scan = self.chunk or "row", "scan" if self.scan else "unrolled"
        return f"{self.model} {self.mode} {rows}x{length}, {self.kernel}, chunk {chunk}, {scan}"


def jobs() -> list[Job]:
    """The most telling first."""
    try:
        fast = json.loads((WORK / "kernel.txt").read_text())
    except FileNotFoundError:
        fast = ["xla"]
    best, others = fast[0], [kind for kind in ("cudnn", "triton") if kind in fast[1:]]
    found = [Job("135m", mode, "short", best, 0) for mode in ("full", "lora")]
    found += [Job("135m", "full", "short", kind) for kind in dict.fromkeys(("xla", best))]
    found += [Job("0.5b", "full", "long", best, 512)]
    found += [Job("135m", mode, "long", best, 0) for mode in ("full", "lora")]
    found += [Job("135m", "full", "short", kind, 0) for kind in others]
    found += [Job("0.5b", "full", "long", "xla", 512), Job("0.5b", "full", "long", best, 0)]
    found += [Job("135m", "lora", "short", "xla", 0), Job("135m", "full", "long", "xla", 0)]
    found += [Job("135m", "full", "short", best, 0, scan=False)]
    return list(dict.fromkeys(found))


def program(job: Job, mesh: Any) -> Setup:
    rows, length = getattr(SIZES, job.batch)
    lora = LoraConfig(gpu_lines.RANK, gpu_lines.ALPHA, 0.0) if job.mode == "lora" else None
    compute = Compute(
        dtype="bfloat16",
        param_dtype="bfloat16" if lora else "float32",
        scan_layers=job.scan,
        attention=job.kernel,
        loss_chunk=job.chunk or length,
    )
    optimizer = OptimizerConfig(gpu_lines.LEARNING_RATE, weight_decay=gpu_lines.WEIGHT_DECAY, clip_norm=gpu_lines.CLIP)
    config = TrainConfig("-", DataConfig("-", rows, length), STEPS, lora=lora, optimizer=optimizer, compute=compute)
    return Setup(config, hf_config.parse(MODELS[job.model], job.model), mesh)


def compiled(made: Setup, mesh: Any) -> tuple[Any, float]:
    with sharding.use(mesh):
        began = time.perf_counter()
        return made.compiled_step, time.perf_counter() - began


def measure(made: Setup, step: Any, batches: list[Any], found: dict[str, Any]) -> None:
    random = lambda leaf: jax.jit(
        lambda: (0.02 * jax.random.normal(jax.random.key(0), leaf.shape)).astype(leaf.dtype),
        out_shardings=leaf.sharding,
    )()
    frozen = jax.tree.map(random, made.frozen)
    state, metrics, seed = made.begin(made.random(0)), None, made.put_seed(0)
    fed = [made.put(batch) for batch in batches]
    times = SIZES.timed
    for number in range(3):
        state, metrics = step(state, frozen, fed[number % len(fed)], seed)
    jax.block_until_ready(metrics)
    took = []
    for number in range(times):
        began = time.perf_counter()
        state, metrics = step(state, frozen, fed[number % len(fed)], seed)
        jax.block_until_ready((state, metrics))
        took.append(time.perf_counter() - began)
    # As the trainer does it: the next step is sent before the last one's metrics are fetched.
    began, before = time.perf_counter(), metrics
    for number in range(times):
        state, metrics = step(state, frozen, fed[number % len(fed)], seed)
        float(before["loss"])
        before = metrics
    jax.block_until_ready(state)
    flowing = (time.perf_counter() - began) / times
    found["step_ms"], found["step_ms_each_awaited"] = 1e3 * flowing, 1e3 * statistics.median(took)
    found["tok_s"] = made.work.tokens / flowing
    found["mfu"] = flops.model_flops(made.work) / flowing / PEAK
    found["loss"] = float(metrics["loss"])
    assert np.isfinite(found["loss"])


def main() -> None:
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    arrays = {name: np.load(WORK / f"{name}.npz", allow_pickle=False) for name in ("short", "long")}
    batches = {name: [{key: a[at] for key, a in of.items()} for at in range(3)] for name, of in arrays.items()}
    together = 2 if DRY else 6
    asked = jobs()[:together] if sys.argv[1] == "first" else jobs()[together:]
    with concurrent.futures.ThreadPoolExecutor(together) as pool:
        for start in range(0, len(asked), together):
            with sharding.use(mesh):
                made = {job: program(job, mesh) for job in asked[start : start + together]}
            under_way = {job: pool.submit(compiled, one, mesh) for job, one in made.items()}
            concurrent.futures.wait(under_way.values())  # nothing is timed beside a compiler
            for job, one in made.items():
                with case("train", job.name) as found, sharding.use(mesh):
                    step, found["compile_s"] = under_way.pop(job).result()
                    memory = step.memory_analysis()
                    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
                    found["peak_gb"] = (held + memory.temp_size_in_bytes) / 1e9
                    found["temporaries_gb"] = memory.temp_size_in_bytes / 1e9
                    measure(one, step, batches[job.batch], found)


if __name__ == "__main__":
    assert DRY or jax.default_backend() == "gpu", jax.default_backend()
    jnp.zeros(1).block_until_ready()
    main()
