"""`config.json` of a Hugging Face folder <-> LlamaConfig, by the table of `families`.

An unsupported key that changes the function is an error that names it; it is never ignored.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, RopeScaling
from lema_jax.weights import families, hf_rope
from lema_jax.weights.families import FAMILIES, Family
from lema_jax.weights.hf_rope import STRICT, Count, One, Positive, Rope


def key_set(names: str) -> frozenset[str]:
    """Keys of settings from a text of them."""
    return frozenset(names.split())


# Keys that do not change the function: book-keeping, initialisation, generation, parallelism, and dropout in training
# (here `--config.lora.dropout`).
_HARMLESS = key_set(
    """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash _flash_attn_2_enabled
    _model_name_or_path _name_or_path attn_implementation auto_map base_model_tp_plan base_model_pp_plan
    cache_implementation chunk_size_feed_forward dtype finetuning_task gradient_checkpointing id2label
    initializer_range is_llama_config label2id max_sequence_length max_window_layers model_max_length
    pretraining_tp problem_type return_dict task_specific_params tf_legacy_loss tokenizer_class torch_dtype torchscript
    transformers.js_config transformers_version unsloth_fixed unsloth_version use_bfloat16 use_cache
    bos_token_id decoder_start_token_id eos_token_id forced_bos_token_id forced_eos_token_id pad_token_id sep_token_id
    unk_token_id
    bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty length_penalty max_length max_new_tokens min_length min_new_tokens
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states
    output_scores prefix remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens temperature
    top_k top_p typical_p
    attention_dropout attention_probs_dropout_prob attn_dropout attn_pdrop classifier_dropout dropout embd_pdrop
    embedding_dropout hidden_dropout hidden_dropout_prob resid_pdrop residual_dropout summary_first_dropout
    """
)
# Switches that change nothing if they are off.
_OFF = key_set(
    """
    add_cross_attention attention_bias is_decoder is_encoder_decoder mlp_bias qk_layernorm qk_norm qkv_bias
    tie_encoder_decoder use_bias use_bidirectional_attention use_mrope use_qk_norm use_sliding_window
    """
)


class _HfConfig(pydantic.BaseModel):
    """The keys that change the function in any family, with transformers' defaults for LLaMA."""

    model_config = STRICT
    architectures: list[str] | None = None
    model_type: str
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Annotated[int, pydantic.Field(gt=0, le=1000)]  # bounded before a list of layers is made
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    hidden_act: Literal["silu", "swish", "gelu_pytorch_tanh"] = "silu"
    hidden_activation: Literal["gelu_pytorch_tanh"] | None = None
    max_position_embeddings: Count = 2048
    original_max_position_embeddings: Count | None = None
    rms_norm_eps: Positive = 1e-6
    rope_theta: Positive = 10000.0
    rope_scaling: Rope | None = None
    rope_parameters: Rope | None = None
    rope_interleaved: Literal[False] = False
    partial_rotary_factor: One = 1.0
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    query_pre_attn_scalar: Count | None = None
    attn_logit_softcapping: Positive | None = None
    final_logit_softcapping: Positive | None = None
    use_sliding_window: bool = False
    sliding_window: Count | None = None
    max_window_layers: Annotated[int, pydantic.Field(ge=0)] = 0
    sliding_window_pattern: Count = 1
    layer_types: list[Literal["full_attention", "sliding_attention"]] = []
    no_rope_layers: list[Annotated[int, pydantic.Field(ge=0, le=1)]] = []
    no_rope_layer_interval: Annotated[int, pydantic.Field(ge=0)] = 0
    rope_local_base_freq: Positive | None = None
    local_rope: Rope | None = None  # of `rope_parameters` by layer type


# Keys that not every family reads; those of a family are in its row.
_SOME_READ = key_set(
    """
    hidden_act hidden_activation attention_bias mlp_bias query_pre_attn_scalar attn_logit_softcapping
    final_logit_softcapping use_sliding_window sliding_window max_window_layers sliding_window_pattern layer_types
    no_rope_layers no_rope_layer_interval rope_local_base_freq local_rope
    """
)
_ACTIVATION = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_HF_ACTIVATION = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}

# Keys of config.json by our fields.
_KEY_OF = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "max_positions": "max_position_embeddings",
    "original_positions": "original_max_position_embeddings",
    "norm_eps": "rms_norm_eps",
}


