"""Symmetric 8-bit quantisation: integers from -127 to 127, times one scale per axis.

Shapes: I input features, O output features; `…` leading axes of stacked layers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """A kernel quantised per output feature.

    Attributes:
      codes: int8 [… I, O].
      scale: float32 [… O].
    """

    codes: Any
    scale: Any


def axes(inputs: str, outputs: str) -> Int8:
    """The logical axes of each part, given those of the dense kernel."""
    return Int8((inputs, outputs), (outputs,))


def round_to_scale(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """(codes of x, scales without that axis): a scale is the largest magnitude along the axis / 127."""
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=axis, keepdims=True) / 127
    codes = jnp.round(x / jnp.maximum(scale, jnp.finfo(jnp.float32).tiny))  # zeros stay zero
    return codes.astype(jnp.int8), jnp.squeeze(scale, axis)


@jax.jit
def quantise(kernel: jax.Array) -> Int8:
    """Quantises a kernel [… I, O] of any float dtype."""
    return Int8(*round_to_scale(kernel, -2))


def dequantise(kernel: Int8, dtype: Any) -> jax.Array:
    """The dense kernel [… I, O], computed in float32 and rounded once."""
    return (kernel.codes.astype(jnp.float32) * kernel.scale[..., None, :]).astype(dtype)
