"""Grouped-query attention over a whole sequence, or over a key/value cache."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import NamedSharding, PartitionSpec

from lema_jax.model.linear import cuts, shard

# Shapes: B batch, T queries, S keys, N query heads, K key/value heads, G = N / K, H head width.

KEYS = ("batch", "kv_heads", "head_dim", "keys")  # logical axes of k_BKHS
VALUES = ("batch", "kv_heads", "keys", "head_dim")  # and v_BKSH
LANES = 128  # the kernel cuts sequences into blocks of a multiple of this
_LONGEST = 512  # side of a block


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
      kind: one of `config.ATTENTION`: "xla" for `attend`; a kernel that never holds [T, T] logits: "splash" (JAX's
        Pallas kernel for TPUs), "triton" (its Pallas kernel for GPUs; either is interpreted elsewhere, for tests) or
        "cudnn" (NVIDIA's, in bfloat16; elsewhere the same call by XLA); "auto" for splash on a TPU, else for xla. Rows,
        or a device's parts of them, that are no multiple of LANES have `attend`; so have rows whose length the mesh
        cuts, but for splash.
    """
    on = platform()
    if kind == "auto":
        kind = "splash" if on == "tpu" else "xla"
    parts = cuts("length")
    if kind == "splash" and q_BTNH.shape[1] % (LANES * parts) == 0:
        return _splash(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, interpret=on != "tpu")
    if kind in _ON_GPU and parts == 1 and q_BTNH.shape[1] % LANES == 0:
        kernel = functools.partial(_ON_GPU[kind], elsewhere=on != "gpu")
        heads, kv_heads = (_axes("batch", None, axis, None) for axis in ("heads", "kv_heads"))
        specs = (heads, kv_heads, kv_heads, _axes("batch", None))
        return _by_device(kernel, specs, heads)(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
    k_BKHS, v_BKSH = shard(jnp.moveaxis(k_BTKH, 1, 3), *KEYS), shard(jnp.swapaxes(v_BTKH, 1, 2), *VALUES)
    return attend(q_BTNH, k_BKHS, v_BKSH, segment_mask(segment_ids_BT))


def block(length: int) -> int:
    """The side of the kernel's blocks, queries × keys, of a sequence (or a device's part of it) of that length."""
    return math.gcd(length, _LONGEST)


def platform() -> str:
    """What is compiled for, which may be no device of this machine."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else str(device.platform)


def _axes(*axes: str | None) -> PartitionSpec:
    """Where the mesh puts the axes of these logical names."""
    return nn.logical_to_mesh_axes(axes) or PartitionSpec()


def _by_device(kernel: Callable[..., jax.Array], specs: Any, out: PartitionSpec) -> Callable[..., jax.Array]:
    """The kernel as every device of the mesh runs it on its own part; without a mesh, itself."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel
    return jax.shard_map(kernel, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)


def _splash(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, *, interpret: bool) -> jax.Array:
    """The kernel, each device on its own rows and heads; keys and values are gathered along a cut length."""
    mesh = jax.sharding.get_abstract_mesh()
    parts = cuts("length")
    t, n, h = q_BTNH.shape[1:]
    side = block(t // parts)
    sizes = splash.BlockSizes(
        block_q=side, block_kv=side, block_q_dkv=side, block_kv_dkv=side, block_q_dq=side, block_kv_dq=side
    )
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([splash.CausalMask((t, t))] * n),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=parts,
        interpret=interpret,
    )

    def local(kernel, q_BNTH, k_BKSH, v_BKSH, segment_ids_BT, segment_ids_BS):
        ids = splash.SegmentIds(segment_ids_BT, segment_ids_BS)
        return jax.vmap(kernel)(q_BNTH, k_BKSH, v_BKSH, ids)

    cut, whole = _axes("batch", "heads", "length", None), _axes("batch", "kv_heads", None, None)
    table = None if mesh.empty else kernel.manual_sharding_spec(NamedSharding(mesh, _axes(None, "length")))
    specs = (table, cut, whole, whole, _axes("batch", "length"), _axes("batch", None))
    arrays = [jnp.swapaxes(x, 1, 2) for x in (q_BTNH * h**-0.5, k_BTKH, v_BTKH)]
    return jnp.swapaxes(_by_device(local, specs, cut)(kernel, *arrays, segment_ids_BT, segment_ids_BT), 1, 2)


def _cudnn(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, *, elsewhere: bool) -> jax.Array:
    # The kernel leaves out what lies above the diagonal by itself; the mask keeps segments apart.
    same_B1TT = (segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :])[:, None]
    by: Literal["xla", "cudnn"] = "xla" if elsewhere else "cudnn"
    return jax.nn.dot_product_attention(q_BTNH, k_BTKH, v_BTKH, mask=same_B1TT, is_causal=True, implementation=by)


