"""What a run minimises: a row of `OBJECTIVES`, whose loss is a pure function of weights and a batch.

No `from __future__ import annotations` here: ml_collections reads the field types of `PreferenceConfig`.

Shapes: B rows, T time, D width, S pairs that a row may hold; P shards of a row along the sequence.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lema_jax import ranges
from lema_jax.model.linear import shard
from lema_jax.model.llama import Llama
from lema_jax.training.nll import LogitsOf, completion_nll, token_nll

Batch = dict[str, jax.Array]  # `tokens, weights, segment_ids, positions`, [B, T] each; see `data.batches`
Sums = dict[str, jax.Array]  # scalars that add up over batches
REFERENCES = ("stored", "base")


@dataclasses.dataclass
class PreferenceConfig:
    """How pairs are learnt from, by the objective `preference`.

    Attributes:
      beta: β of DPO: how firmly the model stays near the reference; smaller moves further.
      label_smoothing: share of pairs that are taken to be the wrong way round (cDPO: Mitchell, A note on DPO with noisy
        preferences, 2023).
      nll_weight: α of RPO (arXiv 2404.19733): weight of the chosen completion's nll, averaged over its tokens. Without
        it the log-probability of the chosen one often falls too.
      learning_rate: of a run with this objective, instead of the optimizer's, so that the arms of a study can differ in
        it; 0 for the optimizer's.
      reference: what the model is compared with: "stored", the weights that the run begins with, whose
        log-probabilities are computed once and stored beside the data; "base", the weights under the adapters, at every
        step.
    """

    beta: float = ranges.within(0.1, 0, 1e6, above=True)
    label_smoothing: float = ranges.within(0.0, 0, 0.5, below=True)
    nll_weight: float = ranges.within(0.0, 0, 1e6)
    learning_rate: float = ranges.within(0.0, 0, 10)
    reference: str = "stored"

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = ranges.problems(self)
        if self.reference not in REFERENCES:
            found.append(f"reference={self.reference!r} must be one of {', '.join(REFERENCES)}")
        return found


@dataclasses.dataclass(frozen=True)
class Objective:
    """A row of `OBJECTIVES`.

    Attributes:
      source: the paper that it is of, or what it is.
      loss: `(trained, frozen, batch, key, *, model, collection) -> (total, sums)`. The loss of a global batch is the
        sum of its totals over the sum of its weights, whatever the accumulation, mesh and packing. `key` is of dropout,
        None for a model without.
      counts: names of sums that are reported; the first is the weight.
      means: names of sums that are reported divided by the weight.
      shown: those of them in the progress line.
      pairs: it learns from preference pairs.
    """

    source: str
    loss: Callable[..., tuple[jax.Array, Sums]]
    counts: tuple[str, ...]
    means: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    pairs: bool = False


def sft(
    trained: Any, frozen: Any, batch: Batch, key: jax.Array | None, *, model: Llama, collection: str
) -> tuple[jax.Array, Sums]:
    """Σ weight · nll of the completions' tokens; its weight is Σ weight."""
    variables = {**frozen, collection: trained}
    targets_BT, weights_BT = _targets(batch)
    rows = map(_by_shard, (_trunk(model, variables, batch, key), targets_BT, weights_BT))
    nll = completion_nll(*_head(model, variables), *rows)
    return nll, {"loss_tokens": jnp.sum(weights_BT)}


def preference(
    trained: Any,
    frozen: Any,
    batch: Batch,
    key: jax.Array | None,
    *,
    model: Llama,
    collection: str,
    how: PreferenceConfig,
) -> tuple[jax.Array, Sums]:
    """Σ over pairs of `pair_losses`; its weight is the number of pairs.

    Args:
      batch: of pairs; with the stored reference also `reference` [B, T], the reference's nll by its sums over segments.
    """
    # 1. Compute the nll of each token, as a value alone: the gradient waits for the pairs' margins.
    variables = {**frozen, collection: trained}
    targets_BT, weights_BT = _targets(batch)
    x, targets, weights = map(_by_shard, (_trunk(model, variables, batch, key), targets_BT, weights_BT))
    head = _head(model, variables)
    nll_BT = _together(token_nll(*head, x, targets, weights))
    if how.reference == "base":
        reference_BT = nll_of_tokens(frozen["params"], {}, batch, model=model.clone(lora=None), collection="params")
    else:
        reference_BT = batch["reference"]

    # 2. Compute the loss of the pairs, and its derivative by each token's nll.
    def of_pairs(nll_BT: jax.Array) -> tuple[jax.Array, Sums]:
        sides = functools.partial(_by_side, segments_BT=batch["segment_ids"])
        return pair_losses(sides(nll_BT), sides(reference_BT), sides(weights_BT), how)

    (total, sums), by_nll_BT = jax.value_and_grad(of_pairs, has_aux=True)(nll_BT)
    # 3. By the chain rule the gradient is that of Σ derivative · nll; the term that has it adds zero to the value.
    linear = completion_nll(*head, x, targets, _by_shard(by_nll_BT * weights_BT))
    return total + (linear - jax.lax.stop_gradient(linear)), sums


