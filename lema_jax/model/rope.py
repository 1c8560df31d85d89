"""Rotary position embedding, in Hugging Face's convention: a head's first half turns with its second half."""

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.model.config import LlamaConfig


def frequencies(config: LlamaConfig) -> tuple[np.ndarray, float]:
    """The angle per position of each pair, [H/2] float32, and the factor on sine and cosine.

    Pair i turns by theta^(-2i/H) radians a token (RoFormer, arXiv 2104.09864, section 3.3).
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim
    return (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32), 1.0


def sin_cos(config: LlamaConfig, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sine and cosine of every pair at every position, each [B, T, H/2] float32."""
    inv_freq, scaling = frequencies(config)
    angles = positions_BT[..., None].astype(jnp.float32) * inv_freq[None, None]
    return jnp.sin(angles) * scaling, jnp.cos(angles) * scaling


def rotate(x_BTNH: jax.Array, sin_cos: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the pairs (i, i + H/2) of every head by their position's angles, in float32; dtype as it came."""
    sin_BT1P, cos_BT1P = (part[:, :, None, :] for part in sin_cos)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos_BT1P - second * sin_BT1P, second * cos_BT1P + first * sin_BT1P], axis=-1)
    return turned.astype(x_BTNH.dtype)
