"""Parity as a property: random architectures, each against transformers on the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model.config import Compute
from lema_jax.model.layout import unstack_layers
from lema_jax.model.llama import Llama
from lema_jax.weights import hf_config, names

pytest.importorskip("torch", reason="the independent implementation; install the extra `oracle`")
import torch

from tests import hf_oracle
from tests.model.test_parity import assert_parity

CASES = 200


def random_config(seed: int) -> dict:
    """A `config.json` of random sizes, heads, biases, rope type and tying."""
    random = np.random.default_rng(seed)

    def one_of(*choices):
        return choices[random.integers(len(choices))]

    heads = int(random.integers(1, 7))
    head_dim = 2 * int(random.integers(2, 9))
    explicit = random.random() < 0.4
    divisors = [k for k in range(1, heads + 1) if heads % k == 0]
    raw = {
        "model_type": "llama",
        "vocab_size": int(random.integers(5, 90)),
        "hidden_size": heads * (2 * int(random.integers(1, 9)) if explicit else head_dim),
        "intermediate_size": int(random.integers(1, 70)),
        "num_hidden_layers": int(random.integers(1, 4)),
        "num_attention_heads": heads,
        "num_key_value_heads": int(one_of(*divisors)),
        "max_position_embeddings": int(random.integers(4, 65)),
        "rms_norm_eps": float(10.0 ** random.integers(-8, -3)),
        "rope_theta": float(10.0 ** random.uniform(1, 6)),
        "attention_bias": bool(random.random() < 0.5),
        "mlp_bias": bool(random.random() < 0.5),
        "tie_word_embeddings": bool(random.random() < 0.5),
    }
    if explicit:
        raw["head_dim"] = head_dim
    factor = float(random.uniform(1, 16))
    original = int(random.integers(4, 33))
    scaling = {
        "default": None,
        "linear": {"type": "linear", "factor": factor},
        "dynamic": {"rope_type": "dynamic", "factor": factor},
        "llama3": {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": float(random.uniform(0.5, 2)),
            "high_freq_factor": float(random.uniform(3, 8)),
            "original_max_position_embeddings": original,
        },
        "yarn": {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            "truncate": bool(random.random() < 0.5),
            **({"attention_factor": float(random.uniform(0.7, 1.5))} if random.random() < 0.5 else {}),
            **({"beta_fast": 16.0, "beta_slow": 2.0} if random.random() < 0.5 else {}),
        },
    }
    return raw | {"rope_scaling": scaling[one_of(*scaling)]}


def test_the_cases_cover_every_choice():
    cases = [random_config(seed) for seed in range(CASES)]
    kinds = {hf_config.parse(raw, "test").rope_scaling.kind for raw in cases}
    assert kinds == {"default", "linear", "dynamic", "llama3", "yarn"}
    for key in ("attention_bias", "mlp_bias", "tie_word_embeddings"):
        assert {raw[key] for raw in cases} == {True, False}
    assert any(raw["num_key_value_heads"] == 1 < raw["num_attention_heads"] for raw in cases)
    assert any(1 < raw["num_key_value_heads"] < raw["num_attention_heads"] for raw in cases)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(CASES))
def test_logits_loss_and_gradients(seed):
    assert_parity(random_config(seed), Compute(scan_layers=seed % 2 == 0), seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_bfloat16_is_as_close_to_float32_as_that_of_transformers(seed):
    raw = random_config(1000 + seed)
    config = hf_config.parse(raw, "test")
    theirs = hf_oracle.make(raw, seed).to(torch.bfloat16)
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (3, 24))
    stored = names.load_model(hf_oracle.StateDict(theirs), config)
    model = Llama(config, Compute("bfloat16", "bfloat16", scan_layers=False))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), unstack_layers(stored))
    found = np.asarray(jax.jit(model.apply)({"params": params}, tokens))
    rounded = hf_oracle.logits(theirs, tokens)
    exact = hf_oracle.logits(theirs.float(), tokens)
    error, of_theirs = (np.sqrt(np.mean((logits - exact) ** 2)) for logits in (found, rounded))
    assert error <= 1.5 * of_theirs + 1e-3
