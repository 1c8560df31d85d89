"""Families of models: what a Hugging Face `model_type` means in terms of one configurable transformer.

A row is all that a family is: adding one touches this table, and its test. Facts are transformers' (`models/*`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol


class Keys(Protocol):
    """The keys of a `config.json` from which the kinds of layers follow."""

    num_hidden_layers: int
    sliding_window: int | None
    max_window_layers: int
    sliding_window_pattern: int
    layer_types: list[Any]
    no_rope_layers: list[Any]
    no_rope_layer_interval: int


@dataclasses.dataclass(frozen=True)
class Gguf:
    """How llama.cpp writes a family. Its norms of 1 + w are stored as such, and its linear layers as Hugging Face's.

    Attributes:
      architecture: its name.
      permuted: rope rotates adjacent pairs, so that the rows of q and k are permuted; else halves, as Hugging Face's.
      keys: metadata keys that no other architecture has, and the keys of `config.json` that they are.
      derived: more keys of `config.json`, which llama.cpp computes from those that it stores.
    """

    architecture: str
    permuted: bool = False
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    derived: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda raw: {}


@dataclasses.dataclass(frozen=True)
class Family:
    """One `model_type`.

    Attributes:
      model_type: its name.
      architectures: classes of its text model; the first is written.
      keys: what it reads besides the keys that all families read.
      defaults: transformers' values of absent keys, where they are not LLaMA's.
      harmless: keys that its published configs have, and that it does not read.
      always: fields of `LlamaConfig` that are the same for all of its models.
      is_local: whether a layer, counted from 0, has a window where `layer_types` does not say so.
      gguf: as llama.cpp writes it; None if that cannot be read.
    """

    model_type: str
    architectures: tuple[str, ...]
    keys: frozenset[str]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    harmless: frozenset[str] = frozenset()
    always: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_local: Callable[[Keys, int], bool] = lambda keys, layer: False
    gguf: Gguf | None = None


def _keys(names: str) -> frozenset[str]:
    return frozenset(names.split())


_GEMMA_KEYS = (
    "hidden_activation attention_bias query_pre_attn_scalar sliding_window layer_types final_logit_softcapping"
)
_GEMMA_DEFAULTS = {
    "hidden_activation": "gelu_pytorch_tanh",
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
_GEMMA = {"norms": "both", "norm_offset": True, "scale_embeddings": True}
_QWEN_KEYS = "hidden_act use_sliding_window sliding_window max_window_layers layer_types"
_QWEN_DEFAULTS = {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "use_sliding_window": False,
}
_after_first: Callable[[Keys, int], bool] = lambda keys, layer: (
    keys.sliding_window is not None and layer >= keys.max_window_layers
)


def _gemma3_width(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """llama.cpp knows the 27B model, whose logits are scaled by the width per head, by its number of layers."""
    wide = raw.get("num_hidden_layers") == 62
    return {"query_pre_attn_scalar": raw["hidden_size"] // raw["num_attention_heads"] if wide else raw["head_dim"]}


_ROWS = (
    Family(
        "llama",
        ("LlamaForCausalLM", "LLaMAForCausalLM"),
        _keys("hidden_act attention_bias mlp_bias"),
        gguf=Gguf("llama", permuted=True),
    ),
    Family(
        "mistral",
        ("MistralForCausalLM",),
        _keys("hidden_act sliding_window"),
        {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
        is_local=lambda keys, layer: keys.sliding_window is not None,
    ),
    Family(
        "qwen2",
        ("Qwen2ForCausalLM",),
        _keys(_QWEN_KEYS),
        _QWEN_DEFAULTS,
        always={"attention_bias": True, "output_bias": False},
        is_local=_after_first,
        gguf=Gguf("qwen2"),
    ),
    Family(
        "qwen3",
        ("Qwen3ForCausalLM",),
        _keys(f"{_QWEN_KEYS} attention_bias"),
        _QWEN_DEFAULTS | {"head_dim": 128},
        always={"qk_norm": "head"},
        is_local=_after_first,
        gguf=Gguf("qwen3"),
    ),
    Family(
        "gemma2",
        ("Gemma2ForCausalLM",),
        _keys(f"{_GEMMA_KEYS} attn_logit_softcapping"),
        _GEMMA_DEFAULTS
        | {"max_position_embeddings": 8192, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
        _keys("hidden_act sliding_window_size"),
        _GEMMA,
        lambda keys, layer: layer % 2 == 0,
    ),
    Family(
        "gemma3_text",
        ("Gemma3ForCausalLM",),
        _keys(f"{_GEMMA_KEYS} rope_local_base_freq sliding_window_pattern"),
        _GEMMA_DEFAULTS
        | {"max_position_embeddings": 131072, "rope_theta": 1e6, "rope_local_base_freq": 1e4}
        | {"sliding_window_pattern": 6},
        _keys("hidden_act _sliding_window_pattern"),
        {**_GEMMA, "qk_norm": "head"},
        lambda keys, layer: (layer + 1) % keys.sliding_window_pattern != 0,
        Gguf(
            "gemma3",
            keys={
                "attention.sliding_window": "sliding_window",
                "attention.sliding_window_pattern": "sliding_window_pattern",
                "rope.freq_base_swa": "rope_local_base_freq",
                "final_logit_softcapping": "final_logit_softcapping",
            },
            derived=_gemma3_width,
        ),
    ),
    Family(
        "smollm3",
        ("SmolLM3ForCausalLM",),
        _keys("hidden_act attention_bias mlp_bias use_sliding_window sliding_window layer_types")
        | _keys("no_rope_layers no_rope_layer_interval"),
        {"max_position_embeddings": 32768, "num_key_value_heads": 4, "rope_theta": 2e6}
        | {"tie_word_embeddings": True, "use_sliding_window": False, "no_rope_layer_interval": 4},
        is_local=lambda keys, layer: keys.sliding_window is not None and not has_rope(keys, layer),
    ),
    Family(
        "olmo2",
        ("Olmo2ForCausalLM", "OLMo2ForCausalLM"),
        _keys("hidden_act attention_bias"),
        {"rms_norm_eps": 1e-5},
        always={"norms": "post", "qk_norm": "all"},
    ),
)
FAMILIES: Mapping[str, Family] = {row.model_type: row for row in _ROWS}
BY_ARCHITECTURE: Mapping[str, Family] = {row.gguf.architecture: row for row in _ROWS if row.gguf is not None}

# Keys whose presence says what a config describes, where no family reads it.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
_OTHER_SENSES = ("vision_config", "audio_config", "text_config")


def refusal(raw: Mapping[str, Any], what: str = "model_type", known: Iterable[str] = FAMILIES) -> str:
    """Why a model of an unknown family cannot be read, and what can be: values of `what` that are `known`."""
    kind = str(raw.get("model_type")).lower()
    readable = f"what can be read is a text model, {what} {', '.join(known)}"
    if any(key in raw for key in _EXPERTS) or "moe" in kind or kind == "mixtral":
        return f"a mixture of experts is not supported; {readable}"
    if any(key in raw for key in _OTHER_SENSES) or "vl" in kind or kind == "clip":
        return f"a model with a vision or audio part is not supported; {readable}"
    return readable


def has_rope(keys: Keys, layer: int) -> bool:
    """Whether a layer has rotary positions."""
    if keys.no_rope_layers:
        return bool(keys.no_rope_layers[layer])
    return not keys.no_rope_layer_interval or (layer + 1) % keys.no_rope_layer_interval != 0


def layer_kinds(family: Family, keys: Keys) -> tuple[str, ...]:
    """The pattern of the model's `config.LAYER_KINDS`.

    Raises:
      ValueError: a list of another length than the layers, or a window that is not given.
    """
    layers = keys.num_hidden_layers
    for name in ("layer_types", "no_rope_layers"):
        if (found := getattr(keys, name)) and len(found) != layers:
            raise ValueError(f"{name} has {len(found)} entries, but num_hidden_layers={layers}")
    local = [kind == "sliding_attention" for kind in keys.layer_types]
    local = local or [family.is_local(keys, layer) for layer in range(layers)]
    if any(local) and keys.sliding_window is None:
        raise ValueError("layer_types has sliding_attention, but sliding_window is not given, or not used")
    suffix = ["" if has_rope(keys, layer) else "_nope" for layer in range(layers)]
    return pattern([("local" if own else "global") + end for own, end in zip(local, suffix)])


def pattern(kinds: Sequence[str]) -> tuple[str, ...]:
    """The shortest tuple that repeats to these."""
    for period in range(1, len(kinds)):
        if all(kind == kinds[layer % period] for layer, kind in enumerate(kinds)):
            return tuple(kinds[:period])
    return tuple(kinds)
