"""LLaMA in Flax Linen: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Shapes: B batch, T time, S cache length, D width, N query heads, K key/value heads, H head width, F feed-forward width,
V vocabulary, L layers. `parallel.sharding` maps the logical axis names to mesh axes.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lema_jax.model import attention, rope
from lema_jax.model.cache import Cache
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.model.linear import MATMUL, Linear, block_input, block_output, gather, shard, shard_tokens

HEADS = ("batch", "length", "heads", "head_dim")  # logical axes of activations: q_BTNH,
KV_HEADS = ("batch", "length", "kv_heads", "head_dim")  # k_BTKH and v_BTKH,
HIDDEN = ("batch", "length", "mlp")  # and h_BTF

SinCos = tuple[jax.Array, jax.Array]  # of `rope.sin_cos`


def linears(compute: Compute, lora: LoraConfig | None, bias: bool) -> Callable[..., Linear]:
    """The `Linear` of a block, to be called with features and axes."""
    return functools.partial(Linear, lora=lora, bias=bias, dtype=compute.dtype, param_dtype=compute.param_dtype)


class RMSNorm(nn.Module):
    """x / rms(x) · scale, computed in float32."""

    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
        scale_D = self.param("scale", init, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        normed = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        return (normed * jnp.broadcast_to(scale_D, x.shape)).astype(self.dtype)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions, over packed sequences or over a cache."""

    config: LlamaConfig
    compute: Compute
    lora: LoraConfig | None
    deterministic: bool

    def setup(self) -> None:
        c, linear = self.config, linears(self.compute, self.lora, self.config.attention_bias)
        self.q = linear(c.num_heads * c.head_dim, ("embed", "heads"))
        self.k = linear(c.num_kv_heads * c.head_dim, ("embed", "kv_heads"))
        self.v = linear(c.num_kv_heads * c.head_dim, ("embed", "kv_heads"))
        self.o = linear(c.hidden_size, ("heads", "embed"))

    def __call__(
        self,
        x_BTD: jax.Array,
        cache: Cache | None,
        layer: int | jax.Array,
        sin_cos: SinCos,
        visible: jax.Array,
        start_B: jax.Array | None,
    ) -> tuple[jax.Array, Cache | None]:
        """(output [B, T, D], the cache with T more tokens); for the arguments see `Layer`."""
        c, det = self.config, self.deterministic

        def heads(y: jax.Array, count: int) -> jax.Array:
            if cache is not None:  # barrier: else a TPU fuses matmul and reshape, and copies q's kernel
                return jax.lax.optimization_barrier(y).reshape(*y.shape[:2], count, c.head_dim)
            # Transposed before rope: 0.5 % fewer HBM bytes in a training step (SmolLM2-360M with adapters, v5e).
            y_BNTH = jnp.swapaxes(y.reshape(*y.shape[:2], count, c.head_dim), 1, 2)
            return jnp.swapaxes(jax.lax.optimization_barrier(y_BNTH), 1, 2)

        x_BTD, adapted_BTD = block_input(x_BTD)
        q_BTNH = shard(rope.rotate(heads(self.q(x_BTD, det, adapted_BTD), c.num_heads), sin_cos), *HEADS)
        k_BTKH = rope.rotate(heads(self.k(x_BTD, det, adapted_BTD), c.num_kv_heads), sin_cos)
        v_BTKH = heads(self.v(x_BTD, det, adapted_BTD), c.num_kv_heads)
        copies = attention.stored_kv_heads(c.num_kv_heads) // c.num_kv_heads
        if copies > 1:
            k_BTKH, v_BTKH = jnp.repeat(k_BTKH, copies, axis=2), jnp.repeat(v_BTKH, copies, axis=2)
        k_BTKH, v_BTKH = shard(k_BTKH, *KV_HEADS), shard(v_BTKH, *KV_HEADS)
        if cache is None:
            out_BTNH = attention.attend_segments(q_BTNH, k_BTKH, v_BTKH, visible, self.compute.attention)
        else:
            assert start_B is not None
            cache = cache.write(layer, k_BTKH, v_BTKH, start_B)
            k_BKHS, v_BKSH = cache.read(layer, self.compute.dtype)
            out_BTNH = attention.attend(q_BTNH, k_BKHS, v_BKSH, visible)
        out_BTNH = shard(out_BTNH, *HEADS)
        return self.o(out_BTNH.reshape(*x_BTD.shape[:2], -1), det), cache


