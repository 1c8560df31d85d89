"""Grouped-query attention over a whole sequence, or over a key/value cache."""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import NamedSharding, PartitionSpec

from lema_jax.model.linear import shard

# Shapes: B batch, T queries, S keys, L layers in the cache, N query heads, K key/value heads, G = N / K, H head width.

KEYS = ("batch", "kv_heads", "keys", "head_dim")  # logical axes of k_BKSH and v_BKSH
LANES = 128  # the kernel cuts sequences into blocks of a multiple of this


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


def within(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_ids_BT: jax.Array, kind: str) -> jax.Array:
    """Causal attention of whole sequences within their segments, [B, T, N, H] out.

    Args:
      kind: "xla" for `attend`; "splash" for JAX's Pallas kernel, which never holds [T, T] logits (off a TPU it is
        interpreted, for tests); "auto" for the kernel on a TPU. Rows, or a device's parts of them, that are no multiple
        of LANES have `attend`.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    on_tpu = (jax.default_backend() if device is None else device.platform) == "tpu"
    if (kind == "splash" or (kind == "auto" and on_tpu)) and q_BTNH.shape[1] % (LANES * _cuts()) == 0:
        return _splash(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, interpret=not on_tpu)
    k_BKSH, v_BKSH = (shard(jnp.swapaxes(x, 1, 2), *KEYS) for x in (k_BTKH, v_BTKH))
    return attend(q_BTNH, k_BKSH, v_BKSH, segment_mask(segment_ids_BT))


def _splash(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, *, interpret: bool) -> jax.Array:
    """The kernel, each device on its own rows and heads; keys and values are gathered along a cut length."""
    mesh = jax.sharding.get_abstract_mesh()
    where = nn.logical_to_mesh_axes
    rows, length, heads = where(("batch", "length", "heads")) or (None, None, None)
    (kv_heads,) = where(("kv_heads",)) or (None,)
    cuts = _cuts()
    t, n, h = q_BTNH.shape[1:]
    block = math.gcd(t // cuts, 512)
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
    )
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([splash.CausalMask((t, t))] * n),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=cuts,
        interpret=interpret,
    )

    def local(kernel, q_BNTH, k_BKSH, v_BKSH, segment_ids_BT, segment_ids_BS):
        ids = splash.SegmentIds(segment_ids_BT, segment_ids_BS)
        return jax.vmap(kernel)(q_BNTH, k_BKSH, v_BKSH, ids)

    attend_on: Callable[..., jax.Array] = local
    arrays = [jnp.swapaxes(x, 1, 2) for x in (q_BTNH * h**-0.5, k_BTKH, v_BTKH)]
    if not mesh.empty:
        whole = PartitionSpec(rows, kv_heads, None, None)
        cut = PartitionSpec(rows, heads, length, None)
        table = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, length)))
        ids = PartitionSpec(rows, length), PartitionSpec(rows, None)
        attend_on = jax.shard_map(
            local, mesh=mesh, in_specs=(table, cut, whole, whole, *ids), out_specs=cut, check_vma=False
        )
    return jnp.swapaxes(attend_on(kernel, *arrays, segment_ids_BT, segment_ids_BT), 1, 2)


def _cuts() -> int:
    """How many parts the mesh cuts a sequence into."""
    (length,) = nn.logical_to_mesh_axes(("length",)) or (None,)
    axes = () if length is None else (length,) if isinstance(length, str) else length
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)


def attend(q_BTNH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    """softmax(q kᵀ / sqrt(H)) v with float32 logits; [B, T, N, H] out. Query head n reads key/value head n // G."""
    b, t, n, h = q_BTNH.shape
    k = k_BKSH.shape[1]
    q_BTKGH = q_BTNH.reshape(b, t, k, n // k, h)
    logits_BKGTS = jnp.einsum("BTKGH,BKSH->BKGTS", q_BTKGH, k_BKSH, preferred_element_type=jnp.float32)
    logits_BKGTS = jnp.where(mask_BTS[:, None, None], logits_BKGTS * h**-0.5, jnp.finfo(jnp.float32).min)
    weights_BKGTS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BKSH.dtype)
    return jnp.einsum("BKGTS,BKSH->BTKGH", weights_BKGTS, v_BKSH).reshape(b, t, n, h)
