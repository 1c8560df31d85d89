"""Rotary position embedding, in Hugging Face's convention: a head's first half turns with its second half.

Shapes: B batch, T time, N heads, H head width, P = H / 2 pairs.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.model.config import LlamaConfig


def frequencies(config: LlamaConfig) -> tuple[np.ndarray, float]:
    """Radians per position of each pair, [P] float32, and the factor on sine and cosine.

    Pair i turns by f = theta^(-2i/H) (RoFormer, arXiv 2104.09864, section 3.3); stretching takes it to
    f · (kept + (1 - kept) / factor). The kind `dynamic` stretches by length, in `sin_cos`.
    """
    scaling = config.rope_scaling
    turns_P = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    kept_P = _kept(config, turns_P)
    stretched_P = (turns_P * (kept_P + (1 - kept_P) / scaling.factor)).astype(np.float32)
    if scaling.kind != "yarn":
        return stretched_P, 1.0
    if scaling.attention_factor is not None:
        return stretched_P, scaling.attention_factor
    return stretched_P, 0.1 * math.log(max(1.0, scaling.factor)) + 1.0


def _kept(config: LlamaConfig, turns_P: np.ndarray) -> np.ndarray:
    """The share, 0 to 1, of each pair that is not stretched, [P]."""
    scaling = config.rope_scaling
    if scaling.kind == "linear":  # position interpolation, arXiv 2306.15595
        return np.zeros_like(turns_P)
    if scaling.kind == "llama3":  # Llama 3.1: by how many turns a pair makes in the original context
        turns = scaling.original_positions * turns_P / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        return np.clip((turns - low) / (high - low), 0, 1)
    if scaling.kind == "yarn":  # YaRN, arXiv 2309.00071, section 3.2: likewise, but a ramp over the pair's index
        first, last = _pair(config, scaling.beta_fast), _pair(config, scaling.beta_slow)
        if scaling.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, config.head_dim - 1)
        return 1 - np.clip((np.arange(turns_P.size) - first) / (last - first or 0.001), 0, 1)
    return np.ones_like(turns_P)


def _pair(config: LlamaConfig, turns: float) -> float:
    """The (fractional) index of the pair that makes so many turns in the original context."""
    ratio = config.rope_scaling.original_positions / (turns * 2 * math.pi)
    return config.head_dim * math.log(ratio) / (2 * math.log(config.rope_theta))


def sin_cos(config: LlamaConfig, positions_BT: jax.Array, length_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sine and cosine of every pair at every position, each [B, T, P] float32.

    `length_BT` ([B, T] or [B, 1]): the tokens of the text that a token is in, without padding; `dynamic` reads it.
    """
    turns_P, factor = frequencies(config)
    turns_BTP = jnp.asarray(turns_P)[None, None]
    if config.rope_scaling.kind == "dynamic":
        turns_BTP = turns_BTP * _dynamic(config, length_BT)
    angles_BTP = positions_BT[..., None].astype(jnp.float32) * turns_BTP
    return jnp.sin(angles_BTP) * factor, jnp.cos(angles_BTP) * factor


def text_lengths(positions_BT: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
    """How long the segment of each token is, [B, T]; segments are numbered from 0, at most T of a row."""
    slots = positions_BT.shape[1] + 1
    last = lambda positions_T, ids_T: jax.ops.segment_max(positions_T, ids_T, slots)[ids_T]
    return jax.vmap(last)(positions_BT, segment_ids_BT) + 1


def _dynamic(config: LlamaConfig, length_BT: jax.Array) -> jax.Array:
    """What the frequencies are multiplied by in a text of that length, [B, T, P] ("dynamic NTK").

    Beyond the trained context theta grows by (factor · length / trained - (factor - 1))^(H / (H - 2)). Keys stay in a
    cache as they were turned when the row was shorter, as in transformers.
    """
    h, factor = config.head_dim, config.rope_scaling.factor
    beyond_BT = factor * jnp.maximum(length_BT / config.max_positions, 1.0) - (factor - 1)
    exponents_P = -np.arange(0, h, 2, dtype=np.float32) / (h - 2)
    return beyond_BT[..., None] ** exponents_P[None, None]


def rotate(x_BTNH: jax.Array, sin_cos: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the pairs (i, i + H/2) of every head by their position's angles, in float32; dtype as it came."""
    sin_BT1P, cos_BT1P = (part[:, :, None, :] for part in sin_cos)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos_BT1P - second * sin_BT1P, second * cos_BT1P + first * sin_BT1P], axis=-1)
    return turned.astype(x_BTNH.dtype)
