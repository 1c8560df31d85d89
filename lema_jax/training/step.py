"""The training step: one pure function, called by the trainer and by every compiler of it.

Shapes: B rows of the global batch, A micro-batches, T time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lema_jax.model.llama import Llama, at_use
from lema_jax.training.objectives import OBJECTIVES, Objective
from lema_jax.training.optimizer import at_step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a step changes. `trained`: one collection of the model, `params` or `lora`."""

    step: jax.Array  # int32 []
    trained: Any
    optimizer: Any


def train_step(
    state: State,
    frozen: Any,
    batch: dict[str, jax.Array],
    seed: jax.Array,
    *,
    model: Llama,
    collection: str,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    accumulation: int,
    max_grad_norm: float,
    ragged: bool = False,
    objective: Objective = OBJECTIVES["sft"],
) -> tuple[State, dict[str, jax.Array]]:
    """One optimizer step on the objective's total over the global batch, divided by its weight: Σ(weight · nll) /
    Σ(weight) of tokens, or Σ(loss) / Σ(1) of pairs.

    Args:
      state: donated.
      frozen: the collections that are not trained.
      batch: `tokens, weights, segment_ids, positions` and what else the objective reads, each [B, T].
      seed: of dropout; uint32 [].
      accumulation: A; gradients of A micro-batches of B / A rows are summed, so the result does not depend on A. A
        batch without any loss has loss 0 and a zero gradient.
      max_grad_norm: the update is skipped, and only `step` advances, and with it the learning rate, where the gradient
        norm exceeds this or the loss or gradient is not finite.
      ragged: rows may be empty; the last micro-batches are not computed where all of their rows are.

    Returns:
      The next state, and scalars: loss, grad_norm (before clipping), skipped (the update), learning_rate, tokens
      (without padding), computed (with the padding that was computed), and the objective's counts and means.
    """
    # 1. Cast the trained weights once, for all micro-batches.
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    grad_fn = jax.value_and_grad(objective.loss, has_aux=True)
    trained = at_use(state.trained, model.compute)

    # 2. Sum gradients, loss and the objective's sums over the micro-batches.
    def add(sums: Any, numbered: tuple[jax.Array, dict[str, jax.Array]]) -> tuple[Any, None]:
        number, rows = numbered
        dropout = jax.random.fold_in(key, number)
        (loss, own), grads = grad_fn(trained, frozen, rows, dropout, model=model, collection=collection)
        return jax.tree.map(jnp.add, sums, (grads, loss, own)), None

    nothing = {name: jnp.float32(0) for name in (*objective.counts, *objective.means)}
    zeros = (jax.tree.map(jnp.zeros_like, state.trained), jnp.float32(0), nothing)
    used: int | jax.Array = accumulation  # micro-batches that are computed
    if accumulation == 1:
        (grads, loss, found), _ = add(zeros, (jnp.int32(0), batch))
    else:
        # Row r is in micro-batch r mod A: no row moves between devices.
        parts = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, accumulation, *x.shape[1:]), 0, 1), batch)
        if ragged:  # only then, since no time can be reckoned ahead for a loop of unknown length
            is_used = jnp.any(parts["segment_ids"] > 0, axis=(1, 2))
            used = accumulation - jnp.argmax(is_used[::-1])
            nth = lambda number: jax.tree.map(lambda x: x[number], parts)
            grads, loss, found = jax.lax.fori_loop(0, used, lambda n, sums: add(sums, (n, nth(n)))[0], zeros)
        else:
            (grads, loss, found), _ = jax.lax.scan(add, zeros, (jnp.arange(accumulation), parts))

    # 3. Divide by the weight of the whole batch.
    weight = found[objective.counts[0]]
    total = jnp.where(weight > 0, weight, 1.0)
    grads = jax.tree.map(lambda g: g / total, grads)
    grad_norm = optax.tree.norm(grads)

    # 4. Update, unless loss or gradient is not finite or too large: the comparison is false for NaN.
    accepted = jnp.isfinite(loss) & (grad_norm <= max_grad_norm)
    updates, optimizer_state = optimizer.update(grads, at_step(state.optimizer, state.step), state.trained)
    updated = (optax.apply_updates(state.trained, updates), optimizer_state)
    updated = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), updated, (state.trained, state.optimizer))

    # 5. Report.
    metrics = {
        "loss": loss / total,
        "grad_norm": grad_norm,
        "skipped": ~accepted,
        "learning_rate": schedule(state.step),
        **{name: found[name] for name in objective.counts},
        **{name: found[name] / total for name in objective.means},
        "tokens": jnp.sum(batch["segment_ids"] > 0),
        "computed": jnp.int32(used * (batch["tokens"].size // accumulation)),
    }
    return State(state.step + 1, *updated), metrics
