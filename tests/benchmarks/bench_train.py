"""Training steps of a model folder on given examples, packed: real (unpadded) tokens a second.

    python -m tests.benchmarks.bench_train --checkpoint=runs/base --npz=data.npz [--lora] [--length=512] [--layers=10]

The file holds `ids`, `mask` and `loss`, each [batches, rows, length]: padded examples, one to a row. Prints one JSON
line: tokens a second (median step), the losses, seconds to compile, peak memory, and how much of the machine other
processes used meanwhile (trust a line only where `other_busy` is small). `--where` adds what a step's time goes to.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from lema_jax import checkpoint
from lema_jax.data import dataset
from lema_jax.data.batches import DataConfig, batches
from lema_jax.data.encode import Encoded
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig
from lema_jax.training.setup import Setup
from tests.benchmarks import busy, where


def examples(npz: str) -> list[Encoded]:
    """The file's examples without their padding."""
    found = np.load(npz, allow_pickle=False)
    ids, mask, loss = (found[name].reshape(-1, found[name].shape[-1]) for name in ("ids", "mask", "loss"))
    return [
        Encoded(row[:n].astype(np.int32), weights[:n].astype(np.uint8))
        for row, weights, n in zip(ids, loss, mask.sum(axis=1))
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--npz", required=True)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--layers", type=int, help="only the first ones (without --scan)")
    parser.add_argument("--where", action="store_true")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--loss_chunk", type=int, default=128)
    parser.add_argument("--accumulation", type=int, default=1, help="0: a row at a time")
    given = parser.parse_args()
    if given.layers and given.scan:
        parser.error("--layers leaves out layers of their own, which --scan has none of")

    with tempfile.TemporaryDirectory() as folder:
        dataset.write_records(examples(given.npz), Path(folder))
        config = TrainConfig(
            "-",
            DataConfig(folder, given.rows, given.length),
            steps=given.steps + 1,
            init=given.checkpoint,
            lora=LoraConfig(64, 64.0, 0.0) if given.lora else None,
            optimizer=OptimizerConfig(learning_rate=1e-5, weight_decay=0.0, clip_norm=0.0),
            compute=Compute(scan_layers=given.scan, remat=given.remat, loss_chunk=given.loss_chunk),
            mesh=MeshConfig(1, 1, 1),
            accumulation=given.accumulation,
        )
        mesh = make_mesh(config.mesh, jax.devices()[:1])
        with sharding.use(mesh):
            metadata, variables = checkpoint.load_weights(given.checkpoint, mesh, config.compute)
            llama = dataclasses.replace(metadata.config, num_layers=given.layers or metadata.config.num_layers)
            left_out = {f"layers_{n}" for n in range(llama.num_layers, metadata.config.num_layers)}
            variables["params"] = {n: tree for n, tree in variables["params"].items() if n not in left_out}
            setup = Setup(config, llama, mesh)
            frozen = {name: tree for name, tree in variables.items() if name != setup.collection}
            state = setup.begin(setup.random(0) if given.lora else variables.pop("params"))
            seed = setup.put_seed(0)
            began = time.perf_counter()
            lowered = setup.lowered_step()
            step = lowered.compile(where.TRACED if given.where else None)
            compiled = time.perf_counter() - began
            iterator, seconds, cpu, tokens, losses = iter(batches(config.data)), [], [], [], []
            for number in range(given.steps + 1):
                if number == 1:
                    before = busy.read()
                rows = next(iterator)
                began, used = time.perf_counter(), time.process_time()
                state, metrics = step(state, frozen, setup.put(rows), seed)
                losses.append(float(metrics["loss"]))
                seconds.append(time.perf_counter() - began)
                cpu.append(time.process_time() - used)
                tokens.append(int(metrics["tokens"]))
            batch = setup.put(rows)
            last = lambda: jax.block_until_ready(step(state, frozen, batch, seed))
            goes_to = {"where": where.shares(last, step)} if given.where else {}
    busy.report(
        before,
        job="train_lora" if given.lora else "train_full",
        real_tok_s=round(statistics.median(n / s for n, s in zip(tokens[1:], seconds[1:])), 1),
        padded_tok_s=round(given.rows * given.length / statistics.median(seconds[1:]), 1),
        real_tok_per_cpu_s=round(statistics.median(n / s for n, s in zip(tokens[1:], cpu[1:])), 1),
        step_s=[round(s, 2) for s in seconds],
        compile_s=round(compiled, 1),
        losses=[round(loss, 4) for loss in losses],
        **goes_to,
    )


if __name__ == "__main__":
    main()
