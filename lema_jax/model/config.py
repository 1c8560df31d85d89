"""What a LLaMA is (saved beside its weights) and how adapters are shaped. Plain dataclasses, overridable by flags."""

import dataclasses
import math

ROPE_KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclasses.dataclass(unsafe_hash=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the context a model was first trained on; see `model.rope`.

    Attributes:
      kind: one of ROPE_KINDS. A field that a kind does not name is not read.
      factor: all kinds but default; how many times longer the context becomes.
      original_positions: llama3, yarn; the context, in tokens, before stretching.
      low_freq_factor, high_freq_factor: llama3.
      beta_fast, beta_slow, truncate: yarn.
      attention_factor: yarn; on sine and cosine. None for the paper's 0.1 ln(factor) + 1.
    """

    kind: str = "default"
    factor: float = 1.0
    original_positions: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = []
        if self.kind not in ROPE_KINDS:
            found.append(f"kind={self.kind!r} must be one of {', '.join(ROPE_KINDS)}")
        if self.factor <= 0:
            found.append(f"factor={self.factor} must be positive")
        if self.original_positions <= 0:
            found.append(f"original_positions={self.original_positions} must be positive")
        if self.kind == "llama3" and self.low_freq_factor >= self.high_freq_factor:
            found.append(
                f"low_freq_factor={self.low_freq_factor} must be below high_freq_factor={self.high_freq_factor}"
            )
        if self.kind == "yarn" and self.beta_slow >= self.beta_fast:
            found.append(f"beta_slow={self.beta_slow} must be below beta_fast={self.beta_fast}")
        return found


@dataclasses.dataclass(unsafe_hash=True)
class LlamaConfig:
    """The architecture: everything that the numbers of a forward pass depend on, and nothing of how it is run.

    Shape letters used throughout: V vocabulary, D model width, L layers, N query heads, K key/value heads,
    H width of a head, F feed-forward width.
    """

    vocab_size: int = 32000  # V
    hidden_size: int = 4096  # D
    intermediate_size: int = 11008  # F
    num_layers: int = 32  # L
    num_heads: int = 32  # N
    num_kv_heads: int = 32  # K; divides N
    head_dim: int = 128  # H
    max_positions: int = 4096  # trained context length, in tokens; before linear and dynamic stretching, see `context`
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling = dataclasses.field(default_factory=RopeScaling)
    norm_eps: float = 1e-5
    attention_bias: bool = False  # on q, k, v and o
    mlp_bias: bool = False  # on gate, up and down
    tie_embeddings: bool = False
    vocab_padding: int = 0  # rows of embedding and head beyond V that stand for no token and are never chosen

    @property
    def context(self) -> int:
        """How many tokens the model can be used to: the stretched length, as vLLM has it too."""
        scaling = self.rope_scaling
        if scaling.kind in ("linear", "dynamic"):
            return max(self.max_positions, int(self.max_positions * scaling.factor))
        if scaling.kind == "yarn":
            return max(self.max_positions, int(scaling.original_positions * scaling.factor))
        return self.max_positions

    @property
    def vocab_rows(self) -> int:
        """Of embedding and head: what a mesh cuts."""
        return self.vocab_size + self.vocab_padding

    def problems(self) -> list[str]:
        """Every rule that the fields break, as `field=value rule; remedy`."""
        found = [
            f"{field.name}={getattr(self, field.name)} must be positive"
            for field in dataclasses.fields(self)
            if field.type in (int, float) and field.name != "vocab_padding" and getattr(self, field.name) <= 0
        ]
        if self.vocab_padding < 0:
            found.append(f"vocab_padding={self.vocab_padding} must not be negative")
        if self.num_kv_heads > 0 and self.num_heads % self.num_kv_heads:
            found.append(f"num_heads={self.num_heads} must divide by num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            found.append(f"head_dim={self.head_dim} must be even (rotary embedding turns pairs)")
        if self.rope_scaling.kind == "dynamic" and self.head_dim == 2:
            found.append("head_dim=2 has no dynamic rope; its frequencies cannot be stretched")
        return found + [f"rope_scaling.{problem}" for problem in self.rope_scaling.problems()]


BASES = ("dense", "nf4")  # what the kernels under adapters are held as while these train,
KERNELS = ("dense", "int8", "nf4")  # what kernels can be held as to answer,
CACHES = ("dense", "int8")  # and keys and values


@dataclasses.dataclass(unsafe_hash=True)
class LoraConfig:
    """Low-rank adapters on all linear layers but the head (LoRA, eq. 3): y = x W + scale · dropout(x) A B.

    Attributes:
      rank, alpha, dropout: 64, 16 and 0.05 in the paper's runs.
      rslora: the scale is alpha / sqrt(rank) (arXiv 2312.03732), else alpha / rank.
      base: one of BASES; "nf4" holds W in 4 bits while the adapters train and answer (QLoRA; see `nf4`).
    """

    rank: int = 64
    alpha: float = 16.0
    dropout: float = 0.05
    rslora: bool = False
    base: str = "dense"

    @property
    def scale(self) -> float:
        """Of the adapters' part in the sum."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = []
        if self.base not in BASES:
            found.append(f"base={self.base!r} must be one of {', '.join(BASES)}")
        if self.rank <= 0:
            found.append(f"rank={self.rank} must be positive; leave lora unset to train all weights")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout={self.dropout} must be in [0, 1)")
        return found


ATTENTION = ("auto", "xla", "splash")  # of whole sequences; see `attention.within`
REMAT = ("none", "dots", "full")  # what the backward pass recomputes: nothing, all but matmuls, each whole layer


@dataclasses.dataclass(unsafe_hash=True)
class Compute:
    """How the numbers are computed: it changes speed, memory and rounding, not the model.

    Attributes:
      dtype: of activations, "float32" or "bfloat16".
      param_dtype: of the base kernels in memory, likewise. Weights in training are kept in float32.
      scan_layers: one compiled layer looped over stacked weights (compiles fast; for TPU), or every layer in line with
        leaves of its own (faster on CPU). On disk the weights are stacked either way; see `layout`.
      remat: one of REMAT.
      attention: one of ATTENTION.
      loss_chunk: positions of a row whose logits exist at a time. Few hold less memory; where kernels are cut, the head
        is gathered for each chunk anew, so that a chunk should be as long as memory allows.
    """

    dtype: str = "float32"
    param_dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"
    attention: str = "auto"
    loss_chunk: int = 128

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = [
            f"{name}={getattr(self, name)!r} must be 'float32' or 'bfloat16'"
            for name in ("dtype", "param_dtype")
            if getattr(self, name) not in ("float32", "bfloat16")
        ]
        for name, known in (("remat", REMAT), ("attention", ATTENTION)):
            if getattr(self, name) not in known:
                found.append(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        if self.loss_chunk < 1:
            found.append(f"loss_chunk={self.loss_chunk} must be at least 1")
        return found
