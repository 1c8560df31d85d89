"""Flops of a training step by formula, to be held against what the compiled program does.

A product of activations [tokens, I] and a kernel [I, O] takes 2 · tokens · I · O, forward once, and in the backward
pass once for each gradient that is wanted; a layer computed anew in the backward pass takes its forward part again.
"""

import dataclasses
import math

from lema_jax.ahead import kernels
from lema_jax.model.attention import LANES
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig


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
        return self.rows * self.length


def by_formula(step: Step) -> float:
    """Flops of one training step over all chips, as it is compiled with `remat` none or full."""
    return _kernels(step) + _head(step) + _attention(step) + (_adapters(step) if step.lora else 0.0)


def model_flops(step: Step) -> float:
    """The flops that the method asks for, nothing computed anew, attention causal: what MFU is counted in."""
    plain = dataclasses.replace(step, compute=dataclasses.replace(step.compute, remat="none"))
    return by_formula(plain)


def _linears(model: LlamaConfig) -> list[tuple[int, int]]:
    """(I, O) of a layer's kernels; `down` last."""
    d, f = model.hidden_size, model.intermediate_size
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    return [(d, queries), (d, keys), (d, keys), (queries, d), (d, f), (d, f), (f, d)]


def _kernels(step: Step) -> float:
    sizes = [math.prod(size) for size in _linears(step.model)]
    passes = 2 if step.lora else 3
    again = sum(sizes[:-1]) if step.compute.remat == "full" else 0  # nothing reads what `down` makes again
    return 2.0 * step.tokens * step.model.num_layers * (passes * sum(sizes) + again)


def _head(step: Step) -> float:
    passes = (2 if step.lora else 3) + 1  # logits are always computed anew
    return 2.0 * step.tokens * step.model.hidden_size * step.model.vocab_rows * passes


def _adapters(step: Step) -> float:
    assert step.lora
    sizes = [step.lora.rank * (inputs + outputs) for inputs, outputs in _linears(step.model)]
    again = 0.0
    if step.compute.remat == "full":
        inputs, _ = _linears(step.model)[-1]
        again = (
            sum(sizes[:-1]) + step.lora.rank * inputs
        )  # B's gradient reads x A of `down`, nothing its product with B
    return 2.0 * step.tokens * step.model.num_layers * (3 * sum(sizes) + again)


def _attention(step: Step) -> float:
    heads = step.rows * step.model.num_layers * step.model.num_heads
    forward = 2 if step.compute.remat == "full" else 1
    if step.compute.attention != "xla" and step.length % LANES == 0:
        count = kernels.PRODUCTS["fwd"] * forward + kernels.PRODUCTS["dq"] + kernels.PRODUCTS["dkv"]
        return count * kernels.product(heads, step.length, step.length, step.model.head_dim)
    return (2 * forward + 4) * 2.0 * heads * step.length**2 * step.model.head_dim
