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


def test_rope_under_its_old_and_its_new_name():
    scaling = RopeScaling("llama3", 8.0, 8192, 1.0, 4.0)
    old = hf_config.parse(LLAMA2 | {"rope_theta": 5e5, "rope_scaling": LLAMA31_ROPE}, "x")
    new = LLAMA2 | {"rope_parameters": LLAMA31_ROPE | {"rope_theta": 5e5}}
    del new["rope_scaling"]
    assert old == hf_config.parse(new, "x")
    assert (old.rope_scaling, old.rope_theta) == (scaling, 5e5)
    both_words = hf_config.parse(LLAMA2 | {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2}}, "x")
    assert both_words.rope_scaling == RopeScaling("linear", 2.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sliding_window": 4096}, "sliding_window=4096"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "mistral"}, "model_type='mistral'"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"attention_dropout": 0.1}, "attention_dropout=0.1"),
        ({"rope_interleaved": True}, "rope_interleaved=True"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 3}}, "beta_fast"),
        ({"rope_scaling": LLAMA31_ROPE | {"type": "linear"}}, "contradicts"),
        ({"rope_scaling": LLAMA31_ROPE | {"short_factor": [1.0]}}, "short_factor"),
        ({"num_key_value_heads": 7}, "num_kv_heads=7"),
        ({"hidden_size": "wide"}, "hidden_size='wide'"),
        ({"hidden_size": None}, "hidden_size is missing"),
    ],
)
def test_what_would_change_the_result_is_named(change, named):
    with pytest.raises(UserError) as error:
        hf_config.parse(LLAMA2 | change, "folder/config.json")
    assert named in str(error.value)
    assert "folder/config.json" in str(error.value)


def test_all_problems_come_at_once():
    with pytest.raises(UserError) as error:
        hf_config.parse(LLAMA2 | {"logit_scale": 2.0, "hidden_act": "relu"}, "x")
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
