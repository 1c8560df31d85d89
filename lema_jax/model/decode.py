"""Token by token with a cache: read prompts piece by piece, then run one compiled loop that makes tokens.

What is for the host lies whole on every device: each process of several reads it from its own.

Shapes: B rows, R rows of a group being read, C tokens of a piece or of a block, S cache slots, D width, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lema_jax.model import cache as caches
from lema_jax.model.cache import Cache
from lema_jax.model.linear import shard
from lema_jax.model.llama import Llama

NONE = -1  # stands in a block where a row had ended


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest at temperature 0, otherwise drawn from softmax(logits / temperature)
    cut to the smallest set of tokens whose probability reaches `top_p` (nucleus sampling, arXiv 1904.09751)."""

    temperature: float = 0.0
    top_p: float = 1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """B sequences under way.

    `token_B` was chosen last and is not in the cache yet; the `length_B` tokens before it are. `made_B` counts the
    chosen ones; a row is done at `limit_B` of them or at an end-of-sequence token. What a row draws depends on its own
    `key_B` and count alone, never on its neighbours.
    """

    token_B: jax.Array
    length_B: jax.Array
    made_B: jax.Array
    limit_B: jax.Array
    done_B: jax.Array
    key_B: jax.Array
    cache: Any

    @property
    def slots(self) -> int:
        return int(jax.tree.leaves(self.cache, is_leaf=_is_cache)[0].slots)

    def pinned(self) -> "Rows":
        """Every array by its rows over the batch axes: left to the compiler they would lie where the program that made
        them put them, and each program would be compiled anew for every such place."""
        small = jax.tree.map(lambda x: shard(x, "batch"), dataclasses.replace(self, cache=None))
        return dataclasses.replace(small, cache=_each(Cache.pinned, self.cache))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reading:
    """R prompts being read: the cache of what was read, and the trunk's output at each one's last token, once read."""

    cache: Any
    last_RD: jax.Array

    def pinned(self) -> "Reading":
        """As `Rows.pinned`."""
        return Reading(_each(Cache.pinned, self.cache), shard(self.last_RD, "batch", "width"))


def idle(model: Llama, rows: int, slots: int, kind: str = "dense") -> Rows:
    """Rows that are all done, to be filled; their cache of one of `config.CACHES`."""
    zeros = jnp.zeros(rows, jnp.int32)
    keys = jax.random.split(jax.random.key(0), rows)
    cache = caches.empty(model.config, model.compute, rows, slots, kind)
    return Rows(zeros, zeros, zeros, zeros, jnp.ones(rows, bool), keys, cache).pinned()


def unread(model: Llama, rows: int, slots: int, kind: str = "dense") -> Reading:
    """Nothing read yet, with room for `slots` tokens a row in a cache of that kind."""
    cache = caches.empty(model.config, model.compute, rows, slots, kind)
    return Reading(cache, jnp.zeros((rows, model.config.hidden_size), model.compute.dtype)).pinned()


def share(prefix: Reading, rows: int, slots: int) -> Reading:
    """`rows` readings, with room for `slots` tokens each, that all begin with what the first row of `prefix` has read.

    `prefix` may have more room: what it has beyond the tokens that it read is padding.
    """
    alike = lambda x: jnp.broadcast_to(x[:, :1], (x.shape[0], rows, *x.shape[2:]))
    cache = _each(lambda one: jax.tree.map(alike, one).sized(slots), prefix.cache)
    return Reading(cache, jnp.broadcast_to(prefix.last_RD[:1], (rows, prefix.last_RD.shape[1]))).pinned()


def read(
    model: Llama, variables: Any, reading: Reading, tokens_RC: jax.Array, start: jax.Array, length_R: jax.Array
) -> Reading:
    """Reads tokens start … start + C - 1 of right-padded prompts of `length_R` tokens (at least 1)."""
    start_R = jnp.broadcast_to(start, length_R.shape)
    x_RCD, cache = model.apply(variables, tokens_RC, start_R, reading.cache, length_R, method="extend")
    at_R = length_R - 1 - start_R
    x_RD = jnp.take_along_axis(x_RCD, jnp.clip(at_R, 0, tokens_RC.shape[1] - 1)[:, None, None], axis=1)[:, 0]
    here_R1 = ((at_R >= 0) & (at_R < tokens_RC.shape[1]))[:, None]
    return Reading(cache, jnp.where(here_R1, x_RD, reading.last_RD)).pinned()


def begin(
    model: Llama,
    variables: Any,
    reading: Reading,
    length_R: jax.Array,
    limit_R: jax.Array,
    seed_R: jax.Array,
    *,
    eos: tuple[int, ...],
    sampling: Sampling,
) -> tuple[Rows, jax.Array]:
    """Chooses the first token of each answer to prompts that were read: the rows, and these tokens for the host."""
    first = jnp.zeros_like(length_R)
    key_R = jax.vmap(jax.random.key)(seed_R)
    token_R = _choose(model.apply(variables, reading.last_RD, method="logits"), key_R, first, sampling)
    done_R = jnp.isin(token_R, jnp.array(eos)) | (limit_R <= 1)
    rows = Rows(token_R, length_R, first + 1, limit_R, done_R, key_R, reading.cache).pinned()
    return rows, shard(token_R, None)


