"""The engine's greedy answers of every family are transformers': rows refilled, a beginning shared, windows passed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from lema_jax import checkpoint
from lema_jax.data import tokenizer
from lema_jax.data.encode import prompt_ids
from lema_jax.generation.engine import Engine
from lema_jax.model import linear
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.weights import hf_config, names
from lema_jax.weights.families import FAMILIES

pytest.importorskip("torch", reason="the independent implementation; install the extra `oracle`")
import torch

from tests import hf_oracle

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
BEGINNING = " ".join(WORDS * 3) + " "  # longer than a shared prefix has to be
PROMPTS = [BEGINNING + " ".join(np.random.default_rng(n).permutation(WORDS)[: 1 + n % 9]) for n in range(7)]
NEW = 12
# Kernels of whole nf4 tiles, also when cut in two.
SIZES = {"vocab_size": 704, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 8, "head_dim": 16}
SIZES |= {"num_key_value_heads": 4, "max_position_embeddings": 256, "initializer_range": 0.2}
every_family = pytest.mark.parametrize(
    "family", [one if one == "gemma3_text" else pytest.param(one, marks=pytest.mark.long) for one in FAMILIES]
)


@pytest.fixture(scope="module")
def words():
    return tokenizer.train_bpe([" ".join(WORDS)], 704)


def answers(words, config, params, sizes=(1, 1, 1), kernels="dense") -> dict[int, list[int]]:
    """Token ids of the answer to each prompt."""
    mesh, model = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))]), Llama(config, Compute())
    with sharding.use(mesh):
        where = sharding.of(checkpoint.abstract_variables(model, mesh, kernels)["params"])
    variables = {"params": jax.device_put(params, where)}
    made = Engine(model, variables, words, mesh, rows=4, max_new_tokens=NEW)
    return {done.index: words(done.text, add_special_tokens=False).input_ids for done in made.complete(PROMPTS)}


def expected(words, theirs) -> dict[int, list[int]]:
    """transformers' greedy answers, as ids of their text."""
    found = {}
    for index, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt_ids(prompt, words)])
        end = words.eos_token_id
        made = theirs.generate(ids, max_new_tokens=NEW, do_sample=False, eos_token_id=end, pad_token_id=end)
        text = words.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
        found[index] = words(text, add_special_tokens=False).input_ids
    return found


@pytest.mark.slow
@every_family
def test_greedy_answers(words, family):
    theirs = hf_oracle.make(hf_oracle.small(family, **SIZES), seed=1)  # of seed 0, OLMo 2 answers everything alike
    config = hf_config.parse(hf_oracle.small(family, **SIZES), "test")
    params = names.load_model(hf_oracle.StateDict(theirs), config)
    alone = answers(words, config, params)
    assert alone == expected(words, theirs)
    assert len({tuple(ids) for ids in alone.values()}) > 1
    assert answers(words, config, params, sizes=(1, 2, 2)) == alone


@pytest.mark.long
@pytest.mark.parametrize("kernels", linear.FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_of_quantised_kernels(words, family, kernels):
    theirs = hf_oracle.make(hf_oracle.small(family, **SIZES))
    config = hf_config.parse(hf_oracle.small(family, **SIZES), "test")
    params = names.load_model(hf_oracle.StateDict(theirs), config)
    kind, flat = linear.FORMATS[kernels], traverse_util.flatten_dict(params)
    is_quantised = lambda path: path[0] == "layers" and path[-1] == "kernel"
    quantise = lambda leaf: kind.quantise(jnp.asarray(leaf))
    quantised = {path: quantise(leaf) if is_quantised(path) else leaf for path, leaf in flat.items()}
    dense = lambda leaf: np.asarray(kind.dequantise(leaf, np.float32))
    rounded = {path: dense(leaf) if is_quantised(path) else leaf for path, leaf in quantised.items()}
    tree = names.Tree(traverse_util.unflatten_dict(rounded), names.table(config), "rounded")
    state = {name: torch.from_numpy(np.array(names.read_whole(tree, name))) for name in tree.names()}
    theirs.load_state_dict(state, strict=False)
    found = answers(words, config, traverse_util.unflatten_dict(quantised), kernels=kernels)
    assert found == expected(words, theirs)
