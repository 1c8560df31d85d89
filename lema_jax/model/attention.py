"""Grouped-query attention over a whole sequence, or over a key/value cache."""

import dataclasses

import jax
import jax.numpy as jnp

# Shapes: B batch, T queries, S keys, L layers in the cache, N query heads, K key/value heads, G = N / K, H head width.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values by slot: slot s of a row holds the token at position s of that row.

    A scanned model has one with all its layers; an unrolled one has a tuple of them, each with L = 1.
    """

    k_LBKSH: jax.Array
    v_LBKSH: jax.Array

    def write(self, layer: int | jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, start_B: jax.Array) -> "Cache":
        """Puts T consecutive tokens of each row at slots start … start + T - 1."""

        def put(cache_LKSH: jax.Array, fresh_TKH: jax.Array, start: jax.Array) -> jax.Array:
            fresh_LKSH = jnp.swapaxes(fresh_TKH, 0, 1)[None].astype(cache_LKSH.dtype)
            return jax.lax.dynamic_update_slice(cache_LKSH, fresh_LKSH, (layer, 0, start, 0))

        rows = jax.vmap(put, in_axes=(1, 0, 0), out_axes=1)
        return Cache(rows(self.k_LBKSH, k_BTKH, start_B), rows(self.v_LBKSH, v_BTKH, start_B))

    def read(self, layer: int | jax.Array) -> tuple[jax.Array, jax.Array]:
        """The keys and values of a layer, each [B, K, S, H]."""
        return self.k_LBKSH[layer], self.v_LBKSH[layer]


def segment_mask(segment_ids_BT: jax.Array) -> jax.Array:
    """[B, T, T]: each token sees the tokens before it and itself, within its own segment."""
    same_BTT = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
    return same_BTT & jnp.tril(jnp.ones(same_BTT.shape[1:], bool))[None]


def cache_mask(positions_BT: jax.Array, slots: int) -> jax.Array:
    """[B, T, S]: the token at position p sees slots 0 … p; what lies beyond is not yet written, or stale."""
    return jnp.arange(slots)[None, None, :] <= positions_BT[:, :, None]


def attend(q_BTNH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    """softmax(q kᵀ / sqrt(H)) v with float32 logits; [B, T, N, H] out. Query head n reads key/value head n // G."""
    b, t, n, h = q_BTNH.shape
    k = k_BKSH.shape[1]
    q_BTKGH = q_BTNH.reshape(b, t, k, n // k, h)
    logits_BKGTS = jnp.einsum("BTKGH,BKSH->BKGTS", q_BTKGH, k_BKSH, preferred_element_type=jnp.float32)
    logits_BKGTS = jnp.where(mask_BTS[:, None, None], logits_BKGTS * h**-0.5, jnp.finfo(jnp.float32).min)
    weights_BKGTS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BKSH.dtype)
    return jnp.einsum("BKGTS,BKSH->BTKGH", weights_BKGTS, v_BKSH).reshape(b, t, n, h)
