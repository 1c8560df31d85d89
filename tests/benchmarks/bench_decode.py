"""Greedy decoding of a model folder: GSM8K prompts, a fixed number of tokens each, prefill included.

    python -m tests.benchmarks.bench_decode --checkpoint=runs/base --rows=32 --prompts=32 --new=128

Prints one JSON line: tokens/s (median and best run), the run's tally, CPU seconds, peak memory, and how much of the
machine other processes used meanwhile (trust a line only where `other_busy` is small). The first run compiles and is
not counted. `--real` lets answers end by themselves; `--weights` and `--cache` are those of `evaluate`.
"""

import argparse
import dataclasses
import statistics
import time

from lema_jax import checkpoint
from lema_jax.generation import student
from lema_jax.model.config import CACHES, KERNELS
from lema_jax.model.decode import Sampling
from lema_jax.tasks import gsm8k
from tests.benchmarks import busy


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--weights", choices=KERNELS)
    parser.add_argument("--cache", default="dense", choices=CACHES)
    parser.add_argument("--real", action="store_true")
    given = parser.parse_args()

    prompts = [f"Question: {problem.question}\nAnswer:" for problem in gsm8k.load("test", None)[: given.prompts]]
    step = checkpoint.latest_step(given.checkpoint)
    read = student.read(given.checkpoint, step, given.dtype, weights=given.weights)
    if not given.real:  # a token that is not made, so that no answer ends early
        read.tokenizer.eos_token = "<repo_name>"
        read = dataclasses.replace(read, eos_ids=())
    how = {"max_new_tokens": given.new, "cache": given.cache}
    engine = student.engine(read, rows=given.rows, sampling=Sampling(), **how)
    walls, tokens = [], 0
    for run in range(given.runs + 1):
        if run == 1:
            before = busy.read()
        began = time.perf_counter()
        done = list(engine.complete(prompts))
        walls.append(time.perf_counter() - began)
        tokens = sum(one.completion_tokens for one in done)
    cpu_seconds = (busy.read().own - before.own) / given.runs
    busy.report(
        before,
        job=f"decode, {given.rows} rows, weights {given.weights or given.dtype}, cache {given.cache}",
        tokens=tokens,
        tally=str(engine.tally),
        tok_s=round(tokens / statistics.median(walls[1:]), 1),
        best_tok_s=round(tokens / min(walls[1:]), 1),
        first_run_s=round(walls[0], 1),
        cpu_s_per_run=round(cpu_seconds, 2),
    )


if __name__ == "__main__":
    main()
