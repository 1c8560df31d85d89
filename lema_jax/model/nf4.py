"""NormalFloat4 with double quantisation (QLoRA, arXiv 2305.14314, section 3 and appendix E).

A kernel [I, O] is divided into tiles of 64 × 64. Each column of a tile is a block: its 64 weights (consecutive inputs
of one output) are divided by the block's absmax and rounded to the nearest of 16 values, 4 bits each. The 64 absmax of
the tile are centred on their mean, divided by the largest magnitude and rounded to 8 bits. A weight takes
4 + 8/64 + 2 · 32/4096 = 4.14 bits.

Shapes: I input features, O output features; `…` leading axes of stacked layers.
"""

# bitsandbytes has the same blocks, but one mean per kernel, and its 8-bit groups are 256 absmax in memory order. Tiles
# need no communication when sharded, and the result is the same on every mesh. For a kernel of one tile both give equal
# codes; for larger ones only the absmax differ, by less than the error of double quantisation (test_nf4.py).

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.errors import UserError

BLOCK = 64  # inputs that share an absmax, and outputs whose absmax share a scale

# Quantiles of a normal distribution scaled to [-1, 1], with an exact zero (appendix E).
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
    """The 256 values of dynamic 8-bit quantisation (arXiv 1511.04561), ascending: a sign, a decimal exponent -6 … 0 and
    a fraction in the remaining bits. Code 127 + k is the k-th positive value, 127 is zero, 255 is one."""
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
      codes: uint8 [… I/64, 32, O], two codes each: rows 0 … 31 of a block in the high bits, 32 … 63 in the low.
      magnitudes: uint8 [… I/64, O], the absmax of each block.
      scale: float32 [… I/64, O/64], of a tile's absmax.
      mean: float32 [… I/64, O/64], of a tile's absmax.
    """

    codes: Any
    magnitudes: Any
    scale: Any
    mean: Any

    @property
    def size(self) -> int:
        """Number of weights."""
        return 2 * math.prod(self.codes.shape)


def axes(inputs: str, outputs: str) -> Nf4:
    """The logical axes of each part, given those of the dense kernel: sharded alike, in tiles."""
    tiles = (inputs, outputs)
    return Nf4((inputs, "block", outputs), tiles, tiles, tiles)


def check(name: str, shape: tuple[int, ...]) -> None:
    """Raises a UserError that names the kernel if its shape does not divide into tiles."""
    if any(size % BLOCK for size in shape):
        raise UserError(
            f"{name} {list(shape)} cannot be quantised to nf4, whose tiles are {BLOCK} × {BLOCK}; "
            "store it dense (lora.base=dense, --merge_into=base, --weights=dense or int8)"
        )


@jax.jit
def quantise(kernel: jax.Array) -> Nf4:
    """Quantises a kernel [… I, O] of any float dtype; I and O must divide by BLOCK."""
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
    # Barrier: otherwise XLA recomputes an absmax for each of its 64 weights.
    magnitudes = jax.lax.optimization_barrier(magnitudes.reshape(kernel.magnitudes.shape))[..., None, :]
    # Concatenated as bytes: with shifts or wider integers a TPU takes up to three times as long, and a CPU takes five
    # times as long to concatenate weights.
    codes = jnp.concatenate([kernel.codes >> 4, kernel.codes & 15], axis=-2)  # [… I/64, 64, O]
    dense = (_look_up(codes, VALUES) * magnitudes).astype(dtype)
    return dense.reshape(*dense.shape[:-3], -1, dense.shape[-1])


def _nearest(x: jax.Array, values: np.ndarray) -> jax.Array:
    """The code of the nearest of ascending values."""
    return jnp.searchsorted((values[:-1] + values[1:]) / 2, x, method="compare_all").astype(jnp.uint8)


def _look_up(codes: jax.Array, values: np.ndarray) -> jax.Array:
    """values[codes] as a tree of selects on the bits. On a TPU a gather would double the time of dequantisation, and
    the selects cost little; on a CPU the two are equal (tests/benchmarks/bench_nf4.py)."""
    found = list(map(jnp.float32, values))
    for bit in range(len(values).bit_length() - 1):
        is_set = codes >> bit & 1 == 1
        found = [jnp.where(is_set, odd, even) for even, odd in zip(found[::2], found[1::2])]
    return found[0]


def _dynamic(codes: jax.Array) -> jax.Array:
    """DYNAMIC[codes] by arithmetic: the values are linear in the rank between two powers of two."""
    signed = codes.astype(jnp.int32) - 127
    rank = jnp.abs(signed)
    exponent = 31 - jax.lax.clz(rank)  # rank 0 gives -1, whose low bits look up entry 7; exact
    starts = 127 + 2 ** np.arange(7)
    slopes = np.append(10.0 ** np.arange(-6.0, 1.0) * 0.9 / 2.0 ** np.arange(7), 1 / 128)
    lifts = np.append(DYNAMIC[starts] - slopes[:7] * 2.0 ** np.arange(7), 0.0)
    value = rank.astype(jnp.float32) * _look_up(exponent, slopes) + _look_up(exponent, lifts)
    return jnp.where(signed < 0, -value, value)


def _inverse(x: jax.Array) -> jax.Array:
    return 1.0 / jnp.maximum(x, np.finfo(np.float32).tiny)  # zeros stay zero


def _mean(tiles: jax.Array) -> jax.Array:
    """Over the last axis, by pairwise halves: bitwise the same under every fusion and sharding."""
    while tiles.shape[-1] > 1:
        first, second = jnp.split(tiles, 2, axis=-1)
        tiles = first + second
    return tiles[..., 0] / BLOCK
