"""Kernels in NormalFloat4 with doubly quantised scales, as QLoRA holds them (arXiv 2305.14314, section 3, appendix E).

A kernel [I, O] is cut in tiles of 64 × 64. In a tile each of the 64 columns is a block: its 64 numbers (consecutive
inputs of one output) are divided by their largest magnitude and stored as the nearest of 16 values, 4 bits each. The
64 magnitudes of the tile have their mean taken off, are divided by the largest that is left and stored in 8 bits. So a
weight takes 4 + 8/64 + 2 · 32/4096 = 4.14 bits.

Shapes: I input features, O output features; `…` leading axes of stacked layers.
"""

# bitsandbytes has the same blocks, but takes one mean over a whole kernel, and its 8-bit groups are 256 magnitudes as
# they follow each other in memory. Here all that belongs together lies in one tile: a device that holds whole tiles
# needs nothing from another, and the numbers are the same on every mesh. Where the two coincide, in a kernel of one
# tile, their codes are equal; in larger ones only the magnitudes differ, by less than their second quantisation costs
# either (tests/model/test_nf4.py).

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.errors import UserError

BLOCK = 64  # of inputs that share a magnitude, and of outputs whose magnitudes share a scale

# The 16 values: quantiles of a normal distribution scaled to [-1, 1], with an exact zero (appendix E).
VALUES = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)


def _dynamic_values() -> np.ndarray:
    """The 256 values of the 8-bit code, ascending: sign, decimal exponent -6 … 0, and the bits that the exponent leaves
    for the fraction (arXiv 1511.04561). Code 127 + k is the k-th positive value, 127 is zero, 255 is one."""
    positive = []
    for exponent in range(7):
        edges = np.linspace(0.1, 1.0, 2**exponent + 1, dtype=np.float32)
        positive.append(np.float32(10.0 ** (exponent - 6)) * (edges[:-1] + edges[1:]) / 2)
    found = np.concatenate(positive)
    return np.concatenate([-found[::-1], [0.0], found, [1.0]]).astype(np.float32)


DYNAMIC = _dynamic_values()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Nf4:
    """A quantised kernel.

    Attributes:
      codes: uint8 [… I/64, 32, O], two codes in each: rows 0 … 31 of a block in the high halves, 32 … 63 in the low.
      magnitudes: uint8 [… I/64, O].
      scale: float32 [… I/64, O/64], of a tile's magnitudes.
      mean: float32 [… I/64, O/64], of a tile's magnitudes.
    """

    codes: Any
    magnitudes: Any
    scale: Any
    mean: Any

    @property
    def size(self) -> int:
        """How many weights it holds."""
        return 2 * math.prod(self.codes.shape)


def axes(inputs: str, outputs: str) -> Nf4:
    """The logical axis names of a quantised kernel whose dense form has these: it is cut as that is, in whole tiles."""
    tiles = (inputs, outputs)
    return Nf4((inputs, "block", outputs), tiles, tiles, tiles)


def check(name: str, shape: tuple[int, ...]) -> None:
    """Raises a UserError, which names it, for a kernel that is not made of whole tiles."""
    if any(size % BLOCK for size in shape):
        raise UserError(
            f"{name} {list(shape)} cannot be held as nf4, which cuts a kernel in tiles of {BLOCK} × {BLOCK}; "
            "hold it dense (lora.base=dense, --merge_into=base, --weights=dense or int8)"
        )


@jax.jit
def quantise(kernel: jax.Array) -> Nf4:
    """A kernel [… I, O] of any float type; I and O must divide by BLOCK."""
    blocks = kernel.astype(jnp.float32)
    blocks = blocks.reshape(*blocks.shape[:-2], -1, BLOCK, blocks.shape[-1])
    largest = jnp.max(jnp.abs(blocks), axis=-2)
    nearest = _nearest(blocks * _inverse(largest)[..., None, :], VALUES)
    high, low = jnp.split(nearest, 2, axis=-2)
    tiles = largest.reshape(*largest.shape[:-1], -1, BLOCK)
    mean = _mean(tiles)
    centred = tiles - mean[..., None]
    scale = jnp.max(jnp.abs(centred), axis=-1)
    magnitudes = _nearest(centred * _inverse(scale)[..., None], DYNAMIC).reshape(largest.shape)
    return Nf4(high << 4 | low, magnitudes, scale, mean)


def dequantise(kernel: Nf4, dtype: Any) -> jax.Array:
    """The dense kernel [… I, O], computed in float32 and rounded once."""
    tiles = kernel.magnitudes.reshape(*kernel.scale.shape, BLOCK)
    magnitudes = _dynamic(tiles) * kernel.scale[..., None] + kernel.mean[..., None]
    # A magnitude is computed once, not again for each of its 64 weights.
    magnitudes = jax.lax.optimization_barrier(magnitudes.reshape(kernel.magnitudes.shape))[..., None, :]
    # Halves are joined while they are bytes: spread by shifts instead, or as wider numbers, a TPU takes up to thrice as
    # long, and joined as weights a CPU takes five times as long.
    codes = jnp.concatenate([kernel.codes >> 4, kernel.codes & 15], axis=-2)  # [… I/64, 64, O]
    dense = (_look_up(codes, VALUES) * magnitudes).astype(dtype)
    return dense.reshape(*dense.shape[:-3], -1, dense.shape[-1])


def _nearest(x: jax.Array, values: np.ndarray) -> jax.Array:
    """The code of the nearest of ascending values."""
    return jnp.searchsorted((values[:-1] + values[1:]) / 2, x, method="compare_all").astype(jnp.uint8)


def _look_up(codes: jax.Array, values: np.ndarray) -> jax.Array:
    """values[codes] as a tree of selects by the bits of the codes. On a TPU it costs next to nothing beside unpacking,
    where a gather (`take`) doubles the whole; on a CPU the two are alike (tests/benchmarks/bench_nf4.py)."""
    found = list(map(jnp.float32, values))
    for bit in range(len(values).bit_length() - 1):
        is_set = codes >> bit & 1 == 1
        found = [jnp.where(is_set, odd, even) for even, odd in zip(found[::2], found[1::2])]
    return found[0]


def _dynamic(codes: jax.Array) -> jax.Array:
    """DYNAMIC[codes] by arithmetic: between two powers of two of its rank, a value is a straight line."""
    signed = codes.astype(jnp.int32) - 127
    rank = jnp.abs(signed)
    exponent = 31 - jax.lax.clz(rank)  # of rank 0: -1, in whose last three bits it is as 7, rank 128's; both are exact
    starts = 127 + 2 ** np.arange(7)
    slopes = np.append(10.0 ** np.arange(-6.0, 1.0) * 0.9 / 2.0 ** np.arange(7), 1 / 128)
    lifts = np.append(DYNAMIC[starts] - slopes[:7] * 2.0 ** np.arange(7), 0.0)
    value = rank.astype(jnp.float32) * _look_up(exponent, slopes) + _look_up(exponent, lifts)
    return jnp.where(signed < 0, -value, value)


def _inverse(x: jax.Array) -> jax.Array:
    return 1.0 / jnp.maximum(x, np.finfo(np.float32).tiny)  # zeros stay zero


def _mean(tiles: jax.Array) -> jax.Array:
    """Over the last axis, summed by halves: the same to the bit however a compiler cuts the work."""
    while tiles.shape[-1] > 1:
        first, second = jnp.split(tiles, 2, axis=-1)
        tiles = first + second
    return tiles[..., 0] / BLOCK
