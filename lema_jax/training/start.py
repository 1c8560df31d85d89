"""The start of a run: its weights are found and checked, then its folder is claimed.

out/config.json      the configuration as it was given
out/starts.jsonl     a line for every start: when, on what, from which step, how long compiling took
out/model.json, out/tokenizer/, out/checkpoints/<step>/    see `checkpoint`
"""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import platform
from typing import Any

import jax
from jax.sharding import Mesh

from lema_jax import checkpoint
from lema_jax.checkpoint import Metadata, Model, check_tokenizer, tokenizer_digests, write_metadata
from lema_jax.data import batches, dataset, tokenizer
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, LoraConfig
from lema_jax.storage import RunFolder
from lema_jax.training.config import TrainConfig, as_dict, described, require_shape, shaping
from lema_jax.training.objectives import OBJECTIVES

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a run begins with or continues from.

    Attributes:
      metadata: of the run, to be written.
      frozen: the collections that are not trained.
      trained: the weights to begin with; None for random ones, or the run's own.
      own: the run's own model folder, where it has a checkpoint to continue from.
      changed: the shaping fields of the configuration, where it was changed since the last start.
    """

    metadata: Metadata
    frozen: Any
    trained: Any = None
    own: Model | None = None
    changed: dict[str, Any] | None = None


def resolved(config: TrainConfig) -> TrainConfig:
    """The configuration with `steps` where it has epochs or tokens, `data.batch_size` where that is 0, and its
    objective's learning rate."""
    if OBJECTIVES[config.objective].pairs and config.preference.learning_rate:
        own = dataclasses.replace(config.optimizer, learning_rate=config.preference.learning_rate)
        config = dataclasses.replace(config, optimizer=own)
    if not config.steps:
        length = {"epochs": config.epochs} if config.epochs else {"tokens": config.tokens}
        config = dataclasses.replace(config, steps=batches.steps_for(config.data, **length))
    if not config.data.batch_size:
        rows = rounded(batches.fit(config.data, config.steps).rows, _divisor(config))
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=rows))
    return config


def require_data(config: TrainConfig) -> None:
    """Checks that the data set is of what the objective learns from, and that the run can be tried on its dev set.

    Raises:
      UserError: it is of pairs and should be of examples, or the other way round; the dev set is of pairs, has an
        example that is longer than a row, or has questions without rationales, none of which is answered.
    """
    path, pairs = config.data.path, OBJECTIVES[config.objective].pairs
    there = dataset.has_pairs(path)
    if there and not pairs:
        raise UserError(f"{path} holds preference pairs, not examples; set objective=preference, or name other data")
    if pairs and not there:
        count = dataset.counts(path).examples
        raise UserError(
            f"objective={config.objective} learns from preference pairs, but {path} holds {count:,} examples and 0 "
            "pairs; make some with lema_jax.build_data --arm=preference"
        )
    dev = config.dev.path
    if dev and dataset.has_examples(dev):
        if dataset.has_pairs(dev):
            raise UserError(f"dev.path={dev} holds preference pairs; name the folder dev of a data set")
        batches.checked_lengths(dataclasses.replace(config.data, path=dev))
    elif dev and not config.dev.questions:
        raise UserError(
            f"dev.path={dev} holds questions without rationales, on which no loss can be measured; set dev.questions, "
            "how many of them to answer, or leave dev.path out"
        )


def architecture(config: TrainConfig) -> LlamaConfig:
    """What a run begins with: the architecture of `init`, or `model`.

    Raises:
      UserError: no such model; one of another tokenizer than the data's, of fewer tokens, of a shorter context than the
        rows, or with adapters that the run does not train.
    """
    if config.model is not None:
        found = config.model
        if found.vocab_size < (size := len(tokenizer.load(config.data.path))):
            raise UserError(f"model.vocab_size={found.vocab_size} is below the tokenizer's {size} tokens")
    else:
        source = Model.open(config.init)
        _require_same_tokenizer(source.folder, config.data.path)
        found, lora = source.metadata.config, source.metadata.lora
        if lora is not None and config.lora is None:
            raise UserError(f"init={config.init} holds adapters; merge them with convert, or set lora to train on")
        if lora not in (None, config.lora):
            raise UserError(f"init={config.init} holds adapters of shape {lora}, but lora={config.lora}")
    require_shape(config, found, jax.device_count())
    return found


def rounded(rows: int, divisor: int) -> int:
    """The least of 1, 2, 3, …, 8, 10, 12, 14, 16, 20, … times `divisor` that is not below `rows`.

    It is at most a quarter above, and so few sizes let seeds and arms of about one size share a compiled program.
    """
    wanted = math.ceil(rows / divisor)
    unit = 1 << max(0, wanted.bit_length() - 3)
    return math.ceil(wanted / unit) * unit * divisor


