"""Grouped-query attention over packed sequences, or over a key/value cache.

Shapes: B batch, T queries, S keys, N query heads, K key/value heads, G = N / K, Q = G · T, H head width.
"""

import dataclasses
import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import NamedSharding, PartitionSpec

from lema_jax.model.linear import num_shards, shard

KEY_AXES = ("batch", "kv_heads", "head_dim", "keys")  # logical axes of k_BKHS
VALUE_AXES = ("batch", "kv_heads", "keys", "head_dim")  # and v_BKSH
LANES = 128  # block sizes of the kernels are multiples of a TPU's vector lanes
_LARGEST_BLOCK = 512


_TRITON = "jax.experimental.pallas.ops.gpu.attention"  # deprecated by jax 0.11 in favour of tokamax


@dataclasses.dataclass(frozen=True)
class Logits:
    """How attention logits are made of q kᵀ: times `scale` (None for 1 / sqrt(H)), then c · tanh(logits / c) with
    c = `softcap`, unless it is None."""

    scale: float | None = None
    softcap: float | None = None

    def scale_of(self, width: int) -> float:
        """The factor for heads of that width."""
        return width**-0.5 if self.scale is None else self.scale


PLAIN = Logits()
Window = int | jax.Array | None  # tokens that a query attends to, itself among them; None for all


def segment_mask(segment_ids_BT: jax.Array, window: Window = None) -> jax.Array:
    """[B, T, T] bool: causal, within the query's own segment and window."""
    same_BTT = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
    mask_BTT = same_BTT & jnp.tril(jnp.ones(same_BTT.shape[1:], bool))[None]
    if window is None:
        return mask_BTT
    at_T = jnp.arange(segment_ids_BT.shape[1])
    return mask_BTT & (at_T[:, None] - at_T[None, :] < window)[None]


def cache_mask(positions_BT: jax.Array, length: int, window: Window = None) -> jax.Array:
    """[B, T, S] bool over a cache of S = `length`: the token at position p attends to positions 0 … p, or to the last
    `window` of them."""
    at_11S, positions_BT1 = jnp.arange(length)[None, None, :], positions_BT[:, :, None]
    mask_BTS = at_11S <= positions_BT1
    return mask_BTS if window is None else mask_BTS & (positions_BT1 - at_11S < window)


