"""NormalFloat4 against its definition in numpy, qwix's table and bitsandbytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model import nf4
from lema_jax.model.linear import matmul
from lema_jax.model.nf4 import BLOCK

AXES = ("embed", "mlp")

KERNELS = {
    "normal": lambda random, shape: 0.02 * random.normal(size=shape),
    "heavy tails": lambda random, shape: random.standard_t(2, size=shape),
    "rows of unlike size": lambda random, shape: (
        random.normal(size=shape) * np.exp(3 * random.normal(size=shape[0]))[:, None]
    ),
    "a zero block": lambda random, shape: random.normal(size=shape) * (np.arange(shape[1]) != 5),
    "all zero": lambda random, shape: np.zeros(shape),
}


def kernel(kind: str, inputs: int = 192, outputs: int = 128) -> np.ndarray:
    return KERNELS[kind](np.random.default_rng(0), (inputs, outputs)).astype(np.float32)


def unpacked(quantised) -> np.ndarray:
    """The codes [I, O]."""
    codes = np.asarray(quantised.codes)
    return np.concatenate([codes >> 4, codes & 15], axis=-2).reshape(-1, codes.shape[-1])


def nearest(x, values):
    return np.abs(np.asarray(x, np.float64)[..., None] - values).argmin(axis=-1)


every_kind = pytest.mark.parametrize("kind", KERNELS)


@every_kind
def test_codes_and_magnitudes_are_the_nearest_by_definition(kind):
    w = kernel(kind)
    found = nf4.quantise(w)
    for row in range(0, w.shape[0], BLOCK):
        for column in range(0, w.shape[1], BLOCK):
            tile = w[row : row + BLOCK, column : column + BLOCK].astype(np.float64)
            largest = np.abs(tile).max(axis=0)
            codes = nearest(tile / np.where(largest == 0, 1, largest), nf4.VALUES)
            np.testing.assert_array_equal(unpacked(found)[row : row + BLOCK, column : column + BLOCK], codes)
            mean = largest.mean()
            scale = np.abs(largest - mean).max()
            at = row // BLOCK, column // BLOCK
            np.testing.assert_allclose(found.mean[at], mean, rtol=1e-6)
            np.testing.assert_allclose(found.scale[at], scale, rtol=1e-5, atol=1e-7)
            stored = np.asarray(found.magnitudes[at[0], column : column + BLOCK]).astype(int)
            meant = nearest((largest - mean) / (scale or 1), nf4.DYNAMIC)
            assert np.abs(stored - meant).max() <= 1  # one apart where float32 lies on an edge
            assert (stored != meant).mean() < 0.05


def test_the_sixteen_values_are_those_of_qwix():
    numerics = pytest.importorskip("qwix._src.core.numerics")
    np.testing.assert_array_equal(nf4.VALUES, numerics.get_nf4_buckets())


def of_bitsandbytes(w: np.ndarray):
    """Its codes [I, O] and 8-bit codes [I/64, O], and the magnitudes [I/64, O] that these stand for."""
    torch, bnb = pytest.importorskip("torch"), pytest.importorskip("bitsandbytes.functional")
    weight = torch.from_numpy(w.T.copy())
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    halves = packed.numpy().reshape(w.shape[1], -1)
    codes = np.stack([halves >> 4, halves & 15], axis=-1).reshape(w.T.shape).T
    stored = state.absmax.numpy()
    scale = state.state2.absmax.numpy().repeat(256)[: stored.size]
    magnitudes = bnb.create_dynamic_map().numpy()[stored] * scale + state.offset.item()
    by_block = lambda array: array.reshape(w.shape[1], -1).T
    return codes, by_block(stored), by_block(magnitudes)


def magnitudes_of(quantised) -> np.ndarray:
    tiles = np.asarray(quantised.magnitudes).reshape(*quantised.scale.shape, BLOCK)
    found = nf4.DYNAMIC[tiles] * np.asarray(quantised.scale)[..., None] + np.asarray(quantised.mean)[..., None]
    return found.reshape(quantised.magnitudes.shape)


@every_kind
def test_a_tile_is_what_bitsandbytes_makes_of_it(kind):
    w = kernel(kind, BLOCK, BLOCK)
    found = nf4.quantise(w)
    codes, stored, magnitudes = of_bitsandbytes(w)
    np.testing.assert_array_equal(unpacked(found), codes)
    if kind != "all zero":  # where theirs divides by nothing
        np.testing.assert_array_equal(found.magnitudes, stored)
        np.testing.assert_allclose(magnitudes_of(found), magnitudes, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["normal", "heavy tails"])
def test_larger_kernels_differ_from_bitsandbytes_by_less_than_its_second_quantisation_costs(kind):
    w = kernel(kind, 512, 256)
    found = nf4.quantise(w)
    codes, _, magnitudes = of_bitsandbytes(w)
    np.testing.assert_array_equal(unpacked(found), codes)
    true = np.abs(w).reshape(-1, BLOCK, w.shape[1]).max(axis=1)
    rms = lambda x: np.sqrt(np.mean(np.square(x)))
    theirs = rms(magnitudes - true)
    assert rms(magnitudes_of(found) - true) < theirs
    assert rms(magnitudes_of(found) - magnitudes) < 1.5 * theirs


@pytest.mark.slow
@every_kind
def test_the_round_trip_stays_in_its_bounds(kind):
    w = kernel(kind)
    found = np.asarray(nf4.dequantise(nf4.quantise(w), jnp.float32))
    tiles = np.abs(w).reshape(-1, BLOCK, w.shape[1]).max(axis=1)  # magnitudes [I/64, O]
    spread = tiles.reshape(tiles.shape[0], -1, BLOCK)
    spread = np.abs(spread - spread.mean(axis=-1, keepdims=True)).max(axis=-1).repeat(BLOCK, axis=-1)
    widest = np.diff(nf4.VALUES).max() / 2, np.diff(nf4.DYNAMIC).max() / 2 + 1e-6
    bound = widest[0] * tiles + widest[1] * spread
    assert (np.abs(found - w) <= bound.repeat(BLOCK, axis=0) * (1 + 1e-5)).all()


def test_every_code_is_read_as_its_value():
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(nf4._look_up(codes % 16, nf4.VALUES), nf4.VALUES[codes % 16])
    np.testing.assert_allclose(nf4._dynamic(codes), nf4.DYNAMIC, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_stacked_kernels_are_quantised_each_alone():
    stacked = np.stack([kernel("normal"), kernel("heavy tails")])
    whole = nf4.quantise(stacked)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[1], whole), nf4.quantise(stacked[1]))
    np.testing.assert_array_equal(
        nf4.dequantise(whole, "bfloat16")[0], nf4.dequantise(nf4.quantise(stacked[0]), "bfloat16")
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_product_and_its_gradient_are_those_of_the_dense_kernel(dtype):
    quantised = nf4.quantise(kernel("normal"))
    x = jax.random.normal(jax.random.key(0), (3, 5, 192), dtype)
    y = jax.random.normal(jax.random.key(1), (3, 5, 128), dtype)
    through = lambda of: jax.jit(jax.value_and_grad(lambda x: jnp.sum((of(x) * y).astype(jnp.float32))))(x)
    found = through(lambda x: matmul(x, quantised, AXES))
    expected = through(lambda x: x @ nf4.dequantise(quantised, dtype))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2 if dtype == "bfloat16" else 1e-5, atol=1e-6),
        found,
        expected,
    )


def test_the_backward_pass_keeps_codes_alone():
    quantised = nf4.quantise(kernel("normal"))
    backward = jax.eval_shape(lambda x: jax.vjp(lambda x: matmul(x, quantised, AXES), x)[1], jnp.ones((5, 192)))
    assert all(leaf.size * leaf.dtype.itemsize < 192 * 128 for leaf in jax.tree.leaves(backward))
    assert any(leaf.dtype == jnp.uint8 for leaf in jax.tree.leaves(backward))
