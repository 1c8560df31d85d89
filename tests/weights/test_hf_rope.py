"""The rope settings of a config.json: old and new names, every way of stretching, values of any type."""

import pytest

from lema_jax.errors import UserError
from lema_jax.model import presets
from lema_jax.model.config import RopeScaling
from lema_jax.weights import hf_config
from tests.weights.test_hf_config import LLAMA2, LLAMA31_ROPE, WRONG

FACTORS = {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64}


def test_rope_under_its_old_and_its_new_name():
    scaling = RopeScaling("llama3", 8.0, 8192, 1.0, 4.0)
    old = hf_config.parse(LLAMA2 | {"rope_theta": 5e5, "rope_scaling": LLAMA31_ROPE}, "x")
    new = LLAMA2 | {"rope_parameters": LLAMA31_ROPE | {"rope_theta": 5e5}}
    del new["rope_scaling"]
    assert old == hf_config.parse(new, "x")
    assert (old.rope_scaling, old.rope_theta) == (scaling, 5e5)
    both_words = hf_config.parse(LLAMA2 | {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2}}, "x")
    assert both_words.rope_scaling == RopeScaling("linear", 2.0)


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "longrope"} | FACTORS,
        {"type": "su", "factor": 4.0} | FACTORS,
        {"type": "mrope", "mrope_section": [1]},
    ],
)
def test_another_way_of_stretching_is_one_sentence_that_says_what_to_do(rope, key):
    with pytest.raises(UserError) as error:
        hf_config.parse(LLAMA2 | {key: rope}, "x")
    kind = rope.get("rope_type") or rope["type"]
    assert f"{key}: rope_type '{kind}' is not supported; take a model of one of default, linear" in str(error.value)
    assert not any(key in str(error.value) for key in (*FACTORS, "mrope_section"))
    assert str(error.value).count("not supported") == 1


def test_a_yarn_without_a_factor_has_the_ratio_of_the_lengths():
    rope = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 1024}
    found = hf_config.parse(LLAMA2 | {"rope_scaling": rope}, "x")
    assert found.rope_scaling == RopeScaling("yarn", 4.0, 1024)
    del rope["original_max_position_embeddings"]
    beside = LLAMA2 | {"rope_scaling": rope, "original_max_position_embeddings": 1024}
    assert hf_config.parse(beside, "x") == found


@pytest.mark.parametrize(
    ("rope", "context"),
    [
        (None, 4096),
        ({"type": "linear", "factor": 4.0}, 16384),
        ({"type": "dynamic", "factor": 2.0}, 8192),
        ({"type": "yarn", "factor": 16.0}, 65536),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
        (LLAMA31_ROPE, 4096),
    ],
)
def test_a_model_is_used_to_its_stretched_length(rope, context):
    assert hf_config.parse(LLAMA2 | {"rope_scaling": rope}, "x").context == context


def test_the_published_context_of_gemma_3_is_stretched_already():
    """128k, of which the paper says that it was reached by scaling."""
    assert [presets.get(f"gemma-3-{size}").context for size in ("1b", "4b", "27b")] == [32768, 131072, 131072]


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "llama3", "longrope", "su", "mrope", 3, "", None])
def test_rope_values_of_any_type_are_taken_or_named_in_one_line(kind):
    for key in [
        *LLAMA31_ROPE,
        "type",
        "beta_fast",
        "beta_slow",
        "mscale",
        "truncate",
        "rope_theta",
        "attention_factor",
    ]:
        for value in WRONG:
            try:
                rope = (
                    {**LLAMA31_ROPE, "rope_type": kind, key: value}
                    if kind == "llama3"
                    else {"rope_type": kind, "factor": 2.0, key: value}
                )
                found = hf_config.parse(LLAMA2 | {"rope_scaling": rope}, "folder/config.json")
            except UserError as error:
                said = str(error)
                assert "rope_scaling" in said or key in said, (key, value)
                assert "\n" not in said, (key, value)
            else:
                assert not found.problems(), (key, value)