def read_settings(path: Path, kind: str) -> dict[str, Any]:
    """The object in a JSON file of another program's folder.

    Args:
      kind: of the folder, for the error message.

    Raises:
      UserError: the file cannot be read, or is no JSON object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is {path.parent} {kind}?") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: it contains {json.dumps(raw):.80}, not an object of settings")
    return raw


def read(folder: str | Path) -> LlamaConfig:
    """The config of a Hugging Face folder.

    Raises:
      UserError: no readable `config.json`, or see `parse`.
    """
    path = Path(folder) / "config.json"
    return parse(read_settings(path, "a Hugging Face model folder"), str(path))


def parse(raw: dict[str, Any], where: str) -> LlamaConfig:
    """A LlamaConfig from the content of a `config.json`; `where` is for error messages.

    Raises:
      UserError: a model of an unknown family; or every key that is missing, malformed, or unsupported, in one line.
    """
    family = _family(raw, where)
    shaping = {key: value for key, value in {**family.defaults, **raw}.items() if not _says_nothing(key, value, family)}
    windowed = (
        shaping.get("use_sliding_window") is True
        if "use_sliding_window" in family.keys
        else ("sliding_window" in family.keys or raw.get("use_sliding_window") is not False)
    )
    if not windowed:
        shaping.pop("sliding_window", None)
    problems = [
        f"{key}={shaping[key]!r:.80} is not supported, and might change the result"
        for key in shaping
        if key in _SOME_READ - family.keys
    ]
    shaping = {key: value for key, value in shaping.items() if key not in _SOME_READ - family.keys}
    try:
        hf = _HfConfig.model_validate(_by_layer_type(shaping) if "rope_local_base_freq" in family.keys else shaping)
        scaling = _scaling(hf)
        kinds = families.layer_kinds(family, hf)
    except pydantic.ValidationError as error:
        problems += [_problem(found) for found in error.errors(include_url=False)]
    except ValueError as error:
        problems.append(str(error))
    if problems:
        listed = "; ".join(dict.fromkeys(problems))
        raise UserError(f"{where} is not a {family.model_type} model that can be converted faithfully: {listed}")
    if hf.head_dim is None and hf.hidden_size % hf.num_attention_heads:
        raise UserError(
            f"{where}: num_attention_heads={hf.num_attention_heads} must divide hidden_size={hf.hidden_size} where "
            "head_dim is not given"
        )
    if isinstance(scaling, str):
        raise UserError(f"{where}: {scaling}")
    config = LlamaConfig(
        vocab_size=hf.vocab_size,
        hidden_size=hf.hidden_size,
        intermediate_size=hf.intermediate_size,
        num_layers=hf.num_hidden_layers,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_key_value_heads or hf.num_attention_heads,
        head_dim=hf.head_dim or hf.hidden_size // hf.num_attention_heads,
        max_positions=hf.max_position_embeddings,
        rope_theta=_theta(hf),
        rope_scaling=scaling,
        norm_eps=hf.rms_norm_eps,
        attention_bias=hf.attention_bias,
        mlp_bias=hf.mlp_bias,
        tie_embeddings=hf.tie_word_embeddings,
        layer_kinds=kinds,
        window=hf.sliding_window or LlamaConfig.window,
        local_rope_theta=hf.local_rope.rope_theta if hf.local_rope else hf.rope_local_base_freq,
        activation=_ACTIVATION[hf.hidden_activation or hf.hidden_act],
        attention_width=hf.query_pre_attn_scalar,
        attention_softcap=hf.attn_logit_softcapping,
        logit_softcap=hf.final_logit_softcapping,
        family=family.model_type,
    )
    config = _canonical(dataclasses.replace(config, **family.always))
    if found := config.problems():
        problem = re.sub(r"\w+", lambda word: _KEY_OF.get(word[0], word[0]), "; ".join(found))
        raise UserError(f"{where}: {problem}")
    return config


def _family(raw: dict[str, Any], where: str) -> Family:
    """The row of a config's `model_type`; else one UserError, as every key would be a problem."""
    kind, classes = raw.get("model_type"), raw.get("architectures")
    if classes is not None and not isinstance(classes, list):
        raise UserError(f"{where}: architectures={json.dumps(classes):.80} must be a list of names")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is not None and all(one in family.architectures for one in classes or []):
        return family
    named = "no model_type" if kind is None else f"model_type {json.dumps(kind):.80}"
    classes_found = f" and architectures {json.dumps(classes):.120}" if "architectures" in raw else ""
    wanted = families.refusal(raw)
    if family is not None:
        wanted = f"what can be read of it is architectures {json.dumps(family.architectures[:1])}"
    raise UserError(f"{where} describes a model with {named}{classes_found}; {wanted}")


def _by_layer_type(shaping: dict[str, Any]) -> dict[str, Any]:
    """The keys with `rope_parameters` by layer type parted into those of global layers and `local_rope`."""
    ropes = shaping.get("rope_parameters")
    if not isinstance(ropes, dict) or not set(ropes) <= {"full_attention", "sliding_attention"}:
        return shaping
    local = ropes.get("sliding_attention")
    if isinstance(local, dict) and local.get("rope_type", "default") != "default":
        raise ValueError(f"rope_parameters.sliding_attention.rope_type={local['rope_type']!r:.80} is not supported")
    if isinstance(local, dict):
        local = {"rope_theta": shaping.get("rope_local_base_freq"), **local}
    parted = shaping | {"rope_parameters": ropes.get("full_attention"), "local_rope": local}
    return {key: value for key, value in parted.items() if value is not None}


