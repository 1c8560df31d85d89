"""Layouts of one tree: layers stacked on a leading axis (`layers`, on disk and under scan), or a leaf set each
(`layers_0`, `layers_1`, …, in line); and for decoding on a CPU, kernels turned. Stacking works on weights, adapters,
gradients and optimizer states alike."""

from typing import Any

import jax
import jax.numpy as jnp


def stack_layers(tree: Any) -> Any:
    """`{layers_0: x, layers_1: y, …}` -> `{layers: [x, y, …] stacked on axis 0}`, wherever it occurs in the tree."""

    def stack(node: Any) -> Any:
        if not _is(node, "layers_0"):
            return node
        count = sum(name.startswith("layers_") for name in node)
        layers = [node[f"layers_{i}"] for i in range(count)]
        rest = {name: value for name, value in node.items() if not name.startswith("layers_")}
        return rest | {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}

    return jax.tree.map(stack, tree, is_leaf=lambda node: _is(node, "layers_0"))


def unstack_layers(tree: Any) -> Any:
    """The inverse of `stack_layers`."""

    def unstack(node: Any) -> Any:
        if not _is(node, "layers"):
            return node
        count = jax.tree.leaves(node["layers"])[0].shape[0]
        rest = {name: value for name, value in node.items() if name != "layers"}
        return rest | {f"layers_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], node["layers"]) for i in range(count)}

    return jax.tree.map(unstack, tree, is_leaf=lambda node: _is(node, "layers"))


def turn_kernels(params: Any) -> Any:
    """Every dense `kernel` [… I, O] of the base weights as `kernel_OI` [… O, I].

    The linear layer takes either. A CPU multiplies the few rows of a decoding step faster when the numbers that make
    one output lie together.
    """

    def turn(node: Any) -> Any:
        if not (_is(node, "kernel") and isinstance(node["kernel"], jax.Array)):
            return node
        rest = {name: value for name, value in node.items() if name != "kernel"}
        return rest | {"kernel_OI": jnp.swapaxes(node["kernel"], -1, -2)}

    return jax.tree.map(turn, params, is_leaf=lambda node: _is(node, "kernel"))


def _is(node: Any, key: str) -> bool:
    return isinstance(node, dict) and key in node
