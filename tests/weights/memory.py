"""Random tensors under Hugging Face's names, and a Source that has them in memory."""

import numpy as np

from lema_jax.model.config import LlamaConfig
from lema_jax.weights import names
from lema_jax.weights.names import Index


def tensors(config: LlamaConfig, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Every tensor of a model of that config."""
    random = np.random.default_rng(0)
    return {
        name: random.normal(size=entry.hf_shape).astype(dtype) for entry in names.table(config) for name in entry.names
    }


class Memory:
    """A `names.Source` that notes what is read of it, as (name, size)."""

    where = "memory"

    def __init__(self, tensors: dict[str, np.ndarray]):
        self.tensors = tensors
        self.reads: list[tuple[str, int]] = []

    def names(self):
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self.tensors[name].dtype

    def read(self, name: str, index: Index) -> np.ndarray:
        part = self.tensors[name][index]
        self.reads.append((name, part.size))
        return part
