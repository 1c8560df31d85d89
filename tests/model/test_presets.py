"""Presets have the parameter counts that their publishers' checkpoints have."""

import math

import pytest

from lema_jax.errors import UserError
from lema_jax.model import presets
from lema_jax.weights import hf_config, names

PUBLISHED = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "codellama-7b": 6_738_546_688,
    "codellama-13b": 13_016_028_160,
    "codellama-34b": 33_743_970_304,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "tinyllama-1.1b": 1_100_048_384,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "mistral-7b": 7_241_732_096,
    "gemma-3-1b": 999_885_952,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts(name):
    entries = names.table(presets.get(name))
    assert sum(math.prod(entry.full_shape) for entry in entries) == PUBLISHED[name]


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_sound(name):
    config = presets.get(name)
    assert config.problems() == []
    assert config.hidden_size == config.num_heads * config.head_dim or config.family in ("qwen3", "gemma3_text")


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_model_of_its_family(name):
    config = presets.get(name)
    assert hf_config.parse(hf_config.to_hf(config, "bfloat16", {}), name) == config


def test_what_larger_gemmas_have_beside_the_text_model_is_one_vision_model():
    published = {"gemma-3-4b": 4_300_079_472, "gemma-3-12b": 12_187_325_040, "gemma-3-27b": 27_432_406_640}
    vision = set()
    for name, count in published.items():
        config = presets.get(name)
        text = sum(math.prod(entry.full_shape) for entry in names.table(config))
        projector = 1152 + 1152 * config.hidden_size  # its norm and its matrix
        vision.add(count - text - projector)
    assert len(vision) == 1


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'llama-2-8b'; there are .*llama-2-7b"):
        presets.get("llama-2-8b")
