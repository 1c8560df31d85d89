"""The table in both directions: bijective, strict, streaming, in full or in shards."""

import dataclasses
import itertools
import re

import jax
import ml_dtypes
import numpy as np
import pytest
from memory import Memory, tensors

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig
from lema_jax.model.llama import Llama
from lema_jax.weights import names

SMALL = LlamaConfig(16, 8, 24, 3, 4, 2, 4)


def every_config():
    for tied, attention_bias, mlp_bias in itertools.product([False, True], repeat=3):
        yield LlamaConfig(16, 8, 24, 3, 4, 2, 4, tie_embeddings=tied, attention_bias=attention_bias, mlp_bias=mlp_bias)


@pytest.mark.slow
@pytest.mark.parametrize("config", list(every_config()), ids=repr)
def test_the_table_is_the_tree_of_the_model(config):
    abstract = jax.eval_shape(Llama(config).init, jax.random.key(0), np.zeros((1, 2), np.int32))["params"]
    flat = jax.tree_util.tree_flatten_with_path(jax.tree.map(lambda x: x.unbox(), abstract, is_leaf=_boxed))[0]
    model = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in flat}
    assert model == {entry.path: entry.full_shape for entry in names.table(config)}
    all_names = [name for entry in names.table(config) for name in entry.names]
    assert len(set(all_names)) == len(all_names)


def _boxed(leaf):
    return hasattr(leaf, "unbox")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("config", list(every_config()), ids=repr)
def test_in_and_out_again_is_bit_equal(config, dtype):
    source = Memory(tensors(config, dtype))
    tree = names.Tree(names.load_model(source, config), names.table(config), "memory")
    out = {name: names.read_whole(tree, name) for name in tree.names()}
    assert out.keys() == source.tensors.keys()
    for name, array in out.items():
        assert array.dtype == source.tensors[name].dtype
        np.testing.assert_array_equal(array, source.tensors[name])


def test_a_kernel_is_the_transpose_of_its_layer():
    source = Memory(tensors(SMALL))
    params = names.load_model(source, SMALL, np.dtype(np.float32))
    for layer in range(3):
        theirs = source.tensors[f"model.layers.{layer}.mlp.down_proj.weight"]
        np.testing.assert_array_equal(params["layers"]["mlp"]["down"]["kernel"][layer], theirs.T)


def test_sharded_reading_gives_the_same_and_reads_slices_alone():
    source = Memory(tensors(SMALL))
    whole = names.load_model(source, SMALL)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1), "x")
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shards = names.load_model(source, SMALL, shardings=jax.tree.map(lambda _: sharding, whole))
    jax.tree.map(np.testing.assert_array_equal, shards, whole)


def test_part_of_an_array_reads_that_part_alone():
    source = Memory(tensors(SMALL))
    whole = names.load_model(source, SMALL)
    source.reads.clear()
    (entry,) = (entry for entry in names.table(SMALL) if entry.path == "layers/mlp/gate/kernel")
    index = (slice(1, 3), slice(2, 4), slice(6, 12))
    part = names.read_part(source, entry, np.dtype(np.float32), index)
    np.testing.assert_array_equal(part, whole["layers"]["mlp"]["gate"]["kernel"][index])
    assert {size for _, size in source.reads} == {2 * 6}


def test_mismatches_of_every_kind_are_one_line():
    source = Memory(tensors(SMALL))
    del source.tensors["model.layers.1.mlp.up_proj.weight"]
    source.tensors["model.layers.0.self_attn.q_norm.weight"] = np.ones(4)
    source.tensors["model.norm.weight"] = np.ones(9)
    source.tensors["model.layers.7.input_layernorm.weight"] = np.ones(8)
    source.tensors["model.rotary_emb.inv_freq"] = np.ones(2)
    with pytest.raises(UserError) as error:
        names.load_model(source, SMALL)
    text = str(error.value)
    assert "1 missing: model.layers.1.mlp.up_proj.weight [24, 8]; " in text
    assert "2 unexpected: model.layers.0.self_attn.q_norm.weight [4], model.layers.7.input_layernorm.weight [8]" in text
    assert text.endswith("1 of another shape: model.norm.weight [9], not [8]")
    assert "inv_freq" not in text
    assert "\n" not in text


def test_many_mismatches_are_counted_and_the_first_are_named():
    source = Memory({f"transformer.h.{i}.weight": np.ones(1) for i in range(500)})
    with pytest.raises(UserError) as error:
        names.load_model(source, SMALL)
    assert re.search(r"\d\d missing: lm_head.weight \[.*?\], .*, .* and \d\d more; 500 unexpected: ", str(error.value))
    assert str(error.value).endswith(" and 497 more")
    assert len(str(error.value)) < 600


def test_a_tied_head_may_be_stored_but_not_differ():
    tied = LlamaConfig(16, 8, 24, 1, 4, 2, 4, tie_embeddings=True)
    source = Memory(tensors(tied))
    source.tensors["lm_head.weight"] = source.tensors["model.embed_tokens.weight"].copy()
    assert "head" not in names.load_model(source, tied)
    source.tensors["lm_head.weight"][3, 3] += 1
    with pytest.raises(UserError, match=r"lm_head\.weight differs"):
        names.load_model(source, tied)


def test_a_tree_of_another_config_names_the_arrays():
    params = names.load_model(Memory(tensors(SMALL)), SMALL)
    del params["norm"]
    params["extra"] = np.ones(3)
    params["layers"]["attn"]["q"]["kernel"] = np.ones((3, 8, 15))
    with pytest.raises(UserError) as error:
        names.Tree(params, names.table(SMALL), "memory")
    text = str(error.value)
    assert "1 missing: norm/scale [8]" in text
    assert "1 unexpected: extra [3]" in text
    assert "1 of another shape: layers/attn/q/kernel [3, 8, 15], not [3, 8, 16]" in text


def test_layers_of_unlike_types_are_promoted():
    source = Memory(tensors(SMALL, np.float16))
    name = "model.layers.2.mlp.up_proj.weight"
    source.tensors[name] = source.tensors[name].astype(ml_dtypes.bfloat16)
    params = names.load_model(source, SMALL)
    assert params["layers"]["mlp"]["up"]["kernel"].dtype == np.float32
    assert params["norm"]["scale"].dtype == np.float16


@pytest.mark.parametrize("tied", [False, True])
def test_a_padded_vocabulary_has_rows_of_zeros_that_do_not_go_out(tied):
    config = dataclasses.replace(SMALL, vocab_size=13, vocab_padding=19, tie_embeddings=tied)
    source = Memory(tensors(config))
    params = names.load_model(source, config)
    padded = [params["embed"]["embedding"]] + ([] if tied else [params["head"]["kernel"].T])
    for array in padded:
        assert array.shape == (32, 8)
        assert array[:13].all()
        assert not array[13:].any()
    tree = names.Tree(params, names.table(config), "memory")
    for name, array in source.tensors.items():
        np.testing.assert_array_equal(names.read_whole(tree, name), array)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "x")
    cut = jax.tree.map(lambda _: jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()), params)
    cut["embed"]["embedding"] = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    jax.tree.map(np.testing.assert_array_equal, names.load_model(source, config, shardings=cut), params)