class MLP(nn.Module):
    """SwiGLU: (silu(x G) · x U) W."""

    config: LlamaConfig
    compute: Compute
    lora: LoraConfig | None
    deterministic: bool

    def setup(self) -> None:
        c, linear = self.config, linears(self.compute, self.lora, self.config.mlp_bias)
        self.gate = linear(c.intermediate_size, ("embed", "mlp"))
        self.up = linear(c.intermediate_size, ("embed", "mlp"))
        self.down = linear(c.hidden_size, ("mlp", "embed"))

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        det = self.deterministic
        x_BTD, adapted_BTD = block_input(x_BTD)
        h_BTF = shard(nn.silu(self.gate(x_BTD, det, adapted_BTD)) * self.up(x_BTD, det, adapted_BTD), *HIDDEN)
        return self.down(h_BTF, det)


class Layer(nn.Module):
    """One transformer layer. The cache is part of the scan's carry, so that XLA updates it in place."""

    config: LlamaConfig
    compute: Compute
    lora: LoraConfig | None
    deterministic: bool

    def setup(self) -> None:
        shared = (self.config, self.compute, self.lora, self.deterministic)
        self.attn_norm = RMSNorm(self.config.norm_eps, self.compute.dtype)
        self.attn = Attention(*shared)
        self.mlp_norm = RMSNorm(self.config.norm_eps, self.compute.dtype)
        self.mlp = MLP(*shared)

    def __call__(
        self,
        carry: tuple[jax.Array, Cache | None],
        layer: int | jax.Array,
        sin_cos: SinCos,
        visible: jax.Array,
        start_B: jax.Array | None,
    ) -> tuple[tuple[jax.Array, Cache | None], None]:
        """(x [B, T, D], cache) -> the same, as `nn.scan` wants it.

        Args:
          layer: index of this layer in the cache.
          sin_cos: of `rope.sin_cos`.
          visible: what each token attends to: segment ids [B, T]; with a cache, a mask [B, T, S] over it.
          start_B: position of the first token, with a cache.
        """
        x_BTD, cache = carry
        attended_BTD, cache = self.attn(self.attn_norm(x_BTD), cache, layer, sin_cos, visible, start_B)
        x_BTD = x_BTD + block_output(attended_BTD)
        x_BTD = x_BTD + block_output(self.mlp(self.mlp_norm(x_BTD)))
        return (x_BTD, cache), None


