"""What a LLaMA is (saved beside its weights) and how adapters are shaped. Plain dataclasses, overridable by flags."""

import dataclasses


@dataclasses.dataclass
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


@dataclasses.dataclass
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
