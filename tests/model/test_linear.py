import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.model import linear
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh


def test_dropout_keeps_its_rate_its_mean_and_its_secrets():
    ones = jnp.ones((4, 256, 128))
    first, second = (np.asarray(linear.dropout(ones, 0.05, jax.random.key(seed))) for seed in (0, 1))
    gone, other = first == 0, second == 0
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.95)}
    for share in (gone.mean(), other.mean(), gone[0].mean(), gone[:, :, 7].mean()):
        assert abs(share - 0.05) < 0.01
    # Independent of each other, of the neighbour in every axis, and from half to half.
    for pair in (gone & other, gone[1:] & gone[:-1], gone[:, 1:] & gone[:, :-1], gone[..., 1:] & gone[..., :-1]):
        assert abs(pair.mean() - 0.05**2) < 1e-3
    np.testing.assert_array_equal(first, linear.dropout(ones, 0.05, jax.random.key(0)))


def test_the_gradient_of_a_frequent_row_is_summed_in_float32():
    """A sum of ones in bfloat16 ends at 256."""
    table, tokens = jnp.zeros((8, 4), jnp.bfloat16), jnp.full((4, 1024), 3)
    gradient = jax.jit(jax.grad(lambda table: linear.lookup(table, tokens).astype(jnp.float32).sum()))(table)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient, jnp.zeros((8, 4)).at[3].set(4096))


def test_dropout_and_products_do_not_know_of_a_mesh():
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(8, 12, 32)).astype(np.float32), random.normal(size=(32, 16)).astype(np.float32)

    def loss(x, kernel):
        main, again = linear.block_input(x)
        y = linear.matmul(main, kernel, ("embed", "mlp")) + linear.matmul(again, kernel, ("embed", "mlp"))
        return jnp.sum(linear.dropout(linear.block_output(y @ kernel.T), 0.5, jax.random.key(3)) ** 2)

    plain = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, kernel)
    with sharding.use(make_mesh(MeshConfig(1, 4, 2), jax.devices())):
        cut = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-2), cut, plain)


def test_a_products_gradients_are_those_of_a_product():
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(2, 5, 8)), random.normal(size=(8, 6))
    ours = jax.grad(lambda x, w: jnp.sum(jnp.sin(linear.matmul(x, w, ("embed", "mlp")))), argnums=(0, 1))(x, kernel)
    theirs = jax.grad(lambda x, w: jnp.sum(jnp.sin(x @ w)), argnums=(0, 1))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)
