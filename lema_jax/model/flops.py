"""Flops of a training step by formula: what MFU is counted in, and what a compiled program is held against.

A product of activations [tokens, I] and a kernel [I, O] takes 2 · tokens · I · O, forward once, and in the backward
pass once for each gradient that is wanted; a layer computed anew in the backward pass takes its forward part again.
"""

import dataclasses
import math

from lema_jax.model import attention
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig

# Products of a block in each of splash attention's kernels: q kᵀ and p v; q kᵀ, do vᵀ and ds k; q kᵀ, do vᵀ, pᵀ do and
# dsᵀ q.
SPLASH = {"fwd": 2, "dq": 3, "dkv": 4}


@dataclasses.dataclass(frozen=True)
class Step:
    """What a training step computes: the architecture, how, adapters or not, rows [B, T] of a global batch."""

    model: LlamaConfig
    compute: Compute
    lora: LoraConfig | None
    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """Padding among them."""
        return self.rows * self.length


def by_formula(step: Step) -> float:
    """Flops of one training step over all devices, as it is compiled for a TPU."""
    head = _head(step) * _passes(step)  # logits are never computed anew
    return _kernels(step, step.compute.remat) + head + _attention(step) + _adapters(step, step.compute.remat)


def model_flops(step: Step) -> float:
    """The flops that the method asks for, which MFU is counted in: nothing computed anew, attention causal, every token
    of a row counted, weights that are frozen without a gradient of their own."""
    causal = 6.0 * _heads(step) * step.length * (step.length + 1) * step.model.head_dim  # two products and four
    return _kernels(step, "none") + _head(step) * _passes(step) + causal + _adapters(step, "none")


def splash_product(heads: int, queries: int, keys: int, width: int) -> float:
    """Flops of one causal product [T, H] × [H, S] for that many heads: the kernel leaves out whole blocks alone."""
    blocks = queries // attention.block(queries)
    return 2.0 * heads * queries * keys * width * (blocks + 1) / (2 * blocks)


def _passes(step: Step) -> int:
    """Of a base kernel: forward, the gradient of its input, and its own where it is trained."""
    return 2 if step.lora else 3


def _heads(step: Step) -> int:
    """In all rows and layers."""
    return step.rows * step.model.num_layers * step.model.num_heads


def _linears(model: LlamaConfig) -> list[tuple[int, int]]:
    """(I, O) of a layer's kernels; `down` last."""
    d, f = model.hidden_size, model.intermediate_size
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    return [(d, queries), (d, keys), (d, keys), (queries, d), (d, f), (d, f), (f, d)]


def _kernels(step: Step, remat: str) -> float:
    sizes = [math.prod(size) for size in _linears(step.model)]
    again = sum(sizes[:-1]) if remat == "full" else 0  # nothing reads what `down` makes again
    return 2.0 * step.tokens * step.model.num_layers * (_passes(step) * sum(sizes) + again)


def _head(step: Step) -> float:
    return 2.0 * step.tokens * step.model.hidden_size * step.model.vocab_rows


def _adapters(step: Step, remat: str) -> float:
    if step.lora is None:
        return 0.0
    sizes = [step.lora.rank * (inputs + outputs) for inputs, outputs in _linears(step.model)]
    again = 0
    if remat == "full":
        inputs, _ = _linears(step.model)[-1]
        # B's gradient reads x A of `down`, nothing its product with B
        again = sum(sizes[:-1]) + step.lora.rank * inputs
    return 2.0 * step.tokens * step.model.num_layers * (3 * sum(sizes) + again)


def _attention(step: Step) -> float:
    forward = 1 if step.compute.remat == "none" else 2
    if step.compute.attention in ("auto", "splash") and step.length % attention.LANES == 0:
        count = SPLASH["fwd"] * forward + SPLASH["dq"] + SPLASH["dkv"]
        return count * splash_product(_heads(step), step.length, step.length, step.model.head_dim)
    return (2 * forward + 4) * 2.0 * _heads(step) * step.length**2 * step.model.head_dim