def _divisor(config: TrainConfig) -> int:
    """What the rows of a batch divide by."""
    data, fsdp, *_ = config.mesh.resolve(jax.device_count())
    return data * fsdp * max(1, config.accumulation)


def require_fit(config: TrainConfig) -> None:
    """Prints how many rows the fullest step needs, where every step has `data.examples_per_step`.

    Args:
      config: resolved, and valid on this machine's devices.

    Raises:
      UserError: a step of the run does not fit into its rows.
    """
    data = config.data
    if not data.examples_per_step:
        return
    found = batches.fit(data, config.steps)
    measured = f"{'all' if found.steps == config.steps else f'the first {found.steps:,} of'} {config.steps:,} steps"
    need = (
        f"data.examples_per_step={data.examples_per_step} needs up to {found.rows} rows of data.seq_len={data.seq_len}"
        f" (measured over {measured})"
    )
    if found.rows > data.batch_size:
        smallest = math.ceil(found.rows / _divisor(config)) * _divisor(config)
        raise UserError(
            f"{need}, more than data.batch_size={data.batch_size}; the smallest value that works is {smallest}"
        )
    if jax.process_index() == 0:
        print(f"{need} of {data.batch_size}", flush=True)


def find(
    config: TrainConfig, given: dict[str, Any], folder: RunFolder, mesh: Mesh, allow_config_change: bool
) -> Origin:
    """Finds what the run begins with. Nothing is written.

    In this order:
      1. the run's own folder, where it has a checkpoint;
      2. `init`, a model folder: its weights to train, or to freeze under new adapters, or its adapters to train on;
      3. `model`: random weights, only where that field asks for them.

    Args:
      config: resolved.
      given: the configuration before `resolved`, as `config.json` contains it.
      folder: the run's.

    Raises:
      UserError: missing or foreign weights, data or tokenizer; a folder that was begun with another configuration,
        every difference listed.
    """
    shaped = shaping(as_dict(config))
    if checkpoint.steps(folder):
        return _continued(config, shaped, given, Model.open(folder), mesh, allow_config_change)
    llama, data = architecture(config), dataset.fingerprint(config.data.path)
    if config.init:
        origin = _from_model(config, Model.open(config.init), folder, mesh)
    else:
        origin = Origin(Metadata(llama, lineage=""), frozen={})
    metadata = dataclasses.replace(
        origin.metadata,
        lineage=_lineage(shaped, data, origin.metadata.init),
        data=data,
        prompt_style=dataset.prompt_style(config.data.path),
        tokenizer=tokenizer_digests(f"{config.data.path}/tokenizer"),
    )
    return dataclasses.replace(origin, metadata=metadata)


def beginning(config: TrainConfig, folder: RunFolder, mesh: Mesh, init: str) -> Origin:
    """What a run that goes on began with, read again.

    Args:
      init: its identity.

    Raises:
      UserError: `config.init` has other weights.
    """
    source = Model.open(config.init)
    if source.identity() != init:
        raise UserError(
            f"the reference of {folder} is {init}, and not all of it is stored beside {config.data.path}; init="
            f"{config.init} holds {source.identity()}: name what the run began from"
        )
    return _from_model(config, source, folder, mesh)


def _from_model(config: TrainConfig, source: Model, folder: RunFolder, mesh: Mesh) -> Origin:
    variables = source.load_variables(mesh, config.compute, lora=config.lora)
    there, base = source.metadata, source.base
    metadata = Metadata(there.config, lineage="", eos_ids=there.eos_ids, init=source.identity())
    if config.lora is None:
        return Origin(metadata, frozen={}, trained=variables["params"])
    metadata = dataclasses.replace(
        metadata, lora=config.lora, base=base.folder.relative_to(folder), base_lineage=base.identity()
    )
    return Origin(metadata, frozen={"params": variables["params"]}, trained=variables.get("lora"))