def insert(rows: Rows, fresh: Rows, where_R: jax.Array) -> Rows:
    """Puts fresh rows, with room for as many tokens, at row numbers `where_R`; one that is out of range is dropped."""
    small = lambda old, new: old.at[where_R].set(new, mode="drop")
    large = lambda old, new: old.at[:, where_R].set(new, mode="drop")
    cache = jax.tree.map(large, rows.cache, fresh.cache)
    rest = jax.tree.map(small, dataclasses.replace(rows, cache=None), dataclasses.replace(fresh, cache=None))
    return dataclasses.replace(rest, cache=cache).pinned()


def grow(rows: Rows, slots: int) -> Rows:
    """The same rows, each with room for `slots` tokens."""
    return dataclasses.replace(rows, cache=_each(lambda one: one.sized(slots), rows.cache)).pinned()


def decode(
    model: Llama,
    variables: Any,
    rows: Rows,
    stopped_B: jax.Array,
    enough: jax.Array,
    *,
    block: int,
    eos: tuple[int, ...],
    sampling: Sampling,
) -> tuple[Rows, jax.Array]:
    """Up to `block` more tokens of every row that is not done, [B, C] for the host; where a row had ended stands NONE.

    Rows that the host found to be at their end are `stopped_B`. The loop returns early when `enough` or fewer rows are
    still going on: when all have ended, or when so many have that others can take their place. The cache must have
    `block` slots beyond the longest row that is not done.
    """
    rows = dataclasses.replace(rows, done_B=rows.done_B | stopped_B)

    def going_on(carry: tuple[jax.Array, Rows, jax.Array]) -> jax.Array:
        count, rows, _ = carry
        return (count < block) & (jnp.sum(~rows.done_B) > enough)

    def one(carry: tuple[jax.Array, Rows, jax.Array]) -> tuple[jax.Array, Rows, jax.Array]:
        count, rows, out_BC = carry
        x_B1D, cache = model.apply(variables, rows.token_B[:, None], rows.length_B, rows.cache, method="extend")
        logits_BV = model.apply(variables, x_B1D[:, 0], method="logits")
        token_B = _choose(logits_BV, rows.key_B, rows.made_B, sampling)
        live_B = (~rows.done_B).astype(jnp.int32)
        made_B = rows.made_B + live_B
        rows = dataclasses.replace(
            rows,
            token_B=jnp.where(rows.done_B, rows.token_B, token_B),
            length_B=rows.length_B + live_B,
            made_B=made_B,
            done_B=rows.done_B | jnp.isin(token_B, jnp.array(eos)) | (made_B >= rows.limit_B),
            cache=cache,
        )
        out_BC = out_BC.at[:, count].set(jnp.where(live_B == 1, token_B, NONE))
        return count + 1, rows, out_BC

    nothing = jnp.full((rows.token_B.shape[0], block), NONE, jnp.int32)
    _, rows, out_BC = jax.lax.while_loop(going_on, one, (jnp.int32(0), rows, nothing))
    return rows.pinned(), shard(out_BC, None, None)


def _choose(logits_BV: jax.Array, key_B: jax.Array, index_B: jax.Array, sampling: Sampling) -> jax.Array:
    if sampling.temperature == 0:
        return likeliest(logits_BV)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_p < 1:
        sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        mass_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, axis=-1), axis=-1)
        last_B = jnp.sum(mass_BV < sampling.top_p, axis=-1)
        floor_B1 = jnp.take_along_axis(sorted_BV, last_B[:, None], axis=-1)
        logits_BV = jnp.where(logits_BV < floor_B1, -jnp.inf, logits_BV)
    draw = lambda key, index, logits_V: jax.random.categorical(jax.random.fold_in(key, index), logits_V)
    return jax.vmap(draw)(key_B, index_B, logits_BV).astype(jnp.int32)


def likeliest(logits_BV: jax.Array) -> jax.Array:
    """argmax over V, the first of equals: of the maxima of 64 logits each, then within the 64.

    A maximum is many times as fast as an argmax on a CPU, and the long one is then a maximum.
    """
    b, v = logits_BV.shape
    parts_BPC = logits_BV.reshape(b, -1, math.gcd(v, 64))
    part_B = jnp.argmax(jnp.max(parts_BPC, axis=-1), axis=-1)
    winner_BC = jnp.take_along_axis(parts_BPC, part_B[:, None, None], axis=1)[:, 0]
    return (part_B * parts_BPC.shape[2] + jnp.argmax(winner_BC, axis=-1)).astype(jnp.int32)


def _each(change: Callable[[Cache], Cache], cache: Any) -> Any:
    """The change made to each `Cache` of a model: to its one, or to those of its layers."""
    return jax.tree.map(change, cache, is_leaf=_is_cache)


def _is_cache(node: Any) -> bool:
    return isinstance(node, Cache)
