"""Numbers in 8 bits: whole ones from -127 to 127, times a scale that those along an axis share.

Shapes: I input features, O output features; `…` leading axes of stacked layers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """A kernel of which each output has a scale.

    Attributes:
      codes: int8 [… I, O].
      scale: float32 [… O].
    """

    codes: Any
    scale: Any


def axes(inputs: str, outputs: str) -> Int8:
    """The logical axis names of a quantised kernel whose dense form has these."""
    return Int8((inputs, outputs), (outputs,))


def round_to_scale(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The codes of x, and their scales: the largest magnitude along the axis over 127, without that axis."""
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=axis, keepdims=True) / 127
    codes = jnp.round(x / jnp.maximum(scale, jnp.finfo(jnp.float32).tiny))  # zeros stay zero
    return codes.astype(jnp.int8), jnp.squeeze(scale, axis)


@jax.jit
def quantise(kernel: jax.Array) -> Int8:
    """A kernel [… I, O] of any float type."""
    return Int8(*round_to_scale(kernel, -2))


def dequantise(kernel: Int8, dtype: Any) -> jax.Array:
    """The dense kernel [… I, O], computed in float32 and rounded once."""
    return (kernel.codes.astype(jnp.float32) * kernel.scale[..., None, :]).astype(dtype)
