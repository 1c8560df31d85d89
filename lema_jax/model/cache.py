"""Keys and values of the tokens that rows have so far, in the type of activations or in 8 bits."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lema_jax.model.attention import KEYS, LANES, VALUES, held, platform
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.model.int8 import round_to_scale
from lema_jax.model.linear import shard

# Shapes: B batch, T tokens, S slots, L layers in the cache, K key/value heads as `attention.held` says, H head width.

_SCALES = ("batch", "kv_heads", "keys")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values by slot: slot s of a row holds the token at position s of that row.

    A scanned model has one with all its layers; an unrolled one has a tuple of them, each with L = 1. Keys lie with
    their slots innermost: a query then runs over consecutive memory (on a CPU attention takes half the time).

    In 8 bits each token's key of a head has a scale, and so has its value.
    """

    k_LBKHS: jax.Array
    v_LBKSH: jax.Array
    k_scale_LBKS: jax.Array | None = None
    v_scale_LBKS: jax.Array | None = None

    @property
    def slots(self) -> int:
        return self.v_LBKSH.shape[3]

    def write(self, layer: int | jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, start_B: jax.Array) -> "Cache":
        """Puts T consecutive tokens of each row at slots start … start + T - 1."""
        at_B2 = jnp.stack([jnp.full_like(start_B, layer), start_B], axis=1)
        k_BKHT, v_BKTH = jnp.moveaxis(k_BTKH, 1, 3), jnp.swapaxes(v_BTKH, 1, 2)
        k_scale_LBKS = v_scale_LBKS = None
        if self.k_scale_LBKS is not None and self.v_scale_LBKS is not None:
            k_BKHT, scale_BKT = round_to_scale(k_BKHT, 2)
            k_scale_LBKS = _put(self.k_scale_LBKS, scale_BKT, at_B2, slots=3)
            v_BKTH, scale_BKT = round_to_scale(v_BKTH, 3)
            v_scale_LBKS = _put(self.v_scale_LBKS, scale_BKT, at_B2, slots=3)
        k_LBKHS = _put(self.k_LBKHS, k_BKHT, at_B2, slots=4)
        return Cache(k_LBKHS, _put(self.v_LBKSH, v_BKTH, at_B2, slots=3), k_scale_LBKS, v_scale_LBKS)

    def read(self, layer: int | jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """The keys [B, K, H, S] and values [B, K, S, H] of a layer."""
        k_BKHS, v_BKSH = self.k_LBKHS[layer].astype(dtype), self.v_LBKSH[layer].astype(dtype)
        if self.k_scale_LBKS is not None and self.v_scale_LBKS is not None:
            k_BKHS = k_BKHS * self.k_scale_LBKS[layer][:, :, None].astype(dtype)
            v_BKSH = v_BKSH * self.v_scale_LBKS[layer][..., None].astype(dtype)
        return k_BKHS, v_BKSH

    def pinned(self) -> "Cache":
        """Rows over the batch axes, key/value heads over the tensor axis."""
        return self._each(lambda array, axes: shard(array, "layers", *axes), (KEYS, VALUES, _SCALES, _SCALES))

    def sized(self, slots: int) -> "Cache":
        """The same with room for `slots` tokens a row; what lies beyond is dropped."""

        def fit(array: jax.Array, axis: int) -> jax.Array:
            kept = jax.lax.slice_in_dim(array, 0, min(slots, self.slots), axis=axis)
            return jnp.pad(kept, [(0, (slots - kept.shape[at]) * (at == axis)) for at in range(array.ndim)])

        return self._each(fit, (4, 3, 3, 3))

    def _each(self, change: Callable[[jax.Array, Any], jax.Array], by: Sequence[Any]) -> "Cache":
        """Each array changed, by what stands in its place in `by`."""
        arrays = (getattr(self, field.name) for field in dataclasses.fields(self))
        changed: Any = (None if array is None else change(array, own) for array, own in zip(arrays, by))
        return Cache(*changed)


def _put(cache: jax.Array, fresh: jax.Array, at_B2: jax.Array, slots: int) -> jax.Array:
    """A cache [L, B, …] with `fresh` [B, …] in place, where `at_B2` has each row's layer and first slot (axis `slots`).

    One scatter along the rows: mapping a slice's update over them instead turns the cache, which a TPU copies whole. It
    also scatters only into an array whose last axis is innermost, and lays values of a narrow head the other way round:
    these are turned to how they lie, which moves nothing.
    """
    if slots == cache.ndim - 2 and cache.shape[-1] < LANES <= cache.shape[slots] and platform() == "tpu":
        turned = _put(jnp.swapaxes(cache, -2, -1), jnp.swapaxes(fresh, -2, -1), at_B2, slots + 1)
        return jnp.swapaxes(turned, -2, -1)
    where = jax.lax.ScatterDimensionNumbers(
        update_window_dims=tuple(range(1, cache.ndim)),
        inserted_window_dims=(),
        scatter_dims_to_operand_dims=(0, slots),
        operand_batching_dims=(1,),
        scatter_indices_batching_dims=(0,),
    )
    fresh = fresh[:, None].astype(cache.dtype)
    return jax.lax.scatter(cache, at_B2, fresh, where, unique_indices=True, mode="clip")


def empty(config: LlamaConfig, compute: Compute, rows: int, slots: int, kind: str = "dense") -> Any:
    """Zeroed keys and values for `rows` sequences of up to `slots` tokens, in the layout that `compute` asks for.

    Bytes: 2 · L · rows · K · slots · H · (bytes of dtype); in 8 bits 2 · L · rows · K · slots · (H + 4).
    """
    layers = config.num_layers if compute.scan_layers else 1
    shape, width = (layers, rows, held(config.num_kv_heads)), config.head_dim
    dtype = jnp.int8 if kind == "int8" else compute.dtype

    def one() -> Cache:
        arrays = [jnp.zeros((*shape, width, slots), dtype), jnp.zeros((*shape, slots, width), dtype)]
        if kind == "int8":
            arrays += [jnp.zeros((*shape, slots)), jnp.zeros((*shape, slots))]
        return Cache(*arrays).pinned()

    return one() if compute.scan_layers else tuple(one() for _ in range(config.num_layers))
