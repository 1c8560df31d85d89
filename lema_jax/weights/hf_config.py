"""`config.json` of a Hugging Face folder <-> LlamaConfig.

A key that would change the numbers and is not supported is an error that names it: it is never ignored.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, RopeScaling

# Keys that leave the network's function alone: book-keeping, initialisation, generation, splitting for speed.
_HARMLESS = frozenset(
    {
        "_attn_implementation_autoset",
        "_commit_hash",
        "_flash_attn_2_enabled",
        "_model_name_or_path",
        "_name_or_path",
        "attn_implementation",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "do_sample",
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "id2label",
        "initializer_range",
        "is_llama_config",
        "label2id",
        "max_length",
        "max_new_tokens",
        "max_sequence_length",
        "model_max_length",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "sep_token_id",
        "task_specific_params",
        "temperature",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers.js_config",
        "transformers_version",
        "unk_token_id",
        "unsloth_fixed",
        "unsloth_version",
        "use_cache",
    }
)

# What a rope type reads besides theta: keys that it must have, and keys that it may.
_ROPE_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "dynamic": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor"}, {"original_max_position_embeddings"}),
    "yarn": (
        {"factor"},
        {
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        },
    ),
}

One = Annotated[float, pydantic.Field(ge=1.0, le=1.0)]
Zero = Annotated[float, pydantic.Field(ge=0.0, le=0.0)]


class _Rope(pydantic.BaseModel, extra="forbid"):
    rope_type: str = "default"
    rope_theta: float | None = None
    partial_rotary_factor: One = 1.0
    factor: float = 1.0
    original_max_position_embeddings: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    @pydantic.model_validator(mode="before")
    @classmethod
    def _old_name(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "type" not in data:
            return data
        rest = {key: value for key, value in data.items() if key != "type"}
        if rest.setdefault("rope_type", data["type"]) != data["type"]:
            raise ValueError(f"type={data['type']!r} contradicts rope_type={rest['rope_type']!r}")
        return rest

    @pydantic.model_validator(mode="after")
    def _keys_of_its_type(self) -> "_Rope":
        if self.rope_type not in _ROPE_KEYS:
            raise ValueError(f"rope_type {self.rope_type!r} is not supported ({', '.join(_ROPE_KEYS)} are)")
        must, may = _ROPE_KEYS[self.rope_type]
        given = {key for key in self.model_fields_set if getattr(self, key) is not None}
        given -= {"rope_type", "rope_theta", "partial_rotary_factor"}
        if must - given:
            raise ValueError(f"rope_type {self.rope_type!r} needs {', '.join(sorted(must - given))}")
        if given - must - may:
            raise ValueError(f"rope_type {self.rope_type!r} does not read {', '.join(sorted(given - must - may))}")
        return self


class _HfConfig(pydantic.BaseModel, extra="forbid"):
    """The keys that shape the numbers, with transformers' defaults for absent ones."""

    architectures: tuple[Literal["LlamaForCausalLM"], ...] | None = None
    model_type: Literal["llama"]
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: Literal["silu"] = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: _Rope | None = None
    rope_parameters: _Rope | None = None
    rope_interleaved: Literal[False] = False
    partial_rotary_factor: One = 1.0
    attention_bias: bool = False
    attention_dropout: Zero = 0.0
    mlp_bias: bool = False
    tie_word_embeddings: bool = False


def read(folder: str | Path) -> LlamaConfig:
    """The config of a Hugging Face folder.

    Raises:
      UserError: no readable `config.json`, or see `parse`.
    """
    path = Path(folder) / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is {folder} a Hugging Face model folder?") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    return parse(raw, str(path))