def _triton(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, *, elsewhere: bool) -> jax.Array:
    from jax.experimental.pallas.ops.gpu import (
        attention as triton,
    )  # jax 0.11 warns of it: tokamax is to take its place

    n, h = q_BTNH.shape[2:]
    groups = n // k_BTKH.shape[2]
    k_BTNH, v_BTNH = (jnp.repeat(x, groups, axis=2) for x in (k_BTKH, v_BTKH))
    sides = triton.BlockSizes(**dict.fromkeys(("block_q", "block_k"), 128), **dict.fromkeys(_BACKWARD, 64))
    return triton.mha(
        q_BTNH, k_BTNH, v_BTNH, segment_ids_BT, h**-0.5, causal=True, block_sizes=sides, interpret=elsewhere
    )


_BACKWARD = ("block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
_ON_GPU: dict[str, Callable[..., jax.Array]] = {"cudnn": _cudnn, "triton": _triton}


def held(kv_heads: int) -> int:
    """How many key/value heads are held: where the mesh cuts them into parts that do not divide them, each is repeated
    until every part has whole ones. Query heads find their own, for their groups shrink as the heads multiply."""
    return math.lcm(kv_heads, cuts("kv_heads"))


def attend(q_BTNH: jax.Array, k_BKHS: jax.Array, v_BKSH: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    """softmax(q kᵀ / sqrt(H)) v with float32 logits; [B, T, N, H] out. Query head n reads key/value head n // G."""
    b, t, n, h = q_BTNH.shape
    k, s = k_BKHS.shape[1], k_BKHS.shape[3]
    # the T queries of the G heads that share keys are the Q rows of one product
    q_BKQH = jnp.moveaxis(q_BTNH.reshape(b, t, k, n // k, h), 1, 3).reshape(b, k, -1, h)
    logits_BKQS = _product(q_BKQH, k_BKHS, jnp.float32)
    logits_BKGTS = logits_BKQS.reshape(b, k, n // k, t, s)
    logits_BKGTS = jnp.where(mask_BTS[:, None, None], logits_BKGTS * h**-0.5, jnp.finfo(jnp.float32).min)
    weights_BKQS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BKSH.dtype).reshape(logits_BKQS.shape)
    out_BKQH = _product(weights_BKQS, v_BKSH, v_BKSH.dtype)
    return jnp.moveaxis(out_BKQH.reshape(b, k, n // k, t, h), 3, 1).reshape(b, t, n, h)


def _product(x_BKQI: jax.Array, y_BKIO: jax.Array, dtype: Any) -> jax.Array:
    """x y for each head, [B, K, Q, O]. A CPU gives the thin products of a decoding step to one core, unless what is
    summed over is cut: then to all of them. Of a single row it makes product and sum in one only where there are many
    parts; else it copies the values, a quarter of a step at 2,048 tokens."""
    b, k, q, i = x_BKQI.shape
    parts = math.gcd(i, 16 if b == 1 else 4) if q <= 16 and platform() == "cpu" else 1
    x_BKQPI, y_BKPIO = x_BKQI.reshape(b, k, q, parts, -1), y_BKIO.reshape(b, k, parts, i // parts, -1)
    return jnp.einsum("BKQPI,BKPIO->BKPQO", x_BKQPI, y_BKPIO, preferred_element_type=dtype).sum(2)
