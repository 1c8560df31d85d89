"""−log p of targets, with logits in chunks of positions and only where there is loss.

Shapes: B rows, T time, C a chunk of it, D width, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

LogitsOf = Callable[[Any, jax.Array], jax.Array]  # (head, x [B, C, D]) -> logits [B, C, V]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def completion_nll(
    logits_of: LogitsOf,
    chunk: int,
    head: Any,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
) -> jax.Array:
    """Σ weight · −log p(target), with logits only where there is loss and never more than [B, chunk, V] of them.

    Positions with loss are sorted to the front of each row, and chunks without any are skipped; a chunk as long as the
    row needs no sorting. The gradient is computed in the forward pass: a chunk's logits are computed once and not
    stored.

    Args:
      logits_of: (head, x [B, C, D]) -> logits [B, C, V].
      head: the parameters of the output head, as a tree; it has a gradient where it is trained.
    """

    def one(x_BCD: jax.Array, *rest: jax.Array) -> tuple[jax.Array, None]:
        return _nll(logits_of, x_BCD, head, *rest), None

    return _by_chunks(one, chunk, x_BTD, targets_BT, weights_BT)[0]


def _nll_forward(
    logits_of: LogitsOf, chunk: int, head: Any, x_BTD: Any, targets_BT: Any, weights_BT: Any
) -> tuple[jax.Array, Any]:
    """The nll, and its gradients as the residual. Arguments are `CustomVJPPrimal`s: value and `perturbed`."""
    trained = any(leaf.perturbed for leaf in jax.tree.leaves(head))
    head, *rows = jax.tree.map(lambda leaf: leaf.value, (head, x_BTD, targets_BT, weights_BT))

    loss = functools.partial(_nll, logits_of)
    with_gradients = jax.value_and_grad(loss, argnums=(0, 1) if trained else (0,))

    def one(x_BCD: jax.Array, *rest: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
        nll, (for_x_BCD, *for_head) = with_gradients(x_BCD, head, *rest)
        return (nll, for_head), for_x_BCD

    (nll, for_head), for_x_BTD = _by_chunks(one, chunk, *rows)
    return nll, (for_head, for_x_BTD)


def _nll_backward(logits_of: LogitsOf, chunk: int, gradients: Any, by_nll: jax.Array) -> tuple[Any, ...]:
    """The gradients of the forward pass, times that of the nll; None for targets and weights."""
    for_head, for_x_BTD = jax.tree.map(lambda gradient: (by_nll * gradient).astype(gradient.dtype), gradients)
    return *(for_head or [None]), for_x_BTD, None, None


completion_nll.defvjp(_nll_forward, _nll_backward, symbolic_zeros=True)


def token_nll(
    logits_of: LogitsOf,
    chunk: int,
    head: Any,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
) -> jax.Array:
    """weight · −log p(target) of each position, [B, T], without a gradient; for the arguments see `completion_nll`."""

    def one(x_BCD: jax.Array, targets_BC: jax.Array, weights_BC: jax.Array) -> tuple[tuple[()], jax.Array]:
        return (), weights_BC * _losses(logits_of, x_BCD, head, targets_BC)

    head, x_BTD = jax.lax.stop_gradient((head, x_BTD))
    return _by_chunks(one, chunk, x_BTD, targets_BT, weights_BT)[1]


def _nll(logits_of: LogitsOf, x_BCD: jax.Array, head: Any, targets_BC: jax.Array, weights_BC: jax.Array) -> jax.Array:
    return jnp.sum(_losses(logits_of, x_BCD, head, targets_BC) * weights_BC)


def _losses(logits_of: LogitsOf, x_BCD: jax.Array, head: Any, targets_BC: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits_of(head, x_BCD), targets_BC)


def _by_chunks(
    one: Callable[..., tuple[Any, Any]], chunk: int, x_BTD: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array
) -> tuple[Any, Any]:
    """Applies `one` to chunks [B, C, …] of the three: returns the sum of its sums, and its values by position."""
    length = weights_BT.shape[1]
    if chunk >= length:
        return one(x_BTD, targets_BT, weights_BT)

    # 1. Sort the positions with loss to the front of each row, and divide the rows into chunks.
    order_BT = jnp.argsort(weights_BT == 0, axis=1, stable=True)

    def permuted(array: jax.Array, order_BT: jax.Array) -> jax.Array:
        return jnp.take_along_axis(array, order_BT.reshape(order_BT.shape + (1,) * (array.ndim - 2)), axis=1)

    def to_chunks(array: jax.Array) -> jax.Array:  # [B, T, …] -> [T / C, B, C, …]
        array = jnp.pad(permuted(array, order_BT), [(0, 0), (0, -length % chunk)] + [(0, 0)] * (array.ndim - 2))
        return jnp.swapaxes(array.reshape(array.shape[0], -1, chunk, *array.shape[2:]), 0, 1)

    def from_chunks(array: jax.Array) -> jax.Array:  # the inverse
        array = jnp.swapaxes(array, 0, 1)
        array = array.reshape(array.shape[0], -1, *array.shape[3:])[:, :length]
        return permuted(array, jnp.argsort(order_BT, axis=1))

    chunks = tuple(map(to_chunks, (x_BTD, targets_BT, weights_BT)))

    # 2. Scan over the chunks; one without any loss is skipped.
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, *(c[0] for c in chunks)))
    in_float32 = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), zeros[0])  # so that chunks change no rounding

    def add(sums: Any, rows: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        more, values = jax.lax.cond(jnp.any(rows[2] != 0), one, lambda *_: zeros, *rows)
        return jax.tree.map(jnp.add, sums, more), values

    sums, values = jax.lax.scan(add, in_float32, chunks)
    sums = jax.tree.map(lambda total, leaf: total.astype(leaf.dtype), sums, zeros[0])

    # 3. Return the values to their positions.
    return sums, jax.tree.map(from_chunks, values)
