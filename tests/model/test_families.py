"""Families against transformers' own models on the same weights: random small configs, rows longer than the window."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model import cache as caches
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.model.layout import unstack_layers
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.weights import hf_config, names
from lema_jax.weights.families import FAMILIES

pytest.importorskip("torch", reason="the independent implementation; install the extra `oracle`")
from tests import hf_oracle, tiny
from tests.model.test_parity import QUICKLY_COMPILED, assert_parity

CASES = 40
LENGTH = 24  # tokens of a row of `assert_parity`
GEMMAS = ("gemma2", "gemma3_text")


def random_config(family: str, seed: int) -> dict:
    """A small `config.json` of a family: sizes, biases, tying, windows, caps and rope by chance."""
    random = np.random.default_rng([seed, *family.encode()])

    def one_of(*choices):
        return choices[random.integers(len(choices))]

    heads, layers = one_of(1, 2, 4), int(random.integers(1, 5))
    raw = {
        "model_type": family,
        "vocab_size": int(random.integers(5, 90)),
        "hidden_size": heads * 2 * int(random.integers(2, 9)),
        "intermediate_size": int(random.integers(1, 70)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": int(one_of(*(k for k in (1, 2, 4) if k <= heads))),
        "head_dim": 2 * int(random.integers(2, 9)),
        "max_position_embeddings": int(random.integers(4, 65)),
        "rms_norm_eps": float(10.0 ** random.integers(-8, -3)),
        "tie_word_embeddings": one_of(True, False),
        "rope_theta": float(10.0 ** random.uniform(1, 6)),
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    original = int(random.integers(4, 33))
    scaling = one_of(
        None,
        {"rope_type": "linear", "factor": 2.5},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": original},
    )
    window = int(random.integers(1, LENGTH))
    types = [one_of("sliding_attention", "full_attention") for _ in range(layers)]
    keys = FAMILIES[family].keys
    some = {
        "attention_bias": one_of(True, False),
        "mlp_bias": one_of(True, False),
        "sliding_window": window,
        "use_sliding_window": one_of(True, False),
        "max_window_layers": int(random.integers(0, layers + 1)),
        "layer_types": one_of(types, None),
        "query_pre_attn_scalar": one_of(raw["head_dim"], 7),
        "attn_logit_softcapping": one_of(None, 1.5),
        "final_logit_softcapping": one_of(None, 1.5),
        "rope_local_base_freq": 55.0,
        "sliding_window_pattern": int(one_of(2, 3, 6)),
        "no_rope_layers": one_of([int(one_of(0, 1)) for _ in range(layers)], None),
        "no_rope_layer_interval": int(one_of(2, 4)),
    }
    if family == "mistral":
        some["sliding_window"] = one_of(window, None)
    if not some["use_sliding_window"] and "use_sliding_window" in keys:
        some["layer_types"] = None
    if family == "olmo2":  # its class takes the width of heads from the model's
        raw["head_dim"] = raw["hidden_size"] // heads
    return raw | {"rope_scaling": scaling} | {key: value for key, value in some.items() if key in keys}


def compute(seed: int) -> Compute:
    return Compute(scan_layers=seed % 2 == 0, remat=("none", "full")[seed // 2 % 2])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cases_cover_every_choice(family):
    cases = [hf_config.parse(random_config(family, seed), "x") for seed in range(CASES)]
    assert len({config.kinds for config in cases}) > 1 or family in ("llama", "olmo2")
    assert {config.rope_scaling.kind for config in cases} == {"default", "linear", "yarn"}
    assert any(config.window < LENGTH for config in cases) or family in ("llama", "olmo2")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_loss_and_gradients_of_one_model(family):
    assert_parity(random_config(family, 0), compute(0))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, CASES))
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_loss_and_gradients(family, seed):
    assert_parity(random_config(family, seed), compute(seed), seed)


def assert_cached_equals_uncached(family: str, seed: int) -> None:
    """Prefill by chunks, then single tokens, equal one pass over the row."""
    config, run = hf_config.parse(random_config(family, seed), "x"), compute(seed)
    params = names.load_model(hf_oracle.StateDict(hf_oracle.make(random_config(family, seed))), config)
    variables = {"params": params if run.scan_layers else unstack_layers(params)}
    model = Llama(config, run)
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (2, LENGTH))

    def cached(variables):
        cache, at, found = caches.empty(config, run, rows=2, length=LENGTH + 4), 0, []
        for size in (14, LENGTH - 16, 1, 1):
            x_BTD, cache = model.apply(
                variables, tokens[:, at : at + size], jnp.full(2, at), cache, jnp.full(2, LENGTH), method="extend"
            )
            found.append(model.apply(variables, x_BTD, method="logits"))
            at += size
        return jnp.concatenate(found, axis=1)

    run_once = lambda function: jax.jit(function, compiler_options=QUICKLY_COMPILED)(variables)
    np.testing.assert_allclose(run_once(cached), run_once(lambda v: model.apply(v, tokens)), atol=2e-5, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "smollm3"])
def test_a_cached_model_equals_the_uncached_one(family):
    assert_cached_equals_uncached(family, 0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_models_equal_uncached_ones(family, seed):
    assert_cached_equals_uncached(family, seed)


MESHED = {  # sizes that a mesh of two by two divides
    "gemma2": LlamaConfig(
        64, 32, 48, 3, 4, 2, 8, 64, layer_kinds=("local", "global"), window=5, norms="both", norm_offset=True,
        activation="gelu_tanh", scale_embeddings=True, attention_width=7, attention_softcap=1.5, logit_softcap=1.5,
    ),
    "olmo2": LlamaConfig(64, 32, 48, 2, 4, 2, 8, 64, norms="post", qk_norm="all"),
    "smollm3": LlamaConfig(
        64, 32, 48, 3, 4, 2, 8, 64, layer_kinds=("global", "local_nope"), window=5, attention_bias=True,
        output_bias=False,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("scan", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", MESHED)
def test_a_mesh_computes_what_one_device_does(name, scan):
    config, tokens = MESHED[name], tiny.tokens(4, 16, vocab=64)
    run = Compute(scan_layers=scan)
    variables = tiny.variables(config)
    variables = variables if scan else unstack_layers(variables)
    segments = np.repeat([[0, 1]], 8, axis=1).repeat(4, axis=0)
    positions = np.tile(np.arange(8), (4, 2))

    def loss(variables):
        return jnp.mean(jax.nn.logsumexp(Llama(config, run).apply(variables, tokens, positions, segments), axis=-1))

    compiled = lambda: jax.jit(jax.value_and_grad(loss), compiler_options=QUICKLY_COMPILED)(variables)
    alone = compiled()
    with sharding.use(make_mesh(MeshConfig(1, 2, 2), jax.devices()[:4])):
        meshed = compiled()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), alone, jax.device_get(meshed))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_out_and_in_again_is_the_same(family, tmp_path):
    for seed in range(CASES):
        raw = random_config(family, seed)
        config = hf_config.parse(raw, "x")
        written = hf_config.to_hf(config, "float32", {})
        assert hf_config.parse(json.loads(json.dumps(written)), "x") == config
        assert written["model_type"] == family


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_saves_is_read(family, tmp_path):
    transformers = pytest.importorskip("transformers")
    for seed in range(6):
        raw = random_config(family, seed)
        transformers.AutoConfig.for_model(**raw).save_pretrained(tmp_path)
        assert hf_config.read(tmp_path) == hf_config.parse(raw, "x")
