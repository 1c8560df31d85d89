"""Sources derived from others: weights replaced, adapters merged, kernels rounded to nf4."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from lema_jax.model import nf4
from lema_jax.model.config import LoraConfig
from lema_jax.weights.names import EMBEDDING, HEAD, LINEARS, Index, Source, View, read_whole


class Replaced(View):
    """A Source of which some weights are another's, with the base's dtypes: the reader rounds to them.

    Args:
      by: the other.
      untied: the embedding was the head too; now the head is a weight of its own.
    """

    def __init__(self, base: Source, by: Source, untied: bool):
        self._stored: dict[str, tuple[Source, str]] = {name: (base, name) for name in base.names()}
        if untied:
            self._stored.setdefault(HEAD, (base, EMBEDDING))
        super().__init__(base.where, self._stored | {name: (by, name) for name in by.names()})

    def dtype(self, name: str) -> np.dtype:
        source, own = self._stored[name]
        return source.dtype(own)


class Merged(View):
    """A Source whose adapted weights are W + scale · A B, in float32, one tensor at a time."""

    def __init__(self, base: Source, adapters: dict[str, Any], lora: LoraConfig):
        super().__init__(base.where, {name: (base, name) for name in base.names()})
        self._scale = lora.scale
        self._adapters: dict[str, tuple[Any, Any, int]] = {}
        factors = traverse_util.flatten_dict(adapters, sep="/")
        for hf, path, _ in LINEARS:
            if f"layers/{path}/a" in factors:
                a, b = factors[f"layers/{path}/a"], factors[f"layers/{path}/b"]
                for layer in range(a.shape[0]):
                    self._adapters[f"model.layers.{layer}.{hf}.weight"] = a, b, layer

    def read(self, name: str, index: Index) -> np.ndarray:
        weight = super().read(name, index)
        if name not in self._adapters:
            return weight
        a, b, layer = self._adapters[name]
        outputs, inputs = index  # Hugging Face's weight is [out, in]
        a_IR = np.asarray(a[layer][inputs], np.float32)
        b_RO = np.asarray(b[layer][:, outputs], np.float32)
        return weight.astype(np.float32) + np.float32(self._scale) * (a_IR @ b_RO).T


class Dequantised(View):
    """A Source whose linear layers, except the head, are rounded to nf4: the base of QLoRA's adapters.

    Raises:
      UserError: on reading, a weight whose shape does not fit nf4.
    """

    def __init__(self, base: Source):
        super().__init__(base.where, {name: (base, name) for name in base.names()})
        self._base = base

    def read(self, name: str, index: Index) -> np.ndarray:
        if not any(name.endswith(f".{hf}.weight") for hf, _, _ in LINEARS):
            return self._base.read(name, index)
        kernel = read_whole(self._base, name).T  # tiles need the entire kernel, whatever the index
        nf4.check(name, kernel.shape)
        return np.asarray(nf4.dequantise(nf4.quantise(kernel), jnp.float32)).T[index]
