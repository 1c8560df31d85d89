"""config.json in and out: every published shape, and nothing ignored that would change the result."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, RopeScaling
from lema_jax.weights import hf_config

LLAMA2 = {
    "_name_or_path": "x",
    "_model_name_or_path": "y",
    "unk_token_id": 0,
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 8192,
    "initializer_range": 0.02,
    "intermediate_size": 28672,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
LLAMA31_ROPE = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def test_llama_2_70b():
    config = hf_config.parse(LLAMA2, "x")
    assert config == LlamaConfig(32000, 8192, 28672, 80, 64, 8, 128, 4096, 10000.0)


def test_defaults_of_absent_keys_are_transformers():
    old = {key: LLAMA2[key] for key in ("model_type", "vocab_size", "hidden_size", "intermediate_size")}
    old |= {"num_hidden_layers": 2, "num_attention_heads": 64, "max_sequence_length": 2048}
    config = hf_config.parse(old, "x")
    assert (config.num_kv_heads, config.head_dim, config.max_positions) == (64, 128, 2048)
    assert (config.rope_theta, config.norm_eps, config.tie_embeddings) == (10000.0, 1e-6, False)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sliding_window": 4096}, "sliding_window=4096"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window=True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types="),
        ({"use_unheard_of": False}, "use_unheard_of=False"),
        ({"rope_scaling": {"type": "linear", "factor": None}}, "needs factor"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": LLAMA31_ROPE},
            "scale positions differently",
        ),
        ({"head_dim": None, "num_attention_heads": 63}, "must divide hidden_size=8192"),
        ({"rope_interleaved": True}, "rope_interleaved=True"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 3}}, "beta_fast"),
        ({"rope_scaling": LLAMA31_ROPE | {"type": "linear"}}, "contradicts"),
        ({"rope_scaling": LLAMA31_ROPE | {"short_factor": [1.0]}}, "short_factor"),
        ({"num_key_value_heads": 7}, "num_key_value_heads=7"),
        ({"hidden_size": "wide"}, "hidden_size='wide'"),
        ({"hidden_size": None}, "hidden_size is missing"),
    ],
)
def test_what_would_change_the_result_is_named(change, named):
    with pytest.raises(UserError) as error:
        hf_config.parse(LLAMA2 | change, "folder/config.json")
    assert named in str(error.value)
    assert "folder/config.json" in str(error.value)


NOTHING = [
    {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28},
    {"sliding_window": None},
    {"layer_types": ["full_attention"] * 80},
    {"embd_pdrop": 0, "resid_pdrop": 0.0, "attn_pdrop": 0.1, "attention_dropout": 0.1, "hidden_dropout": 0.1},
    {"hidden_act": "swish"},
    {"architectures": ["LLaMAForCausalLM"]},
    {"architectures": None},
    {"rope_scaling": {}},
    {"rope_scaling": {"rope_type": "default", "factor": 1.0}},
    {"rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_type": "default", "type": None}},
    {"pretraining_tp": 4, "dtype": "bfloat16", "torch_dtype": None},
    {"head_dim": 128},
    {"head_dim": None, "attention_bias": False, "mlp_bias": None},
    {"num_beams": 1, "repetition_penalty": 1.0, "is_decoder": False, "pruned_heads": {}, "qk_layernorm": False},
    {"rms_norm_eps": 1e-05, "rope_theta": 10000, "partial_rotary_factor": 1},
]


@pytest.mark.parametrize("keys", NOTHING, ids=lambda keys: next(iter(keys)))
def test_keys_that_change_nothing_are_read(keys):
    assert hf_config.parse(LLAMA2 | keys, "x") == hf_config.parse(LLAMA2, "x")


REFUSED = {
    "phi3": ("Phi3ForCausalLM", {}, "what can be read is a text model, model_type llama, mistral, qwen2, qwen3"),
    "t5": ("T5ForConditionalGeneration", {}, "what can be read is a text model"),
    "mixtral": ("MixtralForCausalLM", {"num_local_experts": 8}, "a mixture of experts is not supported; what can be"),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {"num_experts": 128}, "a mixture of experts is not supported; what can be"),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {"vision_config": {}, "text_config": {}},
        "a model with a vision or audio part is not supported; what can be read is a text model",
    ),
    "mllama": ("MllamaForConditionalGeneration", {"vision_config": {}}, "a model with a vision or audio part"),
    "llama": ("LlamaForSequenceClassification", {}, 'what can be read of it is architectures ["LlamaForCausalLM"]'),
    "qwen2": ("Qwen2ForTokenClassification", {}, 'what can be read of it is architectures ["Qwen2ForCausalLM"]'),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_known_text_model_is_one_sentence(kind):
    name, keys, wanted = REFUSED[kind]
    raw = {"model_type": kind, "architectures": [name], "logit_softcapping": 3, "n_embd": 4, "query_scale": 2.0} | keys
    with pytest.raises(UserError) as error:
        hf_config.parse(raw, "folder/config.json")
    assert str(error.value).startswith(
        f'folder/config.json describes a model with model_type "{kind}" and architectures ["{name}"]; {wanted}'
    )
    assert "n_embd" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("llama", {"sliding_window": 4096}, "sliding_window=4096"),
        ("llama", {"query_pre_attn_scalar": 7}, "query_pre_attn_scalar=7"),
        ("mistral", {"attention_bias": True}, "attention_bias=True"),
        ("mistral", {"layer_types": ["sliding_attention"] * 80}, "layer_types="),
        ("qwen2", {"mlp_bias": True}, "mlp_bias=True"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types has 1 entries, but num_hidden_layers=80"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 80}, "sliding_window is not given"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation='gelu'"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope_parameters.sliding_attention.rope_type='linear'",
        ),
        ("smollm3", {"no_rope_layers": [1, 2]}, "no_rope_layers=2"),
        ("olmo2", {"clip_qkv": 8.0}, "clip_qkv=8.0"),
        ("mistral", {"num_hidden_layers": 2**31 - 1}, "num_hidden_layers=2147483647"),  # no list of so many is made
    ],
)
def test_a_key_that_a_family_does_not_read_is_named(kind, change, named):
    plain = LLAMA2 | {"model_type": kind, "architectures": None}
    assert hf_config.parse(plain, "x").family == kind
    with pytest.raises(UserError) as error:
        hf_config.parse(plain | change, "folder/config.json")
    assert named in str(error.value)
    assert f"is not a {kind} model that can be converted faithfully" in str(error.value)
    assert "\n" not in str(error.value)


PUBLISHED = {  # the keys of published configs that say more than sizes
    "mistral": ({"sliding_window": 4096, "rope_theta": 10000.0}, {"layer_kinds": ("local",), "window": 4096}),
    "qwen2": (
        {"sliding_window": 32768, "max_window_layers": 70, "use_sliding_window": False, "use_mrope": False},
        {"layer_kinds": ("global",), "attention_bias": True, "output_bias": False},
    ),
    "qwen3": (
        {"head_dim": 128, "attention_bias": False, "max_window_layers": 36, "sliding_window": None},
        {"qk_norm": "head", "layer_kinds": ("global",)},
    ),
    "gemma2": (
        {"hidden_act": "gelu_pytorch_tanh", "sliding_window_size": 4096, "cache_implementation": "hybrid"},
        {"layer_kinds": ("local", "global"), "attention_softcap": 50.0, "logit_softcap": 30.0, "attention_width": 256},
    ),
    "gemma3_text": (
        {"head_dim": 256, "sliding_window": 512, "rope_local_base_freq": 10000, "attn_logit_softcapping": None},
        {
            "layer_kinds": ("local",) * 5 + ("global",),
            "window": 512,
            "local_rope_theta": 1e4,
            "rope_theta": 1e6,
            "attention_width": None,
            "norm_offset": True,
        },
    ),
    "smollm3": (
        {"max_window_layers": 28, "pretraining_tp": 2, "use_sliding_window": False, "rope_theta": 5e6},
        {"layer_kinds": ("global",) * 3 + ("global_nope",), "rope_theta": 5e6},
    ),
    "olmo2": ({"attention_bias": False}, {"norms": "post", "qk_norm": "all"}),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_configs_mean_what_their_papers_say(kind):
    keys, fields = PUBLISHED[kind]
    raw = {key: value for key, value in LLAMA2.items() if key not in ("hidden_act", "tie_word_embeddings")}
    raw |= {"model_type": kind, "architectures": None, "num_hidden_layers": 60}
    raw |= {"head_dim": 128} if kind == "gemma2" else {}
    config = hf_config.parse(raw | keys, "x")
    assert {name: getattr(config, name) for name in fields} == fields


def test_a_window_that_is_switched_off_is_none():
    qwen = LLAMA2 | {"model_type": "qwen2", "architectures": None, "sliding_window": 64, "max_window_layers": 20}
    assert hf_config.parse(qwen, "x").kinds == ("global",)
    config = hf_config.parse(qwen | {"use_sliding_window": True}, "x")
    assert [config.kind_of(layer) for layer in (0, 19, 20, 79)] == ["global", "global", "local", "local"]


def test_an_architecture_that_its_family_has_not_is_not_written():
    with pytest.raises(UserError, match="no model of family 'llama' has qk_norm='head'"):
        hf_config.to_hf(LlamaConfig(qk_norm="head"), "float32", {})
    with pytest.raises(UserError, match="family='bert' must be one of llama"):
        hf_config.to_hf(LlamaConfig(family="bert"), "float32", {})


WRONG = [
    None,
    "",
    "x",
    -1,
    0,
    1.5,
    10**30,
    1e400,
    float("nan"),
    float("-inf"),
    True,
    [],
    ["x", 3],
    {},
    {"a": "b"},
    [[]],
]


def test_values_of_any_type_are_taken_or_named_in_one_line():
    keys = [*LLAMA2, "head_dim", "rope_theta", "rope_parameters", "attention_bias", "mlp_bias", "layer_types"]
    keys += ["partial_rotary_factor", "rope_interleaved", "original_max_position_embeddings", "use_sliding_window"]
    for key in keys:
        for value in WRONG:
            try:
                found = hf_config.parse(LLAMA2 | {key: value}, "folder/config.json")
            except UserError as error:
                said = str(error)
                assert key in said or "num_attention_heads" in said, (key, value, said)
                assert said.startswith("folder/config.json"), (key, value, said)
                assert "\n" not in said, (key, value, said)
            else:
                assert not found.problems(), (key, value)


@pytest.mark.parametrize("content", [b"[]", b"null", b"3", b'"x"', b"{", b"", b"\xff\xfe{}", b"[" * 100_000])
def test_a_file_that_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json: ") as error:
        hf_config.read(tmp_path)
    assert "\n" not in str(error.value)


def test_all_problems_come_at_once():
    with pytest.raises(UserError) as error:
        hf_config.parse(LLAMA2 | {"logit_scale": 2.0, "hidden_act": "relu"}, "x")
    assert "\n" not in str(error.value)
    assert "logit_scale" in str(error.value)
    assert "hidden_act" in str(error.value)


sizes = st.integers(1, 8)
configs = st.builds(
    LlamaConfig,
    vocab_size=st.integers(1, 99),
    hidden_size=sizes,
    intermediate_size=sizes,
    num_layers=sizes,
    num_heads=st.just(8),
    num_kv_heads=st.sampled_from([1, 2, 4, 8]),
    head_dim=st.sampled_from([4, 8]),
    max_positions=sizes,
    rope_theta=st.floats(10, 1e7),
    rope_scaling=st.one_of(
        st.builds(RopeScaling, st.sampled_from(["linear", "dynamic"]), st.floats(1, 64)),
        st.builds(RopeScaling, st.just("llama3"), st.floats(1, 64), sizes, st.floats(1, 2), st.floats(3, 9)),
        st.builds(
            RopeScaling,
            st.just("yarn"),
            st.floats(1, 64),
            sizes,
            beta_fast=st.floats(5, 9),
            beta_slow=st.floats(1, 2),
            truncate=st.booleans(),
            attention_factor=st.none() | st.floats(0.5, 2),
        ),
        st.just(RopeScaling()),
    ),
    norm_eps=st.floats(1e-8, 1e-3),
    attention_bias=st.booleans(),
    mlp_bias=st.booleans(),
    tie_embeddings=st.booleans(),
)


@given(configs)
def test_out_and_in_again_is_the_same_config(config):
    raw = json.loads(json.dumps(hf_config.to_hf(config, "bfloat16", {"bos_token_id": 1, "pad_token_id": None})))
    assert hf_config.parse(raw, "x") == config


def test_a_folder_without_a_config_or_with_a_broken_one(tmp_path):
    with pytest.raises(UserError, match="Hugging Face model folder"):
        hf_config.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        hf_config.read(tmp_path)


@pytest.mark.parametrize("change", [{}, {"rope_scaling": LLAMA31_ROPE, "rope_theta": 5e5}, {"head_dim": 64}])
def test_what_transformers_saves_is_read(tmp_path, change):
    transformers = pytest.importorskip("transformers")
    raw = {key: value for key, value in (LLAMA2 | change).items() if key != "model_type"}
    transformers.LlamaConfig(**raw).save_pretrained(tmp_path)
    assert hf_config.read(tmp_path) == hf_config.parse(LLAMA2 | change, "x")
