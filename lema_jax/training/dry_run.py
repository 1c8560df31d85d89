"""What a run would be, without training: its size, its memory, and the first batch as the model will read it."""

import itertools
from typing import Any

import jax
import numpy as np

from lema_jax import checkpoint
from lema_jax.data import batches, tokenizer
from lema_jax.model.nf4 import Nf4
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import AXES, make_mesh
from lema_jax.training import start
from lema_jax.training.config import TrainConfig, validate
from lema_jax.training.program import Program

_LEARNED, _PLAIN, _DIM = "\033[1;32m", "\033[0m", "\033[2m"
_ROWS = 2  # of the batch that are shown


def show(config: TrainConfig) -> None:
    """Prints parameter counts, memory of a device, and rows of the first batch, tokens with loss coloured.

    Raises:
      UserError: as the run itself would.
    """
    validate(config, jax.device_count())
    config = start.resolved(config)
    mesh = make_mesh(config.mesh)
    llama = checkpoint.read_card(config.init).config if config.init else config.model
    assert llama is not None  # validate has seen to it
    with sharding.use(mesh):
        program = Program(config, llama, mesh)
        compiled = program.step.lower(program.state, program.frozen, program.batch).compile()
    trained, frozen = _count(program.state.trained), _count(program.frozen)
    print(f"parameters: {trained:,} trained, {frozen:,} frozen")
    print(f"mesh: {', '.join(f'{axis} {mesh.shape[axis]}' for axis in AXES)} on {jax.devices()[0].device_kind}")
    print(f"a device: {_memory(compiled.memory_analysis())}")
    rows = next(iter(batches.batches(config.data)))
    real, learned = (rows["segment_ids"] > 0).sum(), (rows["weights"] > 0).sum()
    size = config.data.batch_size * config.data.seq_len
    print(
        f"{config.steps:,} steps of {size:,} tokens; the first: {real / size:.1%} real, {learned / size:.1%} with loss"
    )
    words = tokenizer.load(config.data.path)
    for row in range(min(_ROWS, config.data.batch_size)):
        print(f"{_DIM}--- row {row}: what has loss is green{_PLAIN}\n{_text(words, rows, row)}")


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Nf4)))


def _memory(found: Any) -> str:
    parts = {
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "results that are not arguments": found.output_size_in_bytes - found.alias_size_in_bytes,
    }
    return f"{sum(parts.values()) / 1e9:.2f} GB (" + ", ".join(f"{k} {v / 1e9:.2f}" for k, v in parts.items()) + ")"


def _text(words: Any, rows: dict[str, np.ndarray], row: int) -> str:
    """The row's text, run by run of tokens with or without loss; examples apart by a rule."""
    tokens, weights, segments = (rows[name][row] for name in ("tokens", "weights", "segment_ids"))
    kinds = np.stack([segments, weights > 0])
    edges = [0, *(np.flatnonzero((np.diff(kinds) != 0).any(axis=0)) + 1), len(tokens)]
    said = []
    for first, last in itertools.pairwise(edges):
        if segments[first] == 0:
            said.append(f"{_DIM}[{last - first} of padding]{_PLAIN}")
        elif last > first:
            text = words.decode(tokens[first:last])
            said.append(f"{_LEARNED}{text}{_PLAIN}\n" if weights[first] > 0 else text)
    return "".join(said)