def pair_losses(
    nll_BS2: jax.Array, reference_BS2: jax.Array, tokens_BS2: jax.Array, how: PreferenceConfig
) -> tuple[jax.Array, Sums]:
    """Σ over pairs of DPO's loss, smoothed, and RPO's nll term; and what is reported of them.

    With m = β · ((log π − log π_ref)(chosen) − (log π − log π_ref)(rejected)), the implicit reward's margin, a pair
    has −(1 − ε) log σ(m) − ε log σ(−m) + α · nll(chosen) / tokens(chosen).

    Args:
      nll_BS2: nats, summed over the tokens of each pair's chosen and rejected completion.
      reference_BS2: the same of the reference.
      tokens_BS2: with loss; a pair without chosen tokens does not exist.
    """
    exists_BS = tokens_BS2[..., 0] > 0
    gain_BS2 = reference_BS2 - nll_BS2
    margin_BS = how.beta * (gain_BS2[..., 0] - gain_BS2[..., 1])
    smooth = how.label_smoothing
    loss_BS = -(1 - smooth) * jax.nn.log_sigmoid(margin_BS) - smooth * jax.nn.log_sigmoid(-margin_BS)
    length_BS = jnp.where(exists_BS, tokens_BS2[..., 0], 1.0)
    loss_BS += how.nll_weight * nll_BS2[..., 0] / length_BS
    over = lambda values_BS: jnp.sum(values_BS * exists_BS)
    return over(loss_BS), {
        "pairs": over(1.0),
        "loss_tokens": jnp.sum(tokens_BS2),
        "chosen_log_prob": -over(nll_BS2[..., 0]),
        "rejected_log_prob": -over(nll_BS2[..., 1]),
        "margin": over(margin_BS),
        "accuracy": over(margin_BS > 0),
        "chosen_fall": -over(gain_BS2[..., 0] / length_BS),  # nats a token below the reference
    }


OBJECTIVES = {
    "sft": Objective("supervised fine-tuning on completions: LEMA, arXiv 2310.20689, section 2", sft, ("loss_tokens",)),
    "preference": Objective(
        "DPO, arXiv 2305.18290, with the nll term of RPO, arXiv 2404.19733",
        preference,
        ("pairs", "loss_tokens"),
        ("chosen_log_prob", "rejected_log_prob", "margin", "accuracy", "chosen_fall"),
        shown=("margin", "accuracy", "chosen_log_prob", "rejected_log_prob"),
        pairs=True,
    ),
}


def of(name: str, how: PreferenceConfig) -> Objective:
    """The row of that name, with its settings."""
    row = OBJECTIVES[name]
    return dataclasses.replace(row, loss=functools.partial(row.loss, how=how)) if row.pairs else row


def nll_of_tokens(trained: Any, frozen: Any, batch: Batch, *, model: Llama, collection: str) -> jax.Array:
    """weight · nll of the target of each token, [B, T], without dropout and without a gradient."""
    variables = jax.lax.stop_gradient({**frozen, collection: trained})
    model = model.clone(deterministic=True)
    rows = map(_by_shard, (_trunk(model, variables, batch, None), *_targets(batch)))
    return _together(token_nll(*_head(model, variables), *rows))


def _trunk(model: Llama, variables: Any, batch: Batch, key: jax.Array | None) -> jax.Array:
    """The output of the last layer, [B, T, D]."""
    rngs = {} if key is None else {"dropout": key}
    read = (batch["tokens"], batch["positions"], batch["segment_ids"])
    return model.apply(variables, *read, method="trunk", rngs=rngs)


def _targets(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The next token of each, and its weight, [B, T].

    A token is predicted from those before it in its own segment, so the first token of a segment has no loss. Rolling
    keeps the row's length, so that it stays sharded along the sequence; its last token predicts nothing.
    """
    segments_BT = batch["segment_ids"]
    within_BT = (jnp.roll(segments_BT, -1, axis=1) == segments_BT).at[:, -1].set(False)
    return jnp.roll(batch["tokens"], -1, axis=1), jnp.roll(batch["weights"], -1, axis=1) * within_BT


def _head(model: Llama, variables: Any) -> tuple[LogitsOf, int, Any]:
    """How logits are computed, the positions at a time, and the head's parameters."""
    name = "embed" if model.config.tie_embeddings else "head"
    logits_of = lambda head, x_BCD: model.apply({"params": {name: head}}, x_BCD, method="logits")
    return logits_of, model.compute.loss_chunk, variables["params"][name]


def _by_side(values_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
    """Sums over the chosen and the rejected sequence of each pair, [B, S, 2]: segments 2 s - 1 and 2 s, s from 1."""
    most = segments_BT.shape[1] // 2
    summed = functools.partial(jax.ops.segment_sum, num_segments=2 * most + 1)
    return jax.vmap(summed)(values_BT, segments_BT)[:, 1:].reshape(-1, most, 2)  # without padding, which is segment 0


def _parts() -> int:
    return jax.sharding.get_abstract_mesh().shape.get("sequence", 1)


def _by_shard(x: jax.Array) -> jax.Array:
    """[B, T, …] -> [P · B, T / P, …]: each of the P shards of a row along the sequence becomes a row."""
    if (parts := _parts()) == 1:
        return x
    x = jnp.swapaxes(x.reshape(x.shape[0], parts, -1, *x.shape[2:]), 0, 1)
    return shard(x.reshape(-1, *x.shape[2:]), "pieces", *[None] * (x.ndim - 2))


def _together(x: jax.Array) -> jax.Array:
    """[P · B, T / P] -> [B, T]: the inverse of `_by_shard`."""
    if (parts := _parts()) == 1:
        return x
    x = jnp.swapaxes(x.reshape(parts, -1, x.shape[1]), 0, 1)
    return shard(x.reshape(x.shape[0], -1), "batch", "length")
