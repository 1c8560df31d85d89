"""The training loop: start or resume, step, log, save.

out/config.json      the resolved configuration
out/metrics.jsonl    a line for every `log_every` steps
out/model.json, out/tokenizer/, out/checkpoints/<step>/    see `checkpoint`
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
from jax.sharding import Mesh

from lema_jax import checkpoint
from lema_jax.checkpoint import Card
from lema_jax.data import batches, dataset, tokenizer
from lema_jax.errors import UserError
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import make_mesh
from lema_jax.training.config import TrainConfig, as_dict, shaping, validate
from lema_jax.training.metrics import Metrics
from lema_jax.training.program import Program
from lema_jax.training.step import State


def run(config: TrainConfig, *, allow_config_change: bool = False) -> None:
    """Trains until `config.steps`; called again with the same configuration, continues where it stopped.

    Raises:
      UserError: a configuration that does not hold together, or differs from the run's own; missing or foreign data,
        weights or tokenizer.
    """
    validate(config, jax.device_count())
    out = Path(config.out)
    _claim(out, config, allow_config_change)
    mesh = make_mesh(config.mesh)
    with sharding.use(mesh):
        card, frozen, trained = _start(out, config, mesh)
        program = Program(config, card.config, mesh)
        rows = batches.batches(config.data, jax.process_index(), jax.process_count())
        iterator = iter(rows)
        if found := checkpoint.steps(out):
            print(f"going on from step {found[-1]} of {out}", flush=True)
            state = _resume(out, found[-1], program, iterator)
        else:
            state = program.begin(program.random(config.seed) if trained is None else trained)
        _train(config, program, state, frozen, iterator)


def _start(out: Path, config: TrainConfig, mesh: Mesh) -> tuple[Card, Any, Any]:
    """The run's card, its frozen collections, and the weights to begin with (None: random, or the run's own)."""
    # What a run starts from, in this order:
    #   1. its own folder, when a checkpoint is there;
    #   2. `init`, a model folder: its weights to train, or to freeze under new adapters, or its adapters to go on with;
    #   3. `model`: random weights, only when asked for by that field.
    if checkpoint.steps(out):
        card = checkpoint.read_card(out)
        frozen = checkpoint.load_weights(out / card.base, mesh, config.compute)[1] if card.base else {}
        return card, frozen, None
    shaped = shaping(as_dict(config)) | {"data": dataset.fingerprint(config.data.path)}
    if config.init:
        source, variables = checkpoint.load_weights(config.init, mesh, config.compute)
        _same_tokenizer(config.init, config.data.path)
        lineage = checkpoint.lineage(config=shaped, init=checkpoint.identity(config.init))
        if config.lora is None:
            if source.lora is not None:
                raise UserError(f"init={config.init} holds adapters; merge them with convert, or set lora to train on")
            card, frozen, trained = Card(source.config, lineage), {}, variables["params"]
        else:
            if source.lora not in (None, config.lora):
                raise UserError(f"init={config.init} holds adapters of shape {source.lora}, but lora={config.lora}")
            base = Path(config.init) / source.base
            card = Card(source.config, lineage, config.lora, os.path.relpath(base, out), checkpoint.identity(base))
            frozen, trained = {"params": variables["params"]}, variables.get("lora")
    else:
        assert config.model is not None  # validate has seen to it
        size = len(tokenizer.load(Path(config.data.path) / "tokenizer"))
        if config.model.vocab_size < size:
            raise UserError(f"model.vocab_size={config.model.vocab_size} is below the tokenizer's {size} tokens")
        card, frozen, trained = Card(config.model, checkpoint.lineage(config=shaped)), {}, None
    shutil.copytree(Path(config.data.path) / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    checkpoint.write_card(out, card)
    return card, frozen, trained


def _items(program: Program, stored: State, iterator: Any) -> dict[str, Any]:
    """A checkpoint's items; weights apart from the rest, so that an evaluator reads nothing else."""
    return {
        "weights": {program.collection: stored.trained},
        "optimizer": {"step": stored.step, "state": stored.optimizer},
        "data": iterator,
    }


def _resume(out: Path, step: int, program: Program, iterator: Any) -> State:
    found = checkpoint.restore(out, step, _items(program, program.stored, iterator))
    weights, optimizer = found["weights"][program.collection], found["optimizer"]
    return program.from_disk(State(optimizer["step"], weights, optimizer["state"]))


def _train(config: TrainConfig, program: Program, state: State, frozen: Any, iterator: Any) -> None:
    """Steps until `config.steps`. Metrics are fetched after the next step is dispatched, so the device never waits."""
    out = Path(config.out)
    first = int(state.step)
    due: tuple[int, list[dict[str, jax.Array]]] | None = None
    pending: list[dict[str, jax.Array]] = []
    with _checkpointer(out, config.keep) as checkpointer, Metrics(out, first, config.steps) as log:
        for step in range(first + 1, config.steps + 1):
            batch = _put(next(iterator), program)
            with jax.transfer_guard("disallow"):
                state, metrics = program.step(state, frozen, batch)
            pending.append(metrics)
            if due:
                log.write(*due)
                due = None
            if step % config.log_every == 0 or step == config.steps:
                due, pending = (step, pending), []
            if step % config.checkpoint_every == 0 or step == config.steps:
                items = _items(program, program.to_disk(state), iterator)
                checkpointer.save_checkpointables_async(step, items, force=True)
        if due:
            log.write(*due)


def _put(rows: dict[str, np.ndarray], program: Program) -> dict[str, jax.Array]:
    """This process's rows as its part of the global batch."""
    return {
        name: jax.make_array_from_process_local_data(abstract.sharding, rows[name], abstract.shape)
        for name, abstract in program.batch.items()
    }


def _checkpointer(out: Path, keep: int) -> ocp.training.Checkpointer:
    policies = ocp.training.preservation_policies
    return ocp.training.Checkpointer(
        (out / "checkpoints").absolute(),
        preservation_policy=policies.LatestN(keep) if keep else policies.PreserveAll(),
        cleanup_tmp_directories=True,
    )


def _claim(out: Path, config: TrainConfig, allow_config_change: bool) -> None:
    """Makes the run's folder its own: the configuration is printed, and saved there or compared with what is there."""
    resolved = as_dict(config)
    path = out / "config.json"
    print(json.dumps(resolved, indent=2), flush=True)
    if path.exists() and not allow_config_change:
        before, now = shaping(json.loads(path.read_text())), shaping(resolved)
        changed = [
            f"{name}: {before.get(name)!r} before, {now.get(name)!r} now"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if changed:
            raise UserError(
                f"{out} was begun with another configuration:\n  " + "\n  ".join(changed) + "\n"
                "choose another out, or insist with --allow_config_change"
            )
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(resolved, indent=2) + "\n")


def _same_tokenizer(model: str, data: str) -> None:
    ours, theirs = (tokenizer.fingerprint(tokenizer.load(folder)) for folder in (model, data))
    if ours != theirs:
        raise UserError(
            f"the data set {data} was made with another tokenizer than {model}'s; build it with --tokenizer={model}"
        )
