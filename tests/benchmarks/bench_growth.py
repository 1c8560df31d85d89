"""How decoding grows: the cost of a token by the length of what is before it, and by the number of prompts.

    python -m tests.benchmarks.bench_growth --checkpoint=runs/base --out=growth.svg

By context: steps of 1 and 32 rows that have so many tokens each, the cache as long as the engine's buckets make it;
`--where` adds what a step's time goes to. By prompts: so many GSM8K questions through an engine of 32 rows, a fixed
number of tokens each, reading included. Prints a JSON line for each point (the median of several runs; trust it only
where `other_busy` is small) and draws both.
"""

import argparse
import dataclasses
import functools
import statistics
import time

import jax
import numpy as np
from matplotlib.figure import Figure

from lema_jax import checkpoint
from lema_jax.generation import memory, student
from lema_jax.generation.lengths import bucket
from lema_jax.generation.student import Student
from lema_jax.model import decode
from lema_jax.model.decode import Sampling
from lema_jax.parallel import sharding
from lema_jax.tasks import gsm8k
from tests.benchmarks import busy, where

ROWS = (1, 32)
BLOCK = 32
NEVER = -7  # no token is this one, so no row ends early


def by_context(read: Student, rows: int, context: int, runs: int, traced: bool) -> float:
    """Milliseconds for a token of a row with so many before it."""
    slots = bucket(context + BLOCK)
    with sharding.use(read.mesh):
        made = jax.jit(decode.idle, static_argnums=(0, 1, 2))(read.model, rows, slots)
        full = functools.partial(np.full, rows, dtype=np.int32)
        going_on = {"length_B": full(context), "made_B": full(0), "limit_B": full(2 * BLOCK)}
        block = functools.partial(decode.decode, read.model, block=BLOCK, eos=(NEVER,), sampling=Sampling())
        no_row, seconds = np.zeros(rows, bool), []
        again = lambda made: (read.variables, dataclasses.replace(made, done_B=no_row, **going_on), no_row, np.int32(0))
        step = jax.jit(block, donate_argnums=1).lower(*again(made)).compile(where.TRACED if traced else None)
        for run in range(runs + 1):
            if run == 1:
                before = busy.read()
            began = time.perf_counter()
            made, tokens = step(*again(made))
            assert (np.asarray(tokens) != decode.NONE).all()
            seconds.append(time.perf_counter() - began)
        goes_to = {"where": where.shares(lambda: jax.block_until_ready(step(*again(made))), step)} if traced else {}
    cost = 1e3 * statistics.median(seconds[1:]) / (rows * BLOCK)
    cache = memory.cache_bytes(read.model, rows, slots, "dense")
    sizes = {"rows": rows, "context": context, "slots": slots, "cache_mib": cache >> 20}
    busy.report(before, **sizes, ms_per_token=round(cost, 3), **goes_to)
    return cost


def by_prompts(read: Student, prompts: list[str], new: int, warm: bool) -> float:
    """Milliseconds for a token of an answer, reading the prompts included."""
    made = student.engine(read, rows=ROWS[-1], sampling=Sampling(), max_new_tokens=new)
    before = busy.read()
    tokens = sum(done.completion_tokens for done in made.complete(prompts))
    cost = 1e3 * (busy.read().wall - before.wall) / tokens
    if warm:
        busy.report(before, prompts=len(prompts), tokens=tokens, ms_per_token=round(cost, 3), tally=str(made.tally))
    return cost


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--contexts", type=int, nargs="*", default=[64, 128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--prompts", type=int, nargs="*", default=[32, 64, 128, 256, 512, 1024])
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--where", action="store_true")
    given = parser.parse_args()

    read = student.read(given.checkpoint, checkpoint.latest_step(given.checkpoint), "float32")
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for rows in ROWS:
        costs = [by_context(read, rows, context, given.runs, given.where) for context in given.contexts]
        left.plot(given.contexts, costs, marker="o", label=f"{rows} row{'s' * (rows > 1)}")
    left.set(xlabel="tokens before", ylabel="ms a token", ylim=(0, None))
    left.legend()
    read.tokenizer.eos_token = "<repo_name>"  # a token that is not made, so that no answer ends early
    read = dataclasses.replace(read, eos_ids=())
    asked = [f"Question: {problem.question}\nAnswer:" for problem in gsm8k.load("test", None)[: max(given.prompts)]]
    by_prompts(read, asked, given.new, warm=False)
    costs = [by_prompts(read, asked[:n], given.new, warm=True) for n in given.prompts]
    right.plot(given.prompts, costs, marker="o")
    right.set(xlabel="prompts", xscale="log", ylabel="ms a token, reading included", ylim=(0, 1.1 * max(costs)))
    right.set_xticks(given.prompts, labels=list(map(str, given.prompts)))
    right.minorticks_off()
    figure.savefig(given.out)


if __name__ == "__main__":
    main()
