"""Token by token with a cache: fill rows with prompts, then run one compiled loop until every row has ended.

Shapes: B rows, R rows of a group being filled, P prompt slots, S cache slots, C tokens of a block, V vocabulary.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lema_jax.model.attention import Cache
from lema_jax.model.llama import Llama, empty_cache, shard

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
    chosen ones; a row is done at `limit_B` of them or at the end-of-sequence token. What a row draws depends on its own
    `key_B` and count alone, never on its neighbours.
    """

    token_B: jax.Array
    length_B: jax.Array
    made_B: jax.Array
    limit_B: jax.Array
    done_B: jax.Array
    key_B: jax.Array
    cache: Any


def idle(model: Llama, rows: int, slots: int) -> Rows:
    """Rows that are all done, to be filled."""
    zeros = jnp.zeros(rows, jnp.int32)
    keys = jax.random.split(jax.random.key(0), rows)
    cache = _shard_cache(empty_cache(model.config, model.compute, rows, slots))
    return Rows(zeros, zeros, zeros, zeros, jnp.ones(rows, bool), keys, cache)


def prefill(
    model: Llama,
    variables: Any,
    tokens_RP: jax.Array,
    length_R: jax.Array,
    limit_R: jax.Array,
    key_R: jax.Array,
    *,
    eos: int,
    sampling: Sampling,
) -> Rows:
    """Reads right-padded prompts of `length_R` tokens (at least 1) and chooses the first token of each answer."""
    cache = _shard_cache(empty_cache(model.config, model.compute, *tokens_RP.shape))
    x_RPD, cache = model.apply(variables, tokens_RP, jnp.zeros_like(length_R), cache, method="extend")
    x_RD = jnp.take_along_axis(x_RPD, (length_R - 1)[:, None, None], axis=1)[:, 0]
    first = jnp.zeros_like(length_R)
    token_R = _choose(model.apply(variables, x_RD, method="logits"), key_R, first, sampling)
    return Rows(token_R, length_R, first + 1, limit_R, (token_R == eos) | (limit_R <= 1), key_R, cache)


def insert(rows: Rows, fresh: Rows, where_R: jax.Array) -> Rows:
    """Puts filled rows at row numbers `where_R`; a number that is out of range drops its row."""
    fresh = grow(fresh, jax.tree.leaves(rows.cache)[0].shape[3])
    small = lambda old, new: old.at[where_R].set(new, mode="drop")
    large = lambda old, new: old.at[:, where_R].set(new, mode="drop")
    cache = _shard_cache(jax.tree.map(large, rows.cache, fresh.cache))
    rest = jax.tree.map(small, dataclasses.replace(rows, cache=None), dataclasses.replace(fresh, cache=None))
    return dataclasses.replace(rest, cache=cache)


def grow(rows: Rows, slots: int) -> Rows:
    """The same rows, each with room for `slots` tokens."""
    pad = lambda x: jnp.pad(x, [(0, 0)] * 3 + [(0, slots - x.shape[3]), (0, 0)])
    return dataclasses.replace(rows, cache=jax.tree.map(pad, rows.cache))


def decode(
    model: Llama, variables: Any, rows: Rows, *, block: int, eos: int, sampling: Sampling
) -> tuple[Rows, jax.Array]:
    """Up to `block` more tokens of every row that is not done, [B, C]; the loop ends early when all are.

    The cache must have `block` slots beyond the longest row that is not done.
    """

    def going_on(carry: tuple[jax.Array, Rows, jax.Array]) -> jax.Array:
        count, rows, _ = carry
        return (count < block) & ~jnp.all(rows.done_B)

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
            done_B=rows.done_B | (token_B == eos) | (made_B >= rows.limit_B),
            cache=cache,
        )
        out_BC = out_BC.at[:, count].set(jnp.where(live_B == 1, token_B, NONE))
        return count + 1, rows, out_BC

    nothing = jnp.full((rows.token_B.shape[0], block), NONE, jnp.int32)
    _, rows, out_BC = jax.lax.while_loop(going_on, one, (jnp.int32(0), rows, nothing))
    return rows, out_BC


def _choose(logits_BV: jax.Array, key_B: jax.Array, index_B: jax.Array, sampling: Sampling) -> jax.Array:
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_p < 1:
        sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        mass_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, axis=-1), axis=-1)
        last_B = jnp.sum(mass_BV < sampling.top_p, axis=-1)
        floor_B1 = jnp.take_along_axis(sorted_BV, last_B[:, None], axis=-1)
        logits_BV = jnp.where(logits_BV < floor_B1, -jnp.inf, logits_BV)
    draw = lambda key, index, logits_V: jax.random.categorical(jax.random.fold_in(key, index), logits_V)
    return jax.vmap(draw)(key_B, index_B, logits_BV).astype(jnp.int32)


def _shard_cache(cache: Any) -> Any:
    axes = ("layers", "batch", "kv_heads", "length", "head_dim")
    pin = lambda one: Cache(shard(one.k_LBKSH, *axes), shard(one.v_LBKSH, *axes))
    return jax.tree.map(pin, cache, is_leaf=lambda node: isinstance(node, Cache))
