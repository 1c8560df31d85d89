"""Where a run begins: its folder claimed, its weights and its place in the data found.

out/config.json      the resolved configuration
out/starts.jsonl     a line for every start: when, on what, from which step, how long compiling took
out/model.json, out/tokenizer/, out/checkpoints/<step>/    see `checkpoint`
"""

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import sys
from typing import Any

import jax
from jax.sharding import Mesh

from lema_jax import checkpoint, storage
from lema_jax.checkpoint import Card, DamagedCheckpoint
from lema_jax.data import batches, dataset, tokenizer
from lema_jax.errors import UserError
from lema_jax.training.config import TrainConfig, as_dict, shaping
from lema_jax.training.program import Program
from lema_jax.training.step import State

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def claim(config: TrainConfig, allow_config_change: bool) -> None:
    """Makes the run's folder its own: the configuration is printed, and saved there or compared with what is there.

    Raises:
      UserError: the folder was begun with another configuration; every difference is listed.
    """
    out = storage.place(config.out)
    resolved = as_dict(config)
    path = out / "config.json"
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
    if jax.process_index() == 0:
        print(json.dumps(resolved, indent=2), flush=True)
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(resolved, indent=2) + "\n")


def resolved(config: TrainConfig) -> TrainConfig:
    """The configuration with `steps`, whichever way its length is told."""
    if config.steps:
        return config
    length = {"epochs": config.epochs} if config.epochs else {"tokens": config.tokens}
    return dataclasses.replace(config, steps=batches.steps_for(config.data, **length))


def weights(config: TrainConfig, mesh: Mesh) -> tuple[Card, Any, Any]:
    """The run's card, its frozen collections, and the weights to begin with (None: random, or the run's own).

    Raises:
      UserError: missing or foreign weights, data or tokenizer.
    """
    # What a run starts from, in this order:
    #   1. its own folder, when a checkpoint is there;
    #   2. `init`, a model folder: its weights to train, or to freeze under new adapters, or its adapters to go on with;
    #   3. `model`: random weights, only when asked for by that field.
    out = config.out
    if checkpoint.steps(out):
        card = checkpoint.read_card(out)
        base = storage.beside(out, card.base)
        frozen = checkpoint.load_weights(base, mesh, config.compute, lora=card.lora)[1] if card.lora else {}
        return card, frozen, None
    shaped = shaping(as_dict(config)) | {"data": dataset.fingerprint(config.data.path)}
    if config.init:
        source, variables = checkpoint.load_weights(config.init, mesh, config.compute, lora=config.lora)
        _same_tokenizer(config.init, config.data.path)
        lineage = checkpoint.lineage(config=shaped, init=checkpoint.identity(config.init))
        card = Card(source.config, lineage, eos_ids=source.eos_ids)
        if config.lora is None:
            if source.lora is not None:
                raise UserError(f"init={config.init} holds adapters; merge them with convert, or set lora to train on")
            frozen, trained = {}, variables["params"]
        else:
            if source.lora not in (None, config.lora):
                raise UserError(f"init={config.init} holds adapters of shape {source.lora}, but lora={config.lora}")
            base = storage.beside(config.init, source.base)
            path = storage.relative(base, out)
            card = dataclasses.replace(card, lora=config.lora, base=path, base_lineage=checkpoint.identity(base))
            frozen, trained = {"params": variables["params"]}, variables.get("lora")
    else:
        assert config.model is not None  # validate has seen to it
        size = len(tokenizer.load(config.data.path))
        if config.model.vocab_size < size:
            raise UserError(f"model.vocab_size={config.model.vocab_size} is below the tokenizer's {size} tokens")
        card, frozen, trained = Card(config.model, checkpoint.lineage(config=shaped)), {}, None
    if jax.process_index() == 0:
        storage.copy_files(f"{config.data.path}/tokenizer", f"{out}/tokenizer")
        checkpoint.write_card(out, card)
    return card, frozen, trained


def items(program: Program, stored: State) -> dict[str, Any]:
    """A checkpoint's items; weights apart from the rest, so that an evaluator reads nothing else.

    The place in the data is the same for every process and small: it lies in the checkpoint's own metadata, where any
    number of processes finds it.
    """
    return {
        "weights": {program.collection: stored.trained},
        "optimizer": {"step": stored.step, "state": stored.optimizer},
    }


def resume(out: str, program: Program, iterator: Any) -> State | None:
    """The state of the newest checkpoint that can be read, the iterator set to its place; None when there is none.

    A damaged one is put aside under another name, with a warning: nothing is deleted.

    Raises:
      UserError: a checkpoint of other shapes, or only damaged ones.
    """
    there = checkpoint.steps(out)
    for step in reversed(there):
        try:
            found = checkpoint.restore(out, step, items(program, program.stored))
            iterator.set_state(checkpoint.place_in_data(out, step))
        except DamagedCheckpoint as error:
            path = checkpoint.checkpoints(out) / str(step)
            aside = path.with_name(f"{step}.damaged-{datetime.datetime.now():%Y%m%dT%H%M%S}")
            if jax.process_index() == 0:
                path.rename(aside)
                print(f"warning: {error}; it is now {aside.name}", file=sys.stderr)
            continue
        print(f"going on from step {step} of {out}", flush=True)
        trained, optimizer = found["weights"][program.collection], found["optimizer"]
        return program.from_disk(State(optimizer["step"], trained, optimizer["state"]))
    if there:
        raise UserError(f"none of the checkpoints {there} of {out} can be read; begin again in another out")
    return None


def record(out: str, step: int, **measured: Any) -> None:
    """Adds this start to `starts.jsonl`."""
    if jax.process_index():
        return
    device = jax.devices()[0]
    line = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "from_step": step,
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "processes": jax.process_count(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    storage.append(storage.place(out) / "starts.jsonl", json.dumps(line | measured) + "\n")


def _same_tokenizer(model: str, data: str) -> None:
    ours, theirs = (tokenizer.fingerprint(tokenizer.load(folder)) for folder in (model, data))
    if ours != theirs:
        raise UserError(
            f"the data set {data} was made with another tokenizer than {model}'s; build it with --tokenizer={model}"
        )
