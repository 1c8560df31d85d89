"""Layouts of a tree: layers stacked on a leading axis (`layers`: on disk, under scan) or unrolled (`layers_0`, …).

Stacking works on weights, adapters, gradients and optimizer states; large weights are unrolled array by array.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec, Sharding


def stack_layers(tree: Any) -> Any:
    """`{layers_0: x, layers_1: y, …}` -> `{layers: [x, y, …] stacked on axis 0}`, anywhere in the tree."""

    def stack(node: Any) -> Any:
        if not _has(node, "layers_0"):
            return node
        count = sum(name.startswith("layers_") for name in node)
        layers = [node[f"layers_{i}"] for i in range(count)]
        rest = {name: value for name, value in node.items() if not name.startswith("layers_")}
        return rest | {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}

    return jax.tree.map(stack, tree, is_leaf=lambda node: _has(node, "layers_0"))


def unstack_layers(tree: Any) -> Any:
    """The inverse of `stack_layers`."""

    def unstack(node: Any) -> Any:
        if not _has(node, "layers"):
            return node
        count = jax.tree.leaves(node["layers"])[0].shape[0]
        rest = {name: value for name, value in node.items() if name != "layers"}
        return rest | {f"layers_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], node["layers"]) for i in range(count)}

    return jax.tree.map(unstack, tree, is_leaf=lambda node: _has(node, "layers"))


def layers_of(path: tuple[str, ...], array: Any, transposed: bool) -> Any:
    """One array of a stacked tree as `unrolled` takes it: a list of its layers, or itself where it has none.

    Args:
      path: its names in the tree.
      array: dense or quantised, on its devices; so is the result.
      transposed: dense kernels [… I, O] become [… O, I], which `Linear` takes too: on a CPU the narrow matmuls of a
        decoding step are faster where the weights of one output are contiguous.
    """
    stacked, turned = "layers" in path, transposed and _is_dense_kernel(path, array)
    if not stacked and not turned:
        return array

    def place(leaf: jax.Array) -> Sharding:
        if not isinstance(leaf.sharding, NamedSharding):
            return leaf.sharding
        axes = (*leaf.sharding.spec, *[None] * leaf.ndim)[int(stacked) : leaf.ndim]
        return NamedSharding(leaf.sharding.mesh, PartitionSpec(*(axes[::-1] if turned else axes)))

    where, structure = jax.tree.flatten(jax.tree.map(place, array))
    arrange = _arranging(stacked, turned, structure, tuple(where))
    count = jax.tree.leaves(array)[0].shape[0]
    made = [arrange(array, layer) for layer in range(count)] if stacked else arrange(array)
    return jax.block_until_ready(made)  # the next array must not come before this one has gone


@functools.lru_cache(maxsize=64)
def _arranging(
    stacked: bool, turned: bool, structure: jax.tree_util.PyTreeDef, places: tuple[Sharding, ...]
) -> Callable[..., Any]:
    """The function that takes a layer out of an array, turns it, or both; kept, so that arrays of one shape share its
    program. One program for all layers would hold half of them once more."""

    def one(leaf: jax.Array, layer: int | jax.Array = 0) -> jax.Array:
        own = jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False) if stacked else leaf
        return jnp.swapaxes(own, -1, -2) if turned else own

    def arrange(array: Any, layer: int | jax.Array = 0) -> Any:
        return jax.tree.map(lambda leaf: one(leaf, layer), array)

    return jax.jit(arrange, out_shardings=jax.tree.unflatten(structure, places))


def unrolled(tree: dict[str, Any], transposed: bool) -> dict[str, Any]:
    """The unrolled tree of a stacked one whose arrays are `layers_of` them; no array is copied."""
    made: dict[tuple[str, ...], Any] = {}
    for path, leaf in traverse_util.flatten_dict(tree).items():
        parts = leaf if isinstance(leaf, list) else [leaf]
        name = "kernel_OI" if transposed and _is_dense_kernel(path, parts[0]) else path[-1]
        for i, part in enumerate(parts):
            made[(*(f"layers_{i}" if key == "layers" else key for key in path[:-1]), name)] = part
    return traverse_util.unflatten_dict(made)


def _is_dense_kernel(path: tuple[str, ...], leaf: Any) -> bool:
    return path[-1] == "kernel" and isinstance(leaf, jax.Array)


def _has(node: Any, key: str) -> bool:
    return isinstance(node, dict) and key in node