def _continued(
    config: TrainConfig,
    shaped: dict[str, Any],
    given: dict[str, Any],
    own: Model,
    mesh: Mesh,
    allow_config_change: bool,
) -> Origin:
    # 1. The run's tokenizer, configuration, data and shapes are those that it was begun with.
    folder, metadata = own.folder, own.metadata
    check_tokenizer(folder, metadata)
    changed = _changed(shaped, given, own)
    if changed and not allow_config_change:
        raise UserError(
            f"{folder} was begun with another configuration:\n  " + "\n  ".join(changed) + "\n"
            "choose another out, or insist with --allow_config_change"
        )
    if metadata.data and (found := dataset.fingerprint(config.data.path)) != metadata.data:
        raise UserError(
            f"{folder} was begun on the data set {metadata.data}, but {config.data.path} holds {found}: other rows or "
            "another tokenizer. Bring the data set back, or begin on this one in another out"
        )
    if _fixed(metadata.lora) != _fixed(config.lora) or config.model not in (None, metadata.config):
        raise UserError(
            f"{folder} holds {metadata.lora or 'full weights'} of {metadata.config}: lora's and model's shape stay as "
            "they were; choose another out"
        )
    require_shape(config, metadata.config, jax.device_count())
    # 2. So is `init`, where it is still there: what counts is which weights it has, not where it is. A run with full
    #    weights no longer needs it, and a model that was trained on since has the same lineages.
    source = Model.open(config.init) if config.init and Model.is_at(config.init) else None
    frozen: Any = {}
    if metadata.lora is not None:
        base = own.require_base(source.base_folder if source else own.base_folder)
        frozen = base.load_variables(mesh, config.compute, lora=config.lora)
        metadata = dataclasses.replace(metadata, base=base.folder.relative_to(folder))
    elif source and metadata.init and metadata.init.partition("@")[0] not in source.metadata.lineages:
        raise UserError(
            f"{folder} was begun from {metadata.init}, but init={config.init} holds {source.identity()}; name what it "
            "began from, or choose another out"
        )
    return Origin(metadata, frozen, own=own, changed=shaped if changed else None)


def _changed(shaped: dict[str, Any], given: dict[str, Any], own: Model) -> list[str]:
    """The differences between this configuration and the run's: none where both give the same lineage.

    `config.json` only names the differences: where it is lost or damaged, the same command writes it again.
    """
    metadata, folder = own.metadata, own.folder
    if metadata.data:
        lineage = _lineage(shaped, metadata.data, metadata.init)
        if metadata.changed:
            step, _ = metadata.changed[-1]
            lineage = _lineage_after(shaped, metadata.identity_at(step))
        if lineage == metadata.lineages[-1]:
            return []
    elif not folder.has("config.json"):
        raise UserError(f"{folder} holds a model that train did not make; choose another out, and name it by init")
    try:
        before, now = described(folder.read_json("config.json", "choose another out")), described(given)
    except (UserError, FileNotFoundError, AttributeError) as error:
        return [f"{folder.path / 'config.json'} cannot be read ({error})"]
    return [
        f"{name}: {before.get(name)!r} before, {now.get(name)!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def claim(
    folder: RunFolder, origin: Origin, step: int, given: dict[str, Any], data: str, compile_seconds: float
) -> Metadata:
    """Writes the files that make the folder this run's, and a line for this start; returns the run's metadata.

    Called when all has been validated, so that a start that fails claims nothing.

    Args:
      step: the one that the run begins at or continues from.
      given: the configuration before `resolved`.
      data: the data set, whose tokenizer is copied.
    """
    metadata = origin.metadata
    if origin.changed is not None:
        metadata = dataclasses.replace(metadata, changed=tuple(entry for entry in metadata.changed if entry[0] < step))
        lineage = _lineage_after(origin.changed, metadata.identity_at(step))
        metadata = dataclasses.replace(metadata, changed=(*metadata.changed, (step, lineage)))
    if jax.process_index() == 0:
        if not checkpoint.steps(folder):
            (folder / "tokenizer").copy_files(f"{data}/tokenizer")
        write_metadata(folder, metadata)
        folder.write_json("config.json", given)
        line = _environment() | {"from_step": step, "compile_seconds": compile_seconds}
        folder.append("starts.jsonl", json.dumps(line) + "\n")
    return metadata


def _environment() -> dict[str, Any]:
    """When and on what the run starts."""
    device = jax.devices()[0]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "processes": jax.process_count(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _lineage(shaped: dict[str, Any], data: str, init: str) -> str:
    """The lineage of a run that begins."""
    from_what = {"init": init} if init else {}
    return checkpoint.lineage(config=shaped | {"data": data}, **from_what)


def _lineage_after(shaped: dict[str, Any], before: str) -> str:
    """The lineage of a run that continues `before`, a lineage and step, with another configuration."""
    return checkpoint.lineage(config=shaped, after=before)


def _fixed(lora: LoraConfig | None) -> LoraConfig | None:
    """What cannot change while adapters train: all fields except dropout."""
    return lora and dataclasses.replace(lora, dropout=0.0)


def _require_same_tokenizer(model: RunFolder, data: str) -> None:
    ours, theirs = (tokenizer.fingerprint(tokenizer.load(folder)) for folder in (str(model), data))
    if ours != theirs:
        raise UserError(
            f"the data set {data} was made with another tokenizer than {model}'s; build it with --tokenizer={model}"
        )
