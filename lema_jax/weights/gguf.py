"""Reads a GGUF file (llama.cpp's format): config and dequantised weights, without torch.

What an architecture means is in the table of `families`. llama.cpp's rope rotates adjacent pairs of a head in some of
them and Hugging Face's rotates halves, so that llama.cpp's converter permutes the rows of the query and key
projections; `read` reverses it.
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
from lema_jax.weights import families, gguf_header, hf_config, names
from lema_jax.weights.names import Index

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# The norms of a layer, in the order of `names.NORMS`.
_NORMS = {
    "pre": ("attn_norm", "ffn_norm"),
    "both": ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"),
}
_FLOATS: dict[Quantization, Any] = {
    Quantization.F32: np.float32,
    Quantization.F16: np.float16,
    Quantization.BF16: ml_dtypes.bfloat16,
}
_LAYOUT = "Meta AI original pth"  # also the default
# Metadata of every architecture that says what a key of `config.json` says.
_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
# The rest of what is read below, or does not change the function.
_OTHER_KEYS = hf_config.key_set(
    """
    vocab_size attention.key_length attention.value_length rope.dimension_count rope.scaling.type rope.scaling.factor
    rope.scaling.original_context_length rope.scaling.attn_factor rope.scale_linear expert_count expert_used_count
    rope.scaling.finetuned tensor_data_layout
    """
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
        self.architecture = str(self.get("general.architecture", ""))
        if self.architecture not in families.BY_ARCHITECTURE:
            why = families.refusal({"model_type": self.architecture}, "architecture", families.BY_ARCHITECTURE)
            raise UserError(f"{path} has a model of architecture {self.architecture!r:.80}; {why}")
        self._family = families.BY_ARCHITECTURE[self.architecture]
        assert self._family.gguf is not None  # it is in that table
        self._as_written = self._family.gguf
        if self.get("split.count", 1) > 1:
            raise UserError(f"{path} is one part of several; join them with llama.cpp's `llama-gguf-split --merge`")
        self._tensors: dict[str, gguf.ReaderTensor] = {}
        for tensor in self._reader.tensors:
            if (name := self._hf_name(tensor.name)) in self._tensors:
                raise UserError(f"{path}: {self._tensors[name].name} and {tensor.name} are both {name}")
            self._tensors[name] = tensor
        self._rope_factors = self._tensors.pop("rope_freqs.weight", None)
        try:
            self.config = self._config()
        except UserError:
            raise
        except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise UserError(f"{path}: its metadata has values of the wrong type ({error})") from None

    def _hf_name(self, name: str) -> str:
        """Hugging Face's name of a tensor; an unknown name stays, for `names.check_model` to refuse."""
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
        norms = self._family.always.get("norms", "pre")
        known = _NAMES | {ours: theirs for ours, (theirs, _) in zip(_NORMS[norms], names.NORMS[norms])}
        if match is None or match[2] not in known:
            return name
        layer = "" if match[1] is None else f"model.layers.{match[1]}."
        return f"{layer}{known[match[2]]}.{match[3]}"

    def get(self, key: str, absent: Any = None) -> Any:
        """A metadata value, or `absent`; if that is None, a missing key is a UserError; so is no UTF-8."""
        field = self._reader.get_field(key)
        if field is not None:
            try:
                return field.contents()
            except UnicodeDecodeError:
                raise UserError(f"{self.where}: {key} holds text that is not UTF-8") from None
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
            if self._as_written.permuted and f".{projection}." in name:
                return _unpermute(self._dequantize(name, tensor.data), count)[index]
        part = self._dequantize(name, tensor.data[index[0]])[(slice(None), *index[1:])]
        return part - 1 if self.config.norm_offset and name.endswith("norm.weight") else part

    def _dequantize(self, name: str, data: np.ndarray) -> np.ndarray:
        kind = self._tensors[name].tensor_type
        try:
            return gguf.quants.dequantize(data, kind).astype(self.dtype(name), copy=False)
        except NotImplementedError:
            raise UserError(
                f"{self.where}: {name} is of type {kind.name}, which the gguf package cannot read"
            ) from None

    def _own(self, key: str, absent: Any = None) -> Any:
        """`get` of a key of the architecture's."""
        return self.get(f"{self.architecture}.{key}", absent)

    def _config(self) -> LlamaConfig:
        own = {key for key in self._reader.fields if key.startswith(f"{self.architecture}.")}
        keys = {**_KEYS, **self._as_written.keys}
        if unknown := own - {f"{self.architecture}.{key}" for key in keys.keys() | _OTHER_KEYS}:
            raise UserError(f"{self.where}: its metadata has {', '.join(sorted(unknown))}, which is not supported")
        if self._own("expert_count", 0):
            raise UserError(f"{self.where}: a mixture of experts ({self.architecture}.expert_count) is not supported")
        layout = self._own("tensor_data_layout", _LAYOUT)
        if layout != _LAYOUT:
            raise UserError(f"{self.where}: tensor_data_layout={layout!r} is not supported, only {_LAYOUT!r} is")
        width, heads = self._own("embedding_length"), self._own("attention.head_count")
        head_dim = self._own("attention.key_length", width // heads)
        rotated = self._own("rope.dimension_count", head_dim)
        if not head_dim == rotated == self._own("attention.value_length", head_dim):
            raise UserError(f"{self.where}: head_dim {head_dim} and rope.dimension_count {rotated} must be equal")
        if names.EMBEDDING not in self._tensors:
            raise UserError(f"{self.where}: it has no token_embd.weight")
        raw = {keys[key]: self._own(key) for key in keys if f"{self.architecture}.{key}" in own}
        raw |= {key: _shortest(value) for key, value in raw.items() if isinstance(value, float)}
        raw |= {
            "model_type": self._family.model_type,
            "vocab_size": self.shape(names.EMBEDDING)[0],
            "head_dim": head_dim,
            "tie_word_embeddings": names.HEAD not in self._tensors,
        }
        for key, linear in (("attention_bias", "self_attn.q_proj"), ("mlp_bias", "mlp.gate_proj")):
            if key in self._family.keys:  # else the family has it always, or never
                raw[key] = f"model.layers.0.{linear}.bias" in self._tensors
        config = hf_config.parse({**raw, **self._as_written.derived(raw)}, self.where)
        config.rope_scaling = self._scaling(config)
        if found := config.problems():
            raise UserError(f"{self.where}: " + "; ".join(found))
        return config

    def _scaling(self, config: LlamaConfig) -> RopeScaling:
        if self._rope_factors is not None:
            return self._llama3(config, np.array(self._rope_factors.data, np.float32))
        factor = _shortest(self._own("rope.scaling.factor", self._own("rope.scale_linear", 1.0)))
        kind = self._own("rope.scaling.type", "none" if factor == 1.0 else "linear")
        if kind == "none" or factor == 1.0:
            return RopeScaling()
        if kind == "linear":
            return RopeScaling("linear", factor)
        if kind == "yarn" and self._own("rope.scaling.attn_factor", 1.0) == 1.0:
            return RopeScaling("yarn", factor, self._own("rope.scaling.original_context_length"))
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


def _unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of adjacent pairs (0, 1), (2, 3), … of each head -> first halves, then second halves."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _shortest(value: Any) -> float:
    """The shortest decimal of a float32: 9.999999747378752e-06 -> 1e-05."""
    return float(str(np.float32(value)))
