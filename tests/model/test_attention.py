"""Attention kernels, interpreted, against attention with materialised logits; on one device and on a mesh."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model import attention
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh

KERNELS = ["splash", "cudnn", "triton"]
ROWS, LENGTH, HEADS, KV_HEADS, WIDTH = 2, 256, 4, 2, 64


@pytest.fixture(scope="module")
def arrays():
    random = np.random.default_rng(0)
    shapes = [(ROWS, LENGTH, heads, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    segments = np.repeat([[1, 2, 3, 0], [1, 1, 2, 0]], [70, 90, 60, 36], axis=1).astype(np.int32)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes], segments


def outcome(arrays, segments, kind, **how):
    """Output and gradients of a sum of squares over the tokens that are not padding."""

    def loss(q, k, v):
        out = attention.attend_segments(q, k, v, segments, kind, **how)
        return jnp.sum(jnp.where(segments[..., None, None] > 0, out, 0.0) ** 2), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
    return [out, *grads]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [None, MeshConfig(1, 2, 2)], ids=["alone", "mesh"])
@pytest.mark.parametrize("kind", KERNELS)
def test_a_kernel_is_attention(arrays, kind, mesh):
    plain = outcome(*arrays, "xla")
    if mesh is None:
        found = outcome(*arrays, kind)
    else:
        with sharding.use(make_mesh(mesh, jax.devices()[:4])):
            found = outcome(*arrays, kind)
    for one, other in zip(found, plain):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [None, MeshConfig(1, 2, 2)], ids=["alone", "mesh"])
@pytest.mark.parametrize("which", [0, 1])
def test_windows_scale_and_softcap_of_a_kernel_are_those_of_attention(arrays, which, mesh):
    how = {"logits": attention.Logits(0.3, 2.0), "windows": (40, None), "which": jnp.int32(which)}
    plain = outcome(*arrays, "xla", **how)
    with contextlib.nullcontext() if mesh is None else sharding.use(make_mesh(mesh, jax.devices()[:4])):
        found = outcome(*arrays, "splash", **how)
    for one, other in zip(found, plain):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 40, None])
@pytest.mark.parametrize("kind", ["xla", *KERNELS])
def test_a_token_attends_to_its_window_of_its_segment(arrays, kind, window):
    (q, k, v), segments = arrays
    logits = attention.Logits(0.3, 2.0)
    found = jax.jit(lambda: attention.attend_segments(q, k, v, segments, kind, logits, (window,)))()
    at = np.arange(LENGTH)
    back = at[:, None] - at[None]
    seen = (segments[:, :, None] == segments[:, None]) & (back >= 0) & (back < (window or LENGTH))
    k, v = (np.repeat(x, HEADS // KV_HEADS, axis=2) for x in (k, v))
    weights = 2.0 * np.tanh(0.3 * np.einsum("btnh,bsnh->bnts", q, k) / 2.0)
    weights = np.where(seen[:, None], np.exp(weights), 0.0)
    expected = np.einsum("bnts,bsnh->btnh", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(found[segments > 0], expected[segments > 0], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("kind", ["xla", *KERNELS])
def test_nothing_crosses_a_segment_or_comes_from_later(arrays, kind):
    (q, k, v), segments = arrays
    asked = (segments == 2) & (np.arange(LENGTH) < 200)

    def loss(k, v):
        return jnp.sum(jnp.where(asked[..., None, None], attention.attend_segments(q, k, v, segments, kind), 0.0) ** 2)

    seen = (segments == 2) & (np.cumsum(asked[:, ::-1], axis=1)[:, ::-1] > 0)
    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1)))(k, v):
        per_token = np.abs(gradient).max(axis=(2, 3))
        assert (per_token[~seen] == 0).all()
        assert (per_token[seen] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cudnn", "triton"])
def test_a_gpu_kernel_falls_back_for_a_sharded_length(arrays, kind):
    plain = outcome(*arrays, "xla")
    with sharding.use(make_mesh(MeshConfig(1, 1, 1, 4), jax.devices()[:4])):
        found = outcome(*arrays, kind)
    for one, other in zip(found, plain):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cudnn", "triton"])
def test_a_kernel_for_gpus_takes_bfloat16(arrays, kind):
    halves = [array.astype(jnp.bfloat16) for array in arrays[0]]
    found, plain = (attention.attend_segments(*halves, arrays[1], each) for each in (kind, "xla"))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), plain.astype(np.float32), atol=0.03)


def test_auto_is_the_plain_one_off_a_tpu_and_on_short_rows(arrays):
    (q, k, v), segments = arrays
    kernels = lambda kind, n: (
        "pallas"
        in str(
            jax.make_jaxpr(lambda *x: attention.attend_segments(*x, segments[:, :n], kind))(
                q[:, :n], k[:, :n], v[:, :n]
            )
        )
    )
    assert [kernels("auto", 256), kernels("xla", 256), kernels("splash", 100), kernels("splash", 256)] == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "head_dim", "kernel"),
    [
        ("tpu", "", jnp.bfloat16, 128, "splash"),
        ("gpu", "9.0", jnp.bfloat16, 64, "triton"),
        ("gpu", "9.0", jnp.float32, 64, "xla"),
        ("gpu", "9.0", jnp.bfloat16, 128, "xla"),
        ("gpu", "8.0", jnp.bfloat16, 64, "xla"),
        ("cpu", "", jnp.bfloat16, 64, "xla"),
    ],
)
def test_auto_takes_a_kernel_only_where_it_was_checked(platform, capability, dtype, head_dim, kernel):
    assert attention.automatic(platform, capability, jnp.dtype(dtype), head_dim) == kernel
