"""Rotary frequencies against transformers' at the sizes of published models, and what a rotation must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model import rope
from lema_jax.model.config import LlamaConfig, RopeScaling

PUBLISHED = {
    "llama-2": (10000.0, 4096, RopeScaling()),
    "codellama": (1e6, 16384, RopeScaling()),
    "linear": (10000.0, 4096, RopeScaling("linear", 4.0)),
    "llama-3.1": (5e5, 131072, RopeScaling("llama3", 8.0, 8192, 1.0, 4.0)),
    "llama-3.2": (5e5, 131072, RopeScaling("llama3", 32.0, 8192, 1.0, 4.0)),
    "yarn-llama-2-64k": (10000.0, 65536, RopeScaling("yarn", 16.0, 4096)),
    "yarn-128k": (10000.0, 131072, RopeScaling("yarn", 32.0, 4096, truncate=False, attention_factor=1.2)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_frequencies_are_those_of_transformers(name):
    pytest.importorskip("torch")
    import transformers
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from lema_jax.weights import hf_config

    theta, positions, scaling = PUBLISHED[name]
    config = LlamaConfig(rope_theta=theta, max_positions=positions, rope_scaling=scaling)
    raw = hf_config.to_hf(config, "float32", {})
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**{k: v for k, v in raw.items() if k != "model_type"}))
    found, factor = rope.frequencies(config)
    np.testing.assert_allclose(found, theirs.inv_freq.numpy(), rtol=2e-6)
    assert factor == pytest.approx(theirs.attention_scaling)


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
def test_stretching_lowers_the_slowest_pair_by_the_factor_and_no_pair_by_more(kind):
    plain = LlamaConfig(rope_theta=5e5, max_positions=131072)
    stretched = LlamaConfig(rope_theta=5e5, max_positions=131072, rope_scaling=RopeScaling(kind, 8.0))
    ratio = rope.frequencies(stretched)[0] / rope.frequencies(plain)[0]
    assert ratio[-1] == pytest.approx(1 / 8)
    assert ratio.min() >= 0.999 / 8
    assert ratio.max() <= 1.001


@pytest.mark.slow
def test_dynamic_changes_nothing_within_the_trained_context_and_each_row_by_its_own_length():
    config = LlamaConfig(head_dim=8, max_positions=16, rope_scaling=RopeScaling("dynamic", 2.0))
    plain = LlamaConfig(head_dim=8, max_positions=16)
    short, long = np.arange(16)[None], np.arange(16)[None] + 16

    def turns(config, positions):
        return rope.sin_cos(config, positions, jnp.max(positions, axis=1, keepdims=True) + 1)

    for ours, theirs in zip(turns(config, short), turns(plain, short)):
        np.testing.assert_array_equal(ours, theirs)
    both = turns(config, jnp.concatenate([short, long]))
    for row, alone in enumerate([short, long]):
        for together, single in zip(both, turns(config, alone)):
            np.testing.assert_allclose(together[row], single[0], rtol=1e-6)
    assert not np.allclose(turns(config, long)[0], turns(plain, long)[0])
    padded = rope.sin_cos(config, long, jnp.array([[16]]))  # padding is no length
    np.testing.assert_array_equal(padded[0], turns(plain, long)[0])


def test_rotation_keeps_lengths_and_makes_scores_depend_on_distance_alone():
    config = LlamaConfig(head_dim=16)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))

    def turned(x, position):
        return rope.rotate(x, rope.sin_cos(config, jnp.array([[position]]), jnp.array([[position + 1]])))[0, 0, 0]

    assert jnp.linalg.norm(turned(q, 99)) == pytest.approx(float(jnp.linalg.norm(q)), rel=1e-5)
    scores = [float(turned(q, p + 5) @ turned(k, p)) for p in (0, 7, 300)]
    assert scores[1:] == pytest.approx(scores[:1] * 2, abs=1e-3)
    assert abs(float(turned(q, 6) @ turned(k, 0)) - scores[0]) > 1e-3


def test_problems_name_the_field():
    for scaling, field in [
        (RopeScaling("longrope"), "kind"),
        (RopeScaling("linear", 0.0), "factor"),
        (RopeScaling("llama3", 8.0, 8192, 4.0, 4.0), "low_freq_factor"),
        (RopeScaling("yarn", 8.0, beta_fast=1.0), "beta_slow"),
        (RopeScaling("yarn", 8.0, 0), "original_positions"),
    ]:
        (problem,) = LlamaConfig(rope_scaling=scaling).problems()
        assert problem.startswith(f"rope_scaling.{field}=")
