"""The Pallas kernel, interpreted, against attention that holds its logits; alone and on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model import attention
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh

ROWS, LENGTH, HEADS, KV_HEADS, WIDTH = 2, 256, 4, 2, 64


@pytest.fixture(scope="module")
def arrays():
    random = np.random.default_rng(0)
    shapes = [(ROWS, LENGTH, heads, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    segments = np.repeat([[1, 2, 3, 0], [1, 1, 2, 0]], [70, 90, 60, 36], axis=1).astype(np.int32)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes], segments


def outcome(arrays, segments, kind):
    """Output and gradients of a sum of squares over the tokens that are not padding."""

    def loss(q, k, v):
        out = attention.within(q, k, v, segments, kind)
        return jnp.sum(jnp.where(segments[..., None, None] > 0, out, 0.0) ** 2), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
    return [out, *grads]


@pytest.mark.parametrize("mesh", [None, MeshConfig(1, 2, 2)], ids=["alone", "mesh"])
def test_the_kernel_is_attention(arrays, mesh):
    plain = outcome(*arrays, "xla")
    if mesh is None:
        found = outcome(*arrays, "splash")
    else:
        with sharding.use(make_mesh(mesh, jax.devices()[:4])):
            found = outcome(*arrays, "splash")
    for one, other in zip(found, plain):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


def test_auto_is_the_plain_one_off_a_tpu_and_on_short_rows(arrays):
    (q, k, v), segments = arrays
    kernels = lambda kind, n: (
        "pallas"
        in str(jax.make_jaxpr(lambda *x: attention.within(*x, segments[:, :n], kind))(q[:, :n], k[:, :n], v[:, :n]))
    )
    assert [kernels("auto", 256), kernels("xla", 256), kernels("splash", 100), kernels("splash", 256)] == [
        False,
        False,
        False,
        True,
    ]