def attend_segments(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array,
    kind: str,
    logits: Logits = PLAIN,
    windows: tuple[int | None, ...] = (None,),
    which: jax.Array | None = None,
) -> jax.Array:
    """Causal attention of packed sequences within their segments, [B, T, N, H].

    Args:
      logits: how they are made; GPU kernels fall back to `attend` if they are capped.
      windows: those of the model's layers; GPU kernels fall back to `attend` if there is one.
      which: index into `windows`, a scalar; None if there is one entry.
      kind: one of `config.ATTENTION`. "xla": `attend`. Kernels that do not materialise [T, T] logits: "splash" (JAX's
        Pallas kernel for TPUs), "triton" (JAX's Pallas kernel for GPUs) and "cudnn" (NVIDIA's, for bfloat16). Off
        their platform the Pallas kernels are interpreted and cudnn's call is lowered by XLA, for tests. "auto": see
        `automatic`. Lengths per device that are no multiple of LANES fall back to `attend`, and so do rows
        sharded along their length, except for splash.
    """
    target = platform()
    if kind == "auto":
        capability = jax.devices("gpu")[0].compute_capability if target == "gpu" else ""
        kind = automatic(target, capability, q_BTNH.dtype, q_BTNH.shape[-1])
    shards = num_shards("length")
    if kind == "splash" and q_BTNH.shape[1] % (LANES * shards) == 0:
        run = functools.partial(_splash, logits=logits, interpret=target != "tpu")
        # The kernel's mask is static, so that it skips blocks: one kernel for each window.
        kernels = [functools.partial(run, window=window) for window in windows]
        arrays = (q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
        return kernels[0](*arrays) if which is None else jax.lax.switch(which, kernels, *arrays)
    plain = windows == (None,) and logits.softcap is None
    if kind in _GPU_KERNELS and plain and shards == 1 and q_BTNH.shape[1] % LANES == 0:
        scale = logits.scale_of(q_BTNH.shape[-1])
        kernel = functools.partial(_GPU_KERNELS[kind], scale=scale, on_gpu=target == "gpu")
        heads, kv_heads = (_spec("batch", None, axis, None) for axis in ("heads", "kv_heads"))
        specs = (heads, kv_heads, kv_heads, _spec("batch", None))
        return _shard_map(kernel, specs, heads)(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
    k_BKHS, v_BKSH = shard(jnp.moveaxis(k_BTKH, 1, 3), *KEY_AXES), shard(jnp.swapaxes(v_BTKH, 1, 2), *VALUE_AXES)
    window = windows[0] if which is None else jnp.array([_or_all(w, q_BTNH.shape[1]) for w in windows])[which]
    return attend(q_BTNH, k_BKHS, v_BKSH, segment_mask(segment_ids_BT, window), logits)


def _or_all(window: int | None, length: int) -> int:
    return length if window is None else window


def automatic(platform: str, capability: str, dtype: jnp.dtype, head_dim: int) -> str:
    """The kernel that "auto" chooses: splash on a TPU; triton on a GPU where it was checked on the card, which is
    bfloat16 and heads of 64 on compute capability 9.0 (tests/benchmarks/README.md); else xla."""
    if platform == "tpu":
        return "splash"
    checked = platform == "gpu" and (capability, dtype, head_dim) == ("9.0", jnp.bfloat16, 64)
    return "triton" if checked and importlib.util.find_spec(_TRITON) else "xla"


def block_size(length: int) -> int:
    """Queries and keys in a block of the splash kernel, for a sequence (or a device's shard of one) of that length."""
    return math.gcd(length, _LARGEST_BLOCK)


def platform() -> str:
    """The platform that is compiled for; ahead of time it is not one of this machine's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else str(device.platform)


def _spec(*axes: str | None) -> PartitionSpec:
    """The mesh axes of these logical axes."""
    return nn.logical_to_mesh_axes(axes) or PartitionSpec()


def _shard_map(kernel: Callable[..., jax.Array], specs: Any, out: PartitionSpec) -> Callable[..., jax.Array]:
    """The kernel over each device's shard; without a mesh, the kernel itself."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel
    return jax.shard_map(kernel, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)


def _splash(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array,
    *,
    logits: Logits,
    window: int | None,
    interpret: bool,
) -> jax.Array:
    """Each device runs its own rows, heads and queries; a sharded length is gathered in keys and values."""
    mesh = jax.sharding.get_abstract_mesh()
    shards = num_shards("length")
    t, n, h = q_BTNH.shape[1:]
    size = block_size(t // shards)
    sizes = splash.BlockSizes(
        block_q=size, block_kv=size, block_q_dkv=size, block_kv_dkv=size, block_q_dq=size, block_kv_dq=size
    )
    mask = splash.CausalMask((t, t)) if window is None else splash.LocalMask((t, t), (window - 1, 0), 0)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * n),
        attn_logits_soft_cap=logits.softcap,
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=shards,
        interpret=interpret,
    )

    def local(
        kernel: Callable[..., jax.Array],
        q_BNTH: jax.Array,
        k_BKSH: jax.Array,
        v_BKSH: jax.Array,
        query_ids_BT: jax.Array,
        key_ids_BS: jax.Array,
    ) -> jax.Array:
        return jax.vmap(kernel)(q_BNTH, k_BKSH, v_BKSH, splash.SegmentIds(query_ids_BT, key_ids_BS))

    queries, keys = _spec("batch", "heads", "length", None), _spec("batch", "kv_heads", None, None)
    table = None if mesh.empty else kernel.manual_sharding_spec(NamedSharding(mesh, _spec(None, "length")))
    specs = (table, queries, keys, keys, _spec("batch", "length"), _spec("batch", None))
    arrays = [jnp.swapaxes(x, 1, 2) for x in (q_BTNH * logits.scale_of(h), k_BTKH, v_BTKH)]
    return jnp.swapaxes(_shard_map(local, specs, queries)(kernel, *arrays, segment_ids_BT, segment_ids_BT), 1, 2)


def _cudnn(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_ids_BT: jax.Array, *, scale: float, on_gpu: bool
) -> jax.Array:
    same_B1TT = (segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :])[:, None]
    implementation: Literal["xla", "cudnn"] = "cudnn" if on_gpu else "xla"
    return jax.nn.dot_product_attention(
        q_BTNH, k_BTKH, v_BTKH, mask=same_B1TT, scale=scale, is_causal=True, implementation=implementation
    )


