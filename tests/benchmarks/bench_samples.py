"""What k samples of a prompt cost before they are decoded: processor seconds of prefill, and of k first tokens.

    python -m tests.benchmarks.bench_samples --checkpoint=runs/base [--prompts=8] [--k=1,8] [--repeats=3]

The same prompts of GSM8K are asked for once and k times, in turns after a warm-up; each answer is one token.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax

from lema_jax import checkpoint
from lema_jax.generation import student
from lema_jax.generation.engine import Engine
from lema_jax.model.decode import Sampling
from lema_jax.tasks import gsm8k


class Timed(Engine):
    """An engine that adds up the processor seconds of its prefills."""

    prefill_s = 0.0

    def _prefill(self, *args):
        start = time.process_time()
        made = jax.block_until_ready(super()._prefill(*args))
        self.prefill_s += time.process_time() - start
        return made


def once(loaded: student.Student, prompts: list[str], k: int) -> tuple[float, float]:
    """Processor seconds of prefill, and of all until each of the samples has its first token."""
    how = {"rows": 32, "sampling": Sampling(0.7), "max_new_tokens": 1, "eos_ids": loaded.eos_ids}
    engine = Timed(loaded.model, loaded.variables, loaded.tokenizer, loaded.mesh, **how)
    asked = [prompt for prompt in prompts for _ in range(k)]
    start = time.process_time()
    done = list(engine.complete(asked, list(range(len(asked)))))
    assert len(done) == len(asked)
    return engine.prefill_s, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--k", default="1,8")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    loaded = student.read(given.checkpoint, checkpoint.latest_step(given.checkpoint), "float32")
    prompts = [gsm8k.prompt(problem) for problem in gsm8k.load("test")[: given.prompts]]
    ks = [int(k) for k in given.k.split(",")]
    for k in ks:
        once(loaded, prompts, k)
    for turn in range(given.repeats):
        found = {k: once(loaded, prompts, k) for k in ks}
        shown = "; ".join(
            f"k = {k}: prefill {read:.2f}, with first tokens {all_:.2f}" for k, (read, all_) in found.items()
        )
        ratio = statistics.fmean([found[k][0] for k in ks[1:]]) / found[ks[0]][0]
        print(f"turn {turn}: {shown} processor seconds; prefill ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