def parse(raw: dict[str, Any], where: str) -> LlamaConfig:
    """A LlamaConfig from the content of a `config.json`; `where` is for error messages.

    Raises:
      UserError: naming every key that is missing, malformed, or would change the result and is not supported.
    """
    shaping = {key: value for key, value in raw.items() if key not in _HARMLESS and value is not None}
    try:
        hf = _HfConfig.model_validate(shaping)
    except pydantic.ValidationError as error:
        problems = "\n  ".join(_problem(found) for found in error.errors(include_url=False))
        raise UserError(f"{where} is not a LLaMA that can be converted faithfully:\n  {problems}") from None
    config = LlamaConfig(
        vocab_size=hf.vocab_size,
        hidden_size=hf.hidden_size,
        intermediate_size=hf.intermediate_size,
        num_layers=hf.num_hidden_layers,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_attention_heads if hf.num_key_value_heads is None else hf.num_key_value_heads,
        head_dim=hf.hidden_size // hf.num_attention_heads if hf.head_dim is None else hf.head_dim,
        max_positions=hf.max_position_embeddings,
        rope_theta=_theta(hf),
        rope_scaling=_scaling(hf.rope_scaling or hf.rope_parameters or _Rope(), hf.max_position_embeddings),
        norm_eps=hf.rms_norm_eps,
        attention_bias=hf.attention_bias,
        mlp_bias=hf.mlp_bias,
        tie_embeddings=hf.tie_word_embeddings,
    )
    if found := config.problems():
        raise UserError(f"{where}: " + "; ".join(found))
    return config


def _problem(found: Any) -> str:
    key = ".".join(map(str, found["loc"]))
    if found["type"] == "extra_forbidden":
        return f"{key}={found['input']!r} is not supported, and might change the result"
    if found["type"] == "missing":
        return f"{key} is missing"
    return f"{key}={found['input']!r}: {found['msg']}"


def _theta(hf: _HfConfig) -> float:
    for rope in (hf.rope_scaling, hf.rope_parameters):
        if rope is not None and rope.rope_theta is not None:
            return rope.rope_theta
    return hf.rope_theta


def _scaling(rope: _Rope, max_positions: int) -> RopeScaling:
    original = rope.original_max_position_embeddings
    if rope.rope_type == "llama3":
        return RopeScaling(
            kind="llama3",
            factor=rope.factor,
            original_positions=original or max_positions,
            low_freq_factor=rope.low_freq_factor,
            high_freq_factor=rope.high_freq_factor,
        )
    if rope.rope_type == "yarn":
        return RopeScaling(
            kind="yarn",
            factor=rope.factor,
            original_positions=original or max_positions,
            beta_fast=rope.beta_fast or 32.0,
            beta_slow=rope.beta_slow or 1.0,
            truncate=rope.truncate,
            attention_factor=_attention_factor(rope),
        )
    return RopeScaling(kind=rope.rope_type, factor=rope.factor)


def _attention_factor(rope: _Rope) -> float | None:
    """As given, or from the two scales of DeepSeek's form of it, or None for the usual."""
    if rope.attention_factor is not None or not (rope.mscale and rope.mscale_all_dim):
        return rope.attention_factor
    log = math.log(max(1.0, rope.factor))
    return (0.1 * rope.mscale * log + 1.0) / (0.1 * rope.mscale_all_dim * log + 1.0)


def to_hf(config: LlamaConfig, dtype: str, special: Mapping[str, int | list[int] | None]) -> dict[str, Any]:
    """The content of a `config.json`; the inverse of `parse`.

    Args:
      dtype: the type of the stored weights, "float32", "bfloat16" or "float16".
      special: `bos_token_id`, `eos_token_id` (one or several), `pad_token_id`.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_to_hf(config.rope_scaling),
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": dtype,
        "use_cache": True,
        **special,
    }


def _rope_to_hf(scaling: RopeScaling) -> dict[str, Any] | None:
    if scaling.kind == "default":
        return None
    values = {
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_positions,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "attention_factor": scaling.attention_factor,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
        "truncate": scaling.truncate,
    }
    must, may = _ROPE_KEYS[scaling.kind]
    read = {key: value for key, value in values.items() if key in must | may and value is not None}
    return {"rope_type": scaling.kind, **read}
