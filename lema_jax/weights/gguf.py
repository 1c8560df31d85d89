"""Reads a GGUF file of architecture `llama` (llama.cpp's format): config and dequantised weights, without torch.

llama.cpp's rope rotates adjacent pairs of a head and Hugging Face's rotates halves, so that llama.cpp's converter
permutes the rows of the query and key projections; `read` reverses it.
"""

import re
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType as Quantization

from lema_jax.errors import UserError
from lema_jax.model import rope
from lema_jax.model.config import LlamaConfig, RopeScaling
from lema_jax.weights import gguf_header
from lema_jax.weights.names import Index

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FLOATS: dict[Quantization, Any] = {
    Quantization.F32: np.float32,
    Quantization.F16: np.float16,
    Quantization.BF16: ml_dtypes.bfloat16,
}
_LAYOUT = "Meta AI original pth"  # also the default
# Metadata `llama.…` that is read below, or that does not change the function.
_KNOWN = frozenset(
    f"llama.{key}"
    for key in (
        *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
        *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
        *("attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scaling.type"),
        *("rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.attn_factor"),
        *("rope.scale_linear", "expert_count", "expert_used_count", "rope.scaling.finetuned", "tensor_data_layout"),
    )
)


class Gguf:
    """A GGUF file as a `names.Source`, with its metadata.

    Raises:
      UserError: the file is missing, damaged, one of several, of another architecture, or has a tensor twice.
    """

    def __init__(self, path: str | Path):
        self.where = str(path)
        gguf_header.check(path)
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise UserError(f"{path} cannot be read as GGUF: {error}; is it cut short, or another format?") from None
        architecture = self.get("general.architecture", "")
        if architecture != "llama":
            raise UserError(f"{path} has a model of architecture {architecture!r}; only 'llama' can be read")
        if self.get("split.count", 1) > 1:
            raise UserError(f"{path} is one part of several; join them with llama.cpp's `llama-gguf-split --merge`")
        self._tensors: dict[str, gguf.ReaderTensor] = {}
        for tensor in self._reader.tensors:
            if (name := _hf_name(tensor.name)) in self._tensors:
                raise UserError(f"{path}: {self._tensors[name].name} and {tensor.name} are both {name}")
            self._tensors[name] = tensor
        self._rope_factors = self._tensors.pop("rope_freqs.weight", None)
        try:
            self.config = self._config()
        except UserError:
            raise
        except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise UserError(f"{path}: its metadata has values of the wrong type ({error})") from None

    def get(self, key: str, absent: Any = None) -> Any:
        """A metadata value, or `absent`; if that is None, a missing key is a UserError."""
        field = self._reader.get_field(key)
        if field is not None:
            return field.contents()
        if absent is None:
            raise UserError(f"{self.where}: its metadata lacks {key}")
        return absent

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def dtype(self, name: str) -> np.dtype:
        """The stored dtype; float32 for quantised tensors."""
        return np.dtype(_FLOATS.get(self._tensors[name].tensor_type, np.float32))

    def read(self, name: str, index: Index) -> np.ndarray:
        """A slice of a tensor, dequantised; only its rows are read from the disk."""
        heads = {"q_proj": self.config.num_heads, "k_proj": self.config.num_kv_heads}
        tensor = self._tensors[name]
        for projection, count in heads.items():
            if f".{projection}." in name:
                return _unpermute(self._dequantize(name, tensor.data), count)[index]
        return self._dequantize(name, tensor.data[index[0]])[(slice(None), *index[1:])]

    def _dequantize(self, name: str, data: np.ndarray) -> np.ndarray:
        kind = self._tensors[name].tensor_type
        try:
            return gguf.quants.dequantize(data, kind).astype(self.dtype(name), copy=False)
        except NotImplementedError:
            raise UserError(
                f"{self.where}: {name} is of type {kind.name}, which the gguf package cannot read"
            ) from None

    def _config(self) -> LlamaConfig:
        unknown = {key for key in self._reader.fields if key.startswith("llama.")} - _KNOWN
        if unknown:
            raise UserError(f"{self.where}: its metadata has {', '.join(sorted(unknown))}, which is not supported")
        if self.get("llama.expert_count", 0):
            raise UserError(f"{self.where}: a mixture of experts (llama.expert_count) is not supported")
        layout = self.get("llama.tensor_data_layout", _LAYOUT)
        if layout != _LAYOUT:
            raise UserError(f"{self.where}: llama.tensor_data_layout={layout!r} is not supported, only {_LAYOUT!r} is")
        width, heads = self.get("llama.embedding_length"), self.get("llama.attention.head_count")
        head_dim = self.get("llama.attention.key_length", width // heads)
        rotated = self.get("llama.rope.dimension_count", head_dim)
        if not head_dim == rotated == self.get("llama.attention.value_length", head_dim):
            raise UserError(f"{self.where}: head_dim {head_dim} and rope.dimension_count {rotated} must be equal")
        if "model.embed_tokens.weight" not in self._tensors:
            raise UserError(f"{self.where}: it has no token_embd.weight")
        config = LlamaConfig(
            vocab_size=self.shape("model.embed_tokens.weight")[0],
            hidden_size=width,
            intermediate_size=self.get("llama.feed_forward_length"),
            num_layers=self.get("llama.block_count"),
            num_heads=heads,
            num_kv_heads=self.get("llama.attention.head_count_kv", heads),
            head_dim=head_dim,
            max_positions=self.get("llama.context_length"),
            rope_theta=_shortest(self.get("llama.rope.freq_base", 10000.0)),
            norm_eps=_shortest(self.get("llama.attention.layer_norm_rms_epsilon")),
            attention_bias="model.layers.0.self_attn.q_proj.bias" in self._tensors,
            mlp_bias="model.layers.0.mlp.gate_proj.bias" in self._tensors,
            tie_embeddings="lm_head.weight" not in self._tensors,
        )
        config.rope_scaling = self._scaling(config)
        if found := config.problems():
            raise UserError(f"{self.where}: " + "; ".join(found))
        return config

    def _scaling(self, config: LlamaConfig) -> RopeScaling:
        if self._rope_factors is not None:
            return self._llama3(config, np.array(self._rope_factors.data, np.float32))
        factor = _shortest(self.get("llama.rope.scaling.factor", self.get("llama.rope.scale_linear", 1.0)))
        kind = self.get("llama.rope.scaling.type", "none" if factor == 1.0 else "linear")
        if kind == "none" or factor == 1.0:
            return RopeScaling()
        if kind == "linear":
            return RopeScaling("linear", factor)
        if kind == "yarn" and self.get("llama.rope.scaling.attn_factor", 1.0) == 1.0:
            return RopeScaling("yarn", factor, self.get("llama.rope.scaling.original_context_length"))
        raise UserError(f"{self.where}: rope scaling {kind!r} is not supported, or not with its attn_factor")

    def _llama3(self, config: LlamaConfig, divisors: np.ndarray) -> RopeScaling:
        """Recovers the scaling from the divisor of each pair's frequency, which llama.cpp stores."""
        plain, _ = rope.frequencies(config)
        scaling = RopeScaling("llama3", _shortest(divisors.max()), 8192, 1.0, 4.0)  # as in all of Meta's releases
        config.rope_scaling = scaling
        scaled, _ = rope.frequencies(config)
        if divisors.shape != plain.shape or not np.allclose(plain / divisors, scaled, rtol=1e-4):
            raise UserError(f"{self.where}: rope_freqs.weight is not Llama 3's scaling for a context of 8192")
        return scaling


def _hf_name(name: str) -> str:
    """Hugging Face's name of a tensor; an unknown name stays, for `names.check_model` to refuse."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in _NAMES:
        return name
    layer = "" if match[1] is None else f"model.layers.{match[1]}."
    return f"{layer}{_NAMES[match[2]]}.{match[3]}"


def _unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of adjacent pairs (0, 1), (2, 3), … of each head -> first halves, then second halves."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _shortest(value: Any) -> float:
    """The shortest decimal of a float32: 9.999999747378752e-06 -> 1e-05."""
    return float(str(np.float32(value)))
