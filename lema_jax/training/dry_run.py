"""Prints the size and memory of a run, and its first batch as the model reads it, without training."""

import itertools
from typing import Any

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from lema_jax.data import batches, tokenizer
from lema_jax.model.nf4 import Nf4
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import AXES, make_mesh
from lema_jax.training import start
from lema_jax.training.config import TrainConfig, validate
from lema_jax.training.setup import Setup

_GREEN, _PLAIN, _DIM = "\033[1;32m", "\033[0m", "\033[2m"
_ROWS = 2  # rows of the batch to print


def show(config: TrainConfig) -> None:
    """Prints parameter counts, memory per device, and rows of the first batch with the tokens that have loss in green.

    Raises:
      UserError: as the run itself would.
    """
    validate(config, jax.device_count())
    start.require_data(config)
    config = start.resolved(config)
    start.require_fit(config)
    mesh = make_mesh(config.mesh)
    llama = start.architecture(config)
    with sharding.use(mesh):
        setup = Setup(config, llama, mesh)
        compiled = setup.compiled_step
    trained, frozen = _count(setup.state.trained), _count(setup.frozen)
    print(f"parameters: {trained:,} trained, {frozen:,} frozen")
    print(f"mesh: {', '.join(f'{axis} {mesh.shape[axis]}' for axis in AXES)} on {jax.devices()[0].device_kind}")
    print(f"a device: {_memory(compiled.memory_analysis())}")
    rows = next(iter(batches.batches(config.data)))
    real, learned = (rows["segment_ids"] > 0).sum(), (rows["weights"] > 0).sum()
    size = config.data.batch_size * config.data.seq_len
    print(
        f"{config.steps:,} steps of {size:,} tokens; the first: {real / size:.1%} real, {learned / size:.1%} with loss"
    )
    reader = tokenizer.load(config.data.path)
    for row in range(min(_ROWS, config.data.batch_size)):
        print(f"{_DIM}--- row {row}: tokens with loss are green{_PLAIN}\n{_text(reader, rows, row)}")


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Nf4)))


def _memory(found: Any) -> str:
    parts = {
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "results that are not arguments": found.output_size_in_bytes - found.alias_size_in_bytes,
    }
    return f"{sum(parts.values()) / 1e9:.2f} GB (" + ", ".join(f"{k} {v / 1e9:.2f}" for k, v in parts.items()) + ")"


def _text(reader: PreTrainedTokenizerFast, rows: dict[str, np.ndarray], row: int) -> str:
    """A row's text, decoded in spans of tokens that all have loss or all have none."""
    tokens, weights, segments = (rows[name][row] for name in ("tokens", "weights", "segment_ids"))
    kinds = np.stack([segments, weights > 0])
    edges = [0, *(np.flatnonzero((np.diff(kinds) != 0).any(axis=0)) + 1), len(tokens)]
    spans = []
    for first, last in itertools.pairwise(edges):
        if segments[first] == 0:
            spans.append(f"{_DIM}[{last - first} of padding]{_PLAIN}")
        elif last > first:
            text = str(reader.decode(tokens[first:last]))
            spans.append(f"{_GREEN}{text}{_PLAIN}\n" if weights[first] > 0 else text)
    return "".join(spans)
