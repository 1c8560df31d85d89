"""Generation with a cache: chunked prefill of prompts, then one compiled loop of decoding steps.

Arrays for the host are replicated, so that each process reads its own devices.

Shapes: B rows, R rows of a prefill, C tokens of a prefill chunk or a block, S cache length, D width, V vocabulary.
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

NONE = -1  # in a block, after the end of a row


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: argmax at temperature 0, else a sample of softmax(logits / temperature) restricted
    to the smallest set of tokens whose probability reaches `top_p` (nucleus sampling, arXiv 1904.09751)."""

    temperature: float = 0.0
    top_p: float = 1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """B sequences in flight.

    `token_B` was chosen last and is not in the cache yet; the `length_B` tokens before it are. `made_B` counts the
    chosen tokens; a row is done at `limit_B` of them or at an end-of-sequence token. A row's samples depend on its
    `key_B` and `made_B` alone, not on the other rows.
    """

    token_B: jax.Array
    length_B: jax.Array
    made_B: jax.Array
    limit_B: jax.Array
    done_B: jax.Array
    key_B: jax.Array
    cache: Any

    @property
    def cache_length(self) -> int:
        """S."""
        return int(jax.tree.leaves(self.cache, is_leaf=_is_cache)[0].length)

    def pinned(self) -> "Rows":
        """Every array constrained to rows over the batch axes. Otherwise jit recompiles for each input sharding."""
        small = jax.tree.map(lambda x: shard(x, "batch"), dataclasses.replace(self, cache=None))
        return dataclasses.replace(small, cache=_map(Cache.pinned, self.cache))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefill:
    """R prompts in prefill: their cache, and the trunk's output at each prompt's last token."""

    cache: Any
    last_RD: jax.Array

    def pinned(self) -> "Prefill":
        """See `Rows.pinned`."""
        return Prefill(_map(Cache.pinned, self.cache), shard(self.last_RD, "batch", "width"))


def idle(model: Llama, rows: int, cache_length: int, kind: str = "dense") -> Rows:
    """Rows that are all done, for `insert` to replace; `kind`: the cache's format, one of `config.CACHES`."""
    zeros = jnp.zeros(rows, jnp.int32)
    keys = jax.random.split(jax.random.key(0), rows)
    cache = caches.empty(model.config, model.compute, rows, cache_length, kind)
    return Rows(zeros, zeros, zeros, zeros, jnp.ones(rows, bool), keys, cache).pinned()


def empty_prefill(model: Llama, rows: int, cache_length: int, kind: str = "dense") -> Prefill:
    """A prefill with nothing in its cache; `kind`: the cache's format, one of `config.CACHES`."""
    cache = caches.empty(model.config, model.compute, rows, cache_length, kind)
    return Prefill(cache, jnp.zeros((rows, model.config.hidden_size), model.compute.dtype)).pinned()


def share_prefix(prefix: Prefill, rows: int, cache_length: int) -> Prefill:
    """The first row of `prefix` broadcast to `rows` rows, its cache resized."""
    broadcast = lambda x: jnp.broadcast_to(x[:, :1], (x.shape[0], rows, *x.shape[2:]))
    cache = _map(lambda one: jax.tree.map(broadcast, one).resized(cache_length), prefix.cache)
    return Prefill(cache, jnp.broadcast_to(prefix.last_RD[:1], (rows, prefix.last_RD.shape[1]))).pinned()


def repeat(prompts: Prefill, at_R: jax.Array) -> Prefill:
    """A prefill whose row r is row `at_R[r]` of `prompts`: for several answers to one prompt."""
    cache = jax.tree.map(lambda x: x[:, at_R], prompts.cache)
    return Prefill(cache, prompts.last_RD[at_R]).pinned()


def prefill(
    model: Llama, variables: Any, prompts: Prefill, tokens_RC: jax.Array, start: jax.Array, length_R: jax.Array
) -> Prefill:
    """One chunk: tokens start … start + C - 1 of right-padded prompts of `length_R` tokens (at least 1)."""
    start_R = jnp.broadcast_to(start, length_R.shape)
    x_RCD, cache = model.apply(variables, tokens_RC, start_R, prompts.cache, length_R, method="extend")
    at_R = length_R - 1 - start_R
    x_RD = jnp.take_along_axis(x_RCD, jnp.clip(at_R, 0, tokens_RC.shape[1] - 1)[:, None, None], axis=1)[:, 0]
    here_R1 = ((at_R >= 0) & (at_R < tokens_RC.shape[1]))[:, None]
    return Prefill(cache, jnp.where(here_R1, x_RD, prompts.last_RD)).pinned()


