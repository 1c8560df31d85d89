"""The configuration of a model: its architecture (saved beside its weights), its adapters and how it is computed."""

import dataclasses
import math

from lema_jax import ranges

LAYER_KINDS = ("global", "local", "global_nope", "local_nope")  # what a layer attends to, and whether rope turns it
QK_NORMS = ("none", "head", "all")  # of queries and keys before rope: none, of each head, of all heads at once
NORMS = ("pre", "both", "post")  # where attention and MLP are normalised: their input, input and output, their output
ACTIVATIONS = ("silu", "gelu_tanh")
ROPE_KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclasses.dataclass(unsafe_hash=True)
class RopeScaling:
    """How rotary frequencies are scaled for a context longer than the pretraining one; see `model.rope`.

    Attributes:
      kind: one of ROPE_KINDS. The fields below name the kinds that read them.
      factor: all kinds but default; how many times longer the context becomes.
      original_positions: llama3, yarn; the pretraining context in tokens.
      low_freq_factor, high_freq_factor: llama3.
      beta_fast, beta_slow, truncate: yarn.
      attention_factor: yarn; multiplies sine and cosine. None for the paper's 0.1 ln(factor) + 1.
    """

    kind: str = "default"
    factor: float = ranges.within(1.0, 0, 1e6, above=True)
    original_positions: int = ranges.within(8192, 1, 2**27)
    low_freq_factor: float = ranges.within(1.0, 0, 1e6, above=True)
    high_freq_factor: float = ranges.within(4.0, 0, 1e6, above=True)
    beta_fast: float = ranges.within(32.0, 0, 1e6, above=True)
    beta_slow: float = ranges.within(1.0, 0, 1e6, above=True)
    truncate: bool = True
    attention_factor: float | None = ranges.within(None, 0, 1e6, above=True)

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        if found := ranges.problems(self):
            return found
        if self.kind not in ROPE_KINDS:
            found.append(f"kind={self.kind!r} must be one of {', '.join(ROPE_KINDS)}")
        if self.kind == "llama3" and self.low_freq_factor >= self.high_freq_factor:
            found.append(
                f"low_freq_factor={self.low_freq_factor} must be below high_freq_factor={self.high_freq_factor}"
            )
        if self.kind == "yarn" and self.beta_slow >= self.beta_fast:
            found.append(f"beta_slow={self.beta_slow} must be below beta_fast={self.beta_fast}")
        return found


