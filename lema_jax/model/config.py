"""What a LLaMA is (saved beside its weights) and how adapters are shaped. Plain dataclasses, overridable by flags."""

import dataclasses


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
    max_positions: int = 4096  # trained context length, in tokens
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = False

    def problems(self) -> list[str]:
        """Every rule that the fields break, as `field=value rule; remedy`."""
        found = [
            f"{field.name}={getattr(self, field.name)} must be positive"
            for field in dataclasses.fields(self)
            if field.type in (int, float) and getattr(self, field.name) <= 0
        ]
        if self.num_kv_heads > 0 and self.num_heads % self.num_kv_heads:
            found.append(f"num_heads={self.num_heads} must divide by num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            found.append(f"head_dim={self.head_dim} must be even (rotary embedding turns pairs)")
        return found


@dataclasses.dataclass(unsafe_hash=True)
class LoraConfig:
    """Low-rank adapters on all linear layers but the head (LoRA, eq. 3): y = x W + (alpha / rank) · dropout(x) A B."""

    rank: int = 64  # the paper's QLoRA runs: 64, alpha 16, dropout 0.05
    alpha: float = 16.0
    dropout: float = 0.05

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = []
        if self.rank <= 0:
            found.append(f"rank={self.rank} must be positive; leave lora unset to train all weights")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout={self.dropout} must be in [0, 1)")
        return found


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
    """

    dtype: str = "float32"
    param_dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = [
            f"{name}={getattr(self, name)!r} must be 'float32' or 'bfloat16'"
            for name in ("dtype", "param_dtype")
            if getattr(self, name) not in ("float32", "bfloat16")
        ]
        if self.remat not in REMAT:
            found.append(f"remat={self.remat!r} must be one of {', '.join(REMAT)}")
        return found