def first_tokens(
    model: Llama,
    variables: Any,
    prompts: Prefill,
    length_R: jax.Array,
    limit_R: jax.Array,
    seed_R: jax.Array,
    *,
    eos: tuple[int, ...],
    sampling: Sampling,
) -> tuple[Rows, jax.Array]:
    """Chooses the first token after each prompt: (rows in flight, these tokens [R] for the host)."""
    first = jnp.zeros_like(length_R)
    key_R = jax.vmap(jax.random.key)(seed_R)
    token_R = _choose(model.apply(variables, prompts.last_RD, method="logits"), key_R, first, sampling)
    done_R = jnp.isin(token_R, jnp.array(eos)) | (limit_R <= 1)
    rows = Rows(token_R, length_R, first + 1, limit_R, done_R, key_R, prompts.cache).pinned()
    return rows, shard(token_R, None)


def insert(rows: Rows, fresh: Rows, where_R: jax.Array) -> Rows:
    """Puts fresh rows, of the same cache length, at indices `where_R`; out-of-range indices are dropped."""
    small = lambda old, new: old.at[where_R].set(new, mode="drop")
    large = lambda old, new: old.at[:, where_R].set(new, mode="drop")
    cache = jax.tree.map(large, rows.cache, fresh.cache)
    rest = jax.tree.map(small, dataclasses.replace(rows, cache=None), dataclasses.replace(fresh, cache=None))
    return dataclasses.replace(rest, cache=cache).pinned()


def grow(rows: Rows, cache_length: int) -> Rows:
    """The same rows with a cache of that length."""
    return dataclasses.replace(rows, cache=_map(lambda one: one.resized(cache_length), rows.cache)).pinned()


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
    """Up to `block` decoding steps: (rows, their tokens [B, C] for the host, NONE after the end of a row).

    Args:
      stopped_B: rows that the host ended (a stop string, say).
      enough: the loop returns early when no more than `enough` rows are live, so that new rows can take their place.
      block: C; the cache must have room for so many tokens after the longest live row.
    """
    rows = dataclasses.replace(rows, done_B=rows.done_B | stopped_B)

    def goes_on(carry: tuple[jax.Array, Rows, jax.Array]) -> jax.Array:
        count, rows, _ = carry
        return (count < block) & (jnp.sum(~rows.done_B) > enough)

    def step(carry: tuple[jax.Array, Rows, jax.Array]) -> tuple[jax.Array, Rows, jax.Array]:
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
    _, rows, out_BC = jax.lax.while_loop(goes_on, step, (jnp.int32(0), rows, nothing))
    return rows.pinned(), shard(out_BC, None, None)


def _choose(logits_BV: jax.Array, key_B: jax.Array, index_B: jax.Array, sampling: Sampling) -> jax.Array:
    if sampling.temperature == 0:
        return argmax(logits_BV)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_p < 1:
        sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        mass_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, axis=-1), axis=-1)
        last_B = jnp.sum(mass_BV < sampling.top_p, axis=-1)
        floor_B1 = jnp.take_along_axis(sorted_BV, last_B[:, None], axis=-1)
        logits_BV = jnp.where(logits_BV < floor_B1, -jnp.inf, logits_BV)
    draw = lambda key, index, logits_V: jax.random.categorical(jax.random.fold_in(key, index), logits_V)
    return jax.vmap(draw)(key_B, index_B, logits_BV).astype(jnp.int32)


def argmax(logits_BV: jax.Array) -> jax.Array:
    """argmax over V, the first of equals: over the maxima of P parts of 64 logits, then within the part.

    XLA:CPU reduces a maximum many times as fast as an argmax.
    """
    b, v = logits_BV.shape
    parts_BPI = logits_BV.reshape(b, -1, math.gcd(v, 64))
    part_B = jnp.argmax(jnp.max(parts_BPI, axis=-1), axis=-1)
    winner_BI = jnp.take_along_axis(parts_BPI, part_B[:, None, None], axis=1)[:, 0]
    return (part_B * parts_BPI.shape[2] + jnp.argmax(winner_BI, axis=-1)).astype(jnp.int32)


def _map(function: Callable[[Cache], Cache], cache: Any) -> Any:
    """Applies the function to the model's `Cache`, or to that of each unrolled layer."""
    return jax.tree.map(function, cache, is_leaf=_is_cache)


def _is_cache(node: Any) -> bool:
    return isinstance(node, Cache)
