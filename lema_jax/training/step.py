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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a step changes: `trained` is one whole collection of the model, `params` or `lora`."""

    step: jax.Array  # int32 []
    trained: Any
    optimizer: Any


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def completion_nll(
    logits_of: Callable[[Any, jax.Array], jax.Array],
    chunk: int,
    head: Any,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
) -> jax.Array:
    """Σ weight · −log p(target), with logits only where there is loss and never more than [B, chunk, V] of them.

    Row by row the positions that carry loss come first; chunks in which no row has one are skipped. A chunk as long as
    the row takes it as it is. Where a gradient is wanted it is made with the loss: a chunk's logits are computed once,
    and not kept.

    Args:
      logits_of: (head, x [B, C, D]) -> logits [B, C, V].
      head: what logits are made with, as a tree; it has a gradient where it is trained.
    """

    def one(x_BCD: jax.Array, *rest: jax.Array) -> tuple[jax.Array, None]:
        return _nll(logits_of, x_BCD, head, *rest), None

    return _by_chunks(one, chunk, x_BTD, targets_BT, weights_BT)[0]


def _nll_forward(logits_of, chunk, head, x_BTD, targets_BT, weights_BT):
    trained = any(leaf.perturbed for leaf in jax.tree.leaves(head))
    head, *rows = jax.tree.map(lambda leaf: leaf.value, (head, x_BTD, targets_BT, weights_BT))

    loss = functools.partial(_nll, logits_of)
    with_gradients = jax.value_and_grad(loss, argnums=(0, 1) if trained else (0,))

    def one(x_BCD: jax.Array, *rest: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
        nll, (for_x_BCD, *for_head) = with_gradients(x_BCD, head, *rest)
        return (nll, for_head), for_x_BCD

    (nll, for_head), for_x_BTD = _by_chunks(one, chunk, *rows)
    return nll, (for_head, for_x_BTD)


def _nll_backward(logits_of, chunk, gradients, by_nll):
    for_head, for_x_BTD = jax.tree.map(lambda gradient: (by_nll * gradient).astype(gradient.dtype), gradients)
    return *(for_head or [None]), for_x_BTD, None, None


completion_nll.defvjp(_nll_forward, _nll_backward, symbolic_zeros=True)


def _nll(logits_of, x_BCD, head, targets_BC, weights_BC) -> jax.Array:
    losses_BC = optax.softmax_cross_entropy_with_integer_labels(logits_of(head, x_BCD), targets_BC)
    return jnp.sum(losses_BC * weights_BC)


def _by_chunks(
    one: Callable[..., tuple[Any, Any]], chunk: int, x_BTD: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array
) -> tuple[Any, Any]:
    """What `one` makes of a chunk [B, C, …] of the three: sums to be added up, and a value for each position."""
    length = weights_BT.shape[1]
    if chunk >= length:
        return one(x_BTD, targets_BT, weights_BT)
    order_BT = jnp.argsort(weights_BT == 0, axis=1, stable=True)

    def moved(array: jax.Array, to_BT: jax.Array) -> jax.Array:
        return jnp.take_along_axis(array, to_BT.reshape(to_BT.shape + (1,) * (array.ndim - 2)), axis=1)

    def chunks(array: jax.Array) -> jax.Array:  # [B, T, …] -> [T / C, B, C, …], loss-bearing positions first
        array = jnp.pad(moved(array, order_BT), [(0, 0), (0, -length % chunk)] + [(0, 0)] * (array.ndim - 2))
        return jnp.swapaxes(array.reshape(array.shape[0], -1, chunk, *array.shape[2:]), 0, 1)

    def back(made: jax.Array) -> jax.Array:  # the inverse
        made = jnp.swapaxes(made, 0, 1)
        return moved(made.reshape(made.shape[0], -1, *made.shape[3:])[:, :length], jnp.argsort(order_BT, axis=1))

    parts = tuple(map(chunks, (x_BTD, targets_BT, weights_BT)))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, *(p[0] for p in parts)))

    def add(sums: Any, part: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        made, each = jax.lax.cond(jnp.any(part[2] > 0), one, lambda *_: nothing, *part)
        return jax.tree.map(jnp.add, sums, made), each

    sums, each = jax.lax.scan(add, nothing[0], parts)
    return sums, jax.tree.map(back, each)


def loss_fn(
    trained: Any, frozen: Any, batch: dict[str, jax.Array], key: jax.Array | None, *, model: Llama, collection: str
) -> tuple[jax.Array, jax.Array]:
    """(Σ weight · nll, Σ weight) of a batch of packed rows; their quotient is the loss.

    A token is predicted from those before it in its own segment, so the first token of a segment carries no loss.
    `key` is of dropout; None for a model without.
    """
    variables = {**frozen, collection: trained}
    segments_BT = batch["segment_ids"]
    rngs = {} if key is None else {"dropout": key}
    x_BTD = model.apply(variables, batch["tokens"], batch["positions"], segments_BT, method="trunk", rngs=rngs)
    # Shifted by rolling, so that a row keeps its length and can stay cut along it; its last token predicts nothing.
    within_BT = (jnp.roll(segments_BT, -1, axis=1) == segments_BT).at[:, -1].set(False)
    weights_BT = jnp.roll(batch["weights"], -1, axis=1) * within_BT
    targets_BT = jnp.roll(batch["tokens"], -1, axis=1)
    name = "embed" if model.config.tie_embeddings else "head"
    logits_of = lambda head, x_BCD: model.apply({"params": {name: head}}, x_BCD, method="logits")
    rows = (_pieces(x) for x in (x_BTD, targets_BT, weights_BT))
    nll = completion_nll(logits_of, model.compute.loss_chunk, variables["params"][name], *rows)
    return nll, jnp.sum(weights_BT)


def _pieces(x: jax.Array) -> jax.Array:
    """[B, T, …] -> [P · B, T / P, …]: rows that the mesh cuts in P along the sequence become rows of their own."""
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
      frozen: collections that the model needs beside the trained one.
      batch: `tokens, weights, segment_ids, positions`, each [B, T].
      accumulation: A; the batch is taken in A parts of B / A rows whose sums are added, so the result does not depend
        on A. A batch without any loss gives loss 0 and a zero gradient.
      max_grad_norm: a step with a larger gradient, or a loss or gradient that is no number, is ill: only `step` moves.

    Returns:
      The next state, and scalars: loss, grad_norm (before clipping), ill, learning_rate, loss_tokens, tokens (all but
      padding).
    """
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    trained = at_use(state.trained, model.compute)

    def micro(sums: Any, part: tuple[jax.Array, dict[str, jax.Array]]) -> tuple[Any, None]:
        index, rows = part
        (nll, weight), grads = grad_fn(
            trained, frozen, rows, jax.random.fold_in(key, index), model=model, collection=collection
        )
        return jax.tree.map(jnp.add, sums, (grads, nll, weight)), None

    zeros = (jax.tree.map(jnp.zeros_like, state.trained), jnp.float32(0), jnp.float32(0))
    if accumulation == 1:
        (grads, nll, weight), _ = micro(zeros, (jnp.int32(0), batch))
    else:
        # Row r goes to part r mod A: every device keeps the rows it has.
        parts = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, accumulation, *x.shape[1:]), 0, 1), batch)
        (grads, nll, weight), _ = jax.lax.scan(micro, zeros, (jnp.arange(accumulation), parts))
    total = jnp.where(weight > 0, weight, 1.0)
    grads = jax.tree.map(lambda g: g / total, grads)
    grad_norm = optax.tree.norm(grads)
    well = jnp.isfinite(nll) & (grad_norm <= max_grad_norm)  # false for NaN, and for infinity where it must be
    updates, optimizer_state = optimizer.update(grads, state.optimizer, state.trained)
    after = (optax.apply_updates(state.trained, updates), optimizer_state)
    after = jax.tree.map(lambda new, old: jnp.where(well, new, old), after, (state.trained, state.optimizer))
    metrics = {
        "loss": nll / total,
        "grad_norm": grad_norm,
        "ill": ~well,
        "learning_rate": schedule(state.step),
        "loss_tokens": weight,
        "tokens": jnp.sum(batch["segment_ids"] > 0),
    }
    return State(state.step + 1, *after), metrics
