"""The training step: one pure function, called by the trainer and by every compiler of it.

Shapes: B rows of the global batch, A micro-batches, T time, C a chunk of it, D width, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lema_jax.model.linear import shard
from lema_jax.model.llama import Llama, at_use

LogitsOf = Callable[[Any, jax.Array], jax.Array]  # (head, x [B, C, D]) -> logits [B, C, V]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a step changes. `trained`: one collection of the model, `params` or `lora`."""

    step: jax.Array  # int32 []
    trained: Any
    optimizer: Any


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


def _nll(logits_of: LogitsOf, x_BCD: jax.Array, head: Any, targets_BC: jax.Array, weights_BC: jax.Array) -> jax.Array:
    losses_BC = optax.softmax_cross_entropy_with_integer_labels(logits_of(head, x_BCD), targets_BC)
    return jnp.sum(losses_BC * weights_BC)


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

    def add(sums: Any, rows: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        more, values = jax.lax.cond(jnp.any(rows[2] > 0), one, lambda *_: zeros, *rows)
        return jax.tree.map(jnp.add, sums, more), values

    sums, values = jax.lax.scan(add, zeros[0], chunks)

    # 3. Return the values to their positions.
    return sums, jax.tree.map(from_chunks, values)


def loss_fn(
    trained: Any, frozen: Any, batch: dict[str, jax.Array], key: jax.Array | None, *, model: Llama, collection: str
) -> tuple[jax.Array, jax.Array]:
    """(Σ weight · nll, Σ weight) of a batch of packed rows; their quotient is the loss.

    A token is predicted from those before it in its own segment, so the first token of a segment has no loss.

    Args:
      key: for dropout; None for a model without.
    """
    # 1. Run the layers.
    variables = {**frozen, collection: trained}
    segments_BT = batch["segment_ids"]
    rngs = {} if key is None else {"dropout": key}
    x_BTD = model.apply(variables, batch["tokens"], batch["positions"], segments_BT, method="trunk", rngs=rngs)
    # 2. Shift targets and weights. Rolling keeps the row's length, so that it stays sharded along the sequence; its
    #    last token predicts nothing.
    within_BT = (jnp.roll(segments_BT, -1, axis=1) == segments_BT).at[:, -1].set(False)
    weights_BT = jnp.roll(batch["weights"], -1, axis=1) * within_BT
    targets_BT = jnp.roll(batch["tokens"], -1, axis=1)
    # 3. Compute logits and loss in chunks of each shard of the sequence.
    name = "embed" if model.config.tie_embeddings else "head"
    logits_of = lambda head, x_BCD: model.apply({"params": {name: head}}, x_BCD, method="logits")
    rows = (_rows_by_shard(x) for x in (x_BTD, targets_BT, weights_BT))
    nll = completion_nll(logits_of, model.compute.loss_chunk, variables["params"][name], *rows)
    return nll, jnp.sum(weights_BT)


def _rows_by_shard(x: jax.Array) -> jax.Array:
    """[B, T, …] -> [P · B, T / P, …]: each of the P shards of a row along the sequence becomes a row."""
    parts = jax.sharding.get_abstract_mesh().shape.get("sequence", 1)
    if parts == 1:
        return x
    x = jnp.swapaxes(x.reshape(x.shape[0], parts, -1, *x.shape[2:]), 0, 1)
    return shard(x.reshape(-1, *x.shape[2:]), "pieces", *[None] * (x.ndim - 2))


def train_step(
    state: State,
    frozen: Any,
    batch: dict[str, jax.Array],
    *,
    model: Llama,
    collection: str,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    accumulation: int,
    max_grad_norm: float,
    seed: int,
) -> tuple[State, dict[str, jax.Array]]:
    """One optimizer step on Σ(weight · nll) / Σ(weight) of the global batch.

    Args:
      state: donated.
      frozen: the collections that are not trained.
      batch: `tokens, weights, segment_ids, positions`, each [B, T].
      accumulation: A; gradients of A micro-batches of B / A rows are summed, so the result does not depend on A. A
        batch without any loss has loss 0 and a zero gradient.
      max_grad_norm: the update is skipped, and only `step` advances, where the gradient norm exceeds this or the loss
        or gradient is not finite.
      seed: of dropout.

    Returns:
      The next state, and scalars: loss, grad_norm (before clipping), skipped (the update), learning_rate, loss_tokens,
      tokens (without padding).
    """
    # 1. Cast the trained weights once, for all micro-batches.
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    trained = at_use(state.trained, model.compute)

    # 2. Sum gradients, nll and weights over the micro-batches.
    def add(sums: Any, numbered: tuple[jax.Array, dict[str, jax.Array]]) -> tuple[Any, None]:
        number, rows = numbered
        dropout = jax.random.fold_in(key, number)
        (nll, weight), grads = grad_fn(trained, frozen, rows, dropout, model=model, collection=collection)
        return jax.tree.map(jnp.add, sums, (grads, nll, weight)), None

    zeros = (jax.tree.map(jnp.zeros_like, state.trained), jnp.float32(0), jnp.float32(0))
    if accumulation == 1:
        (grads, nll, weight), _ = add(zeros, (jnp.int32(0), batch))
    else:
        # Row r is in micro-batch r mod A: no row moves between devices.
        parts = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, accumulation, *x.shape[1:]), 0, 1), batch)
        (grads, nll, weight), _ = jax.lax.scan(add, zeros, (jnp.arange(accumulation), parts))

    # 3. Divide by the weight of the whole batch.
    total = jnp.where(weight > 0, weight, 1.0)
    grads = jax.tree.map(lambda g: g / total, grads)
    grad_norm = optax.tree.norm(grads)

    # 4. Update, unless loss or gradient is not finite or too large: the comparison is false for NaN.
    accepted = jnp.isfinite(nll) & (grad_norm <= max_grad_norm)
    updates, optimizer_state = optimizer.update(grads, state.optimizer, state.trained)
    updated = (optax.apply_updates(state.trained, updates), optimizer_state)
    updated = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), updated, (state.trained, state.optimizer))

    # 5. Report.
    metrics = {
        "loss": nll / total,
        "grad_norm": grad_norm,
        "skipped": ~accepted,
        "learning_rate": schedule(state.step),
        "loss_tokens": weight,
        "tokens": jnp.sum(batch["segment_ids"] > 0),
    }
    return State(state.step + 1, *updated), metrics
