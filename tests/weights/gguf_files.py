"""Writes small GGUF files the way llama.cpp's converter lays them out."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantization

from lema_jax.model.config import LlamaConfig


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Halves of each head -> neighbouring pairs, as llama.cpp wants the rows of query and key projections."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write(
    path: Path,
    config: LlamaConfig,
    weights: dict[str, np.ndarray],
    kind: Quantization = Quantization.F32,
    architecture: str = "llama",
    more: dict[str, Any] | None = None,
    raw: dict[str, tuple[np.ndarray, Quantization]] | None = None,
) -> Path:
    """A GGUF with matrices quantised to `kind`; norms and biases stay float32. Names are those of llama.cpp's table.

    `raw`: further tensors by GGUF's own names, bytes as they are stored.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    for key, value in (more or {}).items():
        add(writer, key, value)
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    named = gguf.get_tensor_name_map(kinds.get(architecture, gguf.MODEL_ARCH.LLAMA), config.num_layers)
    for name, weight in weights.items():
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            weight = permute(weight, config.num_heads if "q_proj" in name else config.num_kv_heads)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            weight = weight + 1
        quantised = kind if weight.ndim == 2 else Quantization.F32
        theirs = named.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(theirs, gguf.quants.quantize(weight, quantised), raw_dtype=quantised)
    for name, (array, stored) in (raw or {}).items():
        writer.add_tensor(name, array, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """A metadata value of the type that llama.cpp's converter would choose."""
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)
