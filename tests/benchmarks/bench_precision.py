"""What fewer bits cost in accuracy: weights and cache in int8 or nf4 beside the dense model, on GSM8K.

    python -m tests.benchmarks.bench_precision --checkpoint=runs/base [--solutions=200] [--answers=64] [--new=128]

Prints a JSON line for each: the perplexity of gold solutions, read through the cache as decoding does, and how many
nats more a token takes (with the half width of a 95 % interval, paired by question); at how many of their tokens the
likeliest one is the dense model's; of greedy answers, how many are the dense model's to the last token,
and how many tokens go by before the first that is not (the median).
"""

import argparse
import functools
import itertools
import statistics
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lema_jax import checkpoint, tasks
from lema_jax.data.encode import prompt_ids
from lema_jax.generation import student
from lema_jax.generation.lengths import bucket
from lema_jax.generation.student import Student
from lema_jax.model import cache as caches
from lema_jax.model.decode import Sampling
from lema_jax.parallel import sharding
from lema_jax.records import Problem
from lema_jax.tasks import gsm8k
from tests.benchmarks import busy

FORMS = (("dense", "dense"), ("int8", "dense"), ("nf4", "dense"), ("dense", "int8"), ("int8", "int8"))
ROWS = 4


@functools.partial(jax.jit, static_argnums=(0, 1))
def read_through(model, kind, variables, tokens_BT):
    """-log p of each token given those before it, [B, T - 1], and the likeliest tokens there."""
    cache = caches.empty(model.config, model.compute, *tokens_BT.shape, kind)
    x_BTD, _ = model.apply(variables, tokens_BT, jnp.zeros(tokens_BT.shape[0], jnp.int32), cache, method="extend")
    logits_BTV = model.apply(variables, x_BTD[:, :-1], method="logits")
    losses_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, tokens_BT[:, 1:])
    return losses_BT, jnp.argmax(logits_BTV, axis=-1)


def solutions(read: Student, kind: str, problems: list[Problem]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each problem, of the tokens of its gold solution: -log p, and the likeliest in their place."""
    task = tasks.get("gsm8k")
    prompts = [prompt_ids(task.prompt(one), read.tokenizer) for one in problems]
    texts = [read.tokenizer(task.completion(one), add_special_tokens=False).input_ids for one in problems]
    with sharding.use(read.mesh):
        for start in range(0, len(problems), ROWS):
            group = [prompts[at] + texts[at] for at in range(start, min(start + ROWS, len(problems)))]
            tokens = np.zeros((ROWS, bucket(max(map(len, group)))), np.int32)
            for row, ids in enumerate(group):
                tokens[row, : len(ids)] = ids
            losses, likeliest = jax.device_get(read_through(read.model, kind, read.variables, tokens))
            for row, ids in enumerate(group):
                asked = slice(len(prompts[start + row]) - 1, len(ids) - 1)
                yield losses[row, asked], likeliest[row, asked]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--solutions", type=int, default=200)
    parser.add_argument("--answers", type=int, default=64)
    parser.add_argument("--new", type=int, default=128)
    given = parser.parse_args()

    problems = gsm8k.load("test", None)
    asked = [gsm8k.prompt(problem) for problem in problems[: given.answers]]
    dense_tokens, dense_answers, dense_sums = np.zeros(0), [], np.zeros(0)
    for weights, kind in FORMS:
        before = busy.read()
        read = student.read(given.checkpoint, checkpoint.latest_step(given.checkpoint), "float32", weights=weights)
        found = list(solutions(read, kind, problems[: given.solutions]))
        losses, tokens = (np.concatenate(part) for part in zip(*found))
        sums = np.array([of_one.sum() for of_one, _ in found])
        made = student.engine(read, rows=32, sampling=Sampling(), max_new_tokens=given.new, cache=kind)
        done = sorted(made.complete(asked), key=lambda one: one.index)
        answers = [read.tokenizer(one.text).input_ids for one in done]
        if not dense_answers:
            dense_tokens, dense_answers, dense_sums = tokens, answers, sums
        same = [
            sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*pair)))
            for pair in zip(answers, dense_answers)
        ]
        busy.report(
            before,
            weights=weights,
            cache=kind,
            perplexity=round(float(np.exp(losses.mean())), 4),
            tokens=len(losses),
            nats_more=round(float((sums - dense_sums).sum()) / len(losses), 5),
            plus_minus=round(1.96 * float((sums - dense_sums).std()) * len(sums) ** 0.5 / len(losses), 5),
            likeliest_is_dense=round(float((tokens == dense_tokens).mean()), 4),
            answers_as_dense=sum(a == b for a, b in zip(answers, dense_answers)),
            answers=len(answers),
            tokens_before_they_part=statistics.median(same),
        )


if __name__ == "__main__":
    main()
