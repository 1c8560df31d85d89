"""Steps of preference training beside those of SFT, on the same tokens in turn: processor time and memory.

    python -m tests.benchmarks.bench_preference --checkpoint=runs/base [--lora] [--layers=8] [--steps=4]

Every row is packed with segments of 128 tokens, half of which have loss; SFT reads them as examples, preference
training as pairs of two. Prints one JSON line for SFT, for a stored reference and (with --lora) for the base under the
adapters: processor seconds a step (median), real tokens a processor second, the compiled program's memory, and the
ratios to SFT; and how much of the machine other processes used meanwhile. Without --checkpoint the weights are random
ones of SmolLM2-135M's shape; --layers takes fewer of them.
"""

import argparse
import dataclasses
import resource
import statistics
from typing import Any

import jax
import numpy as np

from lema_jax import checkpoint
from lema_jax.model import presets
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training.config import DataConfig, TrainConfig
from lema_jax.training.objectives import PreferenceConfig
from lema_jax.training.optimizer import OptimizerConfig
from lema_jax.training.setup import Setup
from tests.benchmarks import busy

SEGMENT = 128  # tokens


def batch(rows: int, length: int, vocabulary: int) -> dict[str, np.ndarray]:
    """Rows full of segments, each with loss on its second half."""
    place = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    return {
        "tokens": np.random.default_rng(0).integers(3, vocabulary, (rows, length), dtype=np.int32),
        "positions": place % SEGMENT,
        "segment_ids": place // SEGMENT + 1,
        "weights": (place % SEGMENT >= SEGMENT // 2).astype(np.float32),
        "reference": np.where(place % SEGMENT == 0, 100.0, 0.0).astype(np.float32),
    }


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Program:
    """A compiled step of an objective, and its state."""

    def __init__(self, config: TrainConfig, llama: LlamaConfig, variables: dict[str, Any] | None) -> None:
        self.setup = Setup(config, llama, make_mesh(config.mesh, jax.devices()[:1]))
        own = None if variables is None else variables.get(self.setup.collection)
        start = self.setup.random(0) if own is None else jax.tree.map(lambda leaf: leaf.copy(), own)
        self.state = self.setup.begin(start)
        self.frozen = {name: variables[name] if variables else self._zeros(name) for name in self.setup.frozen}
        self.step = self.setup.compiled_step
        self.seed = self.setup.put_seed(0)
        self.rows = self.setup.put(batch(*self.shape, llama.vocab_size))
        self.seconds: list[float] = []

    @property
    def shape(self) -> tuple[int, int]:
        rows, length = self.setup.batch["tokens"].shape
        return rows, length

    def _zeros(self, name: str) -> Any:
        """Frozen weights of a random model: small noise, of which a product takes as long as of any."""
        random = np.random.default_rng(0)
        noise = lambda leaf: jax.device_put(0.02 * random.standard_normal(leaf.shape, np.float32), leaf.sharding)
        return jax.tree.map(noise, self.setup.frozen[name])

    def run(self) -> None:
        began = processor_seconds()
        self.state, metrics = self.step(self.state, self.frozen, self.rows, self.seed)
        jax.block_until_ready((self.state, metrics))
        self.seconds.append(processor_seconds() - began)

    def bytes(self) -> int:
        found = self.step.memory_analysis()
        return found.argument_size_in_bytes + found.temp_size_in_bytes + (
            found.output_size_in_bytes - found.alias_size_in_bytes
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()

    run = TrainConfig(
        "-",
        DataConfig("-", given.rows, given.length),
        steps=given.steps + 1,
        init="-",
        lora=LoraConfig(64, 64.0, 0.0) if given.lora else None,
        optimizer=OptimizerConfig(learning_rate=1e-6),
        compute=Compute(scan_layers=False),
        mesh=MeshConfig(1, 1, 1),
    )
    preferred = dataclasses.replace(run, objective="preference")
    kinds = {"sft": run, "stored": preferred}
    if given.lora:
        kinds["base"] = dataclasses.replace(preferred, preference=PreferenceConfig(reference="base"))
    mesh = make_mesh(run.mesh, jax.devices()[:1])
    with sharding.use(mesh):
        llama, variables = presets.get("smollm2-135m"), None
        if given.checkpoint:
            metadata, variables = checkpoint.load_weights(given.checkpoint, mesh, run.compute)
            llama = metadata.config
        llama = dataclasses.replace(llama, num_layers=given.layers or llama.num_layers)
        if variables:
            kept = {name for name in variables["params"] if not name.startswith("layers_")}
            kept |= {f"layers_{number}" for number in range(llama.num_layers)}
            variables["params"] = {name: variables["params"][name] for name in kept}
        programs = {name: Program(config, llama, variables) for name, config in kinds.items()}
        for program in programs.values():
            program.run()  # the first step faults its memory in
        before = busy.read()
        for _ in range(given.steps):  # in turn, so that all have the same neighbours
            for program in programs.values():
                program.run()
    sft = programs["sft"]
    median = lambda program: statistics.median(program.seconds[1:])
    for name, program in programs.items():
        busy.report(
            before,
            job=f"{name}_{'lora' if given.lora else 'full'}",
            layers=llama.num_layers,
            cpu_s_a_step=round(median(program), 2),
            real_tok_cpu_s=round(given.rows * given.length / median(program), 1),
            program_mib=round(program.bytes() / 2**20),
            time_to_sft=round(median(program) / median(sft), 3),
            memory_to_sft=round(program.bytes() / sft.bytes(), 3),
        )


if __name__ == "__main__":
    main()
