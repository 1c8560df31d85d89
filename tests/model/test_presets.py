"""Presets have the parameter counts that their publishers' checkpoints have."""

import math

import pytest

from lema_jax.errors import UserError
from lema_jax.model import presets
from lema_jax.weights import names

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
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts(name):
    entries = names.table(presets.get(name))
    assert sum(math.prod(entry.full_shape) for entry in entries) == PUBLISHED[name]


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_sound(name):
    config = presets.get(name)
    assert config.problems() == []
    assert config.hidden_size == config.num_heads * config.head_dim


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'llama-2-8b'; there are .*llama-2-7b"):
        presets.get("llama-2-8b")
