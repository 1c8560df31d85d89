import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from lema_jax.model import cache as caches
from lema_jax.model import layout
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from tests import tiny

IN_LINE = Compute(scan_layers=False)
LAYOUTS = [Compute(), IN_LINE]


def laid_out(variables: dict, compute: Compute) -> dict:
    return variables if compute.scan_layers else layout.unstack_layers(variables)


def test_no_token_sees_a_later_one():
    # d logits[t] / d embedding[s] is zero for s > t and not for s <= t: causality of the whole network at once.
    model, variables = Llama(tiny.CONFIG), tiny.variables()
    tokens = tiny.tokens(1, 6)

    def logits(embedded_TD):
        table = jnp.zeros((tiny.CONFIG.vocab_size, tiny.CONFIG.hidden_size)).at[: len(embedded_TD)].set(embedded_TD)
        swapped = {"params": variables["params"] | {"embed": {"embedding": table}}}
        return tiny.apply(model, swapped, jnp.arange(6)[None])[0].sum(axis=-1)

    jacobian_TSD = jax.jit(jax.jacobian(logits))(variables["params"]["embed"]["embedding"][tokens[0]])
    influence_TS = np.abs(jacobian_TSD).max(axis=-1)
    assert (influence_TS[np.triu_indices(6, 1)] == 0).all()
    assert (influence_TS[np.tril_indices(6)] > 0).all()


@pytest.mark.parametrize("compute", LAYOUTS, ids=["scanned", "in line"])
def test_packed_segments_equal_separate_rows(compute):
    model, variables = Llama(tiny.CONFIG, compute), laid_out(tiny.variables(), compute)
    first, second = tiny.tokens(1, 5, seed=1), tiny.tokens(1, 7, seed=2)
    packed = tiny.apply(
        model,
        variables,
        np.concatenate([first, second], axis=1),
        np.concatenate([np.arange(5), np.arange(7)])[None],
        np.array([[1] * 5 + [2] * 7]),
    )
    np.testing.assert_allclose(packed[:, :5], tiny.apply(model, variables, first), atol=1e-5)
    np.testing.assert_allclose(packed[:, 5:], tiny.apply(model, variables, second), atol=1e-5)


@pytest.mark.slow
def test_scanned_equals_in_line_with_adapters_and_gradients():
    variables = tiny.variables(lora=tiny.LORA)
    tokens = tiny.tokens(2, 9)

    def loss(variables, compute):
        model = Llama(tiny.CONFIG, compute, tiny.LORA)
        return jnp.mean(jax.nn.logsumexp(tiny.apply(model, variables, tokens), axis=-1))

    stacked = jax.jit(jax.grad(loss), static_argnums=1)(variables, Compute())
    in_line = jax.jit(jax.grad(loss), static_argnums=1)(layout.unstack_layers(variables), IN_LINE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), stacked, layout.stack_layers(in_line))


@pytest.mark.slow
@pytest.mark.parametrize("remat", [pytest.param("dots", marks=pytest.mark.long), "full"])
@pytest.mark.parametrize("scan", [True, pytest.param(False, marks=pytest.mark.long)])
def test_rematerialisation_changes_no_gradient(remat, scan):
    variables = laid_out(tiny.variables(), Compute(scan_layers=scan))
    tokens = tiny.tokens(2, 9)

    def loss(variables, remat):
        model = Llama(tiny.CONFIG, Compute(scan_layers=scan, remat=remat))
        return jnp.mean(jax.nn.logsumexp(tiny.apply(model, variables, tokens), axis=-1))

    plain, again = (
        jax.jit(jax.grad(loss), static_argnums=1)(variables, "none"),
        jax.jit(jax.grad(loss), static_argnums=1)(variables, remat),
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, again)


@pytest.mark.parametrize("compute", LAYOUTS, ids=["scanned", "in line"])
def test_cached_equals_uncached_in_chunks_of_any_size(compute):
    model, variables = Llama(tiny.CONFIG, compute), laid_out(tiny.variables(), compute)
    tokens = tiny.tokens(2, 8)
    whole = tiny.apply(model, variables, tokens)
    cache = caches.empty(tiny.CONFIG, compute, rows=2, length=12)
    at = 0
    for size in (4, 1, 3):
        piece = tokens[:, at : at + size]
        hidden, cache = tiny.apply(model, variables, piece, jnp.full(2, at), cache, method="extend")
        logits = tiny.apply(model, variables, hidden, method="logits")
        np.testing.assert_allclose(logits, whole[:, at : at + size], atol=1e-5)
        at += size


