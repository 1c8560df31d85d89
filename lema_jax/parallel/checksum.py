"""Checksums of arrays: the same number wherever their shards lie, computed where they lie.

A checkpoint carries one of each array, computed on the devices before it is written and again after it is read. So what
is compared is what the model computes with, no file is read twice, and several processes need not see each other's.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec


def of(tree: Any) -> dict[str, str]:
    """A checksum of each array by its name, such as "float32[2,3] 0123456789abcdef": its dtype, shape and content.

    Any change within one word of 32 bits is seen for certain, any other but for one in 2^64.
    """
    named = jax.tree_util.tree_leaves_with_path(tree)
    leaves = [leaf for _, leaf in named]
    meshes = [leaf.sharding.mesh for leaf in leaves if isinstance(getattr(leaf, "sharding", None), NamedSharding)]
    sums = np.asarray(_program(NamedSharding(meshes[0], PartitionSpec()) if meshes else None)(leaves))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named]
    kinds = [described(leaf.dtype, leaf.shape) for leaf in leaves]
    return {name: f"{kind}{one:08x}{other:08x}" for name, kind, (one, other) in zip(names, kinds, sums)}


def described(dtype: Any, shape: tuple[int, ...]) -> str:
    """How the checksum of an array of that type begins."""
    return f"{np.dtype(dtype).name}[{','.join(map(str, shape))}] "


@functools.cache
def _program(replicated: NamedSharding | None) -> Any:
    return jax.jit(lambda leaves: jnp.stack([_sums(leaf) for leaf in leaves]), out_shardings=replicated)


def _sums(array: jax.Array) -> jax.Array:
    """[2] uint32: a sum over mixed words and one over words times odd numbers, both by their place."""
    words = _words(array)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    both = _mix(words ^ _mix(place + 1)), words * (2 * place + 1)
    inner = tuple(range(1, words.ndim)) or tuple(range(words.ndim))
    # Both sums in one pass, and a part for each layer first: on a CPU sixteen times as fast as the two totals at once.
    parts = lax.reduce(both, (jnp.uint32(0), jnp.uint32(0)), lambda a, b: (a[0] + b[0], a[1] + b[1]), inner)
    return jnp.stack([part.sum(dtype=jnp.uint32) for part in parts])


def _words(array: jax.Array) -> jax.Array:
    array = jnp.asarray(array)
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = min(8 * array.dtype.itemsize, 32)
    return lax.bitcast_convert_type(array, f"uint{bits}").astype(jnp.uint32)


def _mix(words: jax.Array) -> jax.Array:
    """A bijection of 32-bit words that changes about half of the bits for each that differs (MurmurHash3's last)."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
