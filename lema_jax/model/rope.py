"""Rotary position embedding in Hugging Face's convention: dimension i of a head is paired with i + H/2.

Shapes: B batch, T time, N heads, H head width, P = H / 2 pairs.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.model.config import LlamaConfig, RopeScaling


def frequencies(config: LlamaConfig) -> tuple[np.ndarray, float]:
    """Frequency of each pair in radians per position, [P] float32, and the factor on sine and cosine.

    The frequency of pair i is f = theta^(-2i/H) (RoFormer, arXiv 2104.09864, section 3.3), scaled to
    f · (kept + (1 - kept) / factor). The kind `dynamic` depends on the text's length; see `sin_cos`.
    """
    scaling = config.rope_scaling
    frequency_P = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    kept_P = _kept(config, frequency_P)
    stretched_P = (frequency_P * (kept_P + (1 - kept_P) / scaling.factor)).astype(np.float32)
    if scaling.kind != "yarn":
        return stretched_P, 1.0
    if scaling.attention_factor is not None:
        return stretched_P, scaling.attention_factor
    return stretched_P, 0.1 * math.log(max(1.0, scaling.factor)) + 1.0


def _kept(config: LlamaConfig, frequency_P: np.ndarray) -> np.ndarray:
    """How much of each pair's frequency stays unscaled, 0 to 1, [P]."""
    scaling = config.rope_scaling
    if scaling.kind == "linear":  # position interpolation, arXiv 2306.15595
        return np.zeros_like(frequency_P)
    if scaling.kind == "llama3":  # Llama 3.1: a ramp over a pair's rotations in the original context
        turns = scaling.original_positions * frequency_P / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        return np.clip((turns - low) / (high - low), 0, 1)
    if scaling.kind == "yarn":  # YaRN, arXiv 2309.00071, section 3.2: a ramp over the pair's index
        first, last = _pair(config, scaling.beta_fast), _pair(config, scaling.beta_slow)
        if scaling.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, config.head_dim - 1)
        return 1 - np.clip((np.arange(frequency_P.size) - first) / (last - first or 0.001), 0, 1)
    return np.ones_like(frequency_P)


def _pair(config: LlamaConfig, turns: float) -> float:
    """The (fractional) index of the pair with so many rotations in the original context."""
    ratio = config.rope_scaling.original_positions / (turns * 2 * math.pi)
    return config.head_dim * math.log(ratio) / (2 * math.log(config.rope_theta))


def sin_cos(config: LlamaConfig, positions_BT: jax.Array, length_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sine and cosine of every pair at every position, each [B, T, P] float32.

    `length_BT` ([B, T] or [B, 1]): length of each token's text, without padding; only `dynamic` reads it.
    """
    frequency_P, factor = frequencies(config)
    frequency_BTP = jnp.asarray(frequency_P)[None, None]
    if config.rope_scaling.kind == "dynamic":
        frequency_BTP = frequency_BTP * _dynamic(config, length_BT)
    angles_BTP = positions_BT[..., None].astype(jnp.float32) * frequency_BTP
    return jnp.sin(angles_BTP) * factor, jnp.cos(angles_BTP) * factor


def of_kind(
    config: LlamaConfig, kind: str, positions_BT: jax.Array, length_BT: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`sin_cos` of the layers of a kind, one of `config.LAYER_KINDS`; those without rope turn by no angle."""
    if kind.endswith("nope"):
        zeros_BTP = jnp.zeros((*positions_BT.shape, config.head_dim // 2))
        return zeros_BTP, jnp.ones_like(zeros_BTP)
    if kind == "local" and config.local_rope_theta is not None:
        config = dataclasses.replace(config, rope_theta=config.local_rope_theta, rope_scaling=RopeScaling())
    return sin_cos(config, positions_BT, length_BT)


def text_lengths(positions_BT: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
    """The length of each token's segment, [B, T]; segment ids count from 0 to at most T."""
    segments = positions_BT.shape[1] + 1
    last = lambda positions_T, ids_T: jax.ops.segment_max(positions_T, ids_T, segments)[ids_T]
    return jax.vmap(last)(positions_BT, segment_ids_BT) + 1


def _dynamic(config: LlamaConfig, length_BT: jax.Array) -> jax.Array:
    """The factor on the frequencies in a text of that length, [B, T, P] ("dynamic NTK").

    Beyond the trained context theta grows by (factor · length / trained - (factor - 1))^(H / (H - 2)). Cached keys keep
    the rotation of the length at which they were written, as in transformers.
    """
    h, factor = config.head_dim, config.rope_scaling.factor
    beyond_BT = factor * jnp.maximum(length_BT / config.max_positions, 1.0) - (factor - 1)
    exponents_P = -np.arange(0, h, 2, dtype=np.float32) / (h - 2)
    return beyond_BT[..., None] ** exponents_P[None, None]


def rotate(x_BTNH: jax.Array, sin_cos: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates the pairs (i, i + H/2) of every head, in float32; returns x's dtype."""
    sin_BT1P, cos_BT1P = (part[:, :, None, :] for part in sin_cos)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos_BT1P - second * sin_BT1P, second * cos_BT1P + first * sin_BT1P], axis=-1)
    return rotated.astype(x_BTNH.dtype)
