"""Adapters added into the weights that they adapt, as these are or as nf4 holds them."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from lema_jax.model import nf4
from lema_jax.model.config import LoraConfig
from lema_jax.weights.names import EMBEDDING, HEAD, LINEARS, Index, Source, find, whole


class _Over:
    """A Source with the tensors of another, some of which are read as something else.

    `dtype` stays that of the base: what they are rounded to is for the reader to say.
    """

    def __init__(self, base: Source):
        self.where = base.where
        self._base = base

    def names(self) -> list[str]:
        return list(self._base.names())

    def shape(self, name: str) -> tuple[int, ...]:
        return self._base.shape(name)

    def dtype(self, name: str) -> np.dtype:
        return self._base.dtype(name)


class Replaced(_Over):
    """A Source of which some weights are another's.

    Args:
      by: the other.
      untied: the embedding stood for the head too; the head is a weight of its own now.
    """

    def __init__(self, base: Source, by: Source, untied: bool):
        super().__init__(base)
        own = list(base.names())
        self._from: dict[str, tuple[Source, str]] = {name: (base, name) for name in own}
        if untied and HEAD not in own:
            self._from[HEAD] = (base, EMBEDDING)
        self._base_name = {name: of for name, (_, of) in self._from.items()}
        self._from |= {name: (by, name) for name in by.names()}

    def names(self) -> list[str]:
        return list(self._from)

    def shape(self, name: str) -> tuple[int, ...]:
        source, own = self._from[name]
        return source.shape(own)

    def dtype(self, name: str) -> np.dtype:
        return self._base.dtype(self._base_name[name])

    def read(self, name: str, index: Index) -> np.ndarray:
        source, own = self._from[name]
        return source.read(own, index)


class Merged(_Over):
    """A Source whose adapted weights are W + scale · A B, computed in float32 one tensor at a time."""

    def __init__(self, base: Source, adapters: dict[str, Any], lora: LoraConfig):
        super().__init__(base)
        self._scale = lora.scale
        self._adapters: dict[str, tuple[Any, Any, int]] = {}
        for hf, path, _ in LINEARS:
            if (pair := find(adapters, f"layers/{path}")) is not None:
                for layer in range(pair["a"].shape[0]):
                    self._adapters[f"model.layers.{layer}.{hf}.weight"] = pair["a"], pair["b"], layer

    def read(self, name: str, index: Index) -> np.ndarray:
        weight = self._base.read(name, index)
        if name not in self._adapters:
            return weight
        a, b, layer = self._adapters[name]
        outputs, inputs = index  # theirs is [out, in]
        a_IR = np.asarray(a[layer][inputs], np.float32)
        b_RO = np.asarray(b[layer][:, outputs], np.float32)
        return weight.astype(np.float32) + np.float32(self._scale) * (a_IR @ b_RO).T


class Dequantised(_Over):
    """A Source whose linear layers but the head have the values that nf4 holds: what QLoRA's adapters train upon.

    Raises:
      UserError: on reading, a weight that nf4 cannot hold.
    """

    def read(self, name: str, index: Index) -> np.ndarray:
        if not any(name.endswith(f".{hf}.weight") for hf, _, _ in LINEARS):
            return self._base.read(name, index)
        kernel = whole(self._base, name).T  # tiles are of the whole, whichever part is asked for
        nf4.check(name, kernel.shape)
        return np.asarray(nf4.dequantise(nf4.quantise(kernel), jnp.float32)).T[index]
