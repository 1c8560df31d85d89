"""A transformer in Flax Linen: RMSNorm, rotary positions, grouped-query attention, a gated MLP.

`LlamaConfig` says how it differs from LLaMA: biases, norms, windows and rope by layer, activation, scales, soft caps.

Shapes: B batch, T time, S cache length, D width, N query heads, K key/value heads, H head width, F feed-forward width,
V vocabulary, L layers. `parallel.sharding` maps the logical axis names to mesh axes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lema_jax.model import attention, rope
from lema_jax.model.cache import Cache
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.model.linear import MATMUL, Linear, block_input, block_output, gather, lookup, shard, shard_tokens

HEADS = ("batch", "length", "heads", "head_dim")  # logical axes of activations: q_BTNH,
KV_HEADS = ("batch", "length", "kv_heads", "head_dim")  # k_BTKH and v_BTKH,
HIDDEN = ("batch", "length", "mlp")  # and h_BTF

SinCos = tuple[jax.Array, jax.Array]  # of `rope.sin_cos`

_ACTIVATIONS = {"silu": nn.silu, "gelu_tanh": functools.partial(nn.gelu, approximate=True)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Views:
    """What the layers of each kind see. Each field has one entry by kind (`LlamaConfig.kinds`), or one for all.

    Attributes:
      sin_cos: of `rope.of_kind`.
      visible: what each token attends to: segment ids [B, T]; with a cache, a mask [B, T, S] over it.
      windows: of training, in tokens; None for all. With a cache they are part of the masks.
    """

    sin_cos: tuple[SinCos, ...]
    visible: tuple[jax.Array, ...]
    windows: tuple[int | None, ...] = dataclasses.field(default=(None,), metadata={"static": True})

    def of(self, kind: int) -> "Views":
        """Those of one kind."""
        own = lambda parts: parts if len(parts) == 1 else parts[kind : kind + 1]
        return Views(own(self.sin_cos), own(self.visible), own(self.windows))


def _pick(parts: tuple[Any, ...], kind: jax.Array | None) -> Any:
    """The entry of a kind, a scalar that may be traced."""
    if kind is None or len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *arrays: jax.lax.select_n(kind, *arrays), *parts)


def linears(compute: Compute, lora: LoraConfig | None, bias: bool) -> Callable[..., Linear]:
    """The `Linear` of a block, to be called with features and axes."""
    return functools.partial(Linear, lora=lora, bias=bias, dtype=compute.dtype, param_dtype=compute.param_dtype)


class RMSNorm(nn.Module):
    """x / rms(x) · scale, or · (1 + scale) with an offset, computed in float32."""

    epsilon: float
    dtype: Any
    offset: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        start = nn.initializers.zeros_init() if self.offset else nn.initializers.ones_init()
        init = nn.with_logical_partitioning(start, ("norm",))
        scale_D = self.param("scale", init, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        normed = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        if self.offset:
            scale_D = 1.0 + scale_D
        return (normed * jnp.broadcast_to(scale_D, x.shape)).astype(self.dtype)


def norm(config: LlamaConfig, compute: Compute) -> RMSNorm:
    """A norm of the model."""
    return RMSNorm(config.norm_eps, compute.dtype, config.norm_offset)


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
        self.o = linears(self.compute, self.lora, c.has_output_bias)(c.hidden_size, ("heads", "embed"))
        if c.qk_norm != "none":
            self.q_norm, self.k_norm = norm(c, self.compute), norm(c, self.compute)

    def __call__(
        self,
        x_BTD: jax.Array,
        cache: Cache | None,
        layer: int | jax.Array,
        kind: jax.Array | None,
        views: Views,
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

        def turned(y: jax.Array, count: int, normalise: RMSNorm | None) -> jax.Array:
            """Heads of queries or keys, normalised and rotated."""
            if normalise is not None:
                y = normalise(y) if c.qk_norm == "all" else normalise(heads(y, count))
            return rope.rotate(y if y.ndim == 4 else heads(y, count), sin_cos)

        sin_cos = _pick(views.sin_cos, kind)
        q_norm, k_norm = (None, None) if c.qk_norm == "none" else (self.q_norm, self.k_norm)
        x_BTD, adapted_BTD = block_input(x_BTD)
        q_BTNH = shard(turned(self.q(x_BTD, det, adapted_BTD), c.num_heads, q_norm), *HEADS)
        k_BTKH = turned(self.k(x_BTD, det, adapted_BTD), c.num_kv_heads, k_norm)
        v_BTKH = heads(self.v(x_BTD, det, adapted_BTD), c.num_kv_heads)
        copies = attention.stored_kv_heads(c.num_kv_heads) // c.num_kv_heads
        if copies > 1:
            k_BTKH, v_BTKH = jnp.repeat(k_BTKH, copies, axis=2), jnp.repeat(v_BTKH, copies, axis=2)
        k_BTKH, v_BTKH = shard(k_BTKH, *KV_HEADS), shard(v_BTKH, *KV_HEADS)
        logits = attention.Logits(c.attention_scale, c.attention_softcap)
        if cache is None:
            which = kind if len(views.windows) > 1 else None
            out_BTNH = attention.attend_segments(
                q_BTNH, k_BTKH, v_BTKH, views.visible[0], self.compute.attention, logits, views.windows, which
            )
        else:
            assert start_B is not None
            cache = cache.write(layer, k_BTKH, v_BTKH, start_B)
            k_BKHS, v_BKSH = cache.read(layer, self.compute.dtype)
            out_BTNH = attention.attend(q_BTNH, k_BKHS, v_BKSH, _pick(views.visible, kind), logits)
        out_BTNH = shard(out_BTNH, *HEADS)
        return self.o(out_BTNH.reshape(*x_BTD.shape[:2], -1), det), cache


class MLP(nn.Module):
    """SwiGLU: (silu(x G) · x U) W; or GeGLU, with gelu."""

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
        gate_BTF = _ACTIVATIONS[self.config.activation](self.gate(x_BTD, det, adapted_BTD))
        h_BTF = shard(gate_BTF * self.up(x_BTD, det, adapted_BTD), *HIDDEN)
        return self.down(h_BTF, det)


class Layer(nn.Module):
    """One transformer layer. The cache is part of the scan's carry, so that XLA updates it in place."""

    config: LlamaConfig
    compute: Compute
    lora: LoraConfig | None
    deterministic: bool

    def setup(self) -> None:
        shared = (self.config, self.compute, self.lora, self.deterministic)
        if self.config.norms != "post":
            self.attn_norm, self.mlp_norm = norm(self.config, self.compute), norm(self.config, self.compute)
        if self.config.norms != "pre":
            self.attn_post_norm, self.mlp_post_norm = norm(self.config, self.compute), norm(self.config, self.compute)
        self.attn = Attention(*shared)
        self.mlp = MLP(*shared)

    def __call__(
        self,
        carry: tuple[jax.Array, Cache | None],
        layer: int | jax.Array,
        kind: jax.Array | None,
        views: Views,
        start_B: jax.Array | None,
    ) -> tuple[tuple[jax.Array, Cache | None], None]:
        """(x [B, T, D], cache) -> the same, as `nn.scan` wants it.

        Args:
          layer: index of this layer in the cache.
          kind: index of this layer's kind in `views`; None if they are of one kind.
          views: what each kind of layer sees.
          start_B: position of the first token, with a cache.
        """
        before, after = self.config.norms != "post", self.config.norms != "pre"
        x_BTD, cache = carry
        y_BTD, cache = self.attn(self.attn_norm(x_BTD) if before else x_BTD, cache, layer, kind, views, start_B)
        y_BTD = block_output(y_BTD)
        x_BTD = x_BTD + (self.attn_post_norm(y_BTD) if after else y_BTD)
        y_BTD = block_output(self.mlp(self.mlp_norm(x_BTD) if before else x_BTD))
        x_BTD = x_BTD + (self.mlp_post_norm(y_BTD) if after else y_BTD)
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
                in_axes=(0, 0, nn.broadcast, nn.broadcast),
                length=c.num_layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(*shared)
        else:
            self.layers = [layer(*shared) for _ in range(c.num_layers)]
        self.norm = norm(c, run)
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
        windows = self._by_kind(self._window, self._window)
        views = Views(self._sin_cos(positions_BT, length_BT), (segment_ids_BT,), windows)
        x_BTD, _ = self._run(tokens_BT, views, None, None)
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
        sin_cos = self._sin_cos(positions_BT, length_B1)
        mask_of = lambda kind: attention.cache_mask(positions_BT, cache_length, self._window(kind))
        views = Views(sin_cos, self._by_kind(mask_of, self._window))
        x_BTD, cache = self._run(tokens_BT, views, cache, start_B)
        return block_input(self.norm(x_BTD))[0], cache

    def logits(self, x: jax.Array) -> jax.Array:
        """[…, D] -> […, V] in float32; -inf for the padding of the vocabulary."""
        logits = (x @ self._table().T if self.config.tie_embeddings else self.head(x)).astype(jnp.float32)
        logits = attention.capped(logits, self.config.logit_softcap)
        if self.config.vocab_padding == 0:
            return logits
        row = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        return jnp.where(row < self.config.vocab_size, logits, -jnp.inf)

    def _table(self) -> jax.Array:
        """The embeddings [V, D] in the dtype of activations."""
        return gather(self.embed.embedding.astype(self.compute.dtype), ("vocab", "embed"))

    def _window(self, kind: str) -> int | None:
        return self.config.window if kind.startswith("local") else None

    def _sin_cos(self, positions_BT: jax.Array, length_BT: jax.Array) -> tuple[SinCos, ...]:
        c = self.config
        return self._by_kind(
            lambda kind: rope.of_kind(c, kind, positions_BT, length_BT),
            lambda kind: "none" if kind.endswith("nope") else c.local_rope_theta if kind == "local" else None,
        )

    def _by_kind(self, make: Callable[[str], Any], differs_by: Callable[[str], Any]) -> tuple[Any, ...]:
        """What `make` gives for each kind of layer, or once where no two kinds differ."""
        kinds = self.config.kinds
        return tuple(map(make, kinds if len(set(map(differs_by, kinds))) > 1 else kinds[:1]))

    def _run(self, tokens_BT: jax.Array, views: Views, cache: Any, start_B: jax.Array | None) -> tuple[jax.Array, Any]:
        c = self.config
        # A lookup in a sharded table costs more than gathering it.
        x_BTD = shard_tokens(lookup(self._table(), tokens_BT))
        if c.scale_embeddings:
            x_BTD = x_BTD * jnp.asarray(c.hidden_size**0.5, x_BTD.dtype)
        kinds = c.kinds
        kind_of = [kinds.index(c.kind_of(layer)) for layer in range(c.num_layers)]
        if self.compute.scan_layers:
            index_L, kind_L = jnp.arange(c.num_layers), jnp.array(kind_of) if len(kinds) > 1 else None
            (x_BTD, cache), _ = self.layers((x_BTD, cache), index_L, kind_L, views, start_B)
            return x_BTD, cache
        caches = cache if cache is not None else [None] * c.num_layers
        written = []
        for layer, kind, own in zip(self.layers, kind_of, caches):
            (x_BTD, own), _ = layer((x_BTD, own), 0, None, views.of(kind), start_B)
            written.append(own)
        return x_BTD, None if cache is None else tuple(written)


def at_use(weights: Any, compute: Compute) -> Any:
    """Weights (or adapters) in the dtype of activations, except norm scales.

    Layers cast to it anyway, so that gradients are the same and take half the bytes.
    """

    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        return leaf if path[-1].key == "scale" else leaf.astype(compute.dtype)

    return jax.tree_util.tree_map_with_path(cast, weights)