@pytest.mark.slow
def test_turned_kernels_compute_the_same():
    stacked = tiny.variables(lora=tiny.LORA)
    parts = traverse_util.flatten_dict(stacked)
    arranged = {path: layout.layers_of(path, leaf, transposed=True) for path, leaf in parts.items()}
    turned = layout.unrolled(traverse_util.unflatten_dict(arranged), transposed=True)
    assert not any("'kernel'" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(turned))
    tokens = tiny.tokens(2, 9)
    expected = tiny.apply(Llama(tiny.CONFIG, Compute(), tiny.LORA), stacked, tokens)
    in_line = Llama(tiny.CONFIG, Compute(scan_layers=False), tiny.LORA)
    np.testing.assert_allclose(tiny.apply(in_line, turned, tokens), expected, atol=1e-5)


@pytest.mark.slow
def test_a_fresh_adapter_changes_nothing():
    model = Llama(tiny.CONFIG, Compute(), tiny.LORA)
    fresh = nn.unbox(jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 1), jnp.int32)))
    tokens = tiny.tokens(2, 9)
    base = tiny.apply(Llama(tiny.CONFIG), {"params": fresh["params"]}, tokens)
    np.testing.assert_array_equal(tiny.apply(model, fresh, tokens), base)
    assert all(
        jnp.any(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(fresh["lora"]) if "a" in str(path[-1])
    )


def test_an_adapter_equals_its_merged_kernel():
    variables = tiny.variables(lora=tiny.LORA)
    scale = tiny.LORA.scale
    params, lora = variables["params"], variables["lora"]["layers"]
    merged = jax.tree.map(lambda x: x, params)
    for block in ("attn", "mlp"):
        for name, ab in lora[block].items():
            delta = scale * jnp.einsum("LIR,LRO->LIO", ab["a"], ab["b"])
            merged["layers"][block][name]["kernel"] = params["layers"][block][name]["kernel"] + delta
    tokens = tiny.tokens(2, 9)
    adapted = tiny.apply(Llama(tiny.CONFIG, Compute(), tiny.LORA), variables, tokens)
    np.testing.assert_allclose(adapted, tiny.apply(Llama(tiny.CONFIG), {"params": merged}, tokens), atol=1e-4)


@pytest.mark.slow
def test_dropout_touches_the_adapter_alone():
    dropping = Llama(tiny.CONFIG, Compute(), tiny.LORA.__class__(4, 8.0, 0.5), deterministic=False)
    variables = tiny.variables(lora=tiny.LORA)
    tokens = tiny.tokens(1, 9)
    run = lambda variables, seed: tiny.apply(dropping, variables, tokens, rngs={"dropout": jax.random.key(seed)})
    assert jnp.any(run(variables, 0) != run(variables, 1))
    off = variables | {"lora": jax.tree.map(jnp.zeros_like, variables["lora"])}
    np.testing.assert_array_equal(run(off, 0), run(off, 1))


def test_stacking_is_undone_by_unstacking_anywhere_in_a_tree():
    tree = {"mu": tiny.variables(lora=tiny.LORA), "count": jnp.int32(3)}
    in_line = layout.unstack_layers(tree)
    assert "layers_1" in in_line["mu"]["lora"]
    assert "layers" not in in_line["mu"]["lora"]
    jax.tree.map(np.testing.assert_array_equal, layout.stack_layers(in_line), tree)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])
def test_rows_that_pad_the_vocabulary_change_nothing(tied):
    plain = dataclasses.replace(tiny.CONFIG, tie_embeddings=tied)
    padded = dataclasses.replace(plain, vocab_padding=64)
    variables, tokens = tiny.variables(plain), tiny.tokens(2, 9)
    add = {"embed": ((0, 64), (0, 0)), "head": ((0, 0), (0, 64))}
    # Anything but zero, so that one of these rows would win if they were not barred.
    widen = lambda name: lambda leaf: jnp.pad(leaf, add[name], constant_values=9.0) if name in add else leaf
    wide = {name: jax.tree.map(widen(name), node) for name, node in variables["params"].items()}

    def loss(params, config):
        logits = tiny.apply(Llama(config), {"params": params}, tokens)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens)), logits

    step = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (value, logits), grads = step(variables["params"], plain)
    (same, more), wide_grads = step(wide, padded)
    np.testing.assert_allclose(same, value, rtol=1e-6)
    np.testing.assert_allclose(more[..., :704], logits, atol=1e-6)
    assert (more[..., 704:] == -np.inf).all()
    for name, axis in (("embed", 0), ("head", 1)):
        for leaf, wider in zip(jax.tree.leaves(grads.get(name)), jax.tree.leaves(wide_grads.get(name))):
            kept, padding = np.split(wider, [704], axis)
            np.testing.assert_allclose(kept, leaf, atol=1e-6)
            assert not padding.any()
