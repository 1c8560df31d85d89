import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model import int8, layout
from lema_jax.model.config import Compute
from lema_jax.model.linear import matmul
from lema_jax.model.llama import Llama
from tests import tiny

AXES = ("embed", "mlp")


def kernel(inputs: int = 48, outputs: int = 32) -> np.ndarray:
    """Outputs of unlike size, and one of zeros."""
    random = np.random.default_rng(0)
    sizes = np.exp(2 * random.normal(size=outputs)) * (np.arange(outputs) != 5)
    return (random.normal(size=(inputs, outputs)) * sizes).astype(np.float32)


def test_no_weight_is_off_by_more_than_half_a_unit_of_its_output():
    w = kernel()
    found = int8.quantise(w)
    np.testing.assert_allclose(found.scale, np.abs(w).max(axis=0) / 127, rtol=1e-6)
    off = np.abs(int8.dequantise(found, jnp.float32) - w)
    assert (off <= np.abs(w).max(axis=0) / 254 * (1 + 1e-4)).all()
    assert (np.abs(np.asarray(found.codes, int)).max(axis=0) == 127 * (np.arange(32) != 5)).all()


def test_stacked_kernels_are_quantised_each_alone():
    stacked = np.stack([kernel(), 3 * kernel()])
    whole = int8.quantise(stacked)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[1], whole), int8.quantise(stacked[1]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_product_is_that_of_the_dense_kernel(dtype):
    quantised = int8.quantise(kernel())
    x = jax.random.normal(jax.random.key(0), (3, 5, 48), dtype)
    found = jax.jit(lambda x: matmul(x, quantised, AXES))(x)
    expected = x @ int8.dequantise(quantised, dtype)
    tolerance = 2e-2 if dtype == "bfloat16" else 1e-5
    assert found.dtype == x.dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(Compute(), id="scanned"),
        pytest.param(Compute(scan_layers=False), id="in line", marks=pytest.mark.long),
    ],
)
def test_a_model_with_such_kernels_is_the_dense_one_with_their_values(compute):
    params = tiny.variables()["params"]
    is_kernel = lambda path: path[0].key == "layers" and path[-1].key == "kernel"
    change = lambda of: jax.tree_util.tree_map_with_path(lambda path, x: of(x) if is_kernel(path) else x, params)
    quantised, dense = change(int8.quantise), change(lambda w: int8.dequantise(int8.quantise(w), jnp.float32))
    lay = (lambda tree: tree) if compute.scan_layers else layout.unstack_layers
    tokens = tiny.tokens(2, 9)
    run = lambda tree: tiny.apply(Llama(tiny.CONFIG, compute), {"params": lay(tree)}, tokens)
    np.testing.assert_allclose(run(quantised), run(dense), atol=1e-5)
    assert np.abs(run(quantised) - run(params)).max() > 1e-4  # which is not the model it was
