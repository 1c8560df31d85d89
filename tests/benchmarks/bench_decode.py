"""Greedy decoding of a model folder: GSM8K prompts, a fixed number of tokens each, prefill included.

    python -m tests.benchmarks.bench_decode --checkpoint=runs/base --rows=32 --prompts=32 --new=128

Prints one JSON line: tokens/s overall and while decoding, the prefill's seconds, the share of useful slots, peak
memory, and how much of the machine other processes used meanwhile (trust a line only where `other_busy` is small).
The first run compiles and is not counted. `--real` lets answers end by themselves.
"""

import argparse
import json
import os
import resource
import statistics
import time
from pathlib import Path

from lema_jax import checkpoint
from lema_jax.generation import student
from lema_jax.model.decode import Sampling
from lema_jax.tasks import gsm8k


def busy() -> tuple[float, float, float]:
    """Wall clock, CPU seconds of the whole machine, CPU seconds of this process."""
    ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = (sum(ticks) - ticks[3] - ticks[4] - ticks[7]) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), total, own.ru_utime + own.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--real", action="store_true")
    given = parser.parse_args()

    prompts = [f"Question: {problem.question}\nAnswer:" for problem in gsm8k.load("test", None)[: given.prompts]]
    read = student.read(given.checkpoint, checkpoint.latest_step(given.checkpoint), given.dtype)
    if not given.real:  # a token that is not made, so that no answer ends early
        read.tokenizer.eos_token = "<repo_name>"
    engine = student.engine(read, rows=given.rows, sampling=Sampling(), max_new_tokens=given.new)
    walls, tokens = [], 0
    for run in range(given.runs + 1):
        if run == 1:
            before = busy()
        began = time.perf_counter()
        done = list(engine.complete(prompts))
        walls.append(time.perf_counter() - began)
        tokens = sum(one.completion_tokens for one in done)
    wall, machine, own = (b - a for a, b in zip(before, busy()))
    cores = os.cpu_count() or 1
    print(
        json.dumps(
            {
                "job": f"decode, {given.rows} rows",
                "tokens": tokens,
                "tally": str(engine.tally),
                "tok_s": round(tokens / statistics.median(walls[1:]), 1),
                "best_tok_s": round(tokens / min(walls[1:]), 1),
                "first_run_s": round(walls[0], 1),
                "cpu_s_per_run": round(own / given.runs, 2),
                "my_cpu": round(own / wall / cores, 3),
                "other_busy": round(max(0.0, machine - own) / wall / cores, 3),
                "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
    )


if __name__ == "__main__":
    main()
