"""The configuration of a training run: plain dataclasses, built by a file in `configs/`, overridden by flags.

No `from __future__ import annotations` here: ml_collections reads the field types to parse an override.
"""

import dataclasses
from typing import Any

import pydantic

from lema_jax.data.batches import DataConfig
from lema_jax.errors import UserError
from lema_jax.model.attention import LANES
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.training.optimizer import OptimizerConfig

# Fields that may differ between a run and its continuation: they change where and how fast, not what.
_FREE = ("out", "init", "log_every", "checkpoint_every", "keep", "data.path", "compute.scan_layers", "compute.remat")


@dataclasses.dataclass
class TrainConfig:
    """One run. Exactly one of `init` and `model` says what it starts from.

    Attributes:
      out: the run's folder; a model folder once a checkpoint is there. Running again continues from the last one.
      init: a model folder to start from.
      model: architecture of a model to start from random weights.
      lora: adapters to train on frozen weights; None trains all weights.
      steps: optimizer steps in all.
      accumulation: parts that a global batch is taken in.
      seed: of random weights and dropout (`data.seed` is the order of examples).
      log_every, checkpoint_every: in steps. The last step is always logged and saved.
      keep: how many of the newest checkpoints stay; 0 keeps all.
    """

    out: str
    data: DataConfig
    steps: int
    init: str = ""
    model: LlamaConfig | None = None
    lora: LoraConfig | None = None
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    compute: Compute = dataclasses.field(default_factory=Compute)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    accumulation: int = 1
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 100
    keep: int = 3


def validate(config: TrainConfig, devices: int) -> None:
    """Checks a resolved configuration for that many devices.

    Raises:
      UserError: every broken rule at once, each with field, value, rule and remedy.
    """
    found = []
    for name in ("data", "model", "lora", "optimizer", "compute"):
        part = getattr(config, name)
        found += [f"{name}.{problem}" for problem in (part.problems() if part is not None else [])]
    if not config.out:
        found.append("out='' must name a folder; set --config.out")
    if bool(config.init) == (config.model is not None):
        found.append(f"init={config.init!r}: give either init (a model folder) or model (random weights), not both")
    if config.model is not None and config.lora is not None:
        found.append("lora: adapters on random weights learn nothing; give init, or leave lora out")
    for name in ("steps", "accumulation", "log_every", "checkpoint_every"):
        if getattr(config, name) < 1:
            found.append(f"{name}={getattr(config, name)} must be at least 1")
    if config.compute.attention == "splash" and config.data.seq_len % LANES:
        found.append(f"data.seq_len={config.data.seq_len} must divide by {LANES} for compute.attention='splash'")
    try:
        data, fsdp, tensor = config.mesh.resolve(devices)
    except UserError as error:
        found.append(str(error))
    else:
        rows = data * fsdp * config.accumulation
        if config.data.batch_size % rows:
            near = max(rows, round(config.data.batch_size / rows) * rows)
            found.append(
                f"data.batch_size={config.data.batch_size} must divide by mesh data × fsdp × accumulation = "
                f"{data} × {fsdp} × {config.accumulation} = {rows}; try {near}"
            )
        if config.model is not None and config.model.num_kv_heads % tensor:
            found.append(f"mesh.tensor={tensor} must divide model.num_kv_heads={config.model.num_kv_heads}")
    if found:
        raise UserError("the configuration does not hold together:\n  " + "\n  ".join(found))


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The whole resolved configuration as nested plain values."""
    return pydantic.TypeAdapter(TrainConfig).dump_python(config, mode="json")


def shaping(config: dict[str, Any]) -> dict[str, Any]:
    """`as_dict` flattened to `a.b` names, without the fields that do not shape the result."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: dict[str, Any]) -> None:
        for name, value in node.items():
            if isinstance(value, dict):
                walk(f"{prefix}{name}.", value)
            else:
                flat[prefix + name] = value

    walk("", config)
    return {name: value for name, value in flat.items() if name not in _FREE and not name.startswith("mesh.")}
