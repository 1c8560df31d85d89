"""Adapters merged into the base rounded to nf4 are the model that was trained."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from lema_jax.errors import UserError
from lema_jax.model import nf4
from lema_jax.model.config import LoraConfig
from lema_jax.model.llama import Llama
from lema_jax.weights import names
from lema_jax.weights.merge import Dequantised, Merged
from tests import tiny

QLORA = LoraConfig(rank=4, alpha=8.0, rslora=True, base="nf4")


@pytest.mark.long
def test_a_merged_model_equals_the_unmerged_one_on_nf4():
    variables = tiny.variables(tiny.TILED, LoraConfig(rank=4))
    table, tokens = names.table(tiny.TILED), tiny.tokens(2, 9)
    base = names.Tree(variables["params"], table, "the base")
    merged = names.load_model(Merged(Dequantised(base), variables["lora"], QLORA), tiny.TILED)
    quantised = flatten_dict(variables["params"], sep="/")
    for _, path, _ in names.LINEARS:
        quantised[f"layers/{path}/kernel"] = nf4.quantise(quantised[f"layers/{path}/kernel"])
    params = unflatten_dict(quantised, sep="/")
    unmerged = tiny.apply(Llama(tiny.TILED, lora=QLORA), {"params": params, "lora": variables["lora"]}, tokens)
    np.testing.assert_allclose(tiny.apply(Llama(tiny.TILED), {"params": merged}, tokens), unmerged, atol=1e-4)


@pytest.mark.slow
def test_any_slice_of_a_weight_equals_that_of_the_entire_weight():
    base = names.Tree(tiny.variables(tiny.TILED)["params"], names.table(tiny.TILED), "the base")
    source, name = Dequantised(base), "model.layers.1.mlp.down_proj.weight"
    part = (slice(3, 70), slice(1, 65))
    np.testing.assert_array_equal(source.read(name, part), names.read_whole(source, name)[part])
    assert not np.array_equal(names.read_whole(source, name), names.read_whole(base, name))
    for kept in ("model.embed_tokens.weight", "lm_head.weight", "model.layers.0.input_layernorm.weight"):
        np.testing.assert_array_equal(names.read_whole(source, kept), names.read_whole(base, kept))


def test_a_weight_that_nf4_cannot_hold_is_named():
    base = names.Tree(tiny.variables()["params"], names.table(tiny.CONFIG), "the base")
    with pytest.raises(
        UserError, match=r"model\.layers\.0\.self_attn\.q_proj\.weight \[32, 32\] cannot be quantised to nf4"
    ):
        names.read_whole(Dequantised(base), "model.layers.0.self_attn.q_proj.weight")