class Llama(nn.Module):
    """A causal language model.

    Collections: `params` (the base weights) and, with `lora`, `lora` (the adapters).

    Attributes:
      config: the architecture.
      compute: dtypes, layer layout, rematerialisation.
      lora: adapter shape, or None.
      deterministic: False turns the adapters' dropout on; `apply` then needs the rng `dropout`.
    """

    config: LlamaConfig
    compute: Compute = Compute()
    lora: LoraConfig | None = None
    deterministic: bool = True

    def setup(self) -> None:
        c, run = self.config, self.compute
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        self.embed = nn.Embed(c.vocab_rows, c.hidden_size, run.dtype, run.param_dtype, init)
        shared = (c, run, self.lora, self.deterministic)
        layer = Layer
        if run.remat != "none":
            policy = jax.checkpoint_policies.save_only_these_names(MATMUL) if run.remat == "dots" else None
            layer = nn.remat(Layer, policy=policy, prevent_cse=not run.scan_layers)
        if run.scan_layers:
            self.layers = nn.scan(
                layer,
                variable_axes={"params": 0, "lora": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=c.num_layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(*shared)
        else:
            self.layers = [layer(*shared) for _ in range(c.num_layers)]
        self.norm = RMSNorm(c.norm_eps, run.dtype)
        if not c.tie_embeddings:
            self.head = linears(run, None, False)(c.vocab_rows, ("embed", "vocab"))

    def __call__(
        self, tokens_BT: jax.Array, positions_BT: jax.Array | None = None, segment_ids_BT: jax.Array | None = None
    ) -> jax.Array:
        """Logits [B, T, V] of the next tokens, in float32.

        `positions_BT` counts from 0 in each segment, and a token attends to its own segment; by default a row is one.
        """
        return self.logits(self.trunk(tokens_BT, positions_BT, segment_ids_BT))

    def trunk(
        self, tokens_BT: jax.Array, positions_BT: jax.Array | None = None, segment_ids_BT: jax.Array | None = None
    ) -> jax.Array:
        """The normalised output of the last layer, [B, T, D]: the input of `logits`."""
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        if segment_ids_BT is None:
            segment_ids_BT = jnp.zeros_like(tokens_BT)
        dynamic = self.config.rope_scaling.kind == "dynamic"
        length_BT = rope.text_lengths(positions_BT, segment_ids_BT) if dynamic else jnp.zeros((1, 1), jnp.int32)
        sin_cos = rope.sin_cos(self.config, positions_BT, length_BT)
        x_BTD, _ = self._run(tokens_BT, sin_cos, segment_ids_BT, None, None)
        return block_input(self.norm(x_BTD))[0]

    def extend(
        self, tokens_BT: jax.Array, start_B: jax.Array, cache: Any, length_B: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Appends T tokens to rows of `start_B` tokens in the cache: (trunk output [B, T, D], the longer cache).

        `length_B`: tokens of each text, if padded or appended in several calls; by default start + T.
        """
        positions_BT = start_B[:, None] + jnp.arange(tokens_BT.shape[1])[None]
        cache_length = (cache if self.compute.scan_layers else cache[0]).length
        length_B1 = (start_B + tokens_BT.shape[1] if length_B is None else length_B)[:, None]
        sin_cos = rope.sin_cos(self.config, positions_BT, length_B1)
        visible_BTS = attention.cache_mask(positions_BT, cache_length)
        x_BTD, cache = self._run(tokens_BT, sin_cos, visible_BTS, cache, start_B)
        return block_input(self.norm(x_BTD))[0], cache

    def logits(self, x: jax.Array) -> jax.Array:
        """[…, D] -> […, V] in float32; -inf for the padding of the vocabulary."""
        logits = (x @ self._table().T if self.config.tie_embeddings else self.head(x)).astype(jnp.float32)
        if self.config.vocab_padding == 0:
            return logits
        row = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        return jnp.where(row < self.config.vocab_size, logits, -jnp.inf)

    def _table(self) -> jax.Array:
        """The embeddings [V, D] in the dtype of activations."""
        return gather(self.embed.embedding.astype(self.compute.dtype), ("vocab", "embed"))

    def _run(
        self, tokens_BT: jax.Array, sin_cos: SinCos, visible: jax.Array, cache: Any, start_B: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        # A lookup in a sharded table costs more than gathering it.
        x_BTD = shard_tokens(jnp.take(self._table(), tokens_BT, axis=0))
        if self.compute.scan_layers:
            index_L = jnp.arange(self.config.num_layers)
            (x_BTD, cache), _ = self.layers((x_BTD, cache), index_L, sin_cos, visible, start_B)
            return x_BTD, cache
        caches = cache if cache is not None else [None] * self.config.num_layers
        written = []
        for layer, own in zip(self.layers, caches):
            (x_BTD, own), _ = layer((x_BTD, own), 0, sin_cos, visible, start_B)
            written.append(own)
        return x_BTD, None if cache is None else tuple(written)


def at_use(weights: Any, compute: Compute) -> Any:
    """Weights (or adapters) in the dtype of activations, except norm scales.

    Layers cast to it anyway, so that gradients are the same and take half the bytes.
    """

    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        return leaf if path[-1].key == "scale" else leaf.astype(compute.dtype)

    return jax.tree_util.tree_map_with_path(cast, weights)
