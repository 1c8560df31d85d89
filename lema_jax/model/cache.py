"""The key/value cache, in the dtype of activations or in 8 bits.

Shapes: B batch, T tokens, S cache length, L layers, K key/value heads (`attention.stored_kv_heads`), H head width.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lema_jax.model.attention import KEY_AXES, LANES, VALUE_AXES, platform, stored_kv_heads
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.model.int8 import round_to_scale
from lema_jax.model.linear import shard

_SCALE_AXES = ("batch", "kv_heads", "keys")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values by position in the row.

    A scanned model has one `Cache` of all its layers; an unrolled one has a tuple of them, each with L = 1. In keys S
    is the minor axis, so that q kᵀ reads contiguous memory (attention takes half the time on a CPU).

    In 8 bits, each key and each value of a head has a scale.
    """

    k_LBKHS: jax.Array
    v_LBKSH: jax.Array
    k_scale_LBKS: jax.Array | None = None
    v_scale_LBKS: jax.Array | None = None

    @property
    def length(self) -> int:
        """S."""
        return self.v_LBKSH.shape[3]

    def write(self, layer: int | jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, start_B: jax.Array) -> "Cache":
        """The cache with T consecutive tokens of each row at positions start … start + T - 1."""
        at_B2 = jnp.stack([jnp.full_like(start_B, layer), start_B], axis=1)
        k_BKHT, v_BKTH = jnp.moveaxis(k_BTKH, 1, 3), jnp.swapaxes(v_BTKH, 1, 2)
        k_scale_LBKS = v_scale_LBKS = None
        if self.k_scale_LBKS is not None and self.v_scale_LBKS is not None:
            k_BKHT, scale_BKT = round_to_scale(k_BKHT, 2)
            k_scale_LBKS = _put(self.k_scale_LBKS, scale_BKT, at_B2, axis=3)
            v_BKTH, scale_BKT = round_to_scale(v_BKTH, 3)
            v_scale_LBKS = _put(self.v_scale_LBKS, scale_BKT, at_B2, axis=3)
        k_LBKHS = _put(self.k_LBKHS, k_BKHT, at_B2, axis=4)
        return Cache(k_LBKHS, _put(self.v_LBKSH, v_BKTH, at_B2, axis=3), k_scale_LBKS, v_scale_LBKS)

    def read(self, layer: int | jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """The keys [B, K, H, S] and values [B, K, S, H] of a layer."""
        k_BKHS, v_BKSH = self.k_LBKHS[layer].astype(dtype), self.v_LBKSH[layer].astype(dtype)
        if self.k_scale_LBKS is not None and self.v_scale_LBKS is not None:
            k_BKHS = k_BKHS * self.k_scale_LBKS[layer][:, :, None].astype(dtype)
            v_BKSH = v_BKSH * self.v_scale_LBKS[layer][..., None].astype(dtype)
        return k_BKHS, v_BKSH

    def pinned(self) -> "Cache":
        """The cache constrained to its sharding: rows over the batch axes, heads over the tensor axis."""
        axes = (KEY_AXES, VALUE_AXES, _SCALE_AXES, _SCALE_AXES)
        return self._map(lambda array, own: shard(array, "layers", *own), axes)

    def resized(self, length: int) -> "Cache":
        """The cache padded with zeros, or cropped, to `length` positions."""

        def fit(array: jax.Array, axis: int) -> jax.Array:
            kept = jax.lax.slice_in_dim(array, 0, min(length, self.length), axis=axis)
            return jnp.pad(kept, [(0, (length - kept.shape[at]) * (at == axis)) for at in range(array.ndim)])

        return self._map(fit, (4, 3, 3, 3))

    def _map(self, function: Callable[[jax.Array, Any], jax.Array], arguments: Sequence[Any]) -> "Cache":
        """Applies the function to each array and its argument."""
        arrays = (getattr(self, field.name) for field in dataclasses.fields(self))
        mapped: Any = (None if array is None else function(array, own) for array, own in zip(arrays, arguments))
        return Cache(*mapped)


def _put(cache: jax.Array, update: jax.Array, at_B2: jax.Array, axis: int) -> jax.Array:
    """A cache [L, B, …] updated with [B, …]; `at_B2` has each row's layer and first position (along `axis`).

    One batched scatter: a vmapped `dynamic_update_slice` transposes the cache, which costs a TPU a copy of it. A TPU
    scatters only where the minor axis is the last one, and lays out values of a narrow head with S minor: they are
    transposed here, which for that layout is a bitcast.
    """
    if axis == cache.ndim - 2 and cache.shape[-1] < LANES <= cache.shape[axis] and platform() == "tpu":
        transposed = _put(jnp.swapaxes(cache, -2, -1), jnp.swapaxes(update, -2, -1), at_B2, axis + 1)
        return jnp.swapaxes(transposed, -2, -1)
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=tuple(range(1, cache.ndim)),
        inserted_window_dims=(),
        scatter_dims_to_operand_dims=(0, axis),
        operand_batching_dims=(1,),
        scatter_indices_batching_dims=(0,),
    )
    update = update[:, None].astype(cache.dtype)
    return jax.lax.scatter(cache, at_B2, update, dimensions, unique_indices=True, mode="clip")


def empty(config: LlamaConfig, compute: Compute, rows: int, length: int, kind: str = "dense") -> Any:
    """Zeros for `rows` sequences of up to `length` tokens: one `Cache`, or a tuple of one per unrolled layer.

    Bytes: 2 · L · rows · K · length · H · (bytes of dtype); in 8 bits 2 · L · rows · K · length · (H + 4).

    Args:
      kind: the format, one of `config.CACHES`.
    """
    layers = config.num_layers if compute.scan_layers else 1
    shape, width = (layers, rows, stored_kv_heads(config.num_kv_heads)), config.head_dim
    dtype = jnp.int8 if kind == "int8" else compute.dtype

    def one() -> Cache:
        arrays = [jnp.zeros((*shape, width, length), dtype), jnp.zeros((*shape, length, width), dtype)]
        if kind == "int8":
            arrays += [jnp.zeros((*shape, length)), jnp.zeros((*shape, length))]
        return Cache(*arrays).pinned()

    return one() if compute.scan_layers else tuple(one() for _ in range(config.num_layers))