def _canonical(config: LlamaConfig) -> LlamaConfig:
    """The config with fields that do not change the function as `parse` gives them."""
    local = any(kind.startswith("local") for kind in config.kinds)
    return dataclasses.replace(
        config,
        vocab_padding=0,
        output_bias=None if config.has_output_bias == config.attention_bias else config.has_output_bias,
        layer_kinds=families.pattern([config.kind_of(layer) for layer in range(config.num_layers)]),
        window=config.window if local else LlamaConfig.window,
        local_rope_theta=config.local_rope_theta if "local" in config.kinds else None,
        attention_width=None if config.attention_width == config.head_dim else config.attention_width,
    )


def _says_nothing(key: str, value: Any, family: Family) -> bool:
    if value is None or (key in _OFF and value is False):
        return True
    if key not in family.keys and (key in _HARMLESS or key in family.harmless):
        return True
    if key == "layer_types" and key not in family.keys and isinstance(value, list):
        return all(kind == "full_attention" for kind in value)
    return key in ("rope_scaling", "rope_parameters", "pruned_heads", "quantization_config") and value == {}


def _problem(found: Any) -> str:
    inner = str(found["loc"][0]).startswith("rope_")  # for a list or a union the key is enough
    key = ".".join(map(str, found["loc"][: 2 if inner else 1]))
    if found["type"] == "extra_forbidden":
        return f"{key}={found['input']!r:.80} is not supported, and might change the result"
    if found["type"] == "missing":
        return f"{key} is missing"
    if found["type"] == "value_error":  # raised above
        return f"{key}: {found['ctx']['error']}"
    return f"{key}={found['input']!r:.80}: {found['msg']}"


def _theta(hf: _HfConfig) -> float:
    for rope in (hf.rope_scaling, hf.rope_parameters):
        if rope is not None and rope.rope_theta is not None:
            return rope.rope_theta
    return hf.rope_theta


def _scaling(hf: _HfConfig) -> RopeScaling | str:
    """The scaling of whichever key has it; a problem if two keys differ."""
    ropes = (rope for rope in (hf.rope_scaling, hf.rope_parameters) if rope is not None)
    positions = hf.max_position_embeddings, hf.original_max_position_embeddings
    found = [hf_rope.read(rope, *positions) for rope in ropes]
    if len(found) == 2 and found[0] != found[1]:
        return "rope_scaling and rope_parameters scale positions differently; remove the wrong one"
    return found[0] if found else RopeScaling()


def to_hf(config: LlamaConfig, dtype: str, special: Mapping[str, int | list[int] | None]) -> dict[str, Any]:
    """The content of a `config.json` of the config's family; the inverse of `parse`.

    Args:
      dtype: of the stored weights: "float32", "bfloat16" or "float16".
      special: `bos_token_id`, `eos_token_id` (one or several), `pad_token_id`.

    Raises:
      UserError: the family is unknown, or has no model of that architecture; names the fields.
    """
    if config.family not in FAMILIES:
        raise UserError(f"family={config.family!r:.80} must be one of {', '.join(FAMILIES)}")
    family = FAMILIES[config.family]
    layers = [config.kind_of(layer) for layer in range(config.num_layers)]
    local = [kind.startswith("local") for kind in layers]
    values = {
        "architectures": [family.architectures[0]],
        "model_type": family.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": _HF_ACTIVATION[config.activation],
        "hidden_activation": _HF_ACTIVATION[config.activation],
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_local_base_freq": config.local_rope_theta or config.rope_theta,
        "rope_scaling": hf_rope.write(config.rope_scaling),
        "query_pre_attn_scalar": config.attention_width or config.head_dim,
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
        "use_sliding_window": any(local),
        "sliding_window": config.window if any(local) else None,
        "max_window_layers": local.index(True) if any(local) else config.num_layers,
        "layer_types": ["sliding_attention" if own else "full_attention" for own in local],
        "no_rope_layers": [int(not kind.endswith("nope")) for kind in layers],
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": dtype,
        "use_cache": True,
        **special,
    }
    content = {key: value for key, value in values.items() if key not in _SOME_READ - family.keys}
    _require_same(_canonical(config), parse(content, f"the config of this {config.family} model"))
    return content


def _require_same(config: LlamaConfig, written: LlamaConfig) -> None:
    """Raises a UserError for fields that the family's config.json cannot say."""
    fields = [field.name for field in dataclasses.fields(config)]
    other = [
        f"{name}={getattr(config, name)!r:.80}" for name in fields if getattr(config, name) != getattr(written, name)
    ]
    if other:
        raise UserError(
            f"no model of family {config.family!r} has {', '.join(other)}; set family to that of the architecture, one "
            f"of {', '.join(FAMILIES)}"
        )
