import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model import cache as caches
from lema_jax.model import layout
from lema_jax.model.config import CACHES, Compute
from lema_jax.model.llama import Llama
from tests import tiny

LAYERS, ROWS, HEADS, WIDTH = tiny.CONFIG.num_layers, 3, tiny.CONFIG.num_kv_heads, tiny.CONFIG.head_dim


def tokens(count: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Keys and values [B, T, K, H], of unlike size."""
    keys = jax.random.split(jax.random.key(seed))
    shape = (ROWS, count, HEADS, WIDTH)
    return tuple(jax.random.normal(key, shape) * 10.0 ** jnp.arange(count)[None, :, None, None] for key in keys)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("kind", CACHES)
def test_tokens_are_read_where_they_were_written(kind, platform, monkeypatch):
    monkeypatch.setattr(caches, "platform", lambda: platform)  # what is written as on a TPU, where it is written there
    monkeypatch.setattr(caches, "LANES", WIDTH + 1)
    made = caches.empty(tiny.CONFIG, Compute(), ROWS, 10, kind)
    k_BTKH, v_BTKH = tokens(2, 0)
    start_B = np.array([0, 3, 8])
    made = jax.jit(lambda made: made.write(1, k_BTKH, v_BTKH, start_B).resized(13))(made)
    assert made.length == 13
    k_BKHS, v_BKSH = made.read(1, "float32")
    for row, start in enumerate(start_B):
        for found, put in (
            (jnp.moveaxis(k_BKHS[row], 2, 0), k_BTKH[row]),
            (jnp.swapaxes(v_BKSH[row], 0, 1), v_BTKH[row]),
        ):
            off = np.abs(found[start : start + 2] - put)
            unit = np.abs(put).max(axis=-1, keepdims=True) / 127
            assert (off <= (unit / 2 * (1 + 1e-4) if kind == "int8" else 0)).all()
            assert not np.delete(found, [start, start + 1], axis=0).any()
    assert not any(array.any() for array in made.read(0, "float32"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(Compute(), id="scanned"),
        pytest.param(Compute(scan_layers=False), id="in line", marks=pytest.mark.long),
    ],
)
def test_eight_bits_change_logits_by_little(compute):
    """And by the same for any prefill chunks: later tokens read the rounded keys either way."""
    model, variables = Llama(tiny.CONFIG, compute), tiny.variables()
    variables = variables if compute.scan_layers else layout.unstack_layers(variables)
    ids = tiny.tokens(2, 8)
    whole = np.asarray(tiny.apply(model, variables, ids))

    def read(sizes: tuple[int, ...]) -> np.ndarray:
        cache, at, found = caches.empty(tiny.CONFIG, compute, 2, 12, "int8"), 0, []
        for size in sizes:
            piece = ids[:, at : at + size]
            hidden, cache = tiny.apply(model, variables, piece, jnp.full(2, at), cache, method="extend")
            found.append(tiny.apply(model, variables, hidden, method="logits"))
            at += size
        return np.concatenate(found, axis=1)

    found = read((4, 1, 3))
    assert 0 < np.abs(found - whole).max() < 0.02 * np.abs(whole).max()
    np.testing.assert_allclose(found, read((8,)), atol=1e-5)
