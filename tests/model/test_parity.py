"""Our LLaMA against transformers' on the same weights: logits, loss, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lema_jax.model.config import Compute
from lema_jax.model.layout import unstack_layers
from lema_jax.model.llama import Llama
from lema_jax.weights import hf_config, names

pytest.importorskip("torch", reason="the independent implementation; install the extra `oracle`")
from tests import hf_oracle

QUICKLY_COMPILED = {"xla_backend_optimization_level": 0}
BASE = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
NAMED = {
    "gqa": {},
    "mha": {"num_key_value_heads": None},
    "mqa": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "head_dim": {"head_dim": 12},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "theta": {"rope_theta": 1e6, "rms_norm_eps": 1e-5},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 8},
    "llama3": {"rope_scaling": LLAMA3, "head_dim": 16},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "yarn_all": {
        "head_dim": 32,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 5e4,
            "factor": 2.5,
            "original_max_position_embeddings": 32,
            "mscale": 0.707,
            "mscale_all_dim": 1.3,
            "beta_fast": 8,
            "beta_slow": 2,
            "truncate": False,
        },
    },
}


def assert_parity(raw: dict, compute: Compute, seed: int = 0, gradients: bool = True) -> None:
    config = hf_config.parse(raw, "test")
    theirs = hf_oracle.make(raw, seed)
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (3, 24))
    params = names.load_model(hf_oracle.StateDict(theirs), config)
    model = Llama(config, compute)

    def loss(params):
        own = params if compute.scan_layers else unstack_layers(params)
        logits = model.apply({"params": own}, tokens)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:])
        return jnp.mean(nll), logits

    # One program, run once, so it is compiled in the quickest way; all else is NumPy.
    step = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICKLY_COMPILED)
    (value, logits), grads = jax.device_get(step(params))
    np.testing.assert_allclose(logits, hf_oracle.logits(theirs, tokens), atol=1e-4, rtol=1e-4)
    if not gradients:
        return
    expected_value, expected = hf_oracle.loss_and_gradients(theirs, tokens)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    tree = names.Tree(grads, names.table(config), "gradients")
    found = {name: names.read_whole(tree, name) for name in tree.names()}
    assert found.keys() == expected.keys()
    scales = {name: np.abs(gradient).max() for name, gradient in expected.items()}
    rounding = 1e-7 * max(scales.values())  # all that there is of a zero gradient, as of k's bias without rope
    for name in expected:
        np.testing.assert_allclose(
            found[name], expected[name], atol=2e-4 * scales[name] + rounding, rtol=0, err_msg=name
        )


QUICK = ("gqa", "tied", "biases", "llama3")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in NAMED]
)
def test_logits_loss_and_gradients_equal_transformers(name):
    assert_parity(BASE | NAMED[name], Compute(scan_layers=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gqa", pytest.param("biases", marks=pytest.mark.long)])
def test_unrolled_layers_equal_transformers(name):
    assert_parity(BASE | NAMED[name], Compute(scan_layers=False))
