"""Where a run begins: its weights and its place in the data found, then its folder claimed.

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

from lema_jax import checkpoint, metadata, storage
from lema_jax.checkpoint import Card, DamagedCheckpoint
from lema_jax.data import batches, dataset, tokenizer
from lema_jax.errors import UserError
from lema_jax.model.config import LoraConfig
from lema_jax.training.config import TrainConfig, as_dict, shaping
from lema_jax.training.program import Program
from lema_jax.training.step import State

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True)
class Begun:
    """What a run begins or goes on with.

    Attributes:
      card: the run's, as it shall be written.
      frozen: the collections that are not trained.
      trained: the weights to begin with; None: random ones, or the run's own.
      shaping: the configuration that it goes on with, where that is another than before.
    """

    card: Card
    frozen: Any
    trained: Any
    shaping: dict[str, Any] | None = None


def claim(config: TrainConfig, begun: Begun, step: int) -> Card:
    """Writes what makes the folder this run's; returns its card.

    Called when all else holds together, so that a start that fails claims nothing.

    Args:
      config: as it was given, before `resolved`.
      step: which the run begins at or goes on from.
    """
    out, card = storage.place(config.out), begun.card
    if begun.shaping is not None:
        card = dataclasses.replace(card, changed=tuple(entry for entry in card.changed if entry[0] < step))
        lineage = _lineage_after(begun.shaping, card.identity(step))
        card = dataclasses.replace(card, changed=(*card.changed, (step, lineage)))
    if jax.process_index() == 0:
        if not checkpoint.steps(out):
            storage.copy_files(f"{config.data.path}/tokenizer", f"{out}/tokenizer")
        checkpoint.write_card(out, card)
        storage.write(out / "config.json", json.dumps(as_dict(config), indent=2) + "\n")
    return card


def resolved(config: TrainConfig) -> TrainConfig:
    """The configuration with `steps`, whichever way its length is told."""
    if config.steps:
        return config
    length = {"epochs": config.epochs} if config.epochs else {"tokens": config.tokens}
    return dataclasses.replace(config, steps=batches.steps_for(config.data, **length))


def begin(given: TrainConfig, config: TrainConfig, mesh: Mesh, allow_config_change: bool) -> Begun:
    """What the run begins with, or goes on with where a checkpoint of its own is there. Nothing is written.

    Args:
      given: the configuration as it was given, which is what `config.json` holds.
      config: the same, resolved.

    Raises:
      UserError: missing or foreign weights, data or tokenizer; a folder that was begun with another configuration,
        every difference listed.
    """
    # What a run starts from, in this order:
    #   1. its own folder, when a checkpoint is there;
    #   2. `init`, a model folder: its weights to train, or to freeze under new adapters, or its adapters to go on with;
    #   3. `model`: random weights, only when asked for by that field.
    if checkpoint.steps(config.out):
        return _go_on(given, config, mesh, allow_config_change)
    data = dataset.fingerprint(config.data.path)
    shaped = shaping(as_dict(config))
    if config.init:
        checkpoint.read_card(config.init)  # no model folder at all is said first
        _same_tokenizer(config.init, config.data.path)
        source, variables = checkpoint.load_weights(config.init, mesh, config.compute, lora=config.lora)
        init = checkpoint.identity(config.init)
        card = Card(source.config, _lineage(shaped, data, init), eos_ids=source.eos_ids, init=init)
        if config.lora is None:
            if source.lora is not None:
                raise UserError(f"init={config.init} holds adapters; merge them with convert, or set lora to train on")
            frozen, trained = {}, variables["params"]
        else:
            if source.lora not in (None, config.lora):
                raise UserError(f"init={config.init} holds adapters of shape {source.lora}, but lora={config.lora}")
            base = _base_of(config.init, source)
            path = storage.relative(base, config.out)
            card = dataclasses.replace(card, lora=config.lora, base=path, base_lineage=checkpoint.identity(base))
            frozen, trained = {"params": variables["params"]}, variables.get("lora")
    else:
        assert config.model is not None  # validate has seen to it
        size = len(tokenizer.load(config.data.path))
        if config.model.vocab_size < size:
            raise UserError(f"model.vocab_size={config.model.vocab_size} is below the tokenizer's {size} tokens")
        card, frozen, trained = Card(config.model, _lineage(shaped, data, "")), {}, None
    words = metadata.tokenizer_digests(f"{config.data.path}/tokenizer")
    return Begun(dataclasses.replace(card, data=data, tokenizer=words), frozen, trained)


def _go_on(given: TrainConfig, config: TrainConfig, mesh: Mesh, allow_config_change: bool) -> Begun:
    out, card = config.out, checkpoint.read_card(config.out)
    metadata.check_tokenizer(out, card)
    changed = _changed(given, config, card)
    if changed and not allow_config_change:
        raise UserError(
            f"{out} was begun with another configuration:\n  " + "\n  ".join(changed) + "\n"
            "choose another out, or insist with --allow_config_change"
        )
    if card.data and (found := dataset.fingerprint(config.data.path)) != card.data:
        raise UserError(
            f"{out} was begun on the data set {card.data}, but {config.data.path} holds {found}: other rows or another "
            "tokenizer. Bring the data set back, or begin on this one in another out"
        )
    if _shape(card.lora) != _shape(config.lora) or (config.model is not None and config.model != card.config):
        raise UserError(
            f"{out} holds {card.lora or 'whole weights'} of {card.config}: lora's and model's shape stay as they were; "
            "choose another out"
        )
    frozen: Any = {}
    init = config.init if config.init and (storage.place(config.init) / "model.json").exists() else ""
    if card.lora is not None:
        # `init` may have moved since: what counts is which weights it holds, not where.
        base = _base_of(init, checkpoint.read_card(init)) if init else storage.beside(out, card.base)
        checkpoint.require_base(out, card, base)
        frozen = checkpoint.load_weights(base, mesh, config.compute, lora=config.lora)[1]
        card = dataclasses.replace(card, base=storage.relative(base, out))
    elif init and card.init and card.init.partition("@")[0] not in checkpoint.read_card(init).lineages:
        # A model that was trained on since is no matter: the run has its own weights by now.
        raise UserError(
            f"{out} was begun from {card.init}, but init={init} holds {checkpoint.identity(init)}; name what it began "
            "from, or choose another out"
        )
    return Begun(card, frozen, None, shaping(as_dict(config)) if changed else None)


def _changed(given: TrainConfig, config: TrainConfig, card: Card) -> list[str]:
    """How the configuration differs from the one that the run goes by: none where it gives the lineage of its card.

    `config.json` only tells the difference: where it was lost, or is damaged, it is made again by the same command.
    """
    path = storage.place(config.out) / "config.json"
    if card.data:
        shaped = shaping(as_dict(config))
        lineage = _lineage(shaped, card.data, card.init)
        if card.changed:
            step, _ = card.changed[-1]
            lineage = _lineage_after(shaped, card.identity(step))
        if lineage == card.lineages[-1]:
            return []
    elif not path.exists():
        raise UserError(f"{config.out} holds a model that train did not make; choose another out, and name it by init")
    try:
        before, now = shaping(storage.read_json(path, "choose another out")), shaping(as_dict(given))
    except (UserError, FileNotFoundError, AttributeError) as error:
        return [f"{path} cannot be read ({error})"]
    return [
        f"{name}: {before.get(name)!r} before, {now.get(name)!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _lineage(shaped: dict[str, Any], data: str, init: str) -> str:
    """Of a run that begins."""
    from_what = {"init": init} if init else {}
    return checkpoint.lineage(config=shaped | {"data": data}, **from_what)


def _lineage_after(shaped: dict[str, Any], before: str) -> str:
    """Of a run that goes on with another configuration than `before`, a lineage and step."""
    return checkpoint.lineage(config=shaped, after=before)


def _shape(lora: LoraConfig | None) -> LoraConfig | None:
    """What cannot change while adapters train: all but dropout."""
    return lora and dataclasses.replace(lora, dropout=0.0)


def _base_of(folder: str, card: Card) -> str:
    """The folder with the weights that a model folder's adapters stand upon; itself, where it has none."""
    return storage.beside(folder, card.base)


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
    damaged: dict[int, DamagedCheckpoint] = {}
    for step in reversed(there):
        try:
            found, told = checkpoint.restore(out, step, items(program, program.stored))
            if "data" not in told:
                raise DamagedCheckpoint(f"checkpoint {step} of {out} does not say where in the data it was made")
        except DamagedCheckpoint as error:
            damaged[step] = error
            continue
        _put_aside(out, damaged)
        iterator.set_state(told["data"])
        print(f"going on from step {step} of {out}", flush=True)
        trained, optimizer = found["weights"][program.collection], found["optimizer"]
        return program.from_disk(State(optimizer["step"], trained, optimizer["state"]))
    if there:
        raise UserError(
            f"none of the checkpoints {there} of {out} can be read ({damaged[there[-1]]}); begin again in another out"
        )
    return None


def _put_aside(out: str, damaged: dict[int, DamagedCheckpoint]) -> None:
    if jax.process_index():
        return
    for step, error in damaged.items():
        path = checkpoint.checkpoints(out) / str(step)
        aside = path.with_name(f"{step}.damaged-{datetime.datetime.now():%Y%m%dT%H%M%S}")
        path.rename(aside)
        print(f"warning: {error}; it is now {aside.name}", file=sys.stderr)


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
