"""Flops of a training step by formula: the numerator of MFU, and a check on the compiled program.

A matmul of activations [tokens, I] and a kernel [I, O] takes 2 · tokens · I · O flops in the forward pass, as many for
each gradient in the backward pass, and as many again where rematerialisation recomputes it.
"""

import dataclasses
import math

from lema_jax.model import attention
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig

# Matmuls in splash attention's kernels: q kᵀ, p v; q kᵀ, do vᵀ, ds k; q kᵀ, do vᵀ, pᵀ do, dsᵀ q.
SPLASH_MATMULS = {"fwd": 2, "dq": 3, "dkv": 4}


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step: the architecture, how it is computed, its adapters, and the global batch of rows × length.

    Attributes:
      logits_first: logits are computed once more, for their value: a loss of pairs weighs its gradients by it.
      reference: the base under the adapters has a forward pass of its own.
    """

    model: LlamaConfig
    compute: Compute
    lora: LoraConfig | None
    rows: int
    length: int
    logits_first: bool = False
    reference: bool = False

    @property
    def tokens(self) -> int:
        """Of a global batch, padding included."""
        return self.rows * self.length


def by_formula(step: Step) -> float:
    """Flops of one training step over all devices, as compiled for a TPU."""
    head = _head(step) * (_passes(step) + step.logits_first)  # no remat policy recomputes logits
    reference = step.reference * (_forward(step) + _attention(step, 1, backward=False))
    kernels, adapters = _kernels(step, step.compute.remat), _adapters(step, step.compute.remat)
    return kernels + head + _attention(step, 1 if step.compute.remat == "none" else 2) + adapters + reference


def model_flops(step: Step) -> float:
    """Model flops, the numerator of MFU: no recomputation, causal attention, padding counted, no gradient of frozen
    weights."""
    seen = sum(window * (window + 1) / 2 + (step.length - window) * window for window in _windows(step))
    causal = 12.0 * step.rows * step.model.num_heads * seen * step.model.head_dim  # 2 matmuls forward, 4 back
    reference = step.reference * (_forward(step) + causal / 3)
    return _kernels(step, "none") + _head(step) * _passes(step) + causal + _adapters(step, "none") + reference


def splash_matmul(heads: int, queries: int, keys: int, width: int, window: int | None = None) -> float:
    """Flops of one causal matmul [T, H] × [H, S] for that many heads: the kernel skips masked blocks, not elements.

    `window`: tokens that a query attends to, itself among them; None for all.
    """
    size = attention.block_size(queries)
    blocks = queries // size
    reach = blocks if window is None else -(-(window - 1) // size)  # blocks before its own that a query sees
    seen = sum(min(block, reach) + 1 for block in range(blocks))
    return 2.0 * heads * queries * keys * width * seen / blocks**2


def _passes(step: Step) -> int:
    """Matmuls per base kernel: forward, gradient of the input and, if it is trained, gradient of the kernel."""
    return 2 if step.lora else 3


def _windows(step: Step) -> list[int]:
    """Of each layer, in tokens; the whole row where it has none."""
    kinds = [step.model.kind_of(layer) for layer in range(step.model.num_layers)]
    return [min(step.model.window, step.length) if kind.startswith("local") else step.length for kind in kinds]


def _linears(model: LlamaConfig) -> list[tuple[int, int]]:
    """(I, O) of a layer's kernels; the MLP's `down` last."""
    d, f = model.hidden_size, model.intermediate_size
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    return [(d, queries), (d, keys), (d, keys), (queries, d), (d, f), (d, f), (f, d)]


def _kernels(step: Step, remat: str) -> float:
    sizes = [math.prod(size) for size in _linears(step.model)]
    again = sum(sizes[:-1]) if remat == "full" else 0  # XLA drops the recomputed output of `down`, which is unused
    return 2.0 * step.tokens * step.model.num_layers * (_passes(step) * sum(sizes) + again)


def _forward(step: Step) -> float:
    """The base kernels and the head in a forward pass, without attention."""
    sizes = [math.prod(size) for size in _linears(step.model)]
    return 2.0 * step.tokens * step.model.num_layers * sum(sizes) + _head(step)


def _head(step: Step) -> float:
    return 2.0 * step.tokens * step.model.hidden_size * step.model.vocab_rows


def _adapters(step: Step, remat: str) -> float:
    if step.lora is None:
        return 0.0
    sizes = [step.lora.rank * (inputs + outputs) for inputs, outputs in _linears(step.model)]
    again = 0
    if remat == "full":
        inputs, _ = _linears(step.model)[-1]
        # of `down`, only B's gradient uses a recomputed value, x A
        again = sum(sizes[:-1]) + step.lora.rank * inputs
    return 2.0 * step.tokens * step.model.num_layers * (3 * sum(sizes) + again)


def _attention(step: Step, forward: int, backward: bool = True) -> float:
    """Of so many forward passes, and a backward one."""
    heads, width = step.rows * step.model.num_heads, step.model.head_dim
    if step.compute.attention in ("auto", "splash") and step.length % attention.LANES == 0:
        count = SPLASH_MATMULS["fwd"] * forward + backward * (SPLASH_MATMULS["dq"] + SPLASH_MATMULS["dkv"])
        each = (splash_matmul(heads, step.length, step.length, width, window) for window in _windows(step))
        return count * sum(each)
    return (2 * forward + 4 * backward) * 2.0 * heads * step.model.num_layers * step.length**2 * width
