"""How likely a model finds given completions: -log p summed over the completion's tokens, given its prompt.

Shapes: B rows, T time, C a chunk of it, D width, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lema_jax.data.encode import prompt_ids
from lema_jax.generation.lengths import bucket
from lema_jax.generation.student import Student
from lema_jax.model.linear import shard
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding

CHUNK = 128  # positions of a row whose logits exist at a time


@dataclasses.dataclass(frozen=True)
class Pair:
    """A prompt and the completion to score; `rendered`: the prompt is a chat template's (see `encode.prompt_ids`)."""

    prompt: str
    completion: str
    rendered: bool = False


@dataclasses.dataclass(frozen=True)
class Scored:
    """The score of pair number `index`: nats, summed over `tokens` tokens; None where the prompt or the completion is
    empty, or both together are longer than the model's context."""

    index: int
    nll: float | None
    tokens: int


def score(student: Student, pairs: Sequence[Pair], *, rows: int) -> Iterator[Scored]:
    """Yields the score of every (prompt, completion), `rows` at a time, longest first: what the memory does not hold
    fails at once.

    Prompt and completion are tokenised separately, as in training. No end-of-sequence token is added to the completion,
    since a truncated text has none.
    """
    ways = student.mesh.shape["data"] * student.mesh.shape["fsdp"]
    rows = -(-rows // ways) * ways
    prompts = [prompt_ids(one.prompt, student.tokenizer, rendered=one.rendered) for one in pairs]
    completions = [student.tokenizer(one.completion, add_special_tokens=False).input_ids for one in pairs]
    sizes = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions)]
    readable = []
    for index, (prompt, completion, size) in enumerate(zip(prompts, completions, sizes)):
        if prompt and completion and size <= student.model.config.context:
            readable.append(index)
        else:
            yield Scored(index, None, len(completion))
    readable.sort(key=sizes.__getitem__, reverse=True)
    with sharding.use(student.mesh):
        for start in range(0, len(readable), rows):
            batch = readable[start : start + rows]
            tokens_BT = np.zeros((rows, bucket(sizes[batch[0]])), np.int32)
            segments_BT, weights_BT = np.zeros_like(tokens_BT), np.zeros(tokens_BT.shape, np.float32)
            for row, index in enumerate(batch):
                tokens_BT[row, : sizes[index]] = prompts[index] + completions[index]
                segments_BT[row, : sizes[index]] = 1
                weights_BT[row, len(prompts[index]) : sizes[index]] = 1
            nll_B = jax.device_get(_NLL(student.model, student.variables, tokens_BT, segments_BT, weights_BT))
            yield from (Scored(index, float(nll), len(completions[index])) for index, nll in zip(batch, nll_B))


def sequence_nll(
    model: Llama, variables: Mapping[str, Any], tokens_BT: jax.Array, segments_BT: jax.Array, weights_BT: jax.Array
) -> jax.Array:
    """Σ_t weight_t · -log p(token_t | tokens before it) of each row, [B] float32.

    At most [B, CHUNK, V] logits exist at a time. Rows are padded on the right, where `segments_BT` is 0 instead of 1.
    """
    x_BTD = model.apply(variables, tokens_BT, None, segments_BT, method="trunk")
    # Position t predicts token t + 1; the last position predicts nothing and has weight 0.
    targets_BT = jnp.roll(tokens_BT, -1, axis=1)
    weights_BT = jnp.roll(weights_BT.at[:, 0].set(0), -1, axis=1)

    def chunks(array: jax.Array) -> jax.Array:  # [B, T, …] -> [T / C, B, C, …]
        split = array.reshape(array.shape[0], -1, math.gcd(array.shape[1], CHUNK), *array.shape[2:])
        return jnp.swapaxes(split, 0, 1)

    def add(total_B: jax.Array, chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        x_BCD, targets_BC, weights_BC = chunk
        logits_BCV = model.apply(variables, x_BCD, method="logits")
        losses_BC = optax.softmax_cross_entropy_with_integer_labels(logits_BCV, targets_BC)
        return total_B + jnp.sum(losses_BC * weights_BC, axis=1), None

    zero_B = jnp.zeros(tokens_BT.shape[0], jnp.float32)
    total_B = jax.lax.scan(add, zero_B, tuple(map(chunks, (x_BTD, targets_BT, weights_BT))))[0]
    return shard(total_B, None)  # replicated, since each process reads it


_NLL = jax.jit(sequence_nll, static_argnums=0)