def _triton(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_ids_BT: jax.Array, *, scale: float, on_gpu: bool
) -> jax.Array:
    triton = importlib.import_module(_TRITON)

    groups = q_BTNH.shape[2] // k_BTKH.shape[2]
    k_BTNH, v_BTNH = (jnp.repeat(x, groups, axis=2) for x in (k_BTKH, v_BTKH))
    sizes = triton.BlockSizes(block_q=128, block_k=128, block_q_dkv=64, block_kv_dkv=64, block_q_dq=64, block_kv_dq=64)
    return triton.mha(
        q_BTNH, k_BTNH, v_BTNH, segment_ids_BT, scale, causal=True, block_sizes=sizes, interpret=not on_gpu
    )


_GPU_KERNELS: dict[str, Callable[..., jax.Array]] = {"cudnn": _cudnn, "triton": _triton}


def stored_kv_heads(kv_heads: int) -> int:
    """How many key/value heads are stored: the least multiple that the mesh divides, each head repeated.

    Query head n still reads stored head n // G, since G shrinks as the heads multiply.
    """
    return math.lcm(kv_heads, num_shards("kv_heads"))


def attend(
    q_BTNH: jax.Array, k_BKHS: jax.Array, v_BKSH: jax.Array, mask_BTS: jax.Array, logits: Logits = PLAIN
) -> jax.Array:
    """softmax(q kᵀ / sqrt(H)) v with float32 logits, or as `logits` says, [B, T, N, H]. Query head n reads key/value
    head n // G."""
    b, t, n, h = q_BTNH.shape
    k, s = k_BKHS.shape[1], k_BKHS.shape[3]
    # One matmul for the T queries of all G heads that share keys.
    q_BKQH = jnp.moveaxis(q_BTNH.reshape(b, t, k, n // k, h), 1, 3).reshape(b, k, -1, h)
    logits_BKQS = _matmul(q_BKQH, k_BKHS, jnp.float32)
    logits_BKGTS = logits_BKQS.reshape(b, k, n // k, t, s)
    logits_BKGTS = jnp.where(
        mask_BTS[:, None, None], capped(logits_BKGTS * logits.scale_of(h), logits.softcap), jnp.finfo(jnp.float32).min
    )
    weights_BKQS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BKSH.dtype).reshape(logits_BKQS.shape)
    out_BKQH = _matmul(weights_BKQS, v_BKSH, v_BKSH.dtype)
    return jnp.moveaxis(out_BKQH.reshape(b, k, n // k, t, h), 3, 1).reshape(b, t, n, h)


def capped(x: jax.Array, softcap: float | None) -> jax.Array:
    """softcap · tanh(x / softcap), or x (Gemma 2, arXiv 2408.00118, section 2)."""
    return x if softcap is None else softcap * jnp.tanh(x / softcap)


def _matmul(x_BKQI: jax.Array, y_BKIO: jax.Array, dtype: Any) -> jax.Array:
    """x y per head, [B, K, Q, O].

    XLA:CPU runs the narrow matmuls of a decoding step on one core, unless the contraction is split in P parts. At batch
    1 it fuses the reduction only with many splits; otherwise it copies the values (25 % of a step at 2,048 tokens).
    """
    b, k, q, i = x_BKQI.shape
    parts = math.gcd(i, 16 if b == 1 else 4) if q <= 16 and platform() == "cpu" else 1
    x_BKQPI, y_BKPIO = x_BKQI.reshape(b, k, q, parts, -1), y_BKIO.reshape(b, k, parts, i // parts, -1)
    return jnp.einsum("BKQPI,BKPIO->BKPQO", x_BKQPI, y_BKPIO, preferred_element_type=dtype).sum(2)
