"""Layouts of a tree: layers stacked on a leading axis (`layers`: on disk, under scan) or unrolled (`layers_0`, …); and
transposed kernels for decoding on a CPU. Stacking works on weights, adapters, gradients and optimizer states."""

from typing import Any

import jax
import jax.numpy as jnp


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


def transpose_kernels(params: Any) -> Any:
    """Every dense `kernel` [… I, O] as `kernel_OI` [… O, I]; `Linear` takes either.

    On a CPU the narrow matmuls of a decoding step are faster where the weights of one output are contiguous.
    """

    def transpose(node: Any) -> Any:
        if not (_has(node, "kernel") and isinstance(node["kernel"], jax.Array)):
            return node
        rest = {name: value for name, value in node.items() if name != "kernel"}
        return rest | {"kernel_OI": jnp.swapaxes(node["kernel"], -1, -2)}

    return jax.tree.map(transpose, params, is_leaf=lambda node: _has(node, "kernel"))


def _has(node: Any, key: str) -> bool:
    return isinstance(node, dict) and key in node
