"""Adapters added into the weights that they adapt."""

from typing import Any

import numpy as np

from lema_jax.model.config import LoraConfig
from lema_jax.weights.names import LINEARS, Index, Source, find


class Merged:
    """A Source whose adapted weights are W + scale · A B, computed in float32 one tensor at a time.

    `dtype` stays that of the base: what the sum is rounded to is for the reader to say.
    """

    def __init__(self, base: Source, adapters: dict[str, Any], lora: LoraConfig):
        self.where = base.where
        self._base = base
        self._scale = lora.scale
        self._adapters: dict[str, tuple[Any, Any, int]] = {}
        for hf, path, _ in LINEARS:
            if (pair := find(adapters, f"layers/{path}")) is not None:
                for layer in range(pair["a"].shape[0]):
                    self._adapters[f"model.layers.{layer}.{hf}.weight"] = pair["a"], pair["b"], layer

    def names(self) -> list[str]:
        return list(self._base.names())

    def shape(self, name: str) -> tuple[int, ...]:
        return self._base.shape(name)

    def dtype(self, name: str) -> np.dtype:
        return self._base.dtype(name)

    def read(self, name: str, index: Index) -> np.ndarray:
        weight = self._base.read(name, index)
        if name not in self._adapters:
            return weight
        a, b, layer = self._adapters[name]
        outputs, inputs = index  # theirs is [out, in]
        a_IR = np.asarray(a[layer][inputs], np.float32)
        b_RO = np.asarray(b[layer][:, outputs], np.float32)
        return weight.astype(np.float32) + np.float32(self._scale) * (a_IR @ b_RO).T