@dataclasses.dataclass(unsafe_hash=True)
class LlamaConfig:
    """The architecture: what defines the function, and nothing of how it is computed.

    The defaults are LLaMA's; the other fields say what other families do.

    Shapes: V vocabulary, D model width, L layers, N query heads, K key/value heads, H head width, F feed-forward width.

    Attributes:
      attention_bias, output_bias: on q, k and v, and on o; `output_bias=None` is as `attention_bias`.
      layer_kinds: a pattern of LAYER_KINDS, repeated over the L layers: `("local",) * 5 + ("global",)`. A local layer
        attends to the last `window` tokens, the token itself among them; a "nope" layer has no rotary positions.
      local_rope_theta: the rope base of local layers, whose positions are then unscaled; None for the base and scaling
        of the others.
      qk_norm: one of QK_NORMS.
      norms: one of NORMS.
      norm_offset: a norm multiplies by 1 + w, not by w.
      activation: one of ACTIVATIONS, of the MLP's gate.
      scale_embeddings: by sqrt(D), rounded to the dtype of activations.
      attention_width: attention logits are q kᵀ / sqrt(attention_width); None for `head_dim`.
      attention_softcap, logit_softcap: c of c · tanh(x / c), on the logits of attention and of the head; None for none.
      family: the Hugging Face `model_type` that the model is exported as; the function does not depend on it.
    """

    vocab_size: int = ranges.within(32000, 1, 2**24)  # V
    hidden_size: int = ranges.within(4096, 1, 2**20)  # D
    intermediate_size: int = ranges.within(11008, 1, 2**22)  # F
    num_layers: int = ranges.within(32, 1, 1000)  # L
    num_heads: int = ranges.within(32, 1, 2**14)  # N
    num_kv_heads: int = ranges.within(32, 1, 2**14)  # K; divides N
    head_dim: int = ranges.within(128, 1, 2**14)  # H
    max_positions: int = ranges.within(4096, 1, 2**27)  # context before rope scaling, in tokens; see `context`
    rope_theta: float = ranges.within(10000.0, 0, 1e15, above=True)
    rope_scaling: RopeScaling = dataclasses.field(default_factory=RopeScaling)
    norm_eps: float = ranges.within(1e-5, 0, 1, above=True)
    attention_bias: bool = False
    mlp_bias: bool = False  # on gate, up and down
    tie_embeddings: bool = False
    vocab_padding: int = ranges.within(0, 0, 2**20)  # unused rows of embedding and head after the first V
    output_bias: bool | None = None
    layer_kinds: tuple[str, ...] = ("global",)
    window: int = ranges.within(4096, 1, 2**27)  # in tokens
    local_rope_theta: float | None = ranges.within(None, 0, 1e15, above=True)
    qk_norm: str = "none"
    norms: str = "pre"
    norm_offset: bool = False
    activation: str = "silu"
    scale_embeddings: bool = False
    attention_width: int | None = ranges.within(None, 1, 2**20)
    attention_softcap: float | None = ranges.within(None, 0, 1e6, above=True)
    logit_softcap: float | None = ranges.within(None, 0, 1e6, above=True)
    family: str = "llama"

    @property
    def has_output_bias(self) -> bool:
        """Whether o has a bias."""
        return self.attention_bias if self.output_bias is None else self.output_bias

    @property
    def attention_scale(self) -> float:
        """The factor on q kᵀ."""
        return (self.attention_width or self.head_dim) ** -0.5

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of layers that the model has, in the order of LAYER_KINDS."""
        used = {self.kind_of(layer) for layer in range(self.num_layers)}
        return tuple(kind for kind in LAYER_KINDS if kind in used)

    def kind_of(self, layer: int) -> str:
        """The kind of a layer, counted from 0."""
        return self.layer_kinds[layer % len(self.layer_kinds)]

    @property
    def context(self) -> int:
        """The longest context in tokens, after rope scaling (as vLLM derives it)."""
        scaling = self.rope_scaling
        if self.family == "gemma3_text":  # its published `max_position_embeddings` counts positions after scaling
            return self.max_positions
        if scaling.kind in ("linear", "dynamic"):
            return max(self.max_positions, int(self.max_positions * scaling.factor))
        if scaling.kind == "yarn":
            return max(self.max_positions, int(scaling.original_positions * scaling.factor))
        return self.max_positions

    @property
    def vocab_rows(self) -> int:
        """Rows of embedding and head, padding included: the dimension that the mesh shards."""
        return self.vocab_size + self.vocab_padding

    def problems(self) -> list[str]:
        """Every rule that the fields break, as `field=value rule; remedy`."""
        if found := ranges.problems(self):
            return found
        if self.num_heads % self.num_kv_heads:
            found.append(f"num_heads={self.num_heads} must divide by num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            found.append(f"head_dim={self.head_dim} must be even (rotary embedding rotates pairs)")
        if self.rope_scaling.kind == "dynamic" and self.head_dim == 2:
            found.append("head_dim=2 has no dynamic rope; its frequencies cannot be scaled")
        for name, known in (("qk_norm", QK_NORMS), ("norms", NORMS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in known:
                found.append(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        if not self.layer_kinds or any(kind not in LAYER_KINDS for kind in self.layer_kinds):
            found.append(f"layer_kinds={self.layer_kinds!r:.80} must be one or more of {', '.join(LAYER_KINDS)}")
        return found + [f"rope_scaling.{problem}" for problem in self.rope_scaling.problems()]


BASES = ("dense", "nf4")  # formats of the frozen kernels while adapters train
KERNELS = ("dense", "int8", "nf4")  # formats of the kernels for generation
CACHES = ("dense", "int8")  # formats of keys and values


@dataclasses.dataclass(unsafe_hash=True)
class LoraConfig:
    """Low-rank adapters on all linear layers but the head (LoRA, eq. 3): y = x W + scale · dropout(x) A B.

    Attributes:
      rank, alpha, dropout: 64, 16 and 0.05 in the paper's runs.
      rslora: the scale is alpha / sqrt(rank) (arXiv 2312.03732), else alpha / rank.
      base: one of BASES; "nf4" stores W in 4 bits, in training and generation (QLoRA; see `nf4`).
    """

    rank: int = ranges.within(64, 1, 2**16)
    alpha: float = ranges.within(16.0, 0, 1e6, above=True)
    dropout: float = ranges.within(0.05, 0, 1, below=True)
    rslora: bool = False
    base: str = "dense"

    @property
    def scale(self) -> float:
        """The factor on A B."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = ranges.problems(self)
        if self.base not in BASES:
            found.append(f"base={self.base!r} must be one of {', '.join(BASES)}")
        return found


ATTENTION = ("auto", "xla", "splash", "cudnn", "triton")  # of packed sequences; see `attention.attend_segments`
REMAT = ("none", "dots", "full")  # what the backward pass recomputes: nothing, all but matmuls, entire layers


@dataclasses.dataclass(unsafe_hash=True)
class Compute:
    """How the model is computed: it changes speed, memory and rounding, not the function.

    Attributes:
      dtype: of activations, "float32" or "bfloat16".
      param_dtype: of the stored base kernels, likewise. Trained weights are stored in float32.
      scan_layers: scan one layer over stacked weights (compiles fast; for TPU), or unroll all layers (faster on CPU).
        On disk the weights are stacked either way; see `layout`.
      remat: one of REMAT.
      attention: one of ATTENTION.
      loss_chunk: positions of a row whose logits are computed at a time. Fewer take less memory; a sharded head is
        gathered for each chunk again, so take as many as fit.
    """

    dtype: str = "float32"
    param_dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"
    attention: str = "auto"
    loss_chunk: int = ranges.within(128, 1, 2**24)

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = ranges.problems(self) + [
            f"{name}={getattr(self, name)!r} must be 'float32' or 'bfloat16'"
            for name in ("dtype", "param_dtype")
            if getattr(self, name) not in ("float32", "bfloat16")
        ]
        for name, known in (("remat", REMAT), ("attention", ATTENTION)):
            if getattr(self, name) not in known:
                found.append(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        if self.attention == "cudnn" and self.dtype == "float32":
            found.append("attention='cudnn' must have dtype='bfloat16'; in float32 take 'xla' or 'triton'")
        return found
